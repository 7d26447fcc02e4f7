# Copyright (c) mmscale contributors.
"""Writes test accuracies of a study into the model index.

Of each run that changes nothing of its config and all of whose seeds are measured, the mean over
them goes to the entry of the config, unless that has weights: then its accuracy is theirs.
"""

import re
from types import SimpleNamespace

import pandas as pd
import tables
from cells import ROOT

from mmscale.evaluation.report import write_text


def accuracies(study: SimpleNamespace, frame: pd.DataFrame) -> dict[str, float]:
    """Mean accuracy in percent on the whole test data, by config."""
    frame = tables.select(study, frame)
    errors, found = tables.test_errors(frame), {}
    mean, _ = tables.spread(errors)
    for run, (error,) in mean.iterrows():
        setting = study.runs[run]
        if study.options or setting.get('options') or setting.get('epochs', study.epochs):
            continue  # another network or training than that of the config
        if set(errors.loc[run].index) == set(study.seeds) and pd.notna(error):
            found[setting['config']] = round(100 - float(error), 2)
    return found


def filled(text: str, config: str, accuracy: float) -> str:
    """The text of a metafile with the accuracy in the entry of a config."""
    entries = re.split(r'(?m)^(?=  - Name: )', text)
    for i, entry in enumerate(entries):
        if f'    Config: {config}\n' in entry and '    Weights: ' not in entry:
            metrics = f'        Metrics:\n          Top 1 Accuracy: {accuracy}\n'
            pattern = r'        Metrics:(?: null\n|\n          Top 1 Accuracy: .*\n)'
            entries[i] = re.sub(pattern, metrics, entry)
    return ''.join(entries)


def fill(study: SimpleNamespace, frame: pd.DataFrame) -> None:
    """Writes what has changed, and says so."""
    for config, accuracy in accuracies(study, frame).items():
        path = (ROOT / config).parent / 'metafile.yml'
        before = path.read_text(encoding='utf-8')
        after = filled(before, config, accuracy)
        if after != before:
            write_text(path, after)
            print(f'{path}: {config}: {accuracy}')
