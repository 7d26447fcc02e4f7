# Copyright (c) mmscale contributors.
"""Draw the predictions of detectors or segmentors for a test image at several sizes.

``python tools/visualize_predictions.py CONFIG:CHECKPOINT [CONFIG:CHECKPOINT ...]``

The figure has a row for each model and a column for each size. Right boxes are green, wrong boxes
red, and missed objects dashed. Segments have the colours of their classes.
"""

import argparse
import math
import textwrap

import matplotlib

matplotlib.use('Agg')
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

import mmscale  # noqa: F401  (checks the environment and registers everything)
from mmscale.engine import models
from mmscale.engine.errors import one_line_errors
from mmscale.visualization import make_folder, write_figure
from mmscale.visualization.predictions import OVERLAP, Seen, predict_over_scale

RIGHT, WRONG, MISSED = '#19c319', '#ff2a2a', '#ffd400'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Draw the predictions of detectors or segmentors for an image of their test '
        'data at several sizes'
    )
    add, default = parser.add_argument, '; default: %(default)s'
    add('models', metavar='MODEL', nargs='+', help=f'{models.HELP}; one row each')
    add('--names', nargs='+', metavar='NAME', help='names of the rows; default: of the configs')
    add('--factors', nargs='+', metavar='S', type=float, default=[1.0, 2.0, 4.0],
        help='the image is made s times smaller' + default)  # fmt: skip
    add('--index', type=int, default=0, help='index of the image in the test data' + default)
    add('--score-thr', type=float, default=0.3, help='least score of a box' + default)
    add('--out', metavar='FOLDER', default='work_dirs/visualize_predictions',
        help='folder for predictions.png and .svg' + default)  # fmt: skip
    models.add_config_options(parser, pretrained=True)
    return parser.parse_args()


def draw(rows: dict[str, list[Seen]], factors: list[float], title: str) -> Figure:
    """Draw a row for each model and a column for each factor."""
    shape = next(iter(rows.values()))[0].shape
    width = 3.1 * min(1.6, shape[1] / shape[0])
    figure = Figure((width * len(factors) + 0.5, 3.1 * len(rows) + 0.9), layout='constrained')
    grid = figure.subplots(len(rows), len(factors), squeeze=False)
    for place, (panels, (name, row)) in enumerate(zip(grid, rows.items())):
        for axes, seen, factor in zip(panels, row, factors):
            height, width = seen.shape
            style = dict(extent=(0, width, height, 0), interpolation='nearest')
            axes.imshow(seen.picture, cmap='gray', vmin=0, vmax=1, **style)
            if seen.segments is not None:
                colours = colours_of(seen.classes)
                range_ = dict(vmin=-0.5, vmax=len(colours) - 0.5)
                shown = np.ma.masked_equal(seen.segments.numpy(), background(seen.classes))
                axes.imshow(shown, cmap=ListedColormap(colours), alpha=0.7, **range_, **style)
            else:
                draw_boxes(axes, seen)
            if place == 0:
                sides = 'x'.join(map(str, seen.picture.shape[:2]))
                size = f'{sides} pixels' if factor == 1 else f'1/{factor:g}, {sides} pixels'
                axes.set_title(size, fontsize=9)
            axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        panels[0].set_ylabel('\n'.join(textwrap.wrap(name, 24)), fontsize=9)
    figure.suptitle(title, fontsize=10)
    label_segments(figure, [seen for row in rows.values() for seen in row])
    return figure


def colours_of(classes: tuple[str, ...]) -> list:
    """Return a colour for each class; from the 21st class on, colours repeat."""
    names = [name for name in classes if name != 'background']
    known = matplotlib.colormaps['tab10' if len(names) <= 10 else 'tab20'].colors
    return [known[(names.index(name) if name in names else 0) % len(known)] for name in classes]


def background(classes: tuple[str, ...]) -> int:
    """Return the number of the class that is left blank, -1 if there is none."""
    return classes.index('background') if 'background' in classes else -1


def label_segments(figure: Figure, all_seen: list[Seen]) -> None:
    """Draw a legend of the classes in the segments."""
    found = [seen for seen in all_seen if seen.segments is not None]
    if not found:
        return
    classes = found[0].classes
    numbers = sorted(set().union(*(seen.segments.unique().tolist() for seen in found)))
    patches = [
        Patch(color=colours_of(classes)[number], alpha=0.7, label=classes[number])
        for number in numbers
        if number != background(classes)
    ]
    figure.legend(handles=patches, loc='outside lower center', ncols=5, fontsize=8, frameon=False)


def draw_boxes(axes: Axes, seen: Seen) -> None:
    """Draw the boxes, labels and missed objects of an image, and their numbers below it."""
    for box, label, right in zip(seen.boxes, seen.labels.tolist(), seen.right.tolist()):
        colour = RIGHT if right else WRONG
        axes.add_patch(rectangle(box, color=colour))
        axes.text(*box[:2].tolist(), label, fontsize=7, color='white', va='bottom', clip_on=True,
                  bbox=dict(facecolor=colour, edgecolor='none', pad=0.8))  # fmt: skip
    for box in seen.missed:
        axes.add_patch(rectangle(box, color=MISSED, ls='--'))
    missed = f', {len(seen.missed)} missed' if len(seen.missed) else ''
    wrong = f', {int((~seen.right).sum())} wrong' if not seen.right.all() else ''
    axes.set_xlabel(f'{int(seen.right.sum())} right{wrong}{missed}', fontsize=8)


def rectangle(box: Tensor, **style: object) -> Rectangle:
    """Return the outline of a box (left, top, right, bottom), in pixels."""
    left, top, right, bottom = box.tolist()
    return Rectangle((left, top), right - left, bottom - top, fill=False, lw=1.4, **style)


@one_line_errors()
def main() -> None:
    args = parse_args()
    for factor in args.factors:
        if not 1 <= factor < math.inf:
            raise ValueError(f'--factors: each must be at least 1, got {factor:g}')
    if not 0 <= args.score_thr <= 1:
        raise ValueError(f'--score-thr: must be from 0 to 1, got {args.score_thr:g}')
    loaded = [models.load_model(one, args.cfg_options, args.pretrained) for one in args.models]
    for model in loaded:
        if model.checkpoint is None:
            raise ValueError(f'{model.path}: give a checkpoint, untrained models find nothing')
    rows = {
        name: predict_over_scale(model, args.index, args.factors, args.score_thr)
        for name, model in zip(models.name_models(loaded, args.names), loaded)
    }
    title = f'Image {args.index} of the test data, made smaller for the network'
    if any(seen.boxes is not None for row in rows.values() for seen in row):
        title += (
            f'. Boxes of a score from {args.score_thr:g}:\ngreen with the class and {OVERLAP:g} '
            'of the union of an object, red without; dashed: objects missed'
        )
    write_figure(draw(rows, args.factors, title), make_folder(args.out), 'predictions')


if __name__ == '__main__':
    main()
