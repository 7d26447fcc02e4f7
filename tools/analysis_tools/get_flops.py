# Copyright (c) mmscale contributors.
"""Counts multiply-adds and parameters: ``python tools/analysis_tools/get_flops.py CONFIG``."""

import argparse

import torch
from mmengine.analysis import get_model_complexity_info

from mmscale.engine import launch
from mmscale.engine.errors import one_line, one_line_errors
from mmscale.visualization.network import input_channels


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Count the multiply-adds, parameters and activations of a model, head '
        'included, for one image'
    )
    parser.add_argument('config', help='path of the config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        default=[224],
        help='size of the image: SIDE, HEIGHT WIDTH or CHANNELS HEIGHT WIDTH; default: 224',
    )
    launch.add_config_options(parser)
    return parser.parse_args()


def input_shape(shape: list, in_channels: int) -> tuple:
    """``(C, H, W)`` from one, two or three numbers."""
    if len(shape) > 3 or min(shape) < 1:
        raise ValueError(f'--shape: needs one to three positive numbers, but got {shape}')
    if len(shape) == 1:
        shape = shape * 2
    return tuple(shape) if len(shape) == 3 else (in_channels, *shape)


def run_once(model: torch.nn.Module, shape: tuple):
    """Has the model make the matrices that resample levels, which then are kept."""
    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f'--shape: the model does not take images (C, H, W) of {shape}: {one_line(error)}'
        ) from error


@one_line_errors()
def main():
    args = parse_args()
    cfg = launch.load_config(args.config)
    launch.merge_options(cfg, args.cfg_options)
    model = launch.build_network(cfg, args.config)
    shape = input_shape(args.shape, input_channels(getattr(model, 'backbone', model)))
    run_once(model, shape)
    counts = get_model_complexity_info(model, shape)
    print(counts['out_table'])
    print(f'Input shape (C, H, W): {shape}')
    print(f'Multiply-adds: {counts["flops_str"]}')
    print(f'Parameters: {counts["params_str"]}')
    print(f'Activations: {counts["activations_str"]}')
    print('Only operations that MMEngine knows how to count (convolutions, matrix products, norms')
    print('...) are in the sums; resampling between levels is not.')


if __name__ == '__main__':
    main()
