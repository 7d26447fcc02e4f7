# Copyright (c) mmscale contributors.
"""Random misuse: each tool comes to its end, or says in one line why not."""

import io
import random
from contextlib import redirect_stderr, redirect_stdout

import pytest

from . import test_bad_input
from .conftest import CONFIG, ROOT, run_here, swap
from .test_bad_input import ALL, DSS, EQUIVARIANCE, WITH_CHECKPOINT

files = test_bad_input.files  # a fixture


def last_line(monkeypatch, words, files, tmp_path, folder=ROOT) -> str | None:
    """The line by which a tool ends in this process; None where it comes to its end."""
    # Loggers of MMEngine live on and write to what was the output: it must stay open.
    out = io.StringIO()
    places = dict(CONFIG=ROOT / CONFIG, DSS=ROOT / DSS, IMAGE=files / 'image.png',
                  WEIGHTS=files / 'whole.pth', FILES=files, TMP=tmp_path)  # fmt: skip
    words = swap(words, **places)
    try:
        with redirect_stdout(out), redirect_stderr(out):
            run_here(monkeypatch, *words, folder=folder)
    except SystemExit as end:
        assert 'Traceback' not in out.getvalue()
        # argparse has written its line itself.
        return end.code if isinstance(end.code, str) else out.getvalue().splitlines()[-1]
    return None


def misuse(draw: random.Random) -> tuple:
    """A command line that is wrong in one to three places, or at least odd."""
    values = ['', 'x', '-1', '0', 'nan', 'inf', '1e9', 'None', '[]', '[1,2', '{}', '(1,2)', 'True']
    settings = [
        'model.type', 'model.backbone.type', 'model.backbone.depth', 'model.backbone.base_channels',
        'model.backbone.stem_channels', 'model.backbone.in_channels', 'model.backbone.out_indices',
        'model.backbone.norm_cfg', 'model.backbone.norm_cfg.type', 'model.neck.type', 'model.head',
        'model.head.num_classes', 'model.head.in_channels', 'model.init_cfg',
        'model.data_preprocessor', 'model.backbone.deform', 'model.neck',
        'data_preprocessor.mean', 'data_preprocessor.std', 'default_scope', 'custom_hooks',
        'custom_imports', 'default_hooks.logger', 'default_hooks.checkpoint.interval', 'env_cfg',
        'launcher', 'load_from', 'log_level', 'optim_wrapper.type', 'optim_wrapper.optimizer.lr',
        'optim_wrapper.optimizer.type', 'optim_wrapper.paramwise_cfg', 'param_scheduler',
        'param_scheduler.eta_max', 'param_scheduler.total_steps', 'param_scheduler.type',
        'randomness.seed', 'resume', 'train_cfg.by_epoch', 'train_cfg.max_epochs',
        'train_cfg.val_interval', 'val_evaluator', 'val_evaluator.type', 'test_evaluator.topk',
        'visualizer', 'work_dir',
    ] + [
        f'{split}_dataloader{key}'
        for split in ('train', 'val', 'test')
        for key in ('', '.batch_size', '.num_workers', '.sampler', '.sampler.type', '.dataset',
                    '.dataset.type', '.dataset.split', '.dataset.indices', '.dataset.pipeline',
                    '.dataset.scale', '.dataset.scale_range', '.collate_fn')
    ]  # fmt: skip
    flags = {
        'tools/train.py': ['--work-dir', '--resume', '--amp', '--auto-scale-lr', '--launcher'],
        'tools/test.py': ['--work-dir', '--out', '--predictions', '--show-dir', '--interval',
                          '--tta', '--pretrained'],
        'tools/equivariance.py': ['--layers', '--factors', '--num-images', '--images', '--border',
                                  '--batch-size', '--device', '--seed', '--names', '--pretrained'],
        'tools/visualize_scale_space.py': ['--out', '--point', '--layer', '--size', '--lift'],
        'tools/visualize_equivariance.py': ['--out', '--names', '--size', '--stage', '--channel',
                                            '--factor', '--angles'],
        'tools/analysis_tools/get_flops.py': ['--shape'],
        'tools/deployment/export_onnx.py': ['--out', '--side', '--pretrained'],
        'tools/model_converters/publish_model.py': ['--out'],
    }  # fmt: skip
    bad_files = ['FILES/cut.pth', 'FILES/page.pth', 'FILES/absent', 'FILES/broken.py', 'FILES', '']
    command = list(draw.choice([*ALL, *WITH_CHECKPOINT]))
    changes = draw.choices(['option', 'flag', 'word', 'lack'], [6, 3, 1, 1], k=draw.randint(1, 2))
    if 'word' in changes:
        command[draw.randrange(1, len(command))] = draw.choice(bad_files)
    if 'lack' in changes:
        del command[draw.randrange(1, len(command))]
    few = ['--no-accuracy', '--num-images', '2']
    command += few if command[0] == EQUIVARIANCE[0] else []
    if 'flag' in changes:
        command += [draw.choice(flags[command[0]]), draw.choice(values + bad_files)]
    options = []
    takes_options = command[0] in [tool[0] for tool in ALL]
    for _ in range(changes.count('option') * takes_options):
        key = draw.choice(settings)
        if draw.random() < 0.15:  # a slip of the finger
            place = draw.randrange(len(key))
            key = key[:place] + draw.choice('xyz') + key[place + 1 :]
        options.append(
            draw.choice([f'{key}={draw.choice(values)}', f'{key}={draw.choice(values)}', key])
        )
    # What is no misuse in the end runs for one epoch, on few images.
    if command[0] in ('tools/train.py', 'tools/test.py', 'tools/equivariance.py'):
        small = [f'{split}_dataloader.dataset.indices=50' for split in ('train', 'val', 'test')]
        options = [*small, 'train_cfg.max_epochs=1', *options]
    return (*command, '--cfg-options', *options) if options else tuple(command)


GROUPS = 10
# 100 draws, of which some are alike.
MISUSES = list(
    dict.fromkeys(misuse(draw) for draw in map(random.Random, range(GROUPS)) for _ in range(10))
)


# Groups, so that what fails is found and repeated fast.
@pytest.mark.parametrize('group', range(GROUPS))
def test_random_misuse_gives_one_line(group, files, tmp_path, monkeypatch):
    """Each tool comes to its end or says in one line why not."""
    for number, words in enumerate(MISUSES[group::GROUPS]):
        (tmp_path / str(number)).mkdir()
        try:
            line = last_line(monkeypatch, words, files, tmp_path / str(number), folder=tmp_path)
        except BaseException as error:
            raise AssertionError(f'{" ".join(words)}: {type(error).__name__}: {error}') from error
        assert line is None or ('error: ' in line and '\n' not in line), (words, line)
