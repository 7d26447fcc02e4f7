# Copyright (c) mmscale contributors.
"""All tools end on bad input in one way: one line that names it."""

import mmcv
import numpy as np
import pytest
import torch

from mmscale.engine.errors import one_line_errors

from .conftest import CONFIG, ROOT, run_here

DSS = 'configs/dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'
TRAIN = ('tools/train.py', 'CONFIG', '--work-dir', 'TMP/work')
TEST = ('tools/test.py', 'CONFIG', 'WEIGHTS', '--work-dir', 'TMP/work')
EQUIVARIANCE = ('tools/equivariance.py', 'CONFIG', '--out', 'TMP/out')
SCALE_SPACE = ('tools/visualize_scale_space.py', 'IMAGE', 'DSS', '--out', 'TMP/a.png')
PAIRS = ('tools/visualize_equivariance.py', 'IMAGE', 'DSS', '--out', 'TMP/a.png')
FLOPS = ('tools/analysis_tools/get_flops.py', 'CONFIG')
COMPARE = ('tools/analysis_tools/compare_models.py', 'CONFIG')
PRINT = ('tools/misc/print_config.py', 'CONFIG')
LIFT_ERROR = ('tools/analysis_tools/lift_error.py', '--out', 'TMP/out')
DEFORM_ERROR = ('tools/analysis_tools/deform_equivariance.py', '--out', 'TMP/out')
ALL = (TRAIN, TEST, EQUIVARIANCE, SCALE_SPACE, PAIRS, FLOPS, COMPARE, PRINT)
WITH_OPTIONS = tuple(tool for tool in ALL if tool not in (PAIRS, COMPARE))
# Tools that take checkpoints, as commands that name one.
WITH_CHECKPOINT = (
    (*TRAIN, '--resume', 'WEIGHTS'),
    (*TRAIN, '--cfg-options', 'load_from=WEIGHTS'),
    TEST,
    (*TEST, '--tta'),
    ('tools/equivariance.py', 'CONFIG', 'WEIGHTS', '--out', 'TMP/out'),
    ('tools/visualize_scale_space.py', 'IMAGE', 'DSS', 'WEIGHTS', '--out', 'TMP/a.png'),
    ('tools/visualize_equivariance.py', 'IMAGE', 'DSS:WEIGHTS', '--out', 'TMP/a.png'),
)


def swap(command, **words) -> tuple:
    """A command with other words in the places named."""
    for name, word in words.items():
        command = [part.replace(name, word) for part in command]
    return tuple(command)


def set_to(command, *options) -> tuple:
    return (*command, '--cfg-options', *options)


