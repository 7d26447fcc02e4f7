# Copyright (c) mmscale contributors.
"""``mim train mmpretrain CONFIG``.

MIM looks up a script in MMPretrain's ``.mim/tools`` and runs it; so does this, without MIM.
"""

from pathlib import Path

import mmpretrain
import torch

from .conftest import ROOT, run_here

TOOLS = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
DIGITS = 'dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'


def test_mim_train(tmp_path, monkeypatch):
    """Of a config as a user writes it, with one of ours as its base."""
    small = 'backbone=dict(stem_channels=4, base_channels=4), head=dict(in_channels=32)'
    path = tmp_path / 'small.py'
    path.write_text(f"_base_ = '{ROOT}/configs/{DIGITS}'\nmodel = dict({small})\n")
    options = (
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'train_dataloader.dataset.indices=100',
        'val_dataloader.dataset.indices=20',
    )
    words = (TOOLS / 'train.py', path, '--work-dir', tmp_path / 'work', '--cfg-options', *options)
    run_here(monkeypatch, *words)
    checkpoint = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 2
    assert checkpoint['state_dict']['backbone.conv1.weight'].shape[:2] == (4, 1)
