# Copyright (c) mmscale contributors.
"""Draw feature maps of a scaled and a rotated image, beside the scaled and rotated feature map.

``python tools/visualize_equivariance.py IMAGE CONFIG[:CHECKPOINT] [CONFIG[:CHECKPOINT] ...]``

Of an equivariant network both maps are equal.
"""

import argparse
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mmscale.engine import models
from mmscale.engine.errors import one_line_errors
from mmscale.evaluation import scale_signal
from mmscale.visualization import make_folder, pairs, write_figure
from mmscale.visualization.network import Network, load_network, read_image
from mmscale.visualization.sampling import stride_before


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, default = parser.add_argument, '; default: %(default)s'
    add('image', metavar='IMAGE', help='path of an image file')
    add('models', metavar='MODEL', nargs='+', help=f'{models.HELP}; one row each')
    add('--names', nargs='+', metavar='NAME', help='names of the rows; default: of the configs')
    add('--out', metavar='FOLDER', default='work_dirs/visualize_equivariance',
        help='folder for equivariance.png and .svg' + default)  # fmt: skip
    add('--size', type=int, nargs='+', metavar='PIXELS',
        help='SIDE or HEIGHT WIDTH to resize the image to first; default: its own')  # fmt: skip
    add('--stage', type=int, help='stage whose output is drawn, from 1; default: the last')
    add('--channel', type=int,
        help='channel to draw, from 0; default: the channel of largest variance in the feature '
        'map of the image')  # fmt: skip
    add('--factor', type=float, default=2.0, help='scale factor' + default)
    add('--angles', type=float, nargs='+', default=[90.0, 45.0],
        help='angles of the rotations, in degrees' + default)  # fmt: skip
    models.add_config_options(parser, pretrained=True)
    return parser.parse_args()


@dataclass(frozen=True)
class Row:
    """A network's name, its features of the image, and a pair for each transformation."""

    name: str
    feature: Tensor
    pairs: list[pairs.Pair]


def make_row(name: str, network: Network, x: Tensor, factor: float, angles: list) -> Row:
    """Compute the row of a network for an input ``x`` of shape (1, C, H, W)."""
    phi = pairs.LastOutput(network.backbone)
    stride = stride_before(network)
    found = [pairs.scaled_pair(phi, x, factor)]
    found += [pairs.rotated_pair(phi, x, angle, stride) for angle in angles]
    with torch.no_grad():
        return Row(name, pairs.finest(phi(x)), found)


