# Copyright (c) mmscale contributors.
"""Measures the equivariance error of the Gaussian lift alone, for several zero scales.

Behind the lift a network on an integer base is exact: this is where its error comes from. A sampled
image is taken to be blurred by ``zero_scale`` already. Where it is sharper, what scaling it down
samples is aliased, and coarser levels are blurred from that.
"""

import argparse
import math
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from mmscale.datasets.images import photograph_crops
from mmscale.engine.errors import one_line_errors
from mmscale.engine.report import write_json
from mmscale.evaluation import equivariance_error
from mmscale.models import GaussianLift
from mmscale.scale_space import ScaleGrid
from mmscale.visualization import save_figure

FACTORS = (1.1, 1.5, 2.0, 2.5, 3.0, 4.0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--zero-scales', type=float, nargs='+', default=[0.25, 0.5, 1.0])
    parser.add_argument('--base', type=float, default=2.0)
    parser.add_argument('--num-scales', type=int, default=4)
    parser.add_argument(
        '--images',
        type=Path,
        help="a folder of images of at least 224 pixels; default: crops of scikit-learn's photos",
    )
    parser.add_argument('--num-images', type=int, default=64)
    parser.add_argument('--seed', type=int, default=0, help='of the crops')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/lift_error'))
    return parser.parse_args()


def check_arguments(args: argparse.Namespace) -> list[ScaleGrid]:
    """The grids to measure, once it is known that they are such."""
    for name, least in dict(num_images=1, seed=0).items():
        if getattr(args, name) < least:
            raise ValueError(
                f'--{name.replace("_", "-")}: must be at least {least}, got {getattr(args, name)}'
            )
    if args.images and not args.images.is_dir():
        raise FileNotFoundError(f'--images: there is no folder {args.images}')
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f'--out: cannot make {args.out} ({error.strerror})') from error
    try:
        return [ScaleGrid(args.base, args.num_scales, scale) for scale in args.zero_scales]
    except ValueError as error:
        raise ValueError(f'--base, --num-scales, --zero-scales: {error}') from error


def draw(errors: dict[float, list[float]], base: float, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6.5, 4), layout='constrained')
    for k in range(1, math.floor(math.log(max(FACTORS), base) + 1e-9) + 1):
        axes.axvline(base**k, color='black', lw=0.8, ls=':')
    axes.axvline(math.nan, color='black', lw=0.8, ls=':', label='powers of the base')
    for i, (zero_scale, values) in enumerate(errors.items()):
        axes.plot(FACTORS, values, 'o-', color=plt.cm.viridis(i / len(errors)),
                  label=f'zero_scale {zero_scale:g}')  # fmt: skip
    axes.set(yscale='log', xlabel='scale factor s', ylabel='equivariance error of the lift')
    axes.set_xticks(FACTORS, [f'{s:g}' for s in FACTORS])
    axes.grid(alpha=0.3)
    figure.legend(loc='outside lower center', ncols=4, frameon=False, fontsize=9)
    save_figure(figure, path)


@one_line_errors()
def main():
    args = parse_args()
    grids = check_arguments(args)
    try:
        images = photograph_crops(args.num_images, 224, args.seed, args.images)
    except ValueError as error:
        raise ValueError(f'--images: {error}') from error
    images = images - images.mean((0, 2, 3), keepdim=True)
    errors = {}
    print(f'{"zero_scale":<12}' + ''.join(f'{f"s = {s:g}":>11}' for s in FACTORS))
    for zero_scale, grid in zip(args.zero_scales, grids):
        lift = GaussianLift(grid, padding='reflect')
        result = equivariance_error(lift, images, FACTORS, border=8, batch_size=16)
        errors[zero_scale] = result.mean.tolist()
        print(f'{zero_scale:<12g}' + ''.join(f'{value:>11.1e}' for value in errors[zero_scale]))
    record = dict(factors=FACTORS, errors=errors, **{k: str(v) for k, v in vars(args).items()})
    write_json(args.out / 'lift_error.json', record)
    draw(errors, args.base, args.out / 'lift_error.png')
    print(f'figure: {(args.out / "lift_error.png").resolve()}')


if __name__ == '__main__':
    main()
