# Copyright (c) mmscale contributors.
"""Puts results of cells into the CSV file of a study: ``collect.py STUDY FILE RESULT ...``.

Lines of a cell that was measured anew take the place of its former ones; all others stay. Several
machines may collect into one file.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from cells import find_study, read_study
from filelock import FileLock

from mmscale.engine.report import write_text


def read(path: Path) -> pd.DataFrame:
    """All columns as they are written: no number is rounded on its way."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def collect(study: SimpleNamespace, path: Path, results: list[Path]) -> None:
    """Adds results to a CSV file, in the order of the study; what it does not have stays behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{path}.lock'):
        parts = [
            read(one).assign(part=i) for i, one in enumerate([path, *results]) if one.is_file()
        ]
        if not parts:
            return
        found = pd.concat(parts)
        found = found[found.part == found.groupby(['cell', 'seed']).part.transform('max')]
        order = [(run, str(seed)) for seed in study.seeds for run in study.runs]
        ranks = {pair: rank for rank, pair in enumerate(order)}
        found['part'] = [ranks.get(pair, len(ranks)) for pair in zip(found.cell, found.seed)]
        found = found.sort_values('part', kind='stable').drop(columns='part')
        write_text(path, found.to_csv(index=False, lineterminator='\n'))


if __name__ == '__main__':
    target, *found = map(Path, sys.argv[2:])
    collect(read_study(find_study(sys.argv[1])), target, found)
