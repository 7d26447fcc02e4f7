# Copyright (c) mmscale contributors.
"""All tools end on bad input in one way: one line that names it."""

import io
import random
from contextlib import redirect_stderr, redirect_stdout

import mmcv
import numpy as np
import pytest
import torch
from test_datasets.synthetic import Program, write_cifar10

from mmscale.engine.errors import one_line_errors

from .conftest import CONFIG, ROOT, run_here

DSS = 'configs/dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'
CIFAR10 = str(ROOT / 'configs/resnet/resnet18-w16_1xb128-30e_scalecifar10.py')
TRAIN = ('tools/train.py', 'CONFIG', '--work-dir', 'TMP/work')
TEST = ('tools/test.py', 'CONFIG', 'WEIGHTS', '--work-dir', 'TMP/work')
EQUIVARIANCE = ('tools/equivariance.py', 'CONFIG', '--out', 'TMP/out')
SCALE_SPACE = ('tools/visualize_scale_space.py', 'IMAGE', 'DSS', '--out', 'TMP/out')
PAIRS = ('tools/visualize_equivariance.py', 'IMAGE', 'DSS', '--out', 'TMP/out')
PREDICTIONS = ('tools/visualize_predictions.py', 'CONFIG:WEIGHTS', '--out', 'TMP/out')
FLOPS = ('tools/analysis_tools/get_flops.py', 'CONFIG')
EXPORT = ('tools/deployment/export_onnx.py', 'CONFIG', '--out', 'TMP/out')
ALL = (TRAIN, TEST, EQUIVARIANCE, SCALE_SPACE, PAIRS, FLOPS, EXPORT)
# Tools that take checkpoints, as commands that name one.
WITH_CHECKPOINT = (
    (*TRAIN, '--resume', 'WEIGHTS'),
    (*TRAIN, '--cfg-options', 'load_from=WEIGHTS'),
    TEST,
    ('tools/test.py', 'CONFIG:WEIGHTS', '--work-dir', 'TMP/work', '--tta'),
    ('tools/equivariance.py', 'CONFIG:WEIGHTS', '--out', 'TMP/out'),
    ('tools/visualize_scale_space.py', 'IMAGE', 'DSS:WEIGHTS', '--out', 'TMP/out'),
    ('tools/visualize_equivariance.py', 'IMAGE', 'DSS:WEIGHTS', '--out', 'TMP/out'),
    PREDICTIONS,
    ('tools/deployment/export_onnx.py', 'CONFIG:WEIGHTS', '--out', 'TMP/out'),
)
# Tools that take neither.
OTHERS = (
    ('tools/model_converters/publish_model.py', 'WEIGHTS', 'TMP/published.pth'),
    ('tools/dataset_converters/images_to_cifar10.py', 'FILES/folders', 'TMP/cifar10'),
    ('tools/dataset_converters/scatter_objects.py', 'cifar10', 'FILES', 'TMP/scattered',
     '--train', '1', '--val', '1', '--test', '1'),
)  # fmt: skip


def swap(command, **words) -> tuple:
    """A command with other words in the places named."""
    for name, word in words.items():
        command = [part.replace(name, word) for part in command]
    return tuple(command)


def set_to(command, *options) -> tuple:
    return (*command, '--cfg-options', *options)


