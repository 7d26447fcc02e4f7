# Copyright (c) mmscale contributors.
"""Draw the levels of an image's scale space and the positions at which the taps of a layer read.

``python tools/visualize_scale_space.py IMAGE [CONFIG[:CHECKPOINT]]``
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mmscale.engine import models
from mmscale.engine.errors import one_line_errors
from mmscale.models import BilinearPyramidLift, GaussianLift, GaussianPyramidLift, ScaleConv
from mmscale.scale_space import ScaleGrid, split_levels
from mmscale.visualization import make_folder, write_figure
from mmscale.visualization.network import load_network, read_image, to_picture
from mmscale.visualization.sampling import Reading, find_layer, read_layer, stride_before

LIFTS = {
    'gaussian': GaussianLift,
    'bilinear-pyramid': BilinearPyramidLift,
    'gaussian-pyramid': GaussianPyramidLift,
}
REGULAR, MOVED, CHOSEN = '#00b4ff', '#ff3b30', '#ffd400'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('image', metavar='IMAGE', help='path of an image file')
    add('model', metavar='MODEL', nargs='?', help=models.HELP)
    add('--out', metavar='FOLDER', default='work_dirs/visualize_scale_space',
        help='folder for scale_space.png and .svg; default: %(default)s')  # fmt: skip
    add('--point', type=int, nargs=2, metavar=('ROW', 'COL'),
        help='pixel of the image whose taps are drawn; default: the middle')  # fmt: skip
    add('--layer', metavar='NAME',
        help='scale convolution whose taps are drawn, by its name in the model, such as '
        'backbone.layer2.0.conv2; default: the last deformable convolution, or else the first '
        'with more than one tap')  # fmt: skip
    add('--size', type=int, nargs='+', metavar='PIXELS',
        help='SIDE or HEIGHT WIDTH to resize the image to first; default: its own')  # fmt: skip
    add('--scale-space', nargs='+', action=models.Settings,
        help='without MODEL: the levels, as key=value; default: base=2 num_scales=4')  # fmt: skip
    add('--lift', choices=LIFTS, help='without MODEL: the lift; default: gaussian')
    models.add_config_options(parser, pretrained=True)
    return parser.parse_args()


def draw(
    title: str, image: np.ndarray, levels: list, grid: ScaleGrid, readings: list, point: tuple
) -> Figure:
    """Draw the levels of an image and, below each level, the positions that a layer reads."""
    pyramid = len({level.shape for level in levels}) > 1
    rows = 2 if readings[0].moved is None else 3
    tallest = max(level.shape[0] / level.shape[1] for level in levels)
    figsize = 2.6 * len(levels) + 1.2, 2.6 * min(tallest, 1.6) + 3.0 * (rows - 1) + 1.1
    figure = Figure(figsize=figsize, layout='constrained')
    heights = [max(min(tallest, 1.6), 0.5)] + [1] * (rows - 1)
    panels = figure.subplots(rows, len(levels), squeeze=False, height_ratios=heights)
    window = square_around(point, readings)
    for k, (column, level, reading) in enumerate(zip(panels.T, levels, readings)):
        draw_level(column[0], level, levels, window, grid.factors[k] if pyramid else 1)
        column[0].set_title(
            f'level {grid.levels[k]}: factor {grid.factors[k]:.3g}\n'
            f'{level.shape[0]} x {level.shape[1]} samples',
            fontsize=9,
        )
        for axes in column[1:]:
            draw_window(axes, image, window)
            axes.plot(*point[::-1], '+', color=CHOSEN, ms=9, mew=1.6, zorder=5)
        size = marker_size(reading.taps, window)
        draw_taps(column[1], reading.taps, size, filled=True)
        if rows == 3:
            draw_taps(column[2], reading.taps, size, filled=False)
            dots = draw_moved(column[2], reading, size)
    for axes, name in zip(panels[:, 0], ['levels', 'regular taps', 'sampling positions']):
        axes.set_ylabel(name, fontsize=10)
    if rows == 3 and readings[0].modulation is not None:
        figure.colorbar(dots, ax=panels[2].tolist(), label='modulation', shrink=0.8, pad=0.01)
    framed = any(axes.patches for axes in panels[0])
    draw_legend(figure, framed, rows, readings[0].modulation is not None)
    figure.suptitle(title, fontsize=10)
    return figure


def square_around(point: tuple, readings: list) -> tuple[float, float, float]:
    """Return row and column of the middle and half the side of the square of all positions."""
    parts = [part for r in readings for part in (r.taps, r.moved) if part is not None]
    positions = np.concatenate([part.reshape(-1, 2) for part in parts])
    return *point, max(1.12 * np.abs(positions - point).max(), 2.0) + 0.5


def marker_size(taps: np.ndarray, window: tuple) -> float:
    """Return the diameter of markers in points, less than the distance of taps, from 2 to 8."""
    gaps = np.diff(np.unique(taps.round(6)[:, 1]))
    distance = gaps.min() if len(gaps) else window[2]
    return float(np.clip(0.55 * distance / (2 * window[2]) * 170, 2.0, 8.0))


def draw_level(axes: Axes, level: np.ndarray, levels: list, window: tuple, factor: float) -> None:
    """Draw a level, in its own samples, in a frame of one size for all levels."""
    axes.imshow(level, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
    height, width = (max(other.shape[axis] for other in levels) for axis in (0, 1))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    row, column, half = (value / factor for value in window)
    if 2 * half < max(level.shape[:2]):
        corner = column - half, row - half
        axes.add_patch(Rectangle(corner, 2 * half, 2 * half, fill=False, ec=CHOSEN, lw=1.2))
    axes.tick_params(labelsize=7, length=2)
    axes.spines[:].set_color('0.8')
    axes.locator_params(nbins=4)


def draw_window(axes: Axes, image: np.ndarray, window: tuple) -> None:
    """Draw the part of the image that taps reach; grey is outside, where the network reads 0."""
    axes.set_facecolor('0.85')
    axes.imshow(image, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
    row, column, half = window
    axes.set(xlim=(column - half, column + half), ylim=(row + half, row - half))
    axes.tick_params(labelsize=7, length=2)
    axes.locator_params(nbins=4, integer=True)


def draw_taps(axes: Axes, taps: np.ndarray, size: float, filled: bool) -> None:
    """Draw the regular positions of taps (n, 2), as rows and columns."""
    axes.plot(*taps.T[::-1], 'o', ms=size, mfc=REGULAR if filled else 'none', zorder=3,
              mec='white' if filled else REGULAR, mew=0.5 if filled else 1.0)  # fmt: skip


def draw_moved(axes: Axes, reading: Reading, size: float) -> PathCollection:
    """Draw the deformed positions, joined to their taps; size and colour show the modulation."""
    for group in reading.moved:
        ends = np.stack([reading.taps, group])[:, :, ::-1]
        axes.plot(ends[..., 0], ends[..., 1], '-', color=REGULAR, lw=0.9, zorder=2)
    positions = reading.moved.reshape(-1, 2)
    if reading.modulation is None:
        style = dict(c=MOVED, s=size**2)
    else:
        factors = reading.modulation.ravel()
        style = dict(c=factors, s=size**2 * (0.25 + 1.5 * factors), cmap='plasma', vmin=0, vmax=1)
    return axes.scatter(*positions.T[::-1], ec='white', lw=0.4, zorder=4, **style)


def draw_legend(figure: Figure, framed: bool, rows: int, modulated: bool) -> None:
    def entry(marker, face, edge, label):
        return Line2D([], [], ls='', marker=marker, mfc=face, mec=edge, mew=1.2, label=label)

    entries = [entry('+', CHOSEN, CHOSEN, 'chosen pixel')]
    if framed:
        entries.append(entry('s', 'none', CHOSEN, 'part shown below'))
    entries.append(entry('o', REGULAR, 'white', 'tap'))
    if rows == 3:
        entries.append(entry('o', 'none', REGULAR, 'tap without its offset'))
        label = 'with its offset' + (', larger: larger modulation' if modulated else '')
        entries.append(entry('o', '0.4' if modulated else MOVED, 'white', label))
    figure.legend(handles=entries, loc='outside lower center', ncols=5, frameon=False, fontsize=8)


def check_arguments(args: argparse.Namespace) -> None:
    if args.model and (args.scale_space or args.lift):
        raise ValueError('--scale-space, --lift: MODEL has them; change them by --cfg-options')
    if not args.model and (args.layer or args.cfg_options):
        raise ValueError('--layer, --cfg-options: they need a MODEL')
    if args.size and (len(args.size) > 2 or min(args.size) < 1):
        raise ValueError(f'--size: needs one or two positive numbers, got {args.size}')


def check_point(point: list[int] | None, image: np.ndarray) -> tuple[int, int]:
    """Return row and column of the point, by default the middle of the image (H, W, C)."""
    height, width = image.shape[:2]
    row, column = point or (height // 2, width // 2)
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f'--point: {row} {column} is outside of the image, whose rows are '
                         f'0 to {height - 1} and columns 0 to {width - 1}')  # fmt: skip
    return row, column


def figure_of_lift(args: argparse.Namespace, image: np.ndarray, point: tuple) -> Figure:
    """Draw the levels of a lift without a network, and the taps of a 3x3 layer on them."""
    try:
        grid = ScaleGrid.build(args.scale_space or dict(base=2.0, num_scales=4))
    except (TypeError, ValueError) as error:
        raise ValueError(f'--scale-space: {error}') from error
    lift = LIFTS[args.lift or 'gaussian'](grid)
    pixels = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).double() / 255
    # Outside of the image a network reads the mean, which its preprocessor maps to 0.
    mean = pixels.mean((1, 2), keepdim=True)
    lifted = lift((pixels - mean)[None])
    levels = [to_picture(level[0] + mean) for level in split_levels(lifted)]
    title = f'{Path(args.image).name}, {type(lift).__name__}: {describe(grid)}; 3x3 taps'
    layer = ScaleConv(3, 1, 3, padding=1, scale_space=grid).double()
    readings = read_layer(layer, layer, 1, lifted, point)
    return draw(title, to_picture(pixels), levels, grid, readings, point)


def figure_of_network(args: argparse.Namespace, image: np.ndarray, point: tuple) -> Figure:
    """Draw the levels in a network, and the taps of one of its layers."""
    network = load_network(args.model, args.cfg_options, args.pretrained)
    backbone = network.backbone
    if not isinstance(getattr(backbone, 'grid', None), ScaleGrid):
        raise ValueError(f'config: {type(backbone).__name__} is not a network on scale spaces')
    name, layer = find_layer(network, args.layer)
    stride = stride_before(network, layer)
    x = network.to_input(image)
    with torch.no_grad():
        lifted = backbone.lift(x)
    levels = [network.to_picture(level[0]) for level in split_levels(lifted)]
    weights = Path(network.checkpoint).name if network.checkpoint else 'untrained, random weights'
    title = (
        f'{Path(args.image).name}, {Path(network.path).stem} ({weights})\n'
        f'{type(backbone.lift).__name__}: {describe(backbone.grid)}\n'
        f'{name}: {type(layer).__name__}, kernel {layer.kernel_size[0]}x{layer.kernel_size[1]}, '
        f'stride {layer.stride[0]}, dilation {layer.dilation[0]}, interaction {layer.interaction}, '
        f'its input at stride {stride}'
    )
    readings = read_layer(backbone, layer, stride, x, point)
    return draw(title, network.to_picture(x[0]), levels, backbone.grid, readings, point)


def describe(grid: ScaleGrid) -> str:
    return f'base {grid.base:.4g}, zero_scale {grid.zero_scale:g}, {grid.num_scales} levels'


@one_line_errors()
def main() -> None:
    args = parse_args()
    check_arguments(args)
    image = read_image(args.image, args.size and (args.size * 2)[:2])
    point = check_point(args.point, image)
    figure = (figure_of_network if args.model else figure_of_lift)(args, image, point)
    write_figure(figure, make_folder(args.out), 'scale_space')


if __name__ == '__main__':
    main()
