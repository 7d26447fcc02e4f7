# Copyright (c) mmscale contributors.
"""How a tool ends on bad input: with one line that names it, whatever raised."""

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
# In what PyTorch makes of an error in a worker process of a data loader.
WORKER = 'Original Traceback (most recent call last):\n  '
# Set to anything, it has tools end with a traceback.
TRACEBACK_VARIABLE = 'MMSCALE_TRACEBACK'


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; the type too where the text alone may say little."""
    held = re.search(r'GLOBAL (\S+)', str(error))
    if isinstance(error, pickle.UnpicklingError) and held:
        return (
            f'it holds {held[1]}, and not weights alone; such a file can run any program when it '
            f'is opened: {TRUST} opens it, if you trust whoever made it'
        )
    if WORKER in str(error):  # behind the frames of the process there
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
    """A context, or decorator, that leaves the program with one line for any exception.

    Args:
        folder (str | Path, optional): Where a long run keeps its logs. The traceback is written to
            a file there, for what fails after hours may be more than bad input. Elsewhere
            ``MMSCALE_TRACEBACK=1`` shows it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # what the terminal cannot show ends no program
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        yield
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        where = ''
        if folder is not None:
            # Each process of a distributed run has one of its own.
            path = Path(folder) / f'traceback_{os.environ.get("RANK", "0")}.txt'
            with suppress(OSError):  # of a full disk
                path.write_text(''.join(traceback.format_exception(error)), encoding='utf-8')
                where = f' (where: {path})'
        elif not isinstance(error, ValueError | OSError):
            where = f' ({TRACEBACK_VARIABLE}=1 shows where)'
        sys.exit(f'error: {one_line(error)}{where}')
