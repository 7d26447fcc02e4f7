# Copyright (c) mmscale contributors.
"""Print parameters and multiply-adds of models as a Markdown table.

``python tools/analysis_tools/get_flops.py CONFIG ... [--shape SIDE]``
"""

import argparse
import math
import sys
import warnings

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS

from mmscale.engine import models
from mmscale.engine.cost import count, image_shape
from mmscale.engine.errors import one_line_errors
from mmscale.models import (
    BilinearPyramidLift,
    DeformScaleConv,
    GaussianLift,
    GaussianPyramidLift,
    ModulatedDeformScaleConv,
    ScaleClsHead,
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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Print parameters and multiply-adds for one image (head included) of models '
        'as a Markdown table; parameters are compared with the first model. Only operations that '
        'MMEngine counts are in the sums (convolutions, matrix products, norms ...); resampling '
        'between levels is not.'
    )
    add = parser.add_argument
    add('models', metavar='MODEL', nargs='+', help=models.HELP)
    add('--shape', type=int, nargs='+',
        help="size of the images, SIDE or HEIGHT WIDTH; default: of the config's data")  # fmt: skip
    models.add_config_options(parser)
    args = parser.parse_args()
    if args.shape and (min(args.shape) < 1 or len(args.shape) > 2):
        parser.error(f'--shape: must be one or two numbers of at least 1, got {args.shape}')
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
    head = cfg.model.get('head') or {}
    if find_class(head.get('type'), MODELS, scope) is ScaleClsHead:
        name += f', {head.get("pool", "gate")}'
    deform = backbone.get('deform')
    return name if deform is None else f'{name} + {word(deform["type"])}'


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
    rows, first = [], None
    for word in args.models:
        model = models.load_model(word, args.cfg_options)
        cfg, network = model.cfg, model.network
        models.check_parts(cfg, model.path, *([] if args.shape else ['test_dataloader']))
        _, *size = image_shape(cfg, args.shape and (args.shape * 2)[:2], '--shape')
        shape = (input_channels(getattr(network, 'backbone', network)), *size)
        print(f'counting {model.path} at {size[0]}x{size[1]}', file=sys.stderr, flush=True)
        n, flops = count(network, shape, '--shape')
        first = first or n
        rows.append([describe(cfg), f'`{model.path}`', f'{n:,}', f'{n / first - 1:+.1%}',
                     with_unit(flops)])  # fmt: skip
    head = ['model', 'config', 'parameters', 'to the first', 'multiply-adds']
    for row in (head, ['---', '---', *['---:'] * 3], *rows):
        print(f'| {" | ".join(row)} |')


if __name__ == '__main__':
    main()
