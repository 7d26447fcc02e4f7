# Copyright (c) mmscale contributors.
"""Every tool takes a config in pure Python, whose types are classes."""

import mmcv
import numpy as np
import pytest

from .conftest import logged_scalars, run_here, swap

CONFIG = """
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.optim import OneCycleLR, OptimWrapper
from mmpretrain.datasets import PackInputs
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import ClsDataPreprocessor, ImageClassifier, LinearClsHead
from torch.optim import Adam

from mmscale.datasets import ScaleDigits
from mmscale.models import GaussianPyramidLift, ModulatedDeformScaleConv, ScaleBN
from mmscale.models import ScaleGlobalPooling, ScaleResNet_CIFAR

default_scope = 'mmpretrain'
model = dict(
    type=ImageClassifier,
    backbone=dict(
        type=ScaleResNet_CIFAR, depth=18, in_channels=1, stem_channels=8, base_channels=8,
        scale_space=dict(base=2, num_scales=2), lift=dict(type=GaussianPyramidLift),
        deform=dict(type=ModulatedDeformScaleConv, stages=(False, False, False, True)),
        norm_cfg=dict(type=ScaleBN)),
    neck=dict(type=ScaleGlobalPooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=64),
    data_preprocessor=dict(type=ClsDataPreprocessor, num_classes=10, mean=[27.5], std=[63.0]))
train_dataloader = dict(
    batch_size=10, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(type=ScaleDigits, split='train', indices=20, pipeline=[dict(type=PackInputs)]))
test_dataloader = val_dataloader = dict(
    batch_size=10, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=ScaleDigits, split='test', indices=20, pipeline=[dict(type=PackInputs)]))
test_evaluator = val_evaluator = dict(type=Accuracy)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=Adam, lr=0.01))
param_scheduler = dict(type=OneCycleLR, eta_max=0.01, total_steps=5, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = test_cfg = dict()
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
auto_scale_lr = dict(base_batch_size=40)
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'pure.py'
    path.write_text(CONFIG)
    return path


def test_training_and_testing(config, tmp_path, monkeypatch):
    work_dir = tmp_path / 'work'
    run_here(monkeypatch, 'tools/train.py', config, '--auto-scale-lr', '--work-dir', work_dir)
    rates = [line['lr'] for line in logged_scalars(work_dir) if 'lr' in line]
    # One cycle starts at a 25th of its peak, here of a quarter of what the config says.
    assert rates[0] == pytest.approx(0.01 / 4 / 25)
    checkpoint = work_dir / 'epoch_1.pth'
    run_here(monkeypatch, 'tools/test.py', config, checkpoint, '--tta', '--work-dir', work_dir,
             '--out', tmp_path)  # fmt: skip
    assert 'accuracy/top1' in (tmp_path / 'metrics.json').read_text()


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['tools/equivariance.py', 'CONFIG', '--num-images', 2, '--factors', 2, '--out', 'OUT'],
         'error on 2 images of 32x32, the first test images of ScaleDigits'),
        (['tools/visualize_scale_space.py', 'IMAGE', 'CONFIG', '--out', 'OUT'], 'figure: '),
        (['tools/analysis_tools/get_flops.py', 'CONFIG'], '| DSS v2, anti-aliased + DCNv2 |'),
    ],
)  # fmt: skip
def test_looking_at_it(words, expected, config, tmp_path, monkeypatch, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    mmcv.imwrite(pixels, str(tmp_path / 'image.png'))
    places = dict(CONFIG=config, IMAGE=tmp_path / 'image.png', OUT=tmp_path / 'out')
    run_here(monkeypatch, *swap(words, **places))
    assert expected in capsys.readouterr().out
