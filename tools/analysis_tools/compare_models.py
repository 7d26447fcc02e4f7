# Copyright (c) mmscale contributors.
"""Parameters, multiply-adds and speed of models, as a Markdown table.

``python tools/analysis_tools/compare_models.py CONFIG ... [--speed]``
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

from mmscale.engine.cost import count, image_shape, parse_side, scope_of, training_step
from mmscale.engine.errors import one_line_errors
from mmscale.engine.launch import build_network, check_parts, find_config
from mmscale.engine.safe_loading import add_trust_option
from mmscale.models import (
    BilinearPyramidLift,
    DeformScaleConv,
    GaussianLift,
    GaussianPyramidLift,
    ModulatedDeformScaleConv,
)
from mmscale.registry import find_class
from mmscale.scale_space import DiscreteBasis, GaussianDerivativeBasis, HermiteBasis

LIFTS = {
    GaussianLift: 'DSS v1',
    BilinearPyramidLift: 'DSS v2',
    GaussianPyramidLift: 'DSS v2, anti-aliased',
}
KERNELS = {
    HermiteBasis: 'SESN',
    DiscreteBasis: 'DISCO',
    GaussianDerivativeBasis: 'Gaussian derivatives',
}
OFFSETS = {DeformScaleConv: 'DCNv1', ModulatedDeformScaleConv: 'DCNv2'}
WARM_UP_ROUNDS = 2


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Print parameters, multiply-adds for one image (head included) and speed of '
        'models as a Markdown table; parameters are compared with those of the first model'
    )
    parser.add_argument('configs', nargs='+', help='config files, or names that MMPretrain knows')
    parser.add_argument('--speed', action='store_true', help='time training steps, which are real')
    parser.add_argument('--rounds', type=int, default=7, help='steps timed a model; default: 7')
    parser.add_argument('--batch-size', type=int, help="default: that of each config's training")
    parser.add_argument(
        '--side',
        metavar='SIDE|HxW',
        help="of the images, in pixels; default: that of the config's data",
    )
    add_trust_option(parser)
    return parser.parse_args()


def check_arguments(args: argparse.Namespace):
    for name in ('rounds', 'batch_size'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f'--{name.replace("_", "-")}: must be at least 1, got {value}')


def describe(cfg: Config) -> str:
    """What sets the model of a config apart: lift, finer levels, blur before strides, offsets."""
    backbone, scope = cfg.model.backbone, scope_of(cfg)

    def word(kind, words: dict) -> str:
        found = find_class(kind, MODELS, scope)
        return words.get(found, getattr(found, '__name__', str(kind)))

    if word(backbone.type, {}).startswith('SO2'):
        name = 'SO(2)'
    elif 'scale_space' not in backbone or backbone.scale_space.get('num_scales') == 1:
        name = 'CNN'
    else:
        name = word(backbone.get('lift', dict(type=GaussianLift))['type'], LIFTS)
        finer = -backbone.scale_space.get('first_level', 0)
        name += f', {finer} finer level{"s" * (finer > 1)}' if finer > 0 else ''
    if backbone.get('kernel') is not None:
        name = word(backbone.kernel.type, KERNELS)
    if backbone.get('aa_layer') is not None:
        name += ', blur'
    deform = backbone.get('deform')
    return name if deform is None else f'{name} + {word(deform["type"], OFFSETS)}'


def time_steps(steps: list, names: list[str], rounds: int) -> list[float]:
    """Median seconds of each step; rounds go over all of them, so that a busy machine is shared."""
    times = [[] for _ in steps]
    for i in range(WARM_UP_ROUNDS + rounds):
        for name, step, record in zip(names, steps, times):
            progress(f'round {i + 1} of {WARM_UP_ROUNDS + rounds}: {name}')
            record.append(step())
    return [statistics.median(record[WARM_UP_ROUNDS:]) for record in times]


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine() -> str:
    """What the steps were timed on."""
    if torch.cuda.is_available():
        return f'{torch.cuda.get_device_name()}, torch {torch.__version__}'
    return (
        f'{torch.get_num_threads()} CPU threads ({platform.machine()}), torch {torch.__version__}'
    )


def three_digits(number: float) -> str:
    """At least three digits, and no exponent: 0.464, 8.88, 26.9, 1,234."""
    return f'{number:,.{max(0, 2 - math.floor(math.log10(number)))}f}'


def with_unit(number: float) -> str:
    """In millions, or in billions: 8.88 M."""
    scale, unit = (1e9, 'G') if number >= 1e9 else (1e6, 'M')
    return f'{three_digits(number / scale)} {unit}'


def table(rows: list[tuple]) -> str:
    """Markdown; numbers to the right."""
    head = ('model', 'config', 'parameters', 'to the first', 'multiply-adds', 'images/s')
    lines = [head, ('---', '---', '---:', '---:', '---:', '---:'), *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


@one_line_errors()
def main():
    args = parse_args()
    check_arguments(args)
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('compare_models', log_level='ERROR')  # how each weight is initialised
    cfgs = [find_config(config) for config in args.configs]
    needed = ('model', 'test_dataloader', *(('train_dataloader', 'optim_wrapper') * args.speed))
    for config, cfg in zip(args.configs, cfgs):
        check_parts(cfg, config, *needed)
    size = None if args.side is None else parse_side(args.side)
    shapes = [image_shape(cfg, size) for cfg in cfgs]

    counted, steps = [], []
    for config, cfg, shape in zip(args.configs, cfgs, shapes):
        progress(f'counting {config} at {shape[1]}x{shape[2]}')
        model = build_network(cfg, config)
        counted.append((describe(cfg), config, *count(model, shape)))
        if args.speed:
            batch_size = args.batch_size or cfg.train_dataloader.batch_size
            steps.append((training_step(cfg, model, shape, batch_size), batch_size))

    speeds = ['-'] * len(counted)
    if args.speed:
        seconds = time_steps([step for step, _ in steps], args.configs, args.rounds)
        speeds = [three_digits(size / t) for (_, size), t in zip(steps, seconds)]
        print(f'Training steps timed on {machine()}\n')
    first = counted[0][2]
    rows = [
        (name, f'`{config}`', f'{n:,}', f'{n / first - 1:+.1%}', with_unit(flops), speed)
        for (name, config, n, flops), speed in zip(counted, speeds)
    ]
    print(table(rows))


if __name__ == '__main__':
    main()
