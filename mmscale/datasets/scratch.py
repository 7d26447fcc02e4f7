# Copyright (c) mmscale contributors.
"""Write files and folders that appear under their names only when they are complete."""

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
    """Make a temporary folder of this process in ``folder``, and ``folder`` if it does not exist.

    :func:`put` moves results out of it by one ``os.replace``: they appear as a whole or not at all,
    for any number of processes and after any kill. The temporary folder is removed at the end, or
    after a kill by the next process.

    If the file system has locks, only one process at a time is within, and the next process finds
    the results of the first. Do not nest two for one folder: the inner would wait for ever.

    Raises:
        OSError: If ``folder`` cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    with suppress(OSError, NotImplementedError):
        # Some network file systems have no locks. Files are then complete, but made twice.
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f'Waiting for another process that writes to {folder}')
            lock.acquire()
    try:
        if lock.is_locked:
            # No other process is within, so these folders are of killed processes.
            for left in folder.glob(f'{_PREFIX}*'):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=_PREFIX) as scratch:
            yield Path(scratch)
    finally:
        lock.release()


def put(source: Path, target: Path) -> None:
    """Move a file or a folder from a scratch folder to its name.

    A file replaces an existing file. For an existing folder FileExistsError is raised.
    """
    if not source.is_dir():
        # Temporary files can be unreadable for other users, but data folders are often shared.
        source.chmod(0o644)
    try:
        # This fails for an existing folder, unless the folder is empty.
        os.replace(source, target)
    except OSError as error:
        if source.is_dir() and target.exists():
            raise FileExistsError(f'{target} exists already') from error
        raise
