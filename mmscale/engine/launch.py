# Copyright (c) mmscale contributors.
"""Prepare runs for ``tools/train.py`` and ``tools/test.py``.

The functions change MMEngine's ``Config`` in place, or raise a ``ValueError`` of one line that says
how to correct the input. ``docs/training.md`` lists the additions to MMPretrain's scripts.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.model import PretrainedInit
from mmengine.registry import MODELS, RUNNERS, WEIGHT_INITIALIZERS
from mmengine.runner import Runner

from mmscale.datasets.base import name_images
from mmscale.models.necks.check_neck import check_neck
from mmscale.registry import find_class, is_kind

from .allocator import keep_freed_blocks
from .hooks.equivariance_hook import unwrap
from .models import add_config_options, check_parts, merge_options

WORLD_SIZE_VARIABLES = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')


def add_common_arguments(parser: ArgumentParser, pretrained: bool = False) -> None:
    """Add the arguments that training and testing share."""
    add = parser.add_argument
    add('--work-dir', help='folder of logs and results; default: work_dirs/<name of the config>')
    add('--amp', action='store_true', help='compute in automatic mixed precision')
    add('--no-pin-memory', action='store_true', help='do not pin the memory of the data loaders')
    add('--launcher', choices=['none', *WORLD_SIZE_VARIABLES], default='none',
        help='program that starts the processes of a distributed run')  # fmt: skip
    # PyTorch's launchers pass one of these spellings, depending on the version.
    add('--local_rank', '--local-rank', type=int, default=0)
    add_config_options(parser, pretrained)


def merge_arguments(
    cfg: Config, args: Namespace, parts: Sequence[str], loaders: Sequence[str], **forced: object
) -> None:
    """Merge the arguments that training and testing share; ``forced`` overrides data loaders."""
    cfg.launcher = args.launcher
    configured = cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    cfg.work_dir = args.work_dir or configured
    merge_options(cfg, args.cfg_options)
    check_parts(cfg, args.config, *parts)
    forced |= dict(pin_memory=False) if args.no_pin_memory else {}
    for loader in filter(None, map(cfg.get, loaders)):
        if is_of_mmpretrain(cfg):  # other toolboxes have batches of images of several sizes
            loader.setdefault('collate_fn', dict(type='default_collate'))
        # Pinned memory serves copies to an accelerator; PyTorch warns without one.
        loader.setdefault('pin_memory', get_device() != 'cpu')
        loader.setdefault('persistent_workers', True)
        loader.update(forced)
        # PyTorch raises on persistent workers if there are no workers.
        loader.persistent_workers &= loader.get('num_workers', 0) != 0


def is_of_mmpretrain(cfg: Config) -> bool:
    """Tell whether a config is for MMPretrain's ``train.py``, and not for another toolbox's."""
    scope = cfg.get('default_scope')
    if scope is None:  # configs in pure Python need none
        model = find_class((cfg.get('model') or {}).get('type'), MODELS)
        scope = getattr(model, '__module__', '').partition('.')[0]
    return scope == 'mmpretrain'


def name_pretrained(part: dict | Iterable, scope: str | None = None) -> None:
    """Set the type of each ``init_cfg`` that loads a checkpoint to 'Pretrained', within a config.

    MMEngine recognises only this spelling and then loads the checkpoint last. With others, such as
    ``mmengine.Pretrained``, later initialisations overwrite the loaded weights.
    """
    if isinstance(part, dict):
        entries = part.get('init_cfg') or ()
        for entry in [entries] if isinstance(entries, dict) else entries:
            if is_kind(entry.get('type'), PretrainedInit, WEIGHT_INITIALIZERS, scope):
                entry['type'] = 'Pretrained'
        part = part.values()
    for value in part:
        if isinstance(value, dict | list | tuple):
            name_pretrained(value, scope)


def world_size(launcher: str) -> int:
    """Return the number of processes, from the environment variable that ``launcher`` sets."""
    if launcher == 'none':
        return 1
    variable = WORLD_SIZE_VARIABLES[launcher]
    if variable not in os.environ:
        raise ValueError(
            f'--launcher {launcher}: {variable} is not set; start through tools/dist_train.sh, '
            'tools/slurm_train.sh or the like'
        )
    return int(os.environ[variable])


def init_cpu_processes(cfg: Config) -> None:
    """Join the process group of a machine without accelerator, through gloo.

    MMEngine would select a CUDA device and pass its number to ``DistributedDataParallel``.
    """
    world_size(cfg.launcher)  # raises if the launcher's variables are missing
    device = get_device()
    if cfg.launcher == 'none' or device not in ('cpu', 'mps'):
        return
    if cfg.launcher != 'pytorch' or device != 'cpu':
        raise ValueError(
            f'--launcher {cfg.launcher}: cannot share the device {device} among processes; '
            f'several on CPUs are started by tools/dist_train.sh and tools/dist_test.sh'
        )
    torch.distributed.init_process_group(backend='gloo')
    defaults = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
        device_ids=None,
    )
    cfg.model_wrapper_cfg = {**defaults, **(cfg.get('model_wrapper_cfg') or {})}


def build_runner(cfg: Config, args: Namespace) -> Runner:
    """Build the runner of a config and join the process group of a distributed run."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    keep_freed_blocks()
    init_cpu_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    check_neck(unwrap(runner.model))
    return runner


def build_data(runner: Runner, **loops: str) -> dict[str, dict]:
    """Build loops and datasets of a runner before its run, so that damaged data fail early.

    Args:
        runner (Runner): The runner, before its run.
        **loops (str): For each loop, such as ``train_loop``, a name for its data.

    Returns:
        dict[str, dict]: The ``metainfo`` of the datasets, by the names of the data.
    """
    metas = {}
    for name, called in loops.items():
        if loop := getattr(runner, name):
            name_images(loop.dataloader.dataset)
            metas[called] = getattr(loop.dataloader.dataset, 'metainfo', {})
    return metas


def leave_process_group() -> None:
    """Leave the process group: threads of gloo can abort a process that exits within the group."""
    if is_distributed():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
