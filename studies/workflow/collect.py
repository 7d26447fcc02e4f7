# Copyright (c) mmscale contributors.
"""Collect results of cells in the CSV file of a study: ``collect.py STUDY FILE RESULT ...``.

The lines of a new measurement replace the former lines of its cell; all others stay. Several
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
    """Read all columns as text, so that no number is rounded."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def collect(study: SimpleNamespace, path: Path, results: list[Path]) -> None:
    """Add results to a CSV file, in the order of the study; cells that it lacks come last."""
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
