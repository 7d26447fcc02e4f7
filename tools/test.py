# Copyright (c) mmscale contributors.
"""Test a model: ``python tools/test.py CONFIG CHECKPOINT`` or ``MODEL``."""

import argparse
import inspect
import os
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch.utils.data import Dataset

import mmscale  # noqa: F401  (checks the environment and registers everything)
from mmscale.datasets.base import leaf_datasets
from mmscale.engine import checkpoints, launch, models
from mmscale.engine.errors import one_line_errors
from mmscale.engine.report import write_json
from mmscale.registry import find_class

PARTS = ('model', 'test_dataloader', 'test_cfg', 'test_evaluator')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test a model')
    add = parser.add_argument
    add('config', metavar='MODEL', help=models.HELP)
    add('checkpoint', nargs='?', help='path or address of the checkpoint, if MODEL has none')
    add('--no-strict', action='store_true',
        help='load a checkpoint that does not fit exactly: weights that it lacks stay random, its '
        'classes may have other names')  # fmt: skip
    add('--out', type=Path, metavar='FOLDER',
        help='write the metrics to metrics.json in this folder')  # fmt: skip
    add('--predictions', action='store_true', help='write predictions.pkl to --out, too')
    add('--show-dir', help='folder for images with the predictions drawn in')
    add('--show', action='store_true', help='show images with the predictions in a window')
    add('--interval', type=int, default=1, help='draw every n-th sample; default: 1')
    add('--wait-time', type=float, default=2, help='seconds to show a window; default: 2')
    add('--tta', action='store_true',
        help="test-time augmentation: the config's tta_model and tta_pipeline, or else the mean "
        'score over an image and its mirror image')  # fmt: skip
    launch.add_common_arguments(parser, pretrained=True)
    args = parser.parse_args()
    if not args.interval >= 1 or not args.wait_time >= 0:
        parser.error(f'--interval, --wait-time: must be at least 1 and 0, got {args.interval} and '
                     f'{args.wait_time}')  # fmt: skip
    if args.predictions and args.out is None:
        parser.error('--predictions: name the folder with --out')
    return args


def enable_visualization(cfg: Config, args: argparse.Namespace) -> None:
    """Set the visualization hook of a config to draw the predictions into the images."""
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
    kind = find_class(hook.type, HOOKS, cfg.get('default_scope'))
    if args.show_dir and 'test_out_dir' in inspect.signature(kind).parameters:  # MMDetection's
        # MMDetection would put a relative folder into the work directory.
        hook.test_out_dir = str(Path(args.show_dir).resolve())
    elif args.show_dir:  # MMSegmentation's, whose backends write the images
        models.check_parts(cfg, args.config, 'visualizer')
        cfg.visualizer.save_dir = args.show_dir


def name_by_folder(visualizer: Visualizer, dataset: Dataset) -> None:
    """Make a visualizer draw each image to its own file, if folders have images of one name, too.

    Hooks name files by the last part of a path, or count images as if all batches had one length.
    """
    read = getattr(dataset, 'get_data_info', lambda place: {})
    paths = (read(place).get('img_path') for place in range(len(dataset)))
    folders = {os.path.dirname(os.path.realpath(path)) for path in paths if path}
    root = os.path.commonpath(folders) if folders else None

    def apart(draw):
        def draw_apart(*args, data_sample=None, out_file=None, **kwargs):
            # MMPretrain and MMDetection pass a file, MMSegmentation the name of the image.
            name = kwargs.pop('name', None) or args[0]
            known = os.path.basename(data_sample.get('img_path') or name)
            if 'img_path' in data_sample:
                own = os.path.relpath(os.path.realpath(data_sample.img_path), root)
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


def enable_tta(cfg: Config) -> None:
    """Wrap the model and its pipeline for test-time augmentation."""
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


def make_config(args: argparse.Namespace) -> Config:
    """Load the config and merge the command line into it."""
    args.config, checkpoint = models.split_model(args.config)
    cfg, weights = models.find_config(args.config)
    models.check_parts(cfg, args.config, *PARTS)
    cfg.resume = False
    cfg.load_from = args.checkpoint or checkpoint or (weights if args.pretrained else None)
    if cfg.load_from is None:
        raise ValueError('checkpoint: say which, or --pretrained of a model that has weights')
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir is not None:
        enable_visualization(cfg, args)
    if args.tta:
        enable_tta(cfg)
    launch.merge_arguments(cfg, args, PARTS, ('test_dataloader',))
    checkpoints.check_file(cfg.load_from)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    return cfg


@one_line_errors()
def prepare() -> tuple[argparse.Namespace, Runner]:
    """Build the runner and check model, data and checkpoint before the test."""
    args = parse_args()
    runner = launch.build_runner(make_config(args), args)
    metas = launch.build_data(runner, test_loop='the test data')
    checkpoints.check_loading(runner, strict=not args.no_strict, metas=metas)
    if args.show_dir is not None:
        name_by_folder(runner.visualizer, runner.test_loop.dataloader.dataset)
    return args, runner


def main() -> None:
    args, runner = prepare()
    with one_line_errors(runner.log_dir):
        if args.predictions:
            dump = DumpResults(out_file_path=str(args.out / 'predictions.pkl'))
            runner.test_evaluator.metrics.append(dump)
        metrics = runner.test()
        if args.out and is_main_process():
            write_json(args.out / 'metrics.json', metrics)
    launch.leave_process_group()


if __name__ == '__main__':
    main()
