# Copyright (c) mmscale contributors.
"""Open weights alone: checkpoints are pickles, and pickles can run code when they are opened."""

import codecs
import os
from argparse import Action, ArgumentParser
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import FunctionType
from typing import Any

import mmengine.runner.checkpoint
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler

from .errors import TRUST

SAFE_VARIABLE, UNSAFE_VARIABLE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
# Checkpoints with objects of these classes name methods of the classes.
OWNERS = (HistoryBuffer, OneCycleParamScheduler)


def _named(path: str, function: Callable) -> Callable:
    """Return a copy of a function that pickles find under ``path``."""
    call = partial(function)
    call.__module__, _, call.__qualname__ = path.rpartition('.')
    call.__name__ = call.__qualname__  # PyTorch 2.4 reads this name
    return call


def _method_of(owner: type, name: str) -> FunctionType:
    method = getattr(owner, name) if owner in OWNERS else None
    if not isinstance(method, FunctionType):
        raise ValueError(f'a checkpoint cannot ask for {name} of {owner!r}')
    return method


@cache
def _of_trainings() -> list:
    """Return the types in checkpoints of MMEngine beside weights: logged numbers, schedules."""
    rebuild, (scalar, _) = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()
    dtypes = {type(np.dtype(kind)) for kind in ('b1', 'i4', 'i8', 'u1', 'f4', 'f8', 'U1')}
    numpy = [
        _named(f'numpy.{core}.multiarray.{name}', function)  # before and since NumPy 2
        for core in ('core', '_core')
        for name, function in (('_reconstruct', rebuild), ('scalar', scalar))
    ]
    methods = _named('builtins.getattr', _method_of)
    # Later versions than PyTorch 2.4 allow codecs.encode, which makes bytes, by themselves.
    return [*OWNERS, methods, codecs.encode, *numpy, np.ndarray, np.dtype, *dtypes]


def allow_trainings() -> None:
    """Allow PyTorch to open checkpoints of trainings where it opens weights alone."""
    torch.serialization.add_safe_globals(_of_trainings())
    # The maintained MMEngine would allow any attribute of any object, and then forget all types.
    mmengine.runner.checkpoint.get_torch_safe_globals = list


def read_checkpoint(path: str | Path, mmap: bool = False) -> Any:
    """Read a checkpoint to the CPU: weights alone, unless the environment or a flag trusts it."""
    allow_trainings()
    # An argument weights_only would override the environment variables.
    return torch.load(path, 'cpu', mmap=mmap)


class _Trust(Action):
    def __call__(self, *args: object) -> None:
        os.environ[UNSAFE_VARIABLE] = '1'
        os.environ.pop(SAFE_VARIABLE, None)


def add_trust_option(parser: ArgumentParser) -> None:
    """Add ``--trust-checkpoint``; without the flag, a tool and its processes open weights alone."""
    if os.environ.get(UNSAFE_VARIABLE, '0') not in ('1', 'y', 'yes', 'true'):
        os.environ[SAFE_VARIABLE] = '1'
    allow_trainings()
    parser.add_argument(TRUST, action=_Trust, nargs=0, help='open checkpoints that hold more than '
                        'weights; such a file can run any program')  # fmt: skip
