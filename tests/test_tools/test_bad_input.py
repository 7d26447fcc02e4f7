# Copyright (c) mmscale contributors.
"""All tools end on bad input in one way: one line that names it.

They read configs, checkpoints and options alike: the faults of these are tested of one tool, and
one fault of each of all tools.
"""

import mmcv
import numpy as np
import pytest
import torch
from test_datasets.synthetic import Program

from .conftest import CONFIG, ROOT, exit_message, swap

DSS = 'configs/dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'
SCALE_MNIST = ROOT / 'configs/cnn/cnn_1xb128-20e_scalemnist.py'
TRAIN = ('tools/train.py', 'CONFIG', '--work-dir', 'TMP/work')
TEST = ('tools/test.py', 'CONFIG', 'WEIGHTS', '--work-dir', 'TMP/work')
EQUIVARIANCE = ('tools/equivariance.py', 'CONFIG', '--out', 'TMP/out')
SCALE_SPACE = ('tools/visualize_scale_space.py', 'IMAGE', 'DSS', '--out', 'TMP/out')
PAIRS = ('tools/visualize_equivariance.py', 'IMAGE', 'DSS', '--out', 'TMP/out')
FLOPS = ('tools/analysis_tools/get_flops.py', 'CONFIG')
EXPORT = ('tools/deployment/export_onnx.py', 'CONFIG', '--out', 'TMP/out')
PUBLISH = ('tools/model_converters/publish_model.py', 'WEIGHTS', 'TMP/published.pth')
ALL = (TRAIN, TEST, EQUIVARIANCE, SCALE_SPACE, PAIRS, FLOPS, EXPORT)
WITH_CHECKPOINT = (
    (*TRAIN, '--resume', 'WEIGHTS'),
    (*TRAIN, '--cfg-options', 'load_from=WEIGHTS'),
    TEST,
    ('tools/test.py', 'CONFIG:WEIGHTS', '--work-dir', 'TMP/work', '--tta'),
    *(swap(tool, CONFIG='CONFIG:WEIGHTS', DSS='DSS:WEIGHTS')
      for tool in (EQUIVARIANCE, SCALE_SPACE, PAIRS, EXPORT)),
    PUBLISH,
)  # fmt: skip


def set_to(command, *options) -> tuple:
    return (*command, '--cfg-options', *options)


