# Copyright (c) mmscale contributors.
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OneCycleLR, OneCycleParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner

from mmscale.engine import schedules
from mmscale.registry import is_kind

from .test_launch import make_cfg


def test_one_cycle_peak_scales_with_batch_size_and_processes(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '8')
    cfg = make_cfg()
    cfg.launcher = 'pytorch'
    schedules.scale_one_cycle_peak(cfg)
    assert cfg.param_scheduler.eta_max == 0.01  # not asked for
    cfg.auto_scale_lr.enable = True
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
        cfg.auto_scale_lr.enable = True
        schedules.scale_one_cycle_peak(cfg)
        peaks = [
            schedule['eta_max']
            for _, schedule in schedules.schedules(cfg.param_scheduler)
            if is_kind(schedule['type'], OneCycleParamScheduler, PARAM_SCHEDULERS)
        ]
        assert peaks == [pytest.approx(0.01 * 32 / 128), 0.9][: len(peaks)]


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode):
        return dict(loss=self.linear(inputs).square().mean()) if mode == 'loss' else [inputs]

    def data_preprocessor(self, data, training=False):
        return dict(inputs=torch.stack(data))


def train(work_dir, schedule, batch_size=2, **kwargs) -> Runner:
    """Trains for 3 epochs, of 4 iterations if not of larger batches."""
    loader = dict(
        batch_size=batch_size,
        dataset=[torch.ones(1)] * 8,
        sampler=dict(type='DefaultSampler', shuffle=True),
    )
    runner = Runner(
        Line(), str(work_dir), train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), param_scheduler=schedule,
        experiment_name=f'{work_dir.name}_{len(list(work_dir.glob("*")))}', **kwargs,
    )  # fmt: skip
    runner.register_hook(schedules.ScheduleCheckHook())
    runner.train()
    return runner


def one_cycle(steps, **kwargs) -> dict:
    return dict(type='OneCycleLR', eta_max=0.1, total_steps=steps, **kwargs)


def cosine(**kwargs) -> dict:
    return dict(type='mmengine.CosineAnnealingLR', T_max=2, **kwargs)


@pytest.mark.parametrize(
    ('schedule', 'warned'),
    [
        (one_cycle(3), False),
        (one_cycle(12, by_epoch=False), False),
        (one_cycle(4), True),
        (one_cycle(3, convert_to_iter_based=True), False),
        (cosine(end=3), False),
        (cosine(end=2), True),
        (dict(type='PolyLR', end=11, by_epoch=False), True),
        (dict(type='MultiStepLR', milestones=[1]), False),
        (dict(type='LinearLR', end=1), False),
        ([cosine(end=2), dict(type='ConstantLR', begin=2, end=3)], False),
    ],
)
def test_schedules_and_training_end_together(schedule, warned, tmp_path):
    train(tmp_path, schedule)
    (log,) = tmp_path.glob('*/*.log')
    assert ('ends at iteration' in log.read_text()) == warned


@pytest.mark.parametrize(
    'schedule', [one_cycle(2), {**one_cycle(11, by_epoch=False), 'type': OneCycleLR}]
)
def test_a_cycle_that_ends_before_the_training_is_refused_before_it(schedule, tmp_path):
    with pytest.raises(ValueError, match='OneCycleLR ends at iteration .*, the training at 12: '):
        train(tmp_path, schedule)
    assert not list(tmp_path.glob('*.pth'))


def test_a_cycle_resumed_with_more_iterations_an_epoch_is_refused(tmp_path):
    """As by one process of several: the cycle is that of the checkpoint, which they made."""
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    cycle = one_cycle(10, convert_to_iter_based=True)
    train(tmp_path, cycle, default_hooks=hooks, batch_size=4)
    with pytest.raises(ValueError, match='ends at iteration 6, the training at 12: .*resume a'):
        train(tmp_path, cycle, resume=True, load_from=str(tmp_path / 'epoch_1.pth'))
