# Copyright (c) mmscale contributors.
"""``mim train mmpretrain CONFIG`` and ``mim run mmpretrain get_flops CONFIG``.

MIM looks up a script in MMPretrain's ``.mim/tools`` and runs it; so does this, without MIM.
"""

import re
from pathlib import Path

import mmpretrain
import pytest
import torch

from .conftest import ROOT, run_here

TOOLS = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
CONFIGS = ROOT / 'configs'
DIGITS = (
    'dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py',
    'aa_pyramid/scaleresnet18-economical-up1-w8_1xb50-10e_scaledigits.py',
)
CONVNETS = (
    'dss/scaleconvnet-s3_1xb128-20e_scalemnist.py',
    'aa_pyramid/scaleconvnet-economical-up1_1xb128-20e_scalemnist.py',
)


def small(base: str, model: str, folder: Path) -> Path:
    """A config as a user writes it, with one of ours as its base."""
    path = folder / 'small.py'
    path.write_text(f"_base_ = '{CONFIGS / base}'\nmodel = dict({model})\n")
    return path


@pytest.mark.parametrize('base', DIGITS)
def test_mim_train(base, tmp_path, monkeypatch):
    model = 'backbone=dict(stem_channels=4, base_channels=4), head=dict(in_channels=32)'
    options = (
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'train_dataloader.dataset.indices=100',
        'val_dataloader.dataset.indices=20',
    )
    run_here(monkeypatch, TOOLS / 'train.py', small(base, model, tmp_path),
             '--work-dir', tmp_path / 'work', '--cfg-options', *options)  # fmt: skip
    checkpoint = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 2
    assert checkpoint['state_dict']['backbone.conv1.weight'].shape[:2] == (4, 1)


@pytest.mark.parametrize('base', CONVNETS)
def test_mim_run_get_flops(base, tmp_path, monkeypatch, capsys):
    """The script gives the model images of three channels, whatever it takes."""
    model = 'backbone=dict(in_channels=3, channels=(4, 6, 8)), head=dict(in_channels=32)'
    path = small(base, model, tmp_path)
    run_here(monkeypatch, TOOLS / 'analysis_tools' / 'get_flops.py', path, '--shape', 28)
    printed = capsys.readouterr().out
    parameters = sum(p.numel() for p in mmpretrain.get_model(str(path)).parameters())
    (found,) = re.findall(r'^Params: ([\d.]+)K$', printed, re.MULTILINE)
    assert float(found) == pytest.approx(parameters / 1000, abs=1e-3)
    assert 'Input shape: (3, 28, 28)' in printed
