# Copyright (c) mmscale contributors.
"""Trains a model: ``python tools/train.py CONFIG``."""

import argparse
import os

from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import mmscale  # noqa: F401  (checks the environment and registers everything)
from mmscale.engine import checkpoints, launch, schedules
from mmscale.engine.allocator import keep_freed_blocks
from mmscale.engine.errors import one_line_errors
from mmscale.engine.hooks.equivariance_hook import unwrap
from mmscale.engine.resuming import InterruptedValidationHook
from mmscale.evaluation.classes import check_classes
from mmscale.models.necks.check_neck import check_neck

PARTS = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    launch.add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='path of a checkpoint to resume from; without a path: the latest in the work '
        'directory, and a new run if there is none',
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='do not evaluate during training'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the ratio of the actual batch size to that of the recipe',
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='start the workers of the data loaders anew in each epoch',
    )
    return parser.parse_args()


def make_config(args: argparse.Namespace):
    """The config file with the command line merged in."""
    cfg = launch.load_config(args.config)
    launch.check_parts(cfg, args.config, *PARTS)
    cfg.launcher = args.launcher
    launch.set_work_dir(cfg, args.work_dir, args.config)

    if args.amp:
        launch.enable_amp_training(cfg)
    if args.resume not in (None, 'auto'):
        cfg.resume, cfg.load_from = True, args.resume
    if args.auto_scale_lr:
        launch.enable_auto_scale_lr(cfg)

    launch.set_dataloader_defaults(cfg, LOADERS, persistent_workers=True)
    if args.no_pin_memory:
        launch.override_dataloaders(cfg, LOADERS, pin_memory=False)
    if args.no_persistent_workers:
        launch.override_dataloaders(cfg, LOADERS, persistent_workers=False)

    launch.merge_options(cfg, args.cfg_options)
    launch.check_parts(cfg, args.config, *PARTS)
    if args.resume == 'auto':
        checkpoints.resume_latest(cfg)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    launch.drop_persistent_workers_without_workers(cfg, LOADERS)
    schedules.scale_one_cycle_peak(cfg)
    launch.name_pretrained([cfg.get('model')], cfg.get('default_scope'))
    checkpoints.check_checkpoint(cfg)
    return cfg


@one_line_errors()
def prepare() -> Runner:
    """Builds what is to run, and checks all that can be known before."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = make_config(args)
    keep_freed_blocks()
    launch.init_cpu_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    check_neck(unwrap(runner.model))
    runner.register_hook(InterruptedValidationHook())
    metas = launch.build_data(
        runner, train_loop='the training data', val_loop='the validation data'
    )
    schedules.check_schedules(cfg, runner)
    if not runner.cfg.get('resume'):  # what is resumed is asked, too, once its checkpoint is loaded
        check_classes(unwrap(runner.model), metas)
        metas = {}
    checkpoints.check_loading(runner, strict=False, metas=metas)
    return runner


def main():
    runner = prepare()
    with one_line_errors(runner.log_dir):
        runner.train()
    launch.leave_process_group()


if __name__ == '__main__':
    main()
