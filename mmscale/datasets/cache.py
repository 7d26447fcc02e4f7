# Copyright (c) mmscale contributors.
"""Make arrays once and keep them in a file."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import mmengine.dist as dist
import numpy as np
from mmengine.logging import print_log

from .scratch import put, scratch_folder

Arrays = dict[str, np.ndarray]

_DIGESTS = 'digests'


def load_or_build(
    path: Path, build: Callable[[], Arrays], published: dict[str, str] | None = None
) -> Arrays:
    """Read arrays from ``path``, or build them and write them to ``path``.

    Of several processes, the main process does so before the others read the file. A file is
    reported and built anew if it cannot be read, or if its contents differ from the digests in the
    file or from the published digests. Several programs may do this at once, because a file appears
    under its name only when it is complete. If the folder cannot be written, the arrays are built
    in memory each time, with a warning.

    Args:
        path (Path): An ``.npz`` file.
        build (Callable): Returns the arrays by name.
        published (dict[str, str], optional): The required SHA-256 of arrays, by name.

    Raises:
        RuntimeError: If the built arrays do not have the published digests.
    """
    if not dist.is_main_process():
        dist.barrier()
        return _load_or_build(path, build, published or {})
    try:
        return _load_or_build(path, build, published or {})
    finally:
        # Also after an error: the other processes then raise the same error.
        dist.barrier()


def _load_or_build(path: Path, build: Callable[[], Arrays], published: dict[str, str]) -> Arrays:
    arrays = _load(path, published)
    if arrays is not None:
        return arrays
    if dist.is_main_process():
        print(f'Making {path}')
    arrays = build()
    digests = {name: digest(array) for name, array in arrays.items()}
    wrong = _differing(published, digests)
    if wrong:
        import PIL
        import sklearn

        raise RuntimeError(
            f'The {wrong} made for {path} differ from the published ones. Pillow '
            f'{PIL.__version__}, NumPy {np.__version__} and scikit-learn {sklearn.__version__} do '
            'not reproduce them; another version does.'
        )
    try:
        _save(path, arrays, digests)
    except OSError as error:
        _warn(
            f'Cannot keep {path} ({error}): it will be made anew each time. Give a writable '
            'folder as `cache_dir`.'
        )
    return arrays


def digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def _load(path: Path, published: dict[str, str]) -> Arrays | None:
    """Return the arrays of an intact file; None if there is no file, or it is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        expected = {**json.loads(str(arrays.pop(_DIGESTS))), **published}
        wrong = _differing(expected, {name: digest(array) for name, array in arrays.items()})
        fault = f'its {wrong} do not have the digest that they should' if wrong else None
    # A damaged zip archive fails in many ways: BadZipFile, EOFError, zlib.error, KeyError, ...
    except Exception as error:
        fault = f'{type(error).__name__}: {error}'
    if fault is None:
        return arrays
    _warn(f'{path} is damaged ({fault}) and will be made anew.')
    return None


def _save(path: Path, arrays: Arrays, digests: dict[str, str]) -> None:
    with scratch_folder(path.parent) as scratch:
        # The digests are in the same file, because two files cannot be replaced in one step.
        with open(scratch / path.name, 'wb') as file:
            np.savez(file, **arrays, **{_DIGESTS: np.array(json.dumps(digests))})
            file.flush()
            os.fsync(file.fileno())
        put(scratch / path.name, path)


def _differing(expected: dict[str, str], actual: dict[str, str]) -> str:
    """Return the names whose digests differ, for a message; '' if none."""
    return ' and '.join(name for name in expected if actual.get(name) != expected[name])


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
