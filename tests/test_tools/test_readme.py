# Copyright (c) mmscale contributors.
"""What the first page shows works as it stands there."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from .conftest import ROOT, run_here
from .pages import blocks

README = (ROOT / 'README.md').read_text(encoding='utf-8')
CONFIG, _, PYTORCH = blocks('README.md', 'python')


@pytest.fixture
def economical(tmp_path) -> Path:
    """The config of the page, in a folder with four images in ImageNet's layout."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        folder = tmp_path / 'data' / 'imagenet' / split
        folder.mkdir(parents=True)
        for label in range(4):
            pixels = rng.integers(256, size=(40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f'{label}.JPEG')
        lines = (f'{label}.JPEG {label}\n' for label in range(4))
        (folder.parent / f'{split}.txt').write_text(''.join(lines))
    (tmp_path / 'scale_resnet50.py').write_text(CONFIG)
    return tmp_path / 'scale_resnet50.py'


def test_the_config_trains_and_is_tested(economical, monkeypatch, capsys):
    small = ['model.backbone.base_channels=4', 'model.backbone.stem_channels=4',
             'model.head.in_channels=128', 'train_cfg.max_epochs=1',
             'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
             'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
             'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False',
             'train_dataloader.batch_size=2',
             *(f'{part}_dataloader.dataset.ann_file={part.replace("test", "val")}.txt'
               for part in ('train', 'val', 'test'))]  # fmt: skip
    here = dict(folder=economical.parent)
    run_here(monkeypatch, 'tools/train.py', 'scale_resnet50.py', '--cfg-options', *small, **here)
    checkpoint = 'work_dirs/scale_resnet50/epoch_1.pth'
    run_here(monkeypatch, 'tools/test.py', 'scale_resnet50.py', checkpoint, '--cfg-options', *small,
             **here)  # fmt: skip
    assert 'accuracy/top1' in ''.join(capsys.readouterr())


def test_the_lines_of_plain_pytorch_run():
    names = dict(images=torch.rand(2, 3, 32, 32))
    exec(PYTORCH, names)  # noqa: S102
    assert names['vectors'].shape == (2, 2048)


@pytest.mark.parametrize(
    ('script', 'arguments', 'page'),
    [('first_page', [], 'README.md'), ('stir', ['mnist'], 'docs/results.md'),
     ('stir', ['emoji'], 'docs/results.md')],
)  # fmt: skip
def test_the_table_is_that_of_the_studies(script, arguments, page, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'studies' / 'measurements')
    table = importlib.import_module(script).table(*arguments)
    assert table in (ROOT / page).read_text(encoding='utf-8')
    sys.modules.pop(script)
