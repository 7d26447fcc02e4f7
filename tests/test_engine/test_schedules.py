# Copyright (c) mmscale contributors.
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.optim import OneCycleLR, OneCycleParamScheduler

from mmscale.engine import launch, schedules

from .test_launch import make_cfg


def test_one_cycle_peak_scales_with_batch_size_and_processes(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '8')
    cfg = make_cfg()
    cfg.launcher = 'pytorch'
    schedules.scale_one_cycle_peak(cfg)
    assert cfg.param_scheduler.eta_max == 0.01  # not asked for
    launch.enable_auto_scale_lr(cfg)
    schedules.scale_one_cycle_peak(cfg)
    assert cfg.param_scheduler.eta_max == pytest.approx(0.01 * 8 * 32 / 128)


@pytest.mark.parametrize('kind', ['OneCycleLR', 'mmengine.OneCycleLR', OneCycleLR])
def test_one_cycle_peak_is_scaled_however_its_type_is_written(kind):
    """Of one optimizer or several; what another parameter than the rate follows stays."""
    momentum = dict(type=OneCycleParamScheduler, param_name='momentum', eta_max=0.9)
    for param_scheduler in (
        dict(type=kind, eta_max=0.01),
        [dict(type='LinearLR'), dict(type=kind, eta_max=0.01)],
        dict(a=[dict(type=kind, eta_max=0.01), momentum], b=dict(type='LinearLR')),
    ):
        cfg = make_cfg()
        cfg.param_scheduler = param_scheduler
        launch.enable_auto_scale_lr(cfg)
        schedules.scale_one_cycle_peak(cfg)
        peaks = [
            schedule['eta_max']
            for _, schedule in schedules.schedules(cfg.param_scheduler)
            if schedules.is_one(cfg, schedule, OneCycleParamScheduler)
        ]
        assert peaks == [pytest.approx(0.01 * 32 / 128), 0.9][: len(peaks)]


class Loop:
    """Of 3 epochs of 4 iterations."""

    dataloader, max_epochs, max_iters = range(4), 3, 12


@pytest.mark.parametrize(
    ('schedule', 'warned', 'refused'),
    [
        (dict(type='OneCycleLR', total_steps=3), False, False),
        (dict(type='OneCycleLR', total_steps=2), False, True),
        (dict(type='OneCycleLR', total_steps=12, by_epoch=False), False, False),
        (dict(type=OneCycleLR, total_steps=11, by_epoch=False), False, True),
        (dict(type='OneCycleLR', total_steps=4), True, False),
        (dict(type='CosineAnnealingLR', end=3), False, False),
        (dict(type='mmengine.CosineAnnealingLR', end=2), True, False),
        (dict(type='PolyLR', end=11, by_epoch=False), True, False),
        (dict(type='MultiStepLR', milestones=[1]), False, False),
        (dict(type='LinearLR', end=1), False, False),
        ([dict(type='CosineAnnealingLR', end=2), dict(type='ConstantLR', begin=2, end=3)],
         False, False),
        (dict(a=[dict(type='OneCycleLR', total_steps=2)], b=[]), False, True),
    ],
)  # fmt: skip
def test_schedules_and_training_end_together(schedule, warned, refused):
    warnings = []
    logger = SimpleNamespace(warning=warnings.append)
    runner = SimpleNamespace(train_loop=Loop(), logger=logger)
    cfg = Config(dict(param_scheduler=schedule))
    if refused:
        with pytest.raises(ValueError, match='total_steps: the cycle of .* ends before the train'):
            schedules.check_schedules(cfg, runner)
    else:
        schedules.check_schedules(cfg, runner)
    assert len(warnings) == warned


@pytest.mark.parametrize(('epochs', 'end'), [(60, 2), (15, 1), (10, 1), (2, 1)])
def test_a_shortened_warm_up_keeps_a_whole_step(epochs, end):
    warm_up = [dict(type='LinearLR', end=1), dict(type='CosineAnnealingLR', begin=1, end=30)]
    cfg = Config(dict(train_cfg=dict(max_epochs=30), param_scheduler=warm_up))
    found = schedules.stretched(cfg, epochs)
    assert found['param_scheduler.0.end'] == found['param_scheduler.1.begin'] == end
    assert found['param_scheduler.1.end'] == epochs
    with pytest.raises(ValueError, match='1 are too few for param_scheduler.1.end.* 30 of 30'):
        schedules.stretched(cfg, 1)
