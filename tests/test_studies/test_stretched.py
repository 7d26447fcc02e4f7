# Copyright (c) mmscale contributors.
from pathlib import Path

import pytest
from cells import stretched
from mmengine.config import Config

from mmscale.engine.models import load_config

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 'configs/resnet/resnet18-w8_1xb50-10e_scaledigits.py'
DEFORMABLE = 'configs/dcn/resnet18-w7-dcnv1_1xb50-10e_scaledigits.py'


def test_one_cycle_and_two_cosines_are_stretched_alike():
    cycle = stretched(load_config(str(ROOT / DIGITS)), 20)
    assert cycle == {'train_cfg.max_epochs': 20, 'param_scheduler.total_steps': 20}
    cosines = stretched(load_config(str(ROOT / DEFORMABLE)), 20)
    assert cosines == {
        'train_cfg.max_epochs': 20,
        'param_scheduler.0.begin': 0,
        'param_scheduler.0.end': 6,
        'param_scheduler.1.begin': 6,
        'param_scheduler.1.end': 20,
    }


def test_milestones_are_stretched_and_iterations_are_refused():
    step = dict(type='MultiStepLR', milestones=[30, 60], by_epoch=True)
    cfg = Config(dict(train_cfg=dict(max_epochs=90), param_scheduler=step))
    assert stretched(cfg, 30)['param_scheduler.milestones'] == [10, 20]
    cfg.param_scheduler.by_epoch = False
    with pytest.raises(ValueError, match='param_scheduler counts in iterations'):
        stretched(cfg, 30)
    with pytest.raises(ValueError, match='epochs must be an integer from 1, got 0'):
        stretched(cfg, 0)
    with pytest.raises(ValueError, match='not by epochs'):
        stretched(Config(dict(train_cfg=dict(max_iters=9))), 3)


def test_steps_of_which_nothing_would_be_left_are_named():
    step = dict(type='StepLR', step_size=10)
    cfg = Config(dict(train_cfg=dict(max_epochs=30), param_scheduler=step))
    with pytest.raises(ValueError, match='1 are too few for param_scheduler.step_size'):
        stretched(cfg, 1)


@pytest.mark.parametrize(('epochs', 'end'), [(60, 2), (15, 1), (10, 1), (2, 1)])
def test_a_shortened_warm_up_keeps_a_whole_step(epochs, end):
    warm_up = [dict(type='LinearLR', end=1), dict(type='CosineAnnealingLR', begin=1, end=30)]
    cfg = Config(dict(train_cfg=dict(max_epochs=30), param_scheduler=warm_up))
    found = stretched(cfg, epochs)
    assert found['param_scheduler.0.end'] == found['param_scheduler.1.begin'] == end
    assert found['param_scheduler.1.end'] == epochs
    with pytest.raises(ValueError, match='1 are too few for param_scheduler.1.end.* 30 of 30'):
        stretched(cfg, 1)