def draw(
    title: str, inputs: list[np.ndarray], symbols: list[str], rows: list[Row], channel: int | None
) -> Figure:
    """Draw the image and its transformations in a first row, then a row for each network.

    ``symbols`` name the transformations. If ``channel`` is None, the strongest channel is drawn.
    """
    # The columns are the image and, for each transformation, a gap and a pair. The scaled pair is
    # smaller.
    small = min(1.0, inputs[1].shape[1] / inputs[0].shape[1] + 0.1)
    ratios = [1.0, 0.12, small, small] + [0.12, 1.0, 1.0] * (len(symbols) - 1)
    width, height = 1.45 * sum(ratios) + 1.0, 1.75 * (len(rows) + 1) + 0.6
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        len(rows) + 1, len(ratios), width_ratios=ratios, left=0.9 / width, right=1 - 0.1 / width,
        top=1 - 0.6 / height, bottom=0.3 / height, wspace=0.06, hspace=0.36,
    )  # fmt: skip
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / height, va='top')
    for i, (image, symbol) in enumerate(zip(inputs, ['', *symbols])):
        columns = slice(0, 1) if i == 0 else slice(3 * i - 1, 3 * i + 1)
        axes = figure.add_subplot(grid[0, columns])
        frame = inputs[0].shape[0], inputs[0].shape[1] * sum(ratios[columns])
        show(axes, image, frame, dict(cmap='gray', vmin=0, vmax=1))
        axes.set_title(f'${symbol} f$', fontsize=11)
    places, labels = [0], [r'$\Phi(f)$']
    for i, symbol in enumerate(symbols):
        places += [3 * i + 2, 3 * i + 3]
        labels += [rf'$\Phi({symbol} f)$', rf'${symbol} \Phi(f)$']
    for j, row in enumerate(rows, start=1):
        shown = strongest(row.feature) if channel is None else channel
        maps = [row.feature, *(part for pair in row.pairs for part in (pair.found, pair.expected))]
        maps = [part[shown].numpy() for part in maps]
        values = np.concatenate([part.ravel() for part in maps])
        style = dict(cmap='magma', vmin=np.nanmin(values), vmax=np.nanmax(values))
        for place, part, label in zip(places, maps, labels):
            axes = figure.add_subplot(grid[j, place])
            show(axes, part, (maps[0].shape[0], maps[0].shape[1] * ratios[place]), style)
            if j == 1:
                axes.set_title(label, fontsize=11)
            if place == 0:
                name = '\n'.join(textwrap.wrap(row.name, 24, break_long_words=True))
                axes.set_ylabel(f'{name}\nchannel {shown}', fontsize=8)
            elif place % 3 == 0:
                error = row.pairs[place // 3 - 1].error
                text = 'error undefined' if math.isnan(error) else f'error {error:.2g}'
                axes.text(-0.03, -0.05, text, transform=axes.transAxes, ha='center', va='top')
    return figure


def show(axes: Axes, part: np.ndarray, frame: tuple[float, float], style: dict) -> None:
    """Show a map in the middle of a frame of (height, width) pixels."""
    axes.imshow(part, interpolation='nearest', **style)
    top, left = (size / 2 - 0.5 for size in part.shape[:2])
    height, width = (size / 2 for size in frame)
    axes.set(xlim=(left - width, left + width), ylim=(top + height, top - height))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def strongest(feature: Tensor) -> int:
    """Return the channel of largest variance of a feature map (C, H, W)."""
    return int(feature.flatten(1).var(1).argmax())


def check_arguments(args: argparse.Namespace) -> None:
    if not 1 <= args.factor < math.inf:
        raise ValueError(f'--factor: must be at least 1, got {args.factor:g}')
    if not all(map(math.isfinite, args.angles)):
        raise ValueError(f'--angles: must be finite numbers, got {args.angles}')
    if args.stage is not None and args.stage < 1:
        raise ValueError(f'--stage: must be at least 1, got {args.stage}')
    if args.size and (len(args.size) > 2 or min(args.size) < 1):
        raise ValueError(f'--size: needs one or two positive numbers, got {args.size}')


def make_figure(args: argparse.Namespace) -> Figure:
    image = read_image(args.image, args.size and (args.size * 2)[:2])
    options = dict(args.cfg_options)
    if args.stage is not None:
        options['model.backbone.out_indices'] = (args.stage - 1,)
    loaded = [load_network(model, options, args.pretrained) for model in args.models]
    networks = dict(zip(models.name_models(loaded, args.names), loaded))
    side = pairs.common_side(loaded, image)
    image, middle = pairs.crop(image, side), (side - 1) / 2
    # A rotation turns corners off the canvas, so beyond a disc the input is 0, as the padding is.
    window = pairs.disc(side, middle, middle, edge=0.1 * side)
    inputs = {name: network.to_input(image) * window for name, network in networks.items()}
    rows = []
    for name, network in networks.items():
        try:
            row = make_row(name, network, inputs[name].float(), args.factor, args.angles)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
        if args.channel is not None and not 0 <= args.channel < len(row.feature):
            channels = f'channels 0 to {len(row.feature) - 1}'
            raise ValueError(f'--channel: {name} has {channels}, got {args.channel}')
        rows.append(row)
    name = max(networks, key=lambda name: networks[name].in_channels)
    drawn = [inputs[name], scale_signal(inputs[name], args.factor)]
    drawn += [pairs.rotate(inputs[name], angle, middle) for angle in args.angles]
    pictures = [networks[name].to_picture(x[0]) for x in drawn]
    symbols = [f'L_{{{args.factor:g}}}', *(rf'R_{{{angle:g}\degree}}' for angle in args.angles)]
    stage = 'the last stage' if args.stage is None else f'stage {args.stage}'
    title = (
        f'{Path(args.image).name}, {side}x{side} pixels. One channel of {stage}, at the finest '
        'level; errors are over all channels.'
    )
    return draw(title, pictures, symbols, rows, args.channel)


@one_line_errors()
def main() -> None:
    args = parse_args()
    check_arguments(args)
    write_figure(make_figure(args), make_folder(args.out), 'equivariance')


if __name__ == '__main__':
    main()
