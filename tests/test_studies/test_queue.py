# Copyright (c) mmscale contributors.
import errno
import fcntl
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from optuna.trial import TrialState

from mmscale.studies.queue import claimed, enqueue, open_queue, take


@dataclass(frozen=True)
class Asked:
    key: str
    name: str = 'run'
    seed: int = 0

    @property
    def slug(self) -> str:
        return f'folder_{self.key}'


CELLS = [Asked('c'), Asked('a'), Asked('b')]
KEYS = [cell.key for cell in CELLS]


@pytest.fixture
def queue(tmp_path):
    return open_queue('small', f'sqlite:///{tmp_path / "optuna.db"}')


def keys(queue, *states: TrialState) -> list[str]:
    return [t.user_attrs['cell'] for t in queue.get_trials(states=states or None)]


def test_cells_are_taken_in_their_order_and_each_once(queue, tmp_path):
    assert enqueue(queue, CELLS, tmp_path) == []
    enqueue(queue, CELLS, tmp_path)  # those that wait do not wait twice
    assert [take(queue, KEYS).user_attrs['cell'] for _ in CELLS] == ['c', 'a', 'b']
    assert take(queue, KEYS) is None


def test_two_workers_share_a_file(queue, tmp_path):
    other = open_queue('small', f'sqlite:///{tmp_path / "optuna.db"}')
    enqueue(queue, CELLS, tmp_path)
    assert [take(q, KEYS).user_attrs['cell'] for q in (queue, other, queue)] == ['c', 'a', 'b']
    assert take(other, KEYS) is None


def test_who_runs_some_cells_alone_leaves_those_that_others_wait_for(queue, tmp_path):
    """As a study does that is started for some of its runs where another was killed, or runs."""
    enqueue(queue, CELLS, tmp_path)
    assert take(queue, ['c']).user_attrs['cell'] == 'c'  # is running
    assert enqueue(queue, CELLS[2:], tmp_path) == []
    assert keys(queue, TrialState.RUNNING) == ['c']
    found = take(queue, ['b'])
    assert found.user_attrs == dict(cell='b', run='run', seed=0)
    assert take(queue, ['b']) is None
    assert keys(queue, TrialState.WAITING) == ['a']
    assert take(queue, KEYS).user_attrs == dict(cell='a', run='run', seed=0)
    assert take(queue, KEYS) is None


def test_what_runs_is_left_alone_as_long_as_its_lock_is_held(queue, tmp_path):
    enqueue(queue, CELLS[:1], tmp_path)
    take(queue, KEYS)
    with claimed(tmp_path / CELLS[0].slug) as lock:
        assert lock is not None
        assert enqueue(queue, CELLS[:1], tmp_path) == CELLS[:1]
        assert keys(queue, TrialState.WAITING) == []
    assert enqueue(queue, CELLS[:1], tmp_path) == []
    assert keys(queue, TrialState.WAITING) == keys(queue, TrialState.FAIL) == ['c']


def test_what_was_interrupted_goes_on_before_the_others_start(queue, tmp_path):
    other = Asked('other')  # of a study that does not know these cells
    enqueue(queue, [*CELLS, other], tmp_path)
    assert [take(queue, KEYS).user_attrs['cell'] for _ in CELLS[:2]] == ['c', 'a']  # then killed
    assert enqueue(queue, CELLS, tmp_path) == []
    assert [take(queue, KEYS).user_attrs['cell'] for _ in CELLS] == ['c', 'a', 'b']
    assert take(queue, KEYS) is None
    assert keys(queue, TrialState.WAITING) == ['other']


def test_what_was_interrupted_waits_behind_the_others_while_some_run(queue, tmp_path):
    enqueue(queue, CELLS, tmp_path)
    assert [take(queue, KEYS).user_attrs['cell'] for _ in CELLS[:2]] == ['c', 'a']
    with claimed(tmp_path / CELLS[1].slug):
        assert enqueue(queue, CELLS, tmp_path) == [CELLS[1]]
        assert [take(queue, KEYS).user_attrs['cell'] for _ in 'bc'] == ['b', 'c']
        assert take(queue, KEYS) is None


def test_a_folder_is_claimed_once_and_by_what_was_started_until_that_ends(tmp_path):
    folder = tmp_path / 'cell'
    with claimed(folder) as lock:
        with claimed(folder) as second:
            assert second is None
        child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE,
                                 pass_fds=(lock,))  # fmt: skip
    with claimed(folder) as lock:
        assert lock is None  # this process has let go, the child has not
    child.kill()
    child.wait()
    time.sleep(0.1)
    with claimed(folder) as lock:
        assert lock is not None


def test_a_folder_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', refuse)
    with pytest.raises(ValueError, match='--work-dir: .*cell cannot be locked'):
        claimed(tmp_path / 'cell').__enter__()


def test_a_storage_that_cannot_be_used_is_named():
    with pytest.raises(ValueError, match='--storage: sqlite:////none/at/all.db cannot be used'):
        open_queue('small', 'sqlite:////none/at/all.db')
