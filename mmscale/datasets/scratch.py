# Copyright (c) mmscale contributors.
"""Files and folders that appear under their names only when they are complete."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX, _LOCK = '.mmscale-', '.mmscale.lock'


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder of this process' own in ``folder``, which is made where need be.

    What is made in it is put under its name by one ``os.replace``, so that it is there as a whole
    or not at all, however many processes do so and whatever is killed when. It is removed in the
    end; after a kill, by whoever comes next.

    One process at a time is within, as far as the file system has locks: the next one then finds
    what the first has made. Not to be nested for one folder, since it would wait for itself.

    Yields:
        Path: The empty folder.

    Raises:
        OSError: If ``folder`` cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    with suppress(OSError, NotImplementedError):
        # Some network file systems cannot. The files are whole without it, only made twice.
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f'Waiting for another process that writes to {folder}')
            lock.acquire()
    try:
        if lock.is_locked:
            # Nobody else is within, so these are of processes that were killed.
            for left in folder.glob(f'{_PREFIX}*'):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=_PREFIX) as scratch:
            yield Path(scratch)
    finally:
        lock.release()


def put(source: Path, target: Path) -> None:
    """Put a file or a folder of a scratch folder under its name.

    A file takes the place of one that is there; a folder does not, and FileExistsError is raised.
    """
    if not source.is_dir():
        # Some ways to write a temporary file make it readable by nobody else, but a data folder
        # is often shared.
        source.chmod(0o644)
    try:
        # Fails for a folder that is there, unless it is empty.
        os.replace(source, target)
    except OSError as error:
        if source.is_dir() and target.exists():
            raise FileExistsError(f'{target} exists already') from error
        raise
