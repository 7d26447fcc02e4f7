# Copyright (c) mmscale contributors.
"""Who runs which cell: Optuna's trials, over processes and machines.

Each cell that is to run is a trial of an Optuna study with its key as ``user_attrs['cell']``.
Trials wait in the order in which cells are to run, and one worker takes each. Whether the worker of
a running trial is alive is told by a lock on the cell's folder, which its tools inherit: it is free
as soon as all of them have ended, however they ended, so that a killed study goes on at once, and
never beside what it has left running.
"""

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState

from .cells import Cell


def open_queue(name: str, storage: str) -> optuna.Study:
    """The Optuna study of that name, made if there is none.

    Raises:
        ValueError: If the storage cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            study_name=name, storage=storage, direction='maximize', load_if_exists=True
        )
    except Exception as error:  # of whichever database it is
        raise ValueError(f'--storage: {storage} cannot be used: {error}') from error


def enqueue(queue: optuna.Study, cells: list[Cell], work_dir: Path) -> list[Cell]:
    """Has cells wait that neither wait nor run; trials whose worker has died have failed.

    What was interrupted waits in its place again, before the cells that come after it, unless some
    of the cells run elsewhere: then behind those that wait.

    Returns:
        list[Cell]: Those that someone else is running.
    """
    known = {cell.key: cell for cell in cells}
    waiting, running, interrupted = set(), set(), False
    for trial in queue.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING)):
        cell = known.get(trial.user_attrs.get('cell'))
        if cell is None:  # of someone else, who runs other cells
            continue
        if trial.state == TrialState.WAITING:
            waiting.add(cell.key)
        elif _is_alive(cell, work_dir):
            running.add(cell.key)
        else:
            queue.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            interrupted = True
    if interrupted and not running:  # Optuna adds at the end: all of them wait anew
        while trial := take(queue, waiting):
            queue.tell(trial, state=TrialState.FAIL)
        waiting.clear()
    for cell in cells:
        if cell.key not in waiting | running:
            _enqueue(queue, dict(cell=cell.key, run=cell.name, seed=cell.seed))
    return [cell for cell in cells if cell.key in running]


def _enqueue(queue: optuna.Study, attributes: dict) -> None:
    queue.enqueue_trial(dict(cell=attributes['cell']), user_attrs=attributes)


def _is_alive(cell: Cell, work_dir: Path) -> bool:
    with claimed(work_dir / cell.slug) as lock:
        return lock is None


def take(queue: optuna.Study, keys: Collection[str]) -> Trial | None:
    """The next trial that waits for one of the cells with these keys, or None.

    What waits before it for others goes to the end of the queue.
    """

    def waits() -> bool:
        trials = queue.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return any(trial.user_attrs.get('cell') in keys for trial in trials)

    while waits():
        trial = queue.ask()
        attributes = trial.user_attrs
        if attributes.get('cell') in keys:
            return trial
        if attributes:  # or else it is a new one, since another worker took the last
            _enqueue(queue, attributes)
        queue.tell(trial, state=TrialState.FAIL)
    return None


@contextmanager
def claimed(folder: Path) -> Iterator[int | None]:
    """A file descriptor that holds the lock of a cell's folder, or None if another has it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / 'lock', os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        except OSError as error:  # some file systems of clusters have no locks
            raise ValueError(f'--work-dir: {folder} cannot be locked: {error}') from error
        else:
            yield descriptor
    finally:
        os.close(descriptor)
