# Copyright (c) mmscale contributors.
"""What ``tools/train.py`` and ``tools/test.py`` do between the command line and the run.

Most functions take MMEngine's ``Config`` and change it in place, or raise ``ValueError`` or
``FileNotFoundError`` with one line that says what to change.
"""

import copy
import difflib
import inspect
import os
from argparse import ArgumentError, ArgumentParser
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.model import PretrainedInit
from mmengine.registry import MODELS, WEIGHT_INITIALIZERS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from mmscale.datasets.base import name_images
from mmscale.models.necks.check_neck import check_neck
from mmscale.registry import find_class, is_kind

from .errors import one_line
from .safe_loading import add_trust_option

WORLD_SIZE_VARIABLES = {
    'pytorch': 'WORLD_SIZE',
    'slurm': 'SLURM_NTASKS',
    'mpi': 'OMPI_COMM_WORLD_SIZE',
}


class Settings(DictAction):
    """The action of arguments ``key=value ...``, which says what is not one."""

    def __call__(self, parser, namespace, values, option_string=None):
        for word in values:
            if not word.partition('=')[1] or word.startswith('='):
                raise ArgumentError(self, f'{word} is not key=value')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, RecursionError) as error:
            raise ArgumentError(self, one_line(error)) from error


def add_config_options(parser: ArgumentParser):
    """Adds ``--cfg-options`` and ``--trust-checkpoint``."""
    add_trust_option(parser)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Settings,
        default={},
        metavar='KEY=VALUE',
        help='settings that override the config; nested keys with dots, lists as key="[a,b]" or '
        'key=a,b, without white space',
    )


