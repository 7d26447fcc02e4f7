# Copyright (c) mmscale contributors.
"""Train a model: ``python tools/train.py CONFIG``."""

import argparse

from mmengine.config import Config
from mmengine.runner import Runner

import mmscale  # noqa: F401  (checks the environment and registers everything)
from mmscale.engine import checkpoints, launch, models, schedules
from mmscale.engine.classes import check_classes
from mmscale.engine.errors import one_line_errors
from mmscale.engine.hooks.equivariance_hook import unwrap
from mmscale.engine.resuming import InterruptedValidationHook

PARTS = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    add = parser.add_argument
    add('config', help='path of the config file, or the name of a model')
    add('--resume', nargs='?', const='auto',
        help='path of a checkpoint to resume from; without a path: the latest in the work '
        'directory, or a new run if there is no checkpoint')  # fmt: skip
    add('--no-validate', action='store_true', help='do not evaluate during training')
    add('--auto-scale-lr', action='store_true',
        help='scale the learning rate with the batch size of all processes')  # fmt: skip
    add('--no-persistent-workers', action='store_true',
        help='start the workers of the data loaders anew in each epoch')  # fmt: skip
    launch.add_common_arguments(parser)
    return parser.parse_args()


def make_config(args: argparse.Namespace) -> Config:
    """Load the config and merge the command line into it."""
    cfg, _ = models.find_config(args.config)
    models.check_parts(cfg, args.config, *PARTS)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        cfg.merge_from_dict({'auto_scale_lr.enable': True})
    if args.resume not in (None, 'auto'):
        cfg.resume, cfg.load_from = True, args.resume
    forced = dict(persistent_workers=False) if args.no_persistent_workers else {}
    launch.merge_arguments(cfg, args, PARTS, LOADERS, **forced)
    if args.resume == 'auto' or (cfg.get('resume') and cfg.get('load_from') is None):
        checkpoints.resume_latest(cfg)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    schedules.scale_one_cycle_peak(cfg)
    launch.name_pretrained([cfg.get('model')], cfg.get('default_scope'))
    checkpoints.check_file(cfg.get('load_from'))
    return cfg


@one_line_errors()
def prepare() -> Runner:
    """Build the runner and check model, data and checkpoint before the training."""
    args = parse_args()
    runner = launch.build_runner(make_config(args), args)
    runner.register_hook(InterruptedValidationHook())
    runner.register_hook(schedules.ScheduleCheckHook())
    metas = launch.build_data(
        runner, train_loop='the training data', val_loop='the validation data'
    )
    if not runner.cfg.get('resume'):  # a resumed run is checked once its checkpoint is loaded
        check_classes(unwrap(runner.model), metas)
        metas = {}
    checkpoints.check_loading(runner, strict=False, metas=metas)
    return runner


def main() -> None:
    runner = prepare()
    with one_line_errors(runner.log_dir):
        runner.train()
    launch.leave_process_group()


if __name__ == '__main__':
    main()
