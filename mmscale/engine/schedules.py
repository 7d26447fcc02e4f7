# Copyright (c) mmscale contributors.
"""Schedules of the learning rate: what MMEngine scales and checks too late, or not at all."""

from collections.abc import Iterator, Mapping

from mmengine.config import Config
from mmengine.optim import (
    CosineAnnealingParamScheduler,
    OneCycleParamScheduler,
    PolyParamScheduler,
)
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

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


def is_one(cfg: Config, schedule: dict, kind: type) -> bool:
    return is_kind(schedule['type'], kind, PARAM_SCHEDULERS, cfg.get('default_scope'))


def scale_one_cycle_peak(cfg: Config):
    """Scales the peak of a one-cycle schedule where ``auto_scale_lr`` is enabled.

    MMEngine scales only the optimizer's rate, which such a schedule overrides by its ``eta_max``.
    """
    auto_scale_lr = cfg.get('auto_scale_lr') or {}
    if not auto_scale_lr.get('enable', False):
        return
    actual = world_size(cfg.launcher) * cfg.train_dataloader.batch_size
    ratio = actual / auto_scale_lr.base_batch_size
    for _, schedule in schedules(cfg.get('param_scheduler')):
        # OneCycleLR has no param_name: the learning rate is meant.
        of_rate = schedule.get('param_name', 'lr') == 'lr'
        if of_rate and is_one(cfg, schedule, OneCycleParamScheduler):
            schedule['eta_max'] *= ratio


def check_schedules(cfg: Config, runner: Runner):
    """Checks, once the training data are built, that schedules and training end together.

    A cycle that is over ends the training by an error of MMEngine, in the middle of it. Other
    schedules stay at their last rate, and one that is not over leaves the rate high: that is for
    the user to know.

    Raises:
        ValueError: If a one-cycle schedule ends before the training.
    """
    loop = runner.train_loop
    ends = []
    for key, schedule in schedules(cfg.get('param_scheduler')):
        end = _last_iteration(schedule, loop)
        ends.append(end)
        is_cycle = is_one(cfg, schedule, OneCycleParamScheduler)
        if is_cycle and end < loop.max_iters:
            raise ValueError(
                f'{key}.total_steps: the cycle of {schedule["total_steps"]} '
                f'{_unit(schedule)} ends before the training, {_length(loop)}: make them as long'
            )
        if is_cycle and end > loop.max_iters:
            runner.logger.warning(
                f'{key}.total_steps: the training, {_length(loop)}, ends before the cycle of '
                f'{schedule["total_steps"]} {_unit(schedule)} has brought the rate down.'
            )
    for key, schedule in schedules(cfg.get('param_scheduler')):
        anneals = is_one(cfg, schedule, CosineAnnealingParamScheduler | PolyParamScheduler)
        if anneals and _last_iteration(schedule, loop) == max(ends) < loop.max_iters:
            runner.logger.warning(
                f'{key}.end: the schedule ends at {schedule["end"]} {_unit(schedule)}, before the '
                f'training, {_length(loop)}: from there on the rate stays as it is at its end.'
            )


def check_resumed(checkpoint: Mapping, path: str, loop: BaseLoop):
    """Checks that the cycle that a checkpoint has begun lasts as long as the training.

    A resumed schedule is the checkpoint's, whatever the config says.

    Raises:
        ValueError: If it does not.
    """
    # States have no type: a cycle is told by its total_steps.
    for state in _states(checkpoint.get('param_schedulers')):
        if 'total_steps' in state and _last_iteration(state, loop) < loop.max_iters:
            raise ValueError(
                f'checkpoint {path}: its cycle of {state["total_steps"]} {_unit(state)} ends '
                f'before the training, {_length(loop)}, and cannot be made longer: resume with the '
                'length, batch size and number of processes that it was begun with, or begin anew '
                'from its weights, with load_from'
            )


def _states(part) -> Iterator[Mapping]:
    if isinstance(part, Mapping) and 'by_epoch' in part:
        yield part
    elif part:
        for value in part.values() if isinstance(part, Mapping) else part:
            yield from _states(value)


def _last_iteration(schedule: Mapping, loop: BaseLoop) -> float:
    """The iteration after which a schedule, of a config or a checkpoint, changes nothing."""
    iterations = len(loop.dataloader) if schedule.get('by_epoch', True) else 1
    end = schedule.get('end', float('inf'))
    if 'total_steps' in schedule:
        end = min(end, schedule.get('begin', 0) + schedule['total_steps'])
    return end * iterations


def _unit(schedule: Mapping) -> str:
    return 'epochs' if schedule.get('by_epoch', True) else 'iterations'


def _length(loop: BaseLoop) -> str:
    """How long a training is, as its config has it."""
    if isinstance(loop, IterBasedTrainLoop):
        return f'train_cfg.max_iters={loop.max_iters}'
    return f'train_cfg.max_epochs={loop.max_epochs}'


def stretched(cfg: Config, epochs: int) -> dict:
    """Options that make a training by epochs as long as asked for, its schedules in proportion.

    Args:
        cfg (Config): Of a training by epochs.
        epochs (int): Asked for.

    Returns:
        dict: As ``--cfg-options`` takes them.

    Raises:
        ValueError: If the training is not by epochs, a schedule does not count in epochs, or a part
            of one would have less than one.
    """
    before = (cfg.get('train_cfg') or {}).get('max_epochs')
    if type(epochs) is not int or epochs < 1:
        raise ValueError(f'epochs must be an integer from 1, got {epochs!r}')
    if before is None:
        raise ValueError('epochs: the training of this config is not by epochs')
    options = {'train_cfg.max_epochs': epochs}
    for key, schedule in schedules(cfg.get('param_scheduler')):
        if not schedule.get('by_epoch', True):
            raise ValueError(f'epochs: {key} counts in iterations, and cannot be stretched')
        for name in ('begin', 'end', 'T_max', 'total_steps', 'total_iters', 'step_size'):
            if name not in schedule:
                continue
            length = round(schedule[name] * epochs / before)
            if name in ('begin', 'end') and schedule[name] > 0:
                length = max(
                    1, length
                )  # a warm-up keeps a whole step, and what follows begins there
            options[f'{key}.{name}'] = length
            least = {'begin': 0, 'end': options.get(f'{key}.begin', 0) + 1}.get(name, 1)
            if length < least:
                raise ValueError(
                    f'epochs: {epochs} are too few for {key}.{name}, which is '
                    f'{schedule[name]} of {before}'
                )
        if 'milestones' in schedule:
            stones = [round(stone * epochs / before) for stone in schedule['milestones']]
            options[f'{key}.milestones'] = stones
    return options
