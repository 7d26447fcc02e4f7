# Copyright (c) mmscale contributors.
"""Files and folders that appear under their names only when they are complete."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_PREFIX = '.mmscale-'


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
    handle = _lock(folder)
    try:
        if handle is not None:
            # Nobody else is within, so these are of processes that were killed.
            for left in folder.glob(f'{_PREFIX}*'):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=_PREFIX) as scratch:
            yield Path(scratch)
    finally:
        if handle is not None:
            os.close(handle)


def put(source: Path, target: Path) -> None:
    """Put a file or a folder of a scratch folder under its name.

    A file takes the place of one that is there; a folder does not, and FileExistsError is raised.
    """
    if not source.is_dir():
        # Some ways to write a temporary file make it readable by nobody else, but a data folder
        # is often shared.
        source.chmod(0o644)
        os.replace(source, target)
        return
    try:
        # Fails for a folder that is there, unless it is empty.
        os.replace(source, target)
    except OSError as error:
        if target.exists():
            raise FileExistsError(f'{target} exists already') from error
        raise


def _lock(folder: Path) -> int | None:
    """Wait until no other process holds the folder; None where folders have no locks.

    The lock is on the folder itself, so that there is no file of it to stay behind, and ends with
    the process.
    """
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'Waiting for another process that writes to {folder}')
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        # Some network file systems cannot. The files are whole without it too, only made twice.
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle
