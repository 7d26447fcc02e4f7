# Copyright (c) mmscale contributors.
"""What studies gave: ``studies/results/<study>.json`` and ``.csv``.

The ledger of a study has one entry for each cell, as :func:`mmscale.studies.runs.run_cell` makes
them. An entry stays until its cell is run again.
"""

import csv
import fcntl
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmscale.evaluation.report import curves, write_json, write_text

from .cells import Cell

COLUMNS = ('run', 'seed', 'layer', 'part', 'factor', 'value', 'standard_error', 'n')
# Of a run as a whole; their rows have neither layer nor factor.
SINGLE = ('parameters', 'multiply_adds', 'training_seconds')


def read(path: Path) -> list[dict]:
    """The entries of a ledger, none if there is no such file yet.

    Raises:
        ValueError: If the file is no ledger.
    """
    if not path.is_file():
        return []
    try:
        return json.loads(path.read_text())['cells']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is no ledger of a study: {error}') from error


def add(
    path: Path, title: str, entries: Iterable[dict], order: list[tuple[str, int]], lock: Path
) -> None:
    """Adds entries, in place of what was there of the same run and seed, and writes both files.

    Several processes, on several machines, may do so at once.

    Args:
        path (Path): Of the JSON file; the other has its name and ends in ``.csv``.
        title (str): Of the study.
        entries (Iterable[dict]): New ones.
        order (list[tuple[str, int]]): Of runs and seeds of the study; others go to the end.
        lock (Path): A file that all of these processes share.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock):
        known = {place(entry): entry for entry in read(path)}
        known.update((place(entry), entry) for entry in entries)
        ranks = {pair: rank for rank, pair in enumerate(order)}
        found = sorted(known, key=lambda pair: (ranks.get(pair, len(ranks)), pair))
        cells = [known[pair] for pair in found]
        write_json(path, dict(title=title, cells=cells))
        write_text(path.with_suffix('.csv'), to_csv(cells))


def place(entry: dict) -> tuple[str, int]:
    return entry['name'], entry['seed']


def states(cells: list[Cell], entries: list[dict]) -> dict[str, list[Cell]]:
    """The cells that are ``done``, ``changed`` since they were run, and ``missing``."""
    keys = {place(entry): entry['key'] for entry in entries}
    found = dict(done=[], changed=[], missing=[])
    for cell in cells:
        key = keys.get((cell.name, cell.seed))
        state = 'missing' if key is None else 'done' if key == cell.key else 'changed'
        found[state].append(cell)
    return found


def to_csv(entries: list[dict]) -> str:
    """A line for each number; numbers that do not exist are left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(COLUMNS)
    for entry in entries:
        start = [entry['name'], entry['seed']]
        for name in SINGLE:
            writer.writerow([*start, '', name, '', entry.get(name), '', ''])
        for name, value in (entry.get('validation') or {}).items():
            writer.writerow([*start, '', f'validation accuracy, {name}', '', value, '', ''])
        for name, value in (entry.get('test') or {}).items():
            writer.writerow([*start, '', f'test {name}', '', value, '', ''])
        for test, found in (entry.get('tests') or {}).items():
            for name, value in found.items():
                writer.writerow([*start, '', f'test {test}: {name}', '', value, '', ''])
        if 'factors' in entry:
            for layer, part, found in curves(dict(lift=None, body=None, **entry)):
                values = zip(found['mean'], found['standard_error'], found['n'])
                for factor, row in zip(entry['factors'], values):
                    writer.writerow([*start, layer, part, factor, *row])
    return text.getvalue()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A context for one process at a time. The lock ends with its process, however that ends."""
    with path.open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
