# Copyright (c) mmscale contributors.
"""Schedules of the learning rate: what MMEngine scales and checks too late, or not at all."""

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import (
    CosineAnnealingParamScheduler,
    OneCycleParamScheduler,
    PolyParamScheduler,
)
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner

from mmscale.registry import is_kind

from .launch import world_size


def schedules(part, key: str = 'param_scheduler') -> Iterator[tuple[str, dict]]:
    """The schedules of a config, which may have some for each of its optimizers, and their keys."""
    if isinstance(part, dict) and 'type' in part:
        yield key, part
    elif part:
        items = part.items() if isinstance(part, dict) else enumerate(part)
        for name, value in items:
            yield from schedules(value, f'{key}.{name}')


def scale_one_cycle_peak(cfg: Config):
    """Scales the peak of a one-cycle schedule where ``auto_scale_lr`` is enabled.

    MMEngine scales only the optimizer's rate, which such a schedule overrides by its ``eta_max``.
    """
    auto_scale_lr = cfg.get('auto_scale_lr') or {}
    base = auto_scale_lr.get('base_batch_size')
    if base is None or not auto_scale_lr.get('enable', False):
        return
    ratio = world_size(cfg.launcher) * cfg.train_dataloader.batch_size / base
    for _, schedule in schedules(cfg.get('param_scheduler')):
        # OneCycleLR has no param_name: the learning rate is meant.
        of_rate = schedule.get('param_name', 'lr') == 'lr'
        scope = cfg.get('default_scope')
        if of_rate and is_kind(schedule['type'], OneCycleParamScheduler, PARAM_SCHEDULERS, scope):
            schedule['eta_max'] *= ratio


class ScheduleCheckHook(Hook):
    """Checks, before the first iteration, that schedules and training end together.

    A cycle that is over ends the training by an error of MMEngine, in the middle of it. Other
    schedules stay at their last rate, and one that is not over leaves the rate high: that is for
    the user to know. Schedules that are resumed are the checkpoint's, whatever the config says.

    Raises:
        ValueError: If a one-cycle schedule ends before the training.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        loop, parts = runner.train_loop, runner.param_schedulers or []
        parts = parts.values() if isinstance(parts, dict) else [parts]

        def iterations(schedule, end: float) -> float:
            return end * (len(loop.dataloader) if schedule.by_epoch else 1)

        def said(schedule, end: float) -> str:
            return (f'param_scheduler: the {type(schedule).__name__} ends at iteration {end}, the '
                    f'training at {loop.max_iters}')  # fmt: skip

        # A cycle is over after its steps, or at the end that the runner has given all schedules.
        ends = {one: iterations(one, one.end) for part in parts for one in part}
        last = max(ends.values(), default=0)
        for schedule, end in ends.items():
            cycle = end
            if isinstance(schedule, OneCycleParamScheduler):
                cycle = iterations(schedule, schedule.begin + schedule.total_steps)
                if min(end, cycle) < loop.max_iters:
                    raise ValueError(
                        f'{said(schedule, min(end, cycle))}: make total_steps as long; a '
                        'checkpoint is resumed with the length, batch size and number of processes '
                        'that it was begun with, or begun anew from, with load_from'
                    )
            anneals = isinstance(schedule, CosineAnnealingParamScheduler | PolyParamScheduler)
            if cycle > end or (anneals and end == last < loop.max_iters):
                runner.logger.warning(f'{said(schedule, cycle)}.')