# The command, and what the line must name.
TABLE = [
    # A config that is none.
    *((swap(tool, CONFIG=path, DSS=path), ['config', *named])
      for path, named in [('README.md', ['README.md']),
                          ('FILES/absent.py', ['there is no file', 'absent.py']),
                          ('FILES/broken.py', ['broken.py', 'cannot be read'])]
      for tool in ALL),
    *((swap(tool, CONFIG=path, DSS=path), ['config', *named])
      for path, named in [('FILES/imports.py', ['imports.py', 'absent_package']),
                          ('FILES/empty.py', ['empty.py', 'model'])]
      for tool in ALL if tool is not PRINT),
    # A checkpoint that is none.
    *((swap(tool, WEIGHTS=f'FILES/{name}.pth'), ['checkpoint', f'{name}.pth', told])
      for tool in WITH_CHECKPOINT
      for name, told in [('cut', 'cut off'), ('page', 'cut off'), ('absent', 'no file'),
                         ('list', 'no weights'), ('legacy', 'cut off')]),
    # Options: without a value, and misspelt.
    *((set_to(tool, 'model.backbone.depth'), ['--cfg-options', 'model.backbone.depth', 'key=value'])
      for tool in WITH_OPTIONS),
    *((set_to(tool, 'model.backbone.depth=[1,(2]'), ['--cfg-options', 'brackets'])
      for tool in WITH_OPTIONS),
    *((set_to(tool, 'modle.backbone.depth=18'), ['--cfg-options', 'modle', 'model'])
      for tool in WITH_OPTIONS),
    *((set_to(tool, 'model.backbone.depht=18'), ['depht'])
      for tool in (TRAIN, TEST, EQUIVARIANCE, SCALE_SPACE, FLOPS)),
    *((set_to(tool, 'model.backbone.depth=19'), ['19'])
      for tool in (TRAIN, TEST, EQUIVARIANCE, SCALE_SPACE, FLOPS)),
    (set_to(SCALE_SPACE, 'model.backbone.scale_space.base=0.5'), ['base', '0.5']),
    (set_to(TRAIN, 'train_cfg.max_epoch=1'), ['max_epoch']),
    (set_to(TRAIN, 'optim_wrapper.optimizer.lr=-1'), ['learning rate', '-1']),
    (set_to(TRAIN, 'optim_wrapper.optimizer.typ=SGD'), ['typ']),
    (set_to(TRAIN, 'train_dataloader.batch_size=0'), ['batch_size']),
    (set_to(TRAIN, 'train_dataloader.num_workers=-1'), ['num_workers']),
    (set_to(TRAIN, 'train_dataloader=3'), ['train_dataloader', '3']),
    (set_to(TRAIN, 'default_hooks.checkpoint.intervall=1'), ['intervall']),
    (set_to(TRAIN, 'train_dataloader.dataset.slit=train'), ['slit']),
    (set_to(TEST, 'test_dataloader.dataset.slit=train'), ['slit']),
    (set_to(EQUIVARIANCE, 'test_dataloader.dataset.slit=train'), ['slit']),
    (set_to(TRAIN, 'train_dataloader.dataset.scale=-1'), ['scale', '-1']),
    (set_to(TEST, 'test_dataloader.dataset.scale=-1'), ['scale', '-1']),
    # A folder that is a file.
    (swap(TRAIN, **{'TMP/work': 'README.md'}), ['--work-dir', 'README.md']),
    (swap(TEST, **{'TMP/work': 'README.md'}), ['--work-dir', 'README.md']),
    (swap(EQUIVARIANCE, **{'TMP/out': 'README.md'}), ['--out', 'README.md']),
    (swap(LIFT_ERROR, **{'TMP/out': 'README.md'}), ['--out', 'README.md']),
    (swap(DEFORM_ERROR, **{'TMP/out': 'README.md'}), ['--out', 'README.md']),
    ((*TEST, '--show-dir', 'README.md'), ['--show-dir', 'README.md']),
    ((*TEST, '--out', 'FILES/a.pkl'), ['--out', 'a.pkl']),
    # Parts that a config lacks.
    *((swap((*TEST, *flags), CONFIG='FILES/untested.py'), ['untested.py', 'test_dataloader'])
      for flags in ([], ['--tta'], ['--amp'])),
    (swap(TRAIN, CONFIG='FILES/untrained.py'), ['untrained.py', 'train_dataloader']),
    (swap(EQUIVARIANCE, CONFIG='FILES/untested.py'), ['untested.py', 'test_dataloader']),
    (swap(COMPARE, CONFIG='FILES/untested.py'), ['untested.py', 'test_dataloader']),
    # Numbers out of range.
    ((*FLOPS, '--shape', '3', '32', '32'), ['--shape', '(3, 32, 32)', 'channels']),
    ((*FLOPS, '--shape', '0'), ['--shape', '0']),
    ((*FLOPS, '--shape', '1', '2', '3', '4'), ['--shape', '[1, 2, 3, 4]']),
    ((*FLOPS, '--shape', 'x'), ['--shape', "'x'"]),
    ((*COMPARE, '--rounds', '0'), ['--rounds', '0']),
    ((*COMPARE, '--side', '-3'), ['--side', '-3']),
    ((*TEST, '--interval', '0'), ['--interval', '0']),
    ((*TEST, '--wait-time', 'nan'), ['--wait-time', 'nan']),
    ((*EQUIVARIANCE, '--seed', '-1'), ['--seed', '-1']),
    ((*EQUIVARIANCE, '--factors', 'nan'), ['--factors', 'nan']),
    ((*LIFT_ERROR, '--num-images', '0'), ['--num-images', '0']),
    ((*LIFT_ERROR, '--base', '1'), ['--base', '1']),
    ((*LIFT_ERROR, '--zero-scales', '0'), ['--zero-scales', '0']),
    ((*LIFT_ERROR, '--images', 'absent'), ['--images', 'absent']),
    ((*LIFT_ERROR, '--images', 'FILES'), ['--images', '224x224']),
    ((*DEFORM_ERROR, '--border', '99'), ['--border', '99']),
    ((*DEFORM_ERROR, '--rms', '0'), ['--rms', '0']),
    ((*DEFORM_ERROR, '--factors', '3'), ['--factors', '3']),
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
    torch.save(dict(state_dict=dict(weight=torch.zeros(1000))), folder / 'whole.pth')
    (folder / 'cut.pth').write_bytes((folder / 'whole.pth').read_bytes()[:500])
    torch.save(
        dict(weight=torch.zeros(9)), folder / 'old.pth', _use_new_zipfile_serialization=False
    )
    (folder / 'legacy.pth').write_bytes((folder / 'old.pth').read_bytes()[:200])
    (folder / 'page.pth').write_text('<!DOCTYPE html><html>404</html>')
    torch.save([1, 2], folder / 'list.pth')
    (folder / 'a.pkl').mkdir()
    mmcv.imwrite(np.zeros((32, 32, 3), np.uint8), str(folder / 'image.png'))
    return folder


def last_line(monkeypatch, capsys, words, files, tmp_path) -> str | None:
    """The line by which a tool ends in this process; None where it comes to its end."""
    names = dict(CONFIG=CONFIG, DSS=DSS, IMAGE=files / 'image.png', WEIGHTS=files / 'whole.pth',
                 FILES=files, TMP=tmp_path)  # fmt: skip
    words = swap(words, **{name: str(value) for name, value in names.items()})
    try:
        run_here(monkeypatch, *words)
    except SystemExit as end:
        printed = capsys.readouterr()
        assert 'Traceback' not in printed.out + printed.err
        # argparse has written its line itself.
        return end.code if isinstance(end.code, str) else printed.err.splitlines()[-1]
    return None


@pytest.mark.parametrize(('words', 'named'), TABLE, ids=lambda part: ' '.join(part)[:80])
def test_one_line_names_what_is_wrong(words, named, files, tmp_path, monkeypatch, capsys):
    line = last_line(monkeypatch, capsys, words, files, tmp_path)
    assert line is not None and '\n' not in line and 'error: ' in line
    for name in named:
        assert name in line, line


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
