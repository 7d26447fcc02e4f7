# Copyright (c) mmscale contributors.
"""Print parameters, multiply-adds and speed of models as a Markdown table.

``python tools/analysis_tools/get_flops.py CONFIG ... [--shape SIDE] [--speed]``
"""

import argparse
import math
import platform
import statistics
import sys
import warnings

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS

from mmscale.engine import models
from mmscale.engine.cost import count, image_shape, training_step
from mmscale.engine.errors import one_line_errors
from mmscale.models import (
    BilinearPyramidLift,
    DeformScaleConv,
    GaussianLift,
    GaussianPyramidLift,
    ModulatedDeformScaleConv,
)
from mmscale.registry import find_class
from mmscale.scale_space import DiscreteBasis, GaussianDerivativeBasis, HermiteBasis
from mmscale.visualization.network import input_channels

WORDS = {
    GaussianLift: 'DSS v1',
    BilinearPyramidLift: 'DSS v2',
    GaussianPyramidLift: 'DSS v2, anti-aliased',
    HermiteBasis: 'SESN',
    DiscreteBasis: 'DISCO',
    GaussianDerivativeBasis: 'Gaussian derivatives',
    DeformScaleConv: 'DCNv1',
    ModulatedDeformScaleConv: 'DCNv2',
}
WARM_UP_ROUNDS = 2


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Print parameters, multiply-adds for one image (head included) and speed of '
        'models as a Markdown table; parameters are compared with the first model. Only '
        'operations that MMEngine counts are in the sums (convolutions, matrix products, norms '
        '...); resampling between levels is not.'
    )
    add = parser.add_argument
    add('models', metavar='MODEL', nargs='+', help=models.HELP)
    add('--shape', type=int, nargs='+',
        help="size of the images, SIDE or HEIGHT WIDTH; default: of the config's data")  # fmt: skip
    add('--speed', action='store_true', help='time complete training steps')
    add('--rounds', type=int, default=7, help='number of timed steps per model; default: 7')
    add('--batch-size', type=int, help="batch size of the steps; default: of the config's training")
    models.add_config_options(parser)
    args = parser.parse_args()
    numbers = [*(args.shape or ()), args.rounds, args.batch_size or 1]
    if min(numbers) < 1 or len(args.shape or ()) > 2 or args.batch_size == 0:
        parser.error('--shape, --rounds, --batch-size: must be at least 1, the shape one or two '
                     f'numbers, got {args.shape}, {args.rounds} and {args.batch_size}')  # fmt: skip
    return args


def describe(cfg: Config) -> str:
    """Describe the model of a config: lift, finer levels, kernel, blur before strides, offsets."""
    backbone, scope = cfg.model.backbone, models.scope_of(cfg)

    def word(kind) -> str:
        found = find_class(kind, MODELS, scope)
        return WORDS.get(found, getattr(found, '__name__', str(kind)))

    if word(backbone.type).startswith('SO2'):
        name = 'SO(2)'
    elif 'scale_space' not in backbone or backbone.scale_space.get('num_scales') == 1:
        name = 'CNN'
    else:
        name = word(backbone.get('lift', dict(type=GaussianPyramidLift))['type'])
        finer = -backbone.scale_space.get('first_level', 0)
        name += f', {finer} finer level{"s" * (finer > 1)}' if finer > 0 else ''
    if backbone.get('kernel') is not None:
        name = word(backbone.kernel.type)
    if backbone.get('aa_layer') is not None:
        name += ', blur'
    deform = backbone.get('deform')
    return name if deform is None else f'{name} + {word(deform["type"])}'


def time_steps(steps: list, rounds: int) -> list[float]:
    """Return the median seconds of each step; each round times all steps under the same load."""
    times = [[] for _ in steps]
    for i in range(WARM_UP_ROUNDS + rounds):
        print(f'round {i + 1} of {WARM_UP_ROUNDS + rounds}', file=sys.stderr, flush=True)
        for step, record in zip(steps, times):
            record.append(step())
    return [statistics.median(record[WARM_UP_ROUNDS:]) for record in times]


def three_digits(number: float) -> str:
    """Format a number with at least three digits and no exponent: 0.464, 8.88, 26.9, 1,234."""
    return f'{number:,.{max(0, 2 - math.floor(math.log10(number)))}f}'


def with_unit(number: float) -> str:
    """Format a number in millions or in billions: 8.88 M."""
    scale, unit = (1e9, 'G') if number >= 1e9 else (1e6, 'M')
    return f'{three_digits(number / scale)} {unit}'


@one_line_errors()
def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('get_flops', log_level='ERROR')  # hides logs of the initialisation
    rows, steps, first = [], [], None
    for word in args.models:
        model = models.load_model(word, args.cfg_options)
        cfg, network = model.cfg, model.network
        needed = ('train_dataloader', 'optim_wrapper') if args.speed else ()
        models.check_parts(cfg, model.path, *needed, *([] if args.shape else ['test_dataloader']))
        _, *size = image_shape(cfg, args.shape and (args.shape * 2)[:2])
        shape = (input_channels(getattr(network, 'backbone', network)), *size)
        print(f'counting {model.path} at {size[0]}x{size[1]}', file=sys.stderr, flush=True)
        n, flops = count(network, shape)
        first = first or n
        rows.append([describe(cfg), f'`{model.path}`', f'{n:,}', f'{n / first - 1:+.1%}',
                     with_unit(flops), '-'])  # fmt: skip
        if args.speed:
            batch_size = args.batch_size or cfg.train_dataloader.batch_size
            steps.append((training_step(cfg, network, shape, batch_size), batch_size))
    if args.speed:
        device = (torch.cuda.get_device_name() if torch.cuda.is_available() else
                  f'{torch.get_num_threads()} CPU threads ({platform.machine()})')  # fmt: skip
        print(f'Training steps timed on {device}, torch {torch.__version__}\n')
        seconds = time_steps([step for step, _ in steps], args.rounds)
        for row, (_, batch_size), one in zip(rows, steps, seconds):
            row[-1] = three_digits(batch_size / one)
    head = ['model', 'config', 'parameters', 'to the first', 'multiply-adds', 'images/s']
    for row in (head, ['---', '---', *['---:'] * 4], *rows):
        print(f'| {" | ".join(row)} |')


if __name__ == '__main__':
    main()
