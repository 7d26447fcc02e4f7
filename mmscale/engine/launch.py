# Copyright (c) mmscale contributors.
"""What ``tools/train.py`` and ``tools/test.py`` do between the command line and the run.

Functions change MMEngine's ``Config`` in place, or raise ``ValueError`` with one line that says
what to change. ``docs/training.md`` lists what they add to MMPretrain's scripts.
"""

import os
from argparse import ArgumentParser, Namespace
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


def add_common_arguments(parser: ArgumentParser, pretrained: bool = False):
    """Adds the arguments that training and testing share."""
    add = parser.add_argument
    add('--work-dir', help='folder of logs and results; default: work_dirs/<name of the config>')
    add('--amp', action='store_true', help='compute in automatic mixed precision')
    add('--no-pin-memory', action='store_true', help='do not pin the memory of the data loaders')
    add('--launcher', choices=['none', *WORLD_SIZE_VARIABLES], default='none',
        help='what has started the processes of a distributed run')  # fmt: skip
    # The launchers of torch pass one spelling or the other, depending on its version.
    add('--local_rank', '--local-rank', type=int, default=0)
    add_config_options(parser, pretrained)


def merge_arguments(cfg: Config, args: Namespace, parts: tuple, loaders: tuple, **forced):
    """Merges what training and testing share; ``forced`` overrides the data loaders."""
    cfg.launcher = args.launcher
    # Command line first, then the config, then the name of its file.
    configured = cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    cfg.work_dir = args.work_dir or configured
    merge_options(cfg, args.cfg_options)
    check_parts(cfg, args.config, *parts)
    forced |= dict(pin_memory=False) if args.no_pin_memory else {}
    for loader in filter(None, map(cfg.get, loaders)):
        if is_of_mmpretrain(cfg):  # images of other toolboxes differ in size
            loader.setdefault('collate_fn', dict(type='default_collate'))
        # Pinned memory serves copies to an accelerator; torch warns where there is none.
        loader.setdefault('pin_memory', get_device() != 'cpu')
        loader.setdefault('persistent_workers', True)
        loader.update(forced)
        # Without workers none persists; torch would raise.
        loader.persistent_workers &= loader.get('num_workers', 0) != 0


def is_of_mmpretrain(cfg: Config) -> bool:
    """Whether a config is written for MMPretrain's ``train.py``, and not for another toolbox's."""
    scope = cfg.get('default_scope')
    if scope is None:  # configs in pure Python need none
        model = find_class((cfg.get('model') or {}).get('type'), MODELS)
        scope = getattr(model, '__module__', '').partition('.')[0]
    return scope == 'mmpretrain'


def name_pretrained(part, scope: str | None = None):
    """Has every ``init_cfg`` within a part of a config that loads a checkpoint say 'Pretrained'.

    MMEngine loads last what is written so, and anything else, ``mmengine.Pretrained`` say, before
    other initialisations, which then draw over the weights.
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
    """The number of processes that ``launcher`` has started, by the variables it sets."""
    if launcher == 'none':
        return 1
    variable = WORLD_SIZE_VARIABLES[launcher]
    if variable not in os.environ:
        raise ValueError(
            f'--launcher {launcher}: {variable} is not set; start through tools/dist_train.sh, '
            'tools/slurm_train.sh or the like'
        )
    return int(os.environ[variable])


def init_cpu_processes(cfg: Config):
    """Joins the process group of a machine without accelerator, through gloo.

    MMEngine would select a CUDA device, and hand its number to ``DistributedDataParallel``.
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
    """The runner of a config, its process group joined where there is one."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    keep_freed_blocks()
    init_cpu_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    check_neck(unwrap(runner.model))
    return runner


def build_data(runner: Runner, **loops: str) -> dict[str, dict]:
    """Builds loops of a runner, and with them its datasets, ahead of the run: damage shows early.

    Args:
        runner (Runner): To be run.
        **loops (str): For each loop, such as ``train_loop``, what its data are called.

    Returns:
        dict[str, dict]: By what they are called, what the datasets say of themselves.
    """
    metas = {}
    for name, called in loops.items():
        if loop := getattr(runner, name):
            name_images(loop.dataloader.dataset)
            metas[called] = getattr(loop.dataloader.dataset, 'metainfo', {})
    return metas


def leave_process_group():
    """Ends a distributed run. Threads of gloo that run on into the exit can abort a process."""
    if is_distributed():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
