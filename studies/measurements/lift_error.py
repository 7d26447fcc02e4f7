# Copyright (c) mmscale contributors.
"""Measure the equivariance error of the Gaussian lift alone, for several zero scales.

At powers of an integer base, a network is exact behind the lift, so the lift makes its error. The
lift assumes that an image has the blur ``zero_scale``. If the image is sharper, its scaled version
aliases, and coarser levels are blurred from aliased pixels.
"""

import argparse
import math
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from mmscale.datasets.images import photograph_crops
from mmscale.engine.errors import one_line_errors
from mmscale.engine.report import write_json
from mmscale.evaluation import equivariance_error
from mmscale.models import GaussianLift
from mmscale.scale_space import ScaleGrid
from mmscale.visualization import save_figure

FACTORS = (1.1, 1.5, 2.0, 2.5, 3.0, 4.0)


def draw(errors: dict[float, list[float]], base: float) -> Figure:
    figure = Figure(figsize=(6.5, 4), layout='constrained')
    axes = figure.subplots()
    powers = range(1, math.floor(math.log(max(FACTORS), base) + 1e-9) + 1)
    for power in [math.nan, *(base**k for k in powers)]:
        label = 'powers of the base' if math.isnan(power) else None
        axes.axvline(power, color='black', lw=0.8, ls=':', label=label)
    for i, (zero_scale, values) in enumerate(errors.items()):
        axes.plot(FACTORS, values, 'o-', color=colormaps['viridis'](i / len(errors)),
                  label=f'zero_scale {zero_scale:g}')  # fmt: skip
    axes.set(yscale='log', xlabel='scale factor s', ylabel='equivariance error of the lift')
    axes.set_xticks(FACTORS, [f'{s:g}' for s in FACTORS])
    axes.grid(alpha=0.3)
    figure.legend(loc='outside lower center', ncols=4, frameon=False, fontsize=9)
    return figure


@one_line_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--zero-scales', type=float, nargs='+', default=[0.25, 0.5, 1.0])
    add('--base', type=float, default=2.0)
    add('--num-scales', type=int, default=4)
    add('--images', type=Path,
        help="a folder of images of at least 224 pixels; default: crops of scikit-learn's photos"
        )  # fmt: skip
    add('--num-images', type=int, default=64)
    add('--seed', type=int, default=0, help='seed of the crops')
    add('--out', type=Path, default=Path('work_dirs/lift_error'))
    args = parser.parse_args()
    if args.num_images < 1:
        raise ValueError(f'--num-images: must be at least 1, got {args.num_images}')
    if args.images and not args.images.is_dir():
        raise FileNotFoundError(f'--images: there is no folder {args.images}')
    args.out.mkdir(parents=True, exist_ok=True)
    grids = [ScaleGrid(args.base, args.num_scales, scale) for scale in args.zero_scales]
    images = photograph_crops(args.num_images, 224, args.seed, args.images)
    images = images - images.mean((0, 2, 3), keepdim=True)
    errors = {}
    print(f'{"zero_scale":<12}' + ''.join(f'{f"s = {s:g}":>11}' for s in FACTORS))
    for zero_scale, grid in zip(args.zero_scales, grids):
        lift = GaussianLift(grid, padding='reflect')
        result = equivariance_error(lift, images, FACTORS, border=8, batch_size=16)
        errors[zero_scale] = result.mean.tolist()
        print(f'{zero_scale:<12g}' + ''.join(f'{value:>11.1e}' for value in errors[zero_scale]))
    write_json(args.out / 'lift_error.json', dict(vars(args), factors=FACTORS, errors=errors))
    save_figure(draw(errors, args.base), args.out / 'lift_error.png')
    print(f'figure: {(args.out / "lift_error.png").resolve()}')


if __name__ == '__main__':
    main()
