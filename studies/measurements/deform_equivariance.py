# Copyright (c) mmscale contributors.
"""Measure the effect of scaling the offsets with the level in deformable scale convolution.

A deformable layer has random weights, and a random branch predicts its offsets. Scale spaces of
random images of 1/f spectrum are shifted exactly, by slicing, so that only the layer makes an
error. Three layers are compared: taps and offsets grow with the level (mmscale), taps alone grow,
or an ordinary deformable convolution is applied to all levels.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.ops import deform_conv2d

from mmscale.engine.errors import one_line_errors
from mmscale.engine.report import write_json
from mmscale.ops import deform_scale_conv2d, scale_conv2d
from mmscale.scale_space import ScaleGrid, gaussian_lift
from mmscale.visualization import save_figure

SIZE = 257
GRID = ScaleGrid(base=2, num_scales=5, zero_scale=1.0)


def random_images(count: int, size: int, seed: int) -> Tensor:
    """Draw images ``(count, size, size)`` of 1/f spectrum, blurred by ``GRID.zero_scale``."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    rows = torch.fft.fftfreq(size, dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(size, dtype=torch.float64)
    frequency = torch.hypot(rows, columns)
    amplitude = torch.exp(-2 * (torch.pi * GRID.zero_scale * frequency) ** 2) / frequency
    amplitude[0, 0] = 0
    images = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(size, size))
    return images / images.flatten(1).std(1)[:, None, None]


def unscaled_offset(x: Tensor, weight: Tensor) -> Tensor:
    return torch.stack([F.conv2d(v, weight[:, :, 0], padding=1) for v in x.unbind(2)], dim=2)


def per_level(x: Tensor, offset: Tensor, weight: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """Apply an ordinary deformable convolution to each level, with offsets in pixels."""
    levels = [
        deform_conv2d(*level, weight[:, :, 0], padding=dilation, dilation=dilation)
        for *level, dilation in zip(x.unbind(2), offset.unbind(2), dilations)
    ]
    return torch.stack(levels, dim=2)


scaled_offset = partial(scale_conv2d, scale_space=GRID)
# name: (the branch that predicts the offsets, the layer)
LAYERS = {
    'unscaled': (unscaled_offset, partial(per_level, dilations=(1,) * GRID.num_scales)),
    'taps': (scaled_offset, partial(per_level, dilations=GRID.dilations)),
    'scaled': (scaled_offset, partial(deform_scale_conv2d, scale_space=GRID)),
}
# name: (label, colour, marker)
STYLES = {
    'unscaled': ('neither taps nor offsets grow with the level', '#7f7f7f', 's'),
    'taps': ('only the taps grow', '#1f77b4', '^'),
    'scaled': ('taps and offsets grow (mmscale)', '#d62728', 'o'),
}


@torch.no_grad()
def measure(
    factor: int, samples: int = 4, rms: float = 0.5, border: int = 16, seed: int = 0
) -> dict[str, list[float]]:
    """Measure the squared relative errors of the three layers, for each remaining level.

    Args:
        factor (int): Factor of the scaling, a power of the base.
        samples (int): Number of scale spaces, of 4 channels.
        rms (float): Root mean square of the offsets, in taps.
        border (int): Samples to leave out along each side, in pixels of the scaled signal, because
            the step to the zeros outside of the image does not scale.
        seed (int): Seed of images and weights.
    """
    x = gaussian_lift(random_images(samples * 4, SIZE, seed).view(samples, 4, SIZE, SIZE), GRID)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 4, 1, 3, 3, generator=generator).double()
    offset_weight = torch.randn(18, 4, 1, 3, 3, generator=generator).double()

    def shifted(y: Tensor) -> Tensor:
        return y[:, :, int(GRID.shift(factor)) :, ::factor, ::factor]

    inside = (..., slice(border, -border or None), slice(border, -border or None))
    errors = {}
    for name, (branch, layer) in LAYERS.items():
        branch_weight = offset_weight * (rms / branch(x, offset_weight).square().mean().sqrt())
        expected = shifted(layer(x, branch(x, branch_weight), weight))[inside]
        found = layer(shifted(x), branch(shifted(x), branch_weight), weight)[inside]
        ratio = (found - expected).square().sum((1, 3, 4)) / expected.square().sum((1, 3, 4))
        errors[name] = ratio.mean(0).tolist()
    return errors


def draw(results: dict) -> Figure:
    figure = Figure(figsize=(10, 4), layout='constrained')
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (factor, errors) in zip(panels, results.items()):
        for name, (label, colour, marker) in STYLES.items():
            axes.plot(errors[name], marker=marker, color=colour, label=label)
        axes.set(yscale='log', title=f'scale space scaled by {factor}', xlabel='level k')
        axes.set_xticks(range(len(errors['scaled'])))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel('equivariance error (squared, relative)')
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', ncols=3,
                  frameon=False)  # fmt: skip
    return figure


@one_line_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--factors', type=int, nargs='+', default=[2, 4], choices=(2, 4, 8))
    parser.add_argument('--rms', type=float, default=0.5, help='rms of the offsets, in taps')
    parser.add_argument('--border', type=int, default=16, help='pixels to omit along each side')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/deform_equivariance'))
    args = parser.parse_args()
    largest = (SIZE - 1) // max(args.factors) // 2
    for name, value, most in (('rms', args.rms, SIZE), ('border', args.border, largest)):
        if not 0 <= value <= most:
            raise ValueError(f'--{name}: must be from 0 to {most}, got {value:g}')
    args.out.mkdir(parents=True, exist_ok=True)
    options = dict(rms=args.rms, border=args.border, seed=args.seed)
    results = {factor: measure(factor, **options) for factor in args.factors}
    print(f'{"":10}{"level":>10}' + ''.join(f'{k:>10}' for k in range(GRID.num_scales - 1)))
    for factor, errors in results.items():
        for name, values in errors.items():
            print(f'{name:<10}{f"s = {factor}":>10}' + ''.join(f'{v:>10.1e}' for v in values))
    write_json(args.out / 'errors.json', dict(vars(args), errors=results))
    save_figure(draw(results), args.out / 'errors.png')
    print(f'figure: {(args.out / "errors.png").resolve()}')


if __name__ == '__main__':
    main()