# The command, and what the line must name.
TABLE = [
    # Every tool reads configs, checkpoints and options alike: which faults these can have is tested
    # of one, and that a tool comes there of each.
    *((swap(tool, CONFIG='FILES/broken.py', DSS='FILES/broken.py'),
       ['config', 'broken.py', 'cannot be read']) for tool in ALL),
    *((swap(TRAIN, CONFIG=path), ['config', *named])
      for path, named in [('README.md', ['README.md']),
                          ('FILES/absent.py', ['there is no file', 'absent.py']),
                          ('FILES/imports.py', ['imports.py', 'absent_package']),
                          ('FILES/empty.py', ['empty.py', 'model'])]),
    *((swap(tool, WEIGHTS='FILES/program.pth'), ['checkpoint', 'program.pth', '--trust-checkpoint'])
      for tool in WITH_CHECKPOINT),
    *((swap(TEST, WEIGHTS=f'FILES/{name}.pth'), ['checkpoint', f'{name}.pth', told])
      for name, told in [('cut', 'cut off'), ('page', 'cut off'), ('absent', 'no file'),
                         ('list', 'no weights'), ('legacy', 'cut off')]),
    (set_to(TRAIN, 'model.backbone.init_cfg.type=Pretrained',
            'model.backbone.init_cfg.checkpoint=FILES/program.pth'), ['--trust-checkpoint']),
    (('tools/model_converters/publish_model.py', 'FILES/program.pth', 'TMP/a.pth'),
     ['program.pth', '--trust-checkpoint']),
    # Options: without a value, and misspelt.
    *((set_to(tool, 'model.backbone.depth=19'), ['19']) for tool in ALL),
    (set_to(FLOPS, 'model.backbone.depth'), ['--cfg-options', 'model.backbone.depth', 'key=value']),
    (set_to(FLOPS, 'model.backbone.depth=[1,(2]'), ['--cfg-options', 'brackets']),
    (set_to(FLOPS, 'modle.backbone.depth=18'), ['--cfg-options', 'modle']),
    (set_to(FLOPS, 'model.backbone.depht=18'), ['depht']),
    (set_to(SCALE_SPACE, 'model.backbone.scale_space.base=0.5'), ['base', '0.5']),
    (set_to(TRAIN, 'train_cfg.max_epoch=1'), ['max_epoch']),
    (set_to(TRAIN, 'optim_wrapper.optimizer.lr=-1'), ['learning rate', '-1']),
    (set_to(TRAIN, 'optim_wrapper.optimizer.typ=SGD'), ['typ']),
    (set_to(TRAIN, 'train_dataloader.batch_size=0'), ['batch_size']),
    (set_to(TRAIN, 'train_dataloader.num_workers=-1'), ['num_workers']),
    (set_to(TRAIN, 'train_dataloader=3'), ['train_dataloader', '3']),
    (set_to(TRAIN, 'default_hooks.checkpoint.intervall=1'), ['intervall']),
    ((*swap(TRAIN, CONFIG='FILES/unscaled.py'), '--auto-scale-lr'), ['base_batch_size']),
    # Arguments of datasets out of range, also of those that are read after the first epoch.
    *((set_to(tool, f'{loader}.dataset.scale=-1'), ['scale', '-1'])
      for tool, loader in ((TRAIN, 'train_dataloader'), (TRAIN, 'val_dataloader'),
                           (TEST, 'test_dataloader'), (EQUIVARIANCE, 'test_dataloader'))),
    *((set_to(TRAIN, f'train_dataloader.dataset.{option}'), named)
      for option, named in [('slit=train', ['slit']),
                            ('scale=0', ['scale', '0']),
                            ('scale_range=(2,0.5)', ['scale_range', '2', '0.5']),
                            ('scale_range=(0.5,)', ['scale_range', '0.5']),
                            ('split=valid', ['split', 'valid', 'train']),
                            ('seed=-1', ['seed', '-1']),
                            ('pipeline=3', ['pipeline', '3'])]),
    (set_to(swap(TRAIN, CONFIG=CIFAR10), 'train_dataloader.dataset.val_size=999',
            'train_dataloader.dataset.data_root=FILES',
            'train_dataloader.dataset.check_integrity=False'),
     ['val_size', '999', 'training images']),
    # A folder that is a file.
    (swap(TRAIN, **{'TMP/work': 'README.md'}), ['README.md']),
    (swap(EQUIVARIANCE, **{'TMP/out': 'README.md'}), ['--out', 'README.md']),
    (('tools/dataset_converters/images_to_cifar10.py', 'FILES/cifar-10-batches-py', 'TMP/target'),
     ['no images']),
    (('tools/dataset_converters/images_to_cifar10.py', 'FILES/folders', 'README.md'),
     ['target', 'README.md', 'not a folder']),
    ((*TEST, '--out', 'README.md'), ['README.md']),
    # Parts that a config lacks.
    *((swap((*TEST, *flags), CONFIG='FILES/untested.py'), ['untested.py', 'test_dataloader'])
      for flags in ([], ['--tta'], ['--amp'])),
    (swap(TRAIN, CONFIG='FILES/untrained.py'), ['untrained.py', 'train_dataloader']),
    (swap(EQUIVARIANCE, CONFIG='FILES/untested.py'), ['untested.py', 'test_dataloader']),
    (swap(FLOPS, CONFIG='FILES/untested.py'), ['untested.py', 'test_dataloader']),
    # Numbers out of range.
    ((*FLOPS, '--shape', '0'), ['--shape', '0']),
    ((*FLOPS, '--shape', '1', '2', '3'), ['--shape', '[1, 2, 3]']),
    ((*FLOPS, '--shape', 'x'), ['--shape', "'x'"]),
    ((*FLOPS, '--rounds', '0'), ['--rounds', '0']),
    ((*TEST, '--interval', '0'), ['--interval', '0']),
    ((*TEST, '--wait-time', 'nan'), ['--wait-time', 'nan']),
    ((*EQUIVARIANCE, '--seed', '-1'), ['--seed', '-1']),
    ((*EQUIVARIANCE, '--factors', 'nan'), ['--factors', 'nan']),
    (swap(TEST, WEIGHTS='--predictions'), ['--predictions', '--out']),
]  # fmt: skip


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Files of which each is wrong in its own way."""
    folder = tmp_path_factory.mktemp('files')
    base = f'_base_ = {str(ROOT / CONFIG)!r}\n'
    (folder / 'broken.py').write_text('model = dict(')
    (folder / 'imports.py').write_text("custom_imports = dict(imports=['absent_package'])")
    (folder / 'empty.py').write_text("default_scope = 'mmpretrain'")
    for name, part in (('untested', 'test'), ('untrained', 'train')):
        (folder / f'{name}.py').write_text(base + f'{part}_dataloader = {part}_cfg = None\n')
    (folder / 'unscaled.py').write_text(base + 'auto_scale_lr = dict(_delete_=True)\n')
    torch.save(dict(state_dict=dict(weight=torch.zeros(1000))), folder / 'whole.pth')
    (folder / 'cut.pth').write_bytes((folder / 'whole.pth').read_bytes()[:500])
    torch.save(
        dict(weight=torch.zeros(9)), folder / 'old.pth', _use_new_zipfile_serialization=False
    )
    (folder / 'legacy.pth').write_bytes((folder / 'old.pth').read_bytes()[:200])
    (folder / 'page.pth').write_text('<!DOCTYPE html><html>404</html>')
    torch.save([1, 2], folder / 'list.pth')
    torch.save(dict(weight=torch.zeros(9), more=Program(folder / 'ran')), folder / 'program.pth')
    write_cifar10(folder, per_batch=20)
    (folder / 'folders/train/cat').mkdir(parents=True)
    mmcv.imwrite(np.zeros((32, 32, 3), np.uint8), str(folder / 'folders/train/cat/a.png'))
    mmcv.imwrite(np.zeros((32, 32, 3), np.uint8), str(folder / 'image.png'))
    return folder


def last_line(monkeypatch, words, files, tmp_path, folder=ROOT) -> str | None:
    """The line by which a tool ends in this process; None where it comes to its end."""
    # Loggers of MMEngine live on and write to what was the output: it must stay open.
    out = io.StringIO()
    names = dict(CONFIG=ROOT / CONFIG, DSS=ROOT / DSS, IMAGE=files / 'image.png',
                 WEIGHTS=files / 'whole.pth', FILES=files, TMP=tmp_path)  # fmt: skip
    words = swap(words, **{name: str(value) for name, value in names.items()})
    try:
        with redirect_stdout(out), redirect_stderr(out):
            run_here(monkeypatch, *words, folder=folder)
    except SystemExit as end:
        assert 'Traceback' not in out.getvalue()
        # argparse has written its line itself.
        return end.code if isinstance(end.code, str) else out.getvalue().splitlines()[-1]
    return None


@pytest.mark.parametrize(('words', 'named'), TABLE, ids=lambda part: ' '.join(part)[:80])
def test_one_line_names_what_is_wrong(words, named, files, tmp_path, monkeypatch):
    line = last_line(monkeypatch, words, files, tmp_path)
    assert line is not None and '\n' not in line and 'error: ' in line
    for name in named:
        assert name in line, line
    assert not (files / 'ran').exists()


def test_the_traceback_can_be_seen(tmp_path, monkeypatch):
    @one_line_errors(tmp_path)
    def fail():
        raise KeyError('the key')

    with pytest.raises(SystemExit, match='^error: KeyError: the key .where: .*traceback_0.txt.$'):
        fail()
    assert 'in fail' in (tmp_path / 'traceback_0.txt').read_text()
    monkeypatch.setenv('MMSCALE_TRACEBACK', '1')
    with pytest.raises(KeyError):
        fail()


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
        'tools/visualize_predictions.py': ['--out', '--names', '--factors', '--index',
                                           '--score-thr'],
        'tools/visualize_scale_space.py': ['--out', '--point', '--layer', '--size', '--lift'],
        'tools/visualize_equivariance.py': ['--out', '--names', '--size', '--stage', '--channel',
                                            '--factor', '--angles'],
        'tools/analysis_tools/get_flops.py': ['--shape', '--batch-size', '--rounds', '--speed'],
        'tools/deployment/export_onnx.py': ['--out', '--side', '--pretrained'],
        'tools/model_converters/publish_model.py': ['--out'],
        'tools/dataset_converters/images_to_cifar10.py': ['--seed'],
        'tools/dataset_converters/scatter_objects.py': ['--photographs', '--side', '--sizes',
                                                        '--train', '--seed'],
    }  # fmt: skip
    bad_files = ['FILES/cut.pth', 'FILES/page.pth', 'FILES/absent', 'FILES/broken.py', 'FILES', '']
    command = list(draw.choice([*ALL, *WITH_CHECKPOINT, *OTHERS]))
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
