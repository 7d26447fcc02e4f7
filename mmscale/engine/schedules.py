# Copyright (c) mmscale contributors.
"""Scale and check schedules of the learning rate before a training."""

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


def schedules(part: dict | list | None, key: str = 'param_scheduler') -> Iterator[tuple[str, dict]]:
    """Yield the schedules of a config with their keys; each optimizer may have its own list."""
    if isinstance(part, dict) and 'type' in part:
        yield key, part
    elif part:
        items = part.items() if isinstance(part, dict) else enumerate(part)
        for name, value in items:
            yield from schedules(value, f'{key}.{name}')


def scale_one_cycle_peak(cfg: Config) -> None:
    """Scale the peak ``eta_max`` of one-cycle schedules if ``auto_scale_lr`` is enabled.

    MMEngine scales only the optimizer's rate, which the peak of a one-cycle schedule overrides.
    """
    auto_scale_lr = cfg.get('auto_scale_lr') or {}
    base = auto_scale_lr.get('base_batch_size')
    if base is None or not auto_scale_lr.get('enable', False):
        return
    ratio = world_size(cfg.launcher) * cfg.train_dataloader.batch_size / base
    for _, schedule in schedules(cfg.get('param_scheduler')):
        # OneCycleLR has no param_name, because it always sets the learning rate.
        of_rate = schedule.get('param_name', 'lr') == 'lr'
        scope = cfg.get('default_scope')
        if of_rate and is_kind(schedule['type'], OneCycleParamScheduler, PARAM_SCHEDULERS, scope):
            schedule['eta_max'] *= ratio


class ScheduleCheckHook(Hook):
    """A hook that checks, before the first iteration, that schedules and training end together.

    After the end of a cycle, MMEngine raises an error in the middle of the training. Other
    schedules keep their last rate, and a schedule longer than the training leaves the rate high:
    the hook warns. A resumed run has the schedules of the checkpoint, not of the config.

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

        # A cycle ends after its steps, or at the end that the runner has set for all schedules.
        ends = {one: iterations(one, one.end) for part in parts for one in part}
        last = max(ends.values(), default=0)
        for schedule, end in ends.items():
            cycle = end
            if isinstance(schedule, OneCycleParamScheduler):
                cycle = iterations(schedule, schedule.begin + schedule.total_steps)
                if min(end, cycle) < loop.max_iters:
                    raise ValueError(
                        f'{said(schedule, min(end, cycle))}: make total_steps as long; resume a '
                        'checkpoint with its own length, batch size and number of processes, or '
                        'begin a new training from it, with load_from'
                    )
            anneals = isinstance(schedule, CosineAnnealingParamScheduler | PolyParamScheduler)
            if cycle > end or (anneals and end == last < loop.max_iters):
                runner.logger.warning(f'{said(schedule, cycle)}.')
