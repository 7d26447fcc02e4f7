# Copyright (c) mmscale contributors.
"""Tools as processes of their own, and how far their trainings are."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock

# glibc otherwise gives large blocks back and pays for each of their pages anew.
ALLOCATOR = dict(
    MALLOC_MMAP_MAX_='0', MALLOC_TRIM_THRESHOLD_='100000000000', MALLOC_TOP_PAD_='268435456'
)
LOSS = re.compile(r'Epoch\(train\).* loss: (\S+)')
EPOCH = re.compile(r'Saving checkpoint at (\d+) epochs')
LINES_SHOWN = 20
BAR = 24


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def gpu_of(worker: int, count: int, visible: str | None) -> str:
    """``CUDA_VISIBLE_DEVICES`` of a worker, one of those that this process may use itself.

    Args:
        worker (int): Its number, from 0.
        count (int): GPUs that PyTorch finds, at least one.
        visible (str | None): The variable of this process: numbers or names, the first ``count``
            of which are there.
    """
    names = visible.split(',') if visible else [str(i) for i in range(count)]
    return names[worker % count].strip()


def run_logged(
    command: list[str],
    cwd: Path,
    env: dict,
    log: Path,
    on_line: Callable[[str], None] = lambda line: None,
    kept_open: tuple = (),
) -> None:
    """Runs a command, its output in a log.

    Args:
        command (list[str]): Program and arguments.
        cwd (Path): Where it runs.
        env (dict): What is added to the environment.
        log (Path): Appended to.
        on_line (Callable): Is called with each line of the output.
        kept_open (tuple): File descriptors that the process inherits.

    Raises:
        RuntimeError: If it fails; with the end of its output.
    """
    env = {**ALLOCATOR, **os.environ, **env}
    with (
        log.open('a') as file,
        subprocess.Popen(
            command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors='replace', pass_fds=kept_open,
        ) as process,
    ):  # fmt: skip
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                on_line(line)
        except BaseException:  # an interrupt: what was started must not go on alone
            process.kill()
            raise
    if process.returncode:
        end = ''.join(log.read_text().splitlines(keepends=True)[-LINES_SHOWN:])
        words = ' '.join(command[1:4])
        raise RuntimeError(f'{words} failed ({process.returncode}); the end of {log}:\n{end}')


def epochs_in(on_epoch: Callable[[int, str], None]) -> Callable[[str], None]:
    """A function of the lines of ``tools/train.py`` that tells number and last loss of each epoch.

    Args:
        on_epoch (Callable): Is called at the end of each epoch.
    """
    loss = '-'

    def on_line(line: str) -> None:
        nonlocal loss
        found = LOSS.search(line)
        loss = found[1] if found else loss
        finished = EPOCH.search(line)
        if finished:
            on_epoch(int(finished[1]), loss)

    return on_line


class Progress:
    """A bar over all that is to be done, a line for each step of it, and the time left.

    Args:
        total (float): Of what is to be done, in any unit.
        unit (str): Its name; seconds of one process are shown as the time left in place of a count.
        at_once (int): Processes that share the work.
    """

    def __init__(self, total: float, unit: str = '', at_once: int = 1):
        self.total, self.unit, self.at_once = total, unit, at_once
        self.done, self.lock, self.start = 0.0, Lock(), time.monotonic()

    def advance(self, amount: float, text: str = '') -> None:
        """Adds what was done, and prints a line with ``text`` if there is any."""
        with self.lock:
            self.done = min(self.done + amount, self.total)
            if text:
                share = self.done / self.total if self.total else 1.0
                bar = '#' * int(BAR * share)
                print(f'[{bar:-<{BAR}}] {self._where()}  {text}', flush=True)

    def _where(self) -> str:
        if self.unit:
            return f'{self.done:>3.0f}/{self.total:.0f} {self.unit}'
        elapsed = time.monotonic() - self.start
        # What was planned counts at first, what has been seen later.
        planned = (self.total - self.done) / self.at_once
        seen = elapsed * (self.total - self.done) / self.done if self.done else planned
        share = self.done / self.total if self.total else 1.0
        return f'{in_words(share * seen + (1 - share) * planned)} left'


def in_words(seconds: float) -> str:
    """1:05:00, or 5:00."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
