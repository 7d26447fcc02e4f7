# Copyright (c) mmscale contributors.
"""Parameters, multiply-adds and speed of models, as a Markdown table.

``python tools/analysis_tools/compare_models.py CONFIG ... [--speed]``
"""

import argparse
import math
import platform
import statistics
import sys
import time
import warnings

import torch
from mmcv.transforms import CenterCrop
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
from mmpretrain.datasets import CIFAR10, MNIST
from mmpretrain.structures import DataSample

from mmscale.datasets import ScaleCIFAR10, ScaleDigits, ScaleMNIST
from mmscale.engine.errors import one_line, one_line_errors
from mmscale.engine.launch import build_network, check_parts, find_config
from mmscale.models import (
    BilinearPyramidLift,
    DeformScaleConv,
    GaussianLift,
    GaussianPyramidLift,
    ModulatedDeformScaleConv,
)
from mmscale.registry import find_class, is_kind

# Sides of the images of datasets whose pipelines do not cut them to a size.
IMAGE_SIDES = {ScaleMNIST: 28, ScaleDigits: 32, ScaleCIFAR10: 32, MNIST: 28, CIFAR10: 32}
LIFTS = {
    GaussianLift: 'DSS v1',
    BilinearPyramidLift: 'DSS v2',
    GaussianPyramidLift: 'DSS v2, anti-aliased',
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
        '--side', type=int, help="side of the images in pixels; default: that of the config's data"
    )
    return parser.parse_args()


def check_arguments(args: argparse.Namespace):
    for name in ('rounds', 'batch_size', 'side'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f'--{name.replace("_", "-")}: must be at least 1, got {value}')


def image_shape(cfg: Config, side: int | None = None) -> tuple[int, int, int]:
    """``(C, H, W)`` of the images that the model of a config sees in its test."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    mean = preprocessor.get('mean')
    channels = cfg.model.backbone.get('in_channels', 3) if mean is None else len(mean)
    dataset, scope = cfg.test_dataloader.dataset, scope_of(cfg)
    crops = [
        step.crop_size
        for step in dataset.pipeline
        if is_kind(step.type, CenterCrop, TRANSFORMS, scope)
    ]
    known = crops[-1] if crops else dataset.get('image_size')
    if known is None:
        sides = [
            n for kind, n in IMAGE_SIDES.items() if is_kind(dataset.type, kind, DATASETS, scope)
        ]
        known = sides[0] if sides else None
    side = side or known
    if side is None:
        raise ValueError(f'--side: say it, that of {dataset.type} is not known')
    return channels, side, side


def scope_of(cfg: Config) -> str:
    return cfg.get('default_scope') or 'mmpretrain'


def describe(cfg: Config) -> str:
    """What sets the model of a config apart: lift, finer levels, offsets."""
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
    deform = backbone.get('deform')
    return name if deform is None else f'{name} + {word(deform["type"], OFFSETS)}'


def count(model: torch.nn.Module, shape: tuple) -> tuple[int, int]:
    """Parameters, and the multiply-adds that MMEngine counts for one image.

    The model must be on the CPU: MMEngine cannot count the compiled operations of MMCV, which
    deformable layers take on a GPU.
    """
    image = torch.zeros(1, *shape)
    try:
        with torch.no_grad():
            model.eval()(image)  # makes the matrices that resample levels, which then are kept
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f'--side: the model does not take images (C, H, W) of {shape}: {one_line(error)}'
        ) from error
    analyzer = FlopAnalyzer(model, (image,))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analyzer.tracer_warnings('none')
    return sum(p.numel() for p in model.parameters()), int(analyzer.total())


def training_step(cfg: Config, model: torch.nn.Module, shape: tuple, batch_size: int):
    """A function that does one step on a random batch and returns the seconds it took."""
    model.to('cuda' if torch.cuda.is_available() else 'cpu')
    with DefaultScope.overwrite_default_scope(scope_of(cfg)):
        model.init_weights()
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    num_classes = cfg.model.head.num_classes
    generator = torch.Generator().manual_seed(0)
    batch = dict(
        inputs=list(
            torch.randint(256, (batch_size, *shape), dtype=torch.uint8, generator=generator)
        ),
        data_samples=[DataSample().set_gt_label(i % num_classes) for i in range(batch_size)],
    )
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None

    def step() -> float:
        model.train()
        synchronize()
        start = time.perf_counter()
        model.train_step(batch, optim_wrapper)
        synchronize()
        return time.perf_counter() - start

    return step


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
    shapes = [image_shape(cfg, args.side) for cfg in cfgs]

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