# The command, and what the line must name.
TABLE = [
    *((swap(tool, CONFIG='FILES/broken.py', DSS='FILES/broken.py'),
       ['config', 'broken.py', 'cannot be read']) for tool in ALL),
    *((set_to(tool, 'model.backbone.depth=19'), ['19']) for tool in ALL),
    *((swap(tool, WEIGHTS='FILES/program.pth'), ['program.pth', '--trust-checkpoint'])
      for tool in WITH_CHECKPOINT),
    (set_to(TRAIN, 'model.backbone.init_cfg.type=Pretrained',
            'model.backbone.init_cfg.checkpoint=FILES/program.pth'), ['--trust-checkpoint']),
    *((swap(TRAIN, CONFIG=path), ['config', *named])
      for path, named in [('README.md', ['README.md']),
                          ('FILES/absent.py', ['there is no file', 'absent.py']),
                          ('FILES/imports.py', ['imports.py', 'absent_package']),
                          ('FILES/empty.py', ['empty.py', 'no model'])]),
    *((swap(TEST, WEIGHTS=f'FILES/{name}.pth'), ['checkpoint', f'{name}.pth', told])
      for name, told in [('cut', 'cut off'), ('page', 'cut off'), ('absent', 'no file'),
                         ('list', 'no weights'), ('legacy', 'cut off')]),
    (swap(PUBLISH, WEIGHTS='FILES/list.pth'), ['list.pth', 'no weights']),
    # Options: without a value, and what does not fit the config.
    (set_to(FLOPS, 'model.backbone.depth'), ['--cfg-options', 'model.backbone.depth', 'key=value']),
    (set_to(FLOPS, 'model.backbone.depth=[1,(2]'), ['--cfg-options', 'brackets']),
    (set_to(TRAIN, 'model.type.depth=18'), ['--cfg-options', "'depth': 18"]),
    (set_to(TRAIN, 'train_dataloader=3'), ['train_dataloader', '3']),
    (set_to(TRAIN, 'optim_wrapper.optimizer.lr=-1'), ['learning rate', '-1']),
    (set_to(TRAIN, 'train_dataloader.batch_size=0'), ['batch_size']),
    # Names of another toolbox are known behind `mmscale::` alone.
    (set_to(TRAIN, 'model.backbone.type=mmscale.ResNet'), ['mmscale.ResNet']),
    ((*swap(TRAIN, CONFIG='FILES/unscaled.py'), '--auto-scale-lr'), ['base_batch_size']),
    # Data, also those that are read after the first epoch.
    *((set_to(tool, f'{loader}.dataset.scale=-1'), ['scale', '-1'])
      for tool, loader in ((TRAIN, 'val_dataloader'), (TEST, 'test_dataloader'),
                           (EQUIVARIANCE, 'test_dataloader'))),
    (set_to(swap(TRAIN, CONFIG=SCALE_MNIST), 'train_dataloader.dataset.data_root=TMP',
            'train_dataloader.dataset.download=False'), ['TMP']),
    # A folder that is a file.
    (swap(TRAIN, **{'TMP/work': 'README.md'}), ['README.md']),
    (swap(EQUIVARIANCE, **{'TMP/out': 'README.md'}), ['--out', 'README.md']),
    ((*TEST, '--out', 'README.md'), ['README.md']),
    # Parts that a config lacks.
    (swap(TRAIN, CONFIG='FILES/untrained.py'), ['untrained.py', 'train_dataloader']),
    *((swap(tool, CONFIG='FILES/untested.py'), ['untested.py', 'test_dataloader'])
      for tool in (TEST, (*TEST, '--tta'), EQUIVARIANCE, FLOPS)),
    (TEST[:2], ['checkpoint: say which']),
    ((*TEST[:2], '--pretrained'), ['checkpoint: say which, or --pretrained of a model that has']),
    ((*TEST, '--tta', '--show'), ['--show, --show-dir', '--tta']),
    ((*TEST, '--predictions'), ['--predictions', '--out']),
    # Numbers out of range.
    ((*FLOPS, '--shape', '0'), ['--shape', '0']),
    ((*FLOPS, '--shape', '1', '2', '3'), ['--shape', '[1, 2, 3]']),
    ((*FLOPS, '--shape', '0'), ['--shape', '[0]']),
    ((*TEST, '--interval', '0'), ['--interval', '0']),
    ((*TEST, '--wait-time', 'nan'), ['--wait-time', 'nan']),
]  # fmt: skip


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Files of which each is wrong in its own way."""
    folder = tmp_path_factory.mktemp('files')
    base = f'_base_ = {str(ROOT / CONFIG)!r}\n'
    for name, text in dict(
        broken='model = dict(',
        imports="custom_imports = dict(imports=['absent_package'])",
        empty="default_scope = 'mmpretrain'",
        untested=base + 'test_dataloader = test_cfg = None',
        untrained=base + 'train_dataloader = train_cfg = None',
        unscaled=base + 'auto_scale_lr = dict(_delete_=True)',
    ).items():
        (folder / f'{name}.py').write_text(text)
    torch.save(dict(state_dict=dict(weight=torch.zeros(1000))), folder / 'whole.pth')
    (folder / 'cut.pth').write_bytes((folder / 'whole.pth').read_bytes()[:500])
    old = dict(weight=torch.zeros(9))
    torch.save(old, folder / 'old.pth', _use_new_zipfile_serialization=False)
    (folder / 'legacy.pth').write_bytes((folder / 'old.pth').read_bytes()[:200])
    (folder / 'page.pth').write_text('<!DOCTYPE html><html>404</html>')
    torch.save([1, 2], folder / 'list.pth')
    torch.save(dict(weight=torch.zeros(9), more=Program(folder / 'ran')), folder / 'program.pth')
    mmcv.imwrite(np.zeros((32, 32, 3), np.uint8), str(folder / 'image.png'))
    return folder


@pytest.mark.parametrize(('words', 'named'), TABLE, ids=lambda part: ' '.join(part)[:80])
def test_one_line_names_what_is_wrong(words, named, files, tmp_path, monkeypatch):
    places = dict(CONFIG=ROOT / CONFIG, DSS=ROOT / DSS, IMAGE=files / 'image.png',
                  WEIGHTS=files / 'whole.pth', FILES=files, TMP=tmp_path)  # fmt: skip
    line = exit_message(monkeypatch, *swap(words, **places))
    for name in swap(named, TMP=tmp_path):
        assert name in line, line
    assert not (files / 'ran').exists()
