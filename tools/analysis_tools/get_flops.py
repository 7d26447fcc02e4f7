# Copyright (c) mmscale contributors.
"""Counts multiply-adds and parameters: ``python tools/analysis_tools/get_flops.py CONFIG``."""

import argparse
import sys

import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import DictAction

import mmscale  # noqa: F401  (registers everything)
from mmscale.engine.launch import build_network, load_config, merge_options


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
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that override the config, as key=value',
    )
    return parser.parse_args()


def input_shape(shape: list, in_channels: int) -> tuple:
    """``(C, H, W)`` from one, two or three numbers."""
    if len(shape) > 3 or min(shape) < 1:
        raise ValueError(f'--shape: needs one to three positive numbers, but got {shape}')
    if len(shape) == 1:
        shape = shape * 2
    return tuple(shape) if len(shape) == 3 else (in_channels, *shape)


def main():
    args = parse_args()
    try:
        cfg = load_config(args.config)
        merge_options(cfg, args.cfg_options)
        shape = input_shape(args.shape, cfg.model.backbone.get('in_channels', 3))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'error: {error}')

    model = build_network(cfg, args.config)
    with torch.no_grad():
        model(
            torch.zeros(1, *shape)
        )  # makes the matrices that resample levels, which then are kept
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
