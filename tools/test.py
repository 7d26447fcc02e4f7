# Copyright (c) mmscale contributors.
"""Tests a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``."""

import argparse
import inspect
import os
from copy import deepcopy
from pathlib import Path

import mmengine
from mmengine.config import ConfigDict
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.registry import HOOKS, RUNNERS
from mmengine.runner import Runner

import mmscale  # noqa: F401  (checks the environment and registers everything)
from mmscale.datasets.base import leaf_datasets
from mmscale.engine import checkpoints, launch
from mmscale.engine.allocator import keep_freed_blocks
from mmscale.engine.errors import one_line_errors
from mmscale.engine.hooks.equivariance_hook import unwrap
from mmscale.evaluation.report import plain
from mmscale.models.necks.check_neck import check_neck
from mmscale.registry import find_class

PARTS = ('model', 'test_dataloader', 'test_cfg', 'test_evaluator')
LOADERS = ('test_dataloader',)
OUT_SUFFIXES = {
    'pred': ('.pkl', '.pickle'),
    'metrics': ('.json', '.yaml', '.yml', '.pkl', '.pickle'),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test a checkpoint')
    launch.add_common_arguments(parser)
    parser.add_argument('checkpoint', help='path or address of the checkpoint')
    parser.add_argument(
        '--no-strict',
        action='store_true',
        help='take a checkpoint that does not fit exactly: weights that it lacks stay random, its '
        'classes may have other names',
    )
    parser.add_argument('--out', help='file for the predictions (.pkl) or the metrics (.json ...)')
    parser.add_argument(
        '--out-item', choices=['metrics', 'pred'], help='what to write to --out; default: pred'
    )
    parser.add_argument('--show-dir', help='folder for images with the predictions drawn in')
    parser.add_argument(
        '--show', action='store_true', help='show images with the predictions in a window'
    )
    parser.add_argument(
        '--interval', type=int, default=1, help='draw one sample in this many; default: 1'
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds for which a window stays; default: 2'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation: the config's tta_model and tta_pipeline, or else the mean "
        'score over an image and its mirror image',
    )
    return parser.parse_args()


def check_arguments(args: argparse.Namespace):
    """Checks what would fail in the test or after it."""
    for name, least in dict(interval=1, wait_time=0).items():
        if not getattr(args, name) >= least:
            raise ValueError(
                f'--{name.replace("_", "-")}: must be at least {least}, got {getattr(args, name)}'
            )
    if args.show_dir is not None and Path(args.show_dir).is_file():
        raise ValueError(f'--show-dir: {args.show_dir} is a file, and must be a folder')
    if args.out is None:
        if args.out_item is not None:
            raise ValueError('--out-item: name the file with --out')
        return
    item = args.out_item or 'pred'
    if Path(args.out).suffix not in OUT_SUFFIXES[item]:
        allowed = ', '.join(OUT_SUFFIXES[item])
        raise ValueError(f'--out: {args.out} must end in one of {allowed} for --out-item {item}')
    if Path(args.out).is_dir():
        raise ValueError(f'--out: {args.out} is a folder, and must be a file')


def enable_visualization(cfg, args: argparse.Namespace):
    """Has the predictions drawn into the images."""
    if args.tta:
        raise ValueError('--show, --show-dir: MMPretrain cannot draw the several views of --tta')
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError(
            '--show, --show-dir: the config has no VisualizationHook; add '
            "default_hooks=dict(visualization=dict(type='VisualizationHook'))"
        )
    hook.update(show=args.show, wait_time=args.wait_time, interval=args.interval)
    if launch.is_of_mmpretrain(cfg):
        hook.update(enable=True, out_dir=args.show_dir)
        return
    hook.draw = True
    if args.show_dir is None:
        return
    kind = find_class(hook.type, HOOKS, cfg.get('default_scope'))
    if 'test_out_dir' in inspect.signature(kind).parameters:  # MMDetection's
        # A relative one would lie in the work directory.
        hook.test_out_dir = str(Path(args.show_dir).resolve())
    elif cfg.get('visualizer') is None:
        raise ValueError('--show-dir: the config has no visualizer')
    else:  # MMSegmentation's, whose backends write the images
        cfg.visualizer.save_dir = args.show_dir


def name_by_folder(visualizer, dataset):
    """Has each image drawn to a file of its own, though another folder has one of its name.

    Hooks name files by the last part of a path, or count images as if all batches were as long.
    """
    read = getattr(dataset, 'get_data_info', lambda place: {})
    paths = (read(place).get('img_path') for place in range(len(dataset)))
    folders = {os.path.dirname(os.path.realpath(path)) for path in paths if path}
    root = os.path.commonpath(folders) if folders else ''

    def apart(draw):
        def draw_apart(*args, data_sample=None, out_file=None, **kwargs):
            # MMPretrain and MMDetection name the file, MMSegmentation the image in its backends.
            name = kwargs.get('name') or args[0]
            known = os.path.basename(data_sample.get('img_path') or name)
            if 'img_path' in data_sample:
                own = os.path.relpath(os.path.realpath(data_sample.img_path), root or None)
            else:
                own = str(data_sample.get('sample_idx', name))
            if out_file is not None:
                folder, file = os.path.split(out_file)
                out_file = os.path.join(folder, file.replace(known, own, 1))
            name = name.replace(known, own.replace(os.sep, '_'), 1)
            args, kwargs = ((name, *args[1:]), kwargs) if args else (args, {**kwargs, 'name': name})
            draw(*args, data_sample=data_sample, out_file=out_file, **kwargs)

        return draw_apart

    for method in ('visualize_cls', 'add_datasample'):
        if hasattr(visualizer, method):
            setattr(visualizer, method, apart(getattr(visualizer, method)))


def enable_tta(cfg):
    """Wraps the model and its pipeline for test-time augmentation."""
    datasets = leaf_datasets(cfg.test_dataloader.dataset)
    missing = [name for name in ('tta_model', 'tta_pipeline') if cfg.get(name) is None]
    if missing and not launch.is_of_mmpretrain(cfg):
        raise ValueError(f"--tta: the config has no {missing[0]}, and is not one of MMPretrain's")
    if 'tta_pipeline' in missing:
        *transforms, pack = deepcopy(datasets[0].pipeline)
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        cfg.tta_pipeline = [*transforms, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    tta_model = cfg.get('tta_model') or dict(type='mmpretrain.AverageClsScoreTTA')
    cfg.model = ConfigDict(**tta_model, module=cfg.model)
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline


def make_config(args: argparse.Namespace):
    """The config file with the command line merged in."""
    check_arguments(args)
    cfg = launch.load_config(args.config)
    launch.check_parts(cfg, args.config, *PARTS)
    cfg.launcher = args.launcher
    cfg.resume = False
    cfg.load_from = args.checkpoint
    launch.set_work_dir(cfg, args.work_dir, args.config)

    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir is not None:
        enable_visualization(cfg, args)
    if args.tta:
        enable_tta(cfg)

    launch.set_dataloader_defaults(cfg, LOADERS)
    if args.no_pin_memory:
        launch.override_dataloaders(cfg, LOADERS, pin_memory=False)

    launch.merge_options(cfg, args.cfg_options)
    launch.check_parts(cfg, args.config, *PARTS)
    launch.drop_persistent_workers_without_workers(cfg, LOADERS)
    checkpoints.check_checkpoint(cfg)
    return cfg


@one_line_errors()
def prepare() -> tuple[argparse.Namespace, Runner]:
    """Builds what is to run, and checks all that can be known before."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = make_config(args)
    keep_freed_blocks()
    launch.init_cpu_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    check_neck(unwrap(runner.model))
    metas = launch.build_data(runner, test_loop='the test data')
    checkpoints.check_loading(runner, strict=not args.no_strict, metas=metas)
    if args.show_dir is not None:
        name_by_folder(runner.visualizer, runner.test_loop.dataloader.dataset)
    return args, runner


def main():
    args, runner = prepare()
    with one_line_errors(runner.log_dir):
        if args.out and args.out_item != 'metrics':
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        metrics = runner.test()
        if args.out and args.out_item == 'metrics' and is_main_process():
            part, kind = f'{args.out}.part', Path(args.out).suffix[1:]
            metrics = metrics if kind in ('pkl', 'pickle') else plain(metrics)
            mmengine.dump(metrics, part, file_format=kind)
            os.replace(part, args.out)
    launch.leave_process_group()


if __name__ == '__main__':
    main()
