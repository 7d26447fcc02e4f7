# Copyright (c) mmscale contributors.
"""End a tool on bad input with one line that names the input, whatever raised."""

import io
import os
import pickle
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LONGEST_LINE = 600
TRUST = '--trust-checkpoint'
# PyTorch puts this text into the message of an error from a worker of a data loader.
WORKER = 'Original Traceback (most recent call last):\n  '
# If this variable has any value, tools end with a traceback.
TRACEBACK_VARIABLE = 'MMSCALE_TRACEBACK'


def one_line(error: BaseException) -> str:
    """Return the message of an exception on one line, with its type if the text may not suffice."""
    held = re.search(r'GLOBAL (\S+)', str(error))
    if isinstance(error, pickle.UnpicklingError) and held:
        return (
            f'it holds {held[1]}, and not weights alone; such a file can run any program when it '
            f'is opened: {TRUST} opens it, if you trust its author'
        )
    if WORKER in str(error):  # the message follows the frames of the worker
        lines = str(error).splitlines()
        frames = [i for i, line in enumerate(lines) if line.startswith('  ')]
        text = ' '.join(lines[frames[-1] + 1 :]).removeprefix('ValueError: ')
    else:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        text = ' '.join(str(text).split())
        if not text or not isinstance(error, ValueError | OSError):
            text = f'{type(error).__name__}: {text}'.removesuffix(': ')
    return text if len(text) <= LONGEST_LINE else f'{text[:LONGEST_LINE]} ...'


@contextmanager
def one_line_errors(folder: str | Path | None = None) -> Iterator[None]:
    """Exit the program with one line for any exception (a context manager or decorator).

    Args:
        folder (str | Path, optional): The folder in which a long run keeps its logs. The traceback
            is written to a file there, because a failure after hours may be more than bad input.
            Without a folder, ``MMSCALE_TRACEBACK=1`` shows the traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a character unknown to the terminal is no error
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        yield
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        where = ''
        if folder is not None:
            # Each process of a distributed run writes its own file.
            path = Path(folder) / f'traceback_{os.environ.get("RANK", "0")}.txt'
            with suppress(OSError):  # the disk may be full
                path.write_text(''.join(traceback.format_exception(error)), encoding='utf-8')
                where = f' (where: {path})'
        elif not isinstance(error, ValueError | OSError):
            where = f' ({TRACEBACK_VARIABLE}=1 shows where)'
        sys.exit(f'error: {one_line(error)}{where}')