def add_common_arguments(parser: ArgumentParser):
    """Adds the arguments that training and testing share."""
    parser.add_argument('config', help='path of the config file')
    parser.add_argument(
        '--work-dir', help='folder for logs and results; default: work_dirs/<name of the config>'
    )
    parser.add_argument('--amp', action='store_true', help='compute in automatic mixed precision')
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='do not pin the memory of the data loaders'
    )
    add_config_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', *WORLD_SIZE_VARIABLES],
        default='none',
        help='what has started the processes of a distributed run',
    )
    # The launchers of torch pass one spelling or the other, depending on its version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def load_config(path: str, import_custom_modules: bool = True) -> Config:
    """Reads a config file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'config: there is no file {path}')
    try:
        return Config.fromfile(path, import_custom_modules=import_custom_modules)
    except Exception as error:  # the file is a program, which can raise anything
        raise ValueError(f'config: {path} cannot be read: {one_line(error)}') from error


def check_parts(cfg: Config, path: str, *names: str):
    """Checks that a config has what a tool needs."""
    for name in names:
        part = cfg.get(name)
        if part is None:
            raise ValueError(f'config: {path} has no {name}')
        if not isinstance(part, dict | list):
            raise ValueError(f'config: {name} of {path} must be a dict, got {part!r}')


def find_config(name: str) -> Config:
    """Reads a config file, or the config of a model that MMPretrain knows by name."""
    if name.endswith('.py') or Path(name).exists():
        return load_config(name)
    import mmpretrain
    from mmpretrain.apis.model import ModelHub

    try:
        return ModelHub.get(name).config
    except ValueError as error:
        near = difflib.get_close_matches(name.lower(), mmpretrain.list_models(), n=3)
        near = f'; the nearest names are {", ".join(near)}' if near else ''
        raise ValueError(f'config: {name} is neither a file nor a model by name{near}') from error


def build_network(cfg: Config, path: str) -> nn.Module:
    """Builds the model of a config, untrained and in eval mode.

    MMPretrain's ``get_model`` would not take the classes of a config in pure Python.
    """
    check_parts(cfg, path, 'model')
    model = copy.deepcopy(cfg).model
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
            network = MODELS.build(model).eval()
        check_neck(network)
        return network
    except Exception as error:  # of whichever layer has got what it does not take
        raise ValueError(
            f'config: the model of {path} cannot be built: {one_line(error)}'
        ) from error


# What MMEngine, its hooks or the tools look for in a config, beside the arguments of a runner.
OTHER_NAMES = {
    'activation_checkpointing', 'auto_scale_lr', 'compile', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'sync_bn', 'tta_model',
    'tta_pipeline',
}  # fmt: skip


def merge_options(cfg: Config, options: dict):
    """Merges ``--cfg-options``; a name that nothing would look for is an error, not ignored."""
    known = {*cfg, *inspect.signature(Runner).parameters, *OTHER_NAMES}
    for key in options:
        name = key.partition('.')[0]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            near = f'; the nearest names are {", ".join(near)}' if near else ''
            raise ValueError(f'--cfg-options: {key}: the config has no {name}{near}')
    try:
        cfg.merge_from_dict(options)
    except Exception as error:
        raise ValueError(f'--cfg-options: {one_line(error)}') from error


def set_work_dir(cfg: Config, work_dir: str | None, config_path: str):
    """Command line first, then the config, then ``work_dirs/<name of the config>``."""
    if work_dir is not None and Path(work_dir).exists() and not Path(work_dir).is_dir():
        raise ValueError(f'--work-dir: {work_dir} is a file, and must be a folder')
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(config_path).stem)


def is_of_mmpretrain(cfg: Config) -> bool:
    """Whether a config is written for MMPretrain's ``train.py``, and not for another toolbox's."""
    scope = cfg.get('default_scope')
    if scope is not None:
        return scope == 'mmpretrain'
    # Configs in pure Python need no scope.
    model = find_class((cfg.get('model') or {}).get('type'), MODELS)
    return getattr(model, '__module__', '').partition('.')[0] == 'mmpretrain'


def set_dataloader_defaults(cfg: Config, fields: tuple, **defaults):
    """Gives the loaders named in ``fields`` the defaults that their config leaves open.

    MMPretrain stacks images where the config does not say otherwise; those of other toolboxes
    differ in size.
    """
    stacks = is_of_mmpretrain(cfg)
    for field in fields:
        loader = cfg.get(field)
        if loader is not None:
            if stacks:
                loader.setdefault('collate_fn', dict(type='default_collate'))
            # Pinned memory serves copies to an accelerator; torch warns where there is none.
            loader.setdefault('pin_memory', get_device() != 'cpu')
            for key, value in defaults.items():
                loader.setdefault(key, value)


def override_dataloaders(cfg: Config, fields: tuple, **values):
    """Sets ``values`` in the loaders named in ``fields``, whatever their config says."""
    for field in fields:
        if cfg.get(field) is not None:
            cfg[field].update(values)


def drop_persistent_workers_without_workers(cfg: Config, fields: tuple):
    """A loader with ``num_workers=0`` cannot have persistent workers; torch would raise."""
    for field in fields:
        loader = cfg.get(field)
        if loader is not None and loader.get('num_workers', 0) == 0:
            loader.persistent_workers = False


def enable_amp_training(cfg: Config):
    """Turns the optimizer wrapper into the one of automatic mixed precision."""
    if get_device() == 'cpu':
        raise ValueError(
            '--amp: mixed-precision training needs an accelerator, and torch finds none'
        )
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def enable_auto_scale_lr(cfg: Config):
    """Has the learning rate scaled by (actual batch size) / (batch size of the recipe)."""
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise ValueError(
            '--auto-scale-lr: the config has no auto_scale_lr=dict(base_batch_size=...)'
        )
    cfg.auto_scale_lr.enable = True


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

    Raises:
        ValueError: Where neither can be.
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


def build_data(runner: Runner, **loops: str) -> dict[str, dict]:
    """Builds the loops of a runner, and with them its datasets, ahead of the run.

    Args:
        runner (Runner): To be run.
        **loops (str): For each loop, such as ``train_loop``, what its data are called.

    Returns:
        dict[str, dict]: By what they are called, what the datasets say of themselves.

    Raises:
        FileNotFoundError: If files of a dataset are missing.
        RuntimeError: If they are damaged.
    """
    built = {called: getattr(runner, loop) for loop, called in loops.items()}
    datasets = {called: loop.dataloader.dataset for called, loop in built.items() if loop}
    for dataset in datasets.values():
        name_images(dataset)
    return {called: getattr(dataset, 'metainfo', {}) for called, dataset in datasets.items()}


def leave_process_group():
    """Ends a distributed run. Threads of gloo that run on into the exit can abort a process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
