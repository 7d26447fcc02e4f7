# Copyright (c) mmscale contributors.
"""Writes test accuracies of a study into the model index: ``fill_metrics.py studies/NAME.py``.

Of each run that changes nothing of its config and all of whose seeds are in the ledger, the mean
over them goes to the entry of the config, unless that has weights: then its accuracy is theirs.
"""

import argparse
import re
from pathlib import Path

from mmscale.engine.errors import one_line_errors
from mmscale.evaluation.report import write_text
from mmscale.studies import ledger, summary
from mmscale.studies.cells import read_study

ROOT = Path(__file__).resolve().parents[2]


def accuracies(study_path: Path) -> dict[str, float]:
    """Mean accuracy in percent on the whole test data, by config."""
    study = read_study(study_path, ROOT)
    entries = ledger.read(study_path.parent / 'results' / f'{study_path.stem}.json')
    found = {}
    for run, of_run in summary.runs_of(study, entries).items():
        setting = study.runs[run]
        if study.options or setting.get('options') or setting.get('epochs', study.epochs):
            continue  # another network or training than that of the config
        error = summary.test_error(of_run)
        if error is not None and {entry['seed'] for entry in of_run} == set(study.seeds):
            found[setting.config] = round(100 - float(error.mean), 2)
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


@one_line_errors()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].partition(':')[0])
    parser.add_argument('study', type=Path, help='path of the study')
    for config, accuracy in accuracies(parser.parse_args().study.resolve()).items():
        path = (ROOT / config).parent / 'metafile.yml'
        before = path.read_text()
        after = filled(before, config, accuracy)
        if after != before:
            write_text(path, after)
            print(f'{config}: {accuracy}')


if __name__ == '__main__':
    main()
