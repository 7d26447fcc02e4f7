# Copyright (c) mmscale contributors.
"""Prints what a compiled wheel depends on: ``torch-2.11.0-cp311``, the name of its folder."""

import sys

import torch

version = torch.__version__.split('+')[0]
key = f'torch-{version}-cp{sys.version_info.major}{sys.version_info.minor}'
# Where a GPU is visible the CUDA ops are compiled too.
print(f'{key}-cu{torch.version.cuda}' if torch.cuda.is_available() else key)
