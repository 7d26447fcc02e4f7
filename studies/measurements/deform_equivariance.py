# Copyright (c) mmscale contributors.
"""Measures what scaling the offsets with the level does for deformable scale convolution.

One deformable layer of random weights, its offsets predicted by a random branch, on scale spaces of
random images of 1/f spectrum. The scale space is shifted exactly, by slicing, so that what remains
is the error of the layer. Compared are our layer, whose taps and offsets grow with the level, one
whose taps alone do, and one ordinary deformable convolution for all levels.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

from mmscale.engine.errors import one_line_errors
from mmscale.engine.report import write_json
from mmscale.ops import deform_scale_conv2d, scale_conv2d
from mmscale.scale_space import ScaleGrid, gaussian_lift
from mmscale.visualization import save_figure

SIZE = 257
GRID = ScaleGrid(base=2, num_scales=5, zero_scale=1.0)
# name: (label, colour, marker)
STYLES = {
    'unscaled': ('neither taps nor offsets grow with the level', '#7f7f7f', 's'),
    'taps': ('only the taps grow', '#1f77b4', '^'),
    'scaled': ('taps and offsets grow (mmscale)', '#d62728', 'o'),
}


def random_images(count: int, size: int, seed: int) -> Tensor:
    """``(count, size, size)`` images of 1/f spectrum, blurred as ``zero_scale`` says they are."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    rows = torch.fft.fftfreq(size, dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(size, dtype=torch.float64)
    frequency = torch.hypot(rows, columns)
    amplitude = torch.exp(-2 * (torch.pi * GRID.zero_scale * frequency) ** 2) / frequency
    amplitude[0, 0] = 0
    images = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(size, size))
    return images / images.flatten(1).std(1)[:, None, None]


def scaled_layer(x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    return deform_scale_conv2d(x, offset, weight, scale_space=GRID)


def taps_layer(x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    return per_level(x, weight, offset, GRID.dilations)


def unscaled_layer(x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    return per_level(x, weight, offset, (1,) * GRID.num_scales)


def per_level(x: Tensor, weight: Tensor, offset: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """An ordinary deformable convolution at each level, offsets in pixels."""
    levels = [
        deform_conv2d(*level, weight[:, :, 0], padding=dilation, dilation=dilation)
        for *level, dilation in zip(x.unbind(2), offset.unbind(2), dilations)
    ]
    return torch.stack(levels, dim=2)


def scaled_offset(x: Tensor, weight: Tensor) -> Tensor:
    return scale_conv2d(x, weight, scale_space=GRID)


def unscaled_offset(x: Tensor, weight: Tensor) -> Tensor:
    return torch.stack([F.conv2d(v, weight[:, :, 0], padding=1) for v in x.unbind(2)], dim=2)


# name: (what predicts the offsets, the layer)
LAYERS = {
    'unscaled': (unscaled_offset, unscaled_layer),
    'taps': (scaled_offset, taps_layer),
    'scaled': (scaled_offset, scaled_layer),
}


@torch.no_grad()
def measure(
    factor: int,
    size: int = SIZE,
    channels: int = 4,
    samples: int = 4,
    rms: float = 0.5,
    border: int = 16,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Squared relative errors of the three layers, one for each level that remains.

    Args:
        factor (int): By how much the scale space is scaled, a power of the base.
        size (int): Side of the images, in pixels.
        channels (int): Channels of the layer.
        samples (int): Scale spaces measured.
        rms (float): Root mean square of the offsets, in taps.
        border (int): Samples left out along each side, in pixels of the scaled signal: outside the
            image are zeros, which begin within one pixel, large or small.
        seed (int): Of images and weights.
    """
    images = random_images(samples * channels, size, seed).view(samples, channels, size, size)
    x = gaussian_lift(images, GRID)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(channels, channels, 1, 3, 3, generator=generator).double()
    offset_weight = torch.randn(18, channels, 1, 3, 3, generator=generator).double()

    def shifted(y: Tensor) -> Tensor:
        return y[:, :, int(GRID.shift(factor)) :, ::factor, ::factor]

    inside = (..., slice(border, -border or None), slice(border, -border or None))
    errors = {}
    for name, (branch, layer) in LAYERS.items():
        branch_weight = offset_weight * (rms / branch(x, offset_weight).square().mean().sqrt())
        expected = shifted(layer(x, weight, branch(x, branch_weight)))[inside]
        found = layer(shifted(x), weight, branch(shifted(x), branch_weight))[inside]
        ratio = (found - expected).square().sum((1, 3, 4)) / expected.square().sum((1, 3, 4))
        errors[name] = ratio.mean(0).tolist()
    return errors


def draw(results: dict, path: Path) -> None:
    figure, panels = plt.subplots(1, len(results), figsize=(10, 4), sharey=True,
                                  layout='constrained', squeeze=False)  # fmt: skip
    for axes, (factor, errors) in zip(panels[0], results.items()):
        for name, (label, colour, marker) in STYLES.items():
            axes.plot(errors[name], marker=marker, color=colour, label=label)
        axes.set(yscale='log', title=f'scale space scaled by {factor}', xlabel='level k')
        axes.set_xticks(range(len(errors['scaled'])))
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel('equivariance error (squared, relative)')
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc='outside lower center', ncols=3,
                  frameon=False)  # fmt: skip
    save_figure(figure, path)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--factors', type=int, nargs='+', default=[2, 4], choices=(2, 4, 8))
    parser.add_argument('--rms', type=float, default=0.5, help='of the offsets, in taps')
    parser.add_argument('--border', type=int, default=16, help='pixels left out along each side')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/deform_equivariance'))
    return parser.parse_args()


def check_arguments(args: argparse.Namespace) -> None:
    if not 0 < args.rms <= SIZE:
        raise ValueError(f'--rms: must be above 0 and at most {SIZE}, got {args.rms:g}')
    largest = ((SIZE - 1) // max(args.factors)) // 2
    if not 0 <= args.border <= largest:
        raise ValueError(f'--border: must be from 0 to {largest}, got {args.border}')
    if args.seed < 0:
        raise ValueError(f'--seed: must be at least 0, got {args.seed}')
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f'--out: cannot make {args.out} ({error.strerror})') from error


@one_line_errors()
def main():
    args = parse_args()
    check_arguments(args)
    results = {
        factor: measure(factor, rms=args.rms, border=args.border, seed=args.seed)
        for factor in args.factors
    }
    print(f'{"":10}{"level":>10}' + ''.join(f'{k:>10}' for k in range(GRID.num_scales - 1)))
    for factor, errors in results.items():
        for name, values in errors.items():
            print(f'{name:<10}{f"s = {factor}":>10}' + ''.join(f'{v:>10.1e}' for v in values))
    write_json(args.out / 'errors.json', dict(vars(args), out=str(args.out), errors=results))
    draw(results, args.out / 'errors.png')
    print(f'figure: {(args.out / "errors.png").resolve()}')


if __name__ == '__main__':
    main()
