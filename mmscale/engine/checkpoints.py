# Copyright (c) mmscale contributors.
"""Read checkpoints, and check that they fit, before a long run starts.

A bad checkpoint raises a ``ValueError`` or ``FileNotFoundError`` of one line.
"""

import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint, load_checkpoint
from torch import Tensor, nn

from .classes import check_classes
from .errors import TRUST, one_line
from .hooks.equivariance_hook import unwrap
from .safe_loading import allow_trainings, read_checkpoint


def resume_latest(cfg: Config) -> None:
    """Resume a run from the latest checkpoint of its work directory, or begin if it has none.

    A kill during the writing damages a checkpoint. The latest intact checkpoint is taken. If there
    are only damaged checkpoints, the error of the first is raised.
    """
    latest = find_latest_checkpoint(cfg.work_dir)
    cfg.resume = latest is not None
    folder, damage = Path(cfg.work_dir), None
    others = [*folder.glob('epoch_*.pth'), *folder.glob('iter_*.pth')]
    others.sort(key=lambda path: -path.stat().st_mtime)
    for path in (latest, *others) if cfg.resume else ():
        try:
            check_file(path)
        except (FileNotFoundError, ValueError) as error:
            damage = damage or error
            continue
        if damage is not None:
            warnings.warn(f'{one_line(damage)}: going on from {path}', stacklevel=1)
        cfg.load_from = str(path)
        return
    if damage is not None:
        raise damage


def check_file(path: str | Path | None) -> None:
    """Check that a file is a checkpoint; MMEngine checks an address (``https://`` ...)."""
    if path is None or '://' in str(path):
        return
    if not Path(path).is_file():
        raise FileNotFoundError(f'checkpoint: there is no file {path}')
    try:  # a memory map reads no weights; only zip files can be mapped
        checkpoint = read_checkpoint(path, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        said = one_line(error)
        why = '' if TRUST in said else 'the file is cut off, or is no checkpoint: '
        raise ValueError(f'checkpoint {path}: {why}{said}') from error
    if not any(isinstance(value, Tensor) for value in _weights(checkpoint).values()):
        raise ValueError(f'checkpoint {path}: there are no weights in it')


def _weights(checkpoint) -> Mapping:
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else {}
    return state if isinstance(state, Mapping) else {}


def load_weights(network: nn.Module, path: str, config: str) -> None:
    """Load a checkpoint into the network of a config; raise a ``ValueError`` if it does not fit.

    The attribute ``dataset_meta`` of the network gets the checkpoint's description of the training
    data, as in MMDetection.
    """
    allow_trainings()
    with _fitting(path, config), redirect_stdout(sys.stderr):  # MMEngine's prints are no result
        checkpoint = load_checkpoint(network, path, 'cpu', strict=True, logger='silent')
    _check_finite(network, path)
    network.dataset_meta = _dataset_meta(checkpoint)


@contextmanager
def _fitting(path: str, config: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        said = one_line(error)[:300]
        raise ValueError(f'checkpoint {path} does not fit {config}: {said}') from error


def _dataset_meta(checkpoint: Mapping) -> Mapping:
    """Return a checkpoint's description of its training data, such as their classes."""
    return (checkpoint.get('meta') or {}).get('dataset_meta') or {}


def _check_finite(network: nn.Module, path: str):
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f'checkpoint {path}: {name} is not finite')


def check_loading(runner: Runner, strict: bool, metas: Mapping) -> None:
    """Make a runner check the weights that it loads; a runner alone would take any weights.

    Args:
        runner (Runner): The runner, before its run.
        strict (bool): Whether weights and classes must fit exactly. If not, at least one weight
            must fit. A resumed checkpoint must always fit exactly.
        metas (Mapping): The data whose classes must be the classes of the checkpoint, as in
            :func:`check_classes`. Empty if a training begins from other weights.
    """
    load = runner.load_checkpoint

    def load_and_check(path, *args, **kwargs):
        exact = strict or runner.cfg.get('resume')
        with _fitting(path, 'the config'):
            checkpoint = load(path, *args, **{**kwargs, 'strict': exact})
        model = unwrap(runner.model)
        names = {name.removeprefix('module.') for name in _weights(checkpoint)}
        if names.isdisjoint(model.state_dict()):
            raise ValueError(
                f'checkpoint {path}: none of its weights has a name that the model has, such as '
                f'{next(iter(model.state_dict()), None)}'
            )
        _check_finite(model, path)
        trained = _dataset_meta(checkpoint) if exact else None
        check_classes(model, {'the data of the checkpoint': trained, **metas})
        return checkpoint

    runner.load_checkpoint = load_and_check
