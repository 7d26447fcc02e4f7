# Copyright (c) mmscale contributors.
"""What a study consists of, one cell for each of its runs and seeds, and which cells are to run.

A study is a Python file with the names

- ``title`` (str): Stands over its tables and pictures.
- ``runs`` (dict[str, dict]): For each run its ``config``, a path from the root of the repository,
  and what else holds for it alone: ``options``, ``epochs`` (see below), and any plain values that
  tables and pictures ask for.
- ``seeds`` (list[int]): Each run is trained once with each, and the first is done first of all
  runs.
- ``seed_options`` (list[str], optional): Options whose value is the seed, beside
  ``randomness.seed``: realizations of a dataset, for example.
- ``options`` (dict, optional): Of every run, as ``--cfg-options`` of ``tools/train.py`` takes them.
- ``epochs`` (int, optional): Of every run, in place of those of its config; schedules are
  stretched or shortened in proportion.
- ``checkpoint`` (str, optional): Which is measured: 'last', the default, or 'best' in the
  config's validation.
- ``equivariance`` (dict, optional): Arguments of ``tools/equivariance.py``, without the dashes;
  without it nothing is measured over scale.
- ``test`` (bool, optional): Whether ``tools/test.py`` runs, too, over the config's test data.
- ``tests`` (dict[str, dict], optional): More such tests by name, and the options with which each
  runs: other test data, for example.
- ``columns`` (dict[str, list[str]], optional): Of the table of these tests: for each the name of a
  test and of a metric of its evaluator.
- ``pictures`` (list[dict]), ``comparisons`` (list[tuple]), optional: See ``draw.py``.

``python studies/workflow/cells.py STUDY`` prints the cells as JSON for the Snakefile.
"""

import argparse
import copy
import csv
import json
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

from mmscale.engine import digests, launch, schedules
from mmscale.engine.errors import one_line_errors
from mmscale.evaluation.study import digest

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / 'studies'
RESULTS = STUDIES / 'results'
# Of studies/results/NAME.csv, a line a number. Of the digests each is empty where it is unknown.
COLUMNS = ('cell', 'seed', 'metric', 'factor', 'value', 'standard_error', 'n', 'parameters',
           'multiply_adds', 'seconds', 'device', 'threads', 'version', 'commit', 'torch', 'numpy',
           'date', 'config', 'data', 'code', 'command')  # fmt: skip
DIGESTS = ('config', 'data', 'code')
NEEDED = ('title', 'runs', 'seeds')
DEFAULTS = dict(seed_options=[], options={}, epochs=None, checkpoint='last', equivariance=None,
                test=False, tests={}, columns={}, pictures=[], comparisons=[])  # fmt: skip
# Code that measures, beside that of the network and its data.
MEASURING = ('mmscale.evaluation.study', 'mmscale.evaluation.accuracy')


def find_study(name: str) -> Path:
    """The file of a study, which is named by its path or as its file in ``studies/``."""
    path = Path(name) if name.endswith('.py') else STUDIES / f'{name}.py'
    if not path.is_file():
        known = ', '.join(sorted(path.stem for path in STUDIES.glob('*.py')))
        raise FileNotFoundError(f'study: there is no file {path}; this repository has {known}')
    return path


def read_study(path: Path) -> SimpleNamespace:
    """Reads a study; ValueError for what it cannot have."""
    names = runpy.run_path(str(path)).items()
    study = {name: value for name, value in names if name[0] != '_' and not callable(value)}
    for name in NEEDED:
        if not study.get(name):
            raise ValueError(f'study: {path} has no {name}')
    for name in study:
        if name not in (*NEEDED, *DEFAULTS):
            known = ', '.join([*NEEDED, *DEFAULTS])
            raise ValueError(f'study: {path} has {name}; known are {known}')
    study = SimpleNamespace(**{**DEFAULTS, **study})
    if study.checkpoint not in ('last', 'best'):
        raise ValueError(f"study: checkpoint must be 'last' or 'best', got {study.checkpoint!r}")
    flags = (ROOT / 'tools' / 'equivariance.py').read_text(encoding='utf-8')
    for name in study.equivariance or {}:
        if f"'--{name.replace('_', '-')}'" not in flags:
            raise ValueError(f'study: equivariance has {name}, unknown to tools/equivariance.py')
    named = [run for picture in study.pictures for run in picture.get('runs', [])]
    for run in named + [run for _, *pair in study.comparisons for run in pair]:
        if run not in study.runs:
            raise ValueError(f'study: pictures or comparisons have {run!r}, which is no run of it')
    for title, (test, _) in study.columns.items():
        if test not in study.tests:
            raise ValueError(f'study: columns[{title!r}] is of {test!r}, which is none of tests')
    return study


def make_cell(study: SimpleNamespace, run: str, seed: int) -> dict:
    """One training of a study, what is measured of it, and the digests of what that depends on.

    Raises:
        ValueError: If the config does not take the options.
    """
    setting = study.runs[run]
    options = {**study.options, **setting.get('options', {})}
    options.update(dict.fromkeys(study.seed_options, seed))
    tests = {f'test/{name}': more for name, more in study.tests.items()}
    tests = {'test': {}, **tests} if study.test else tests
    try:
        cfg = launch.load_config(str(ROOT / setting['config']))
        launch.merge_options(cfg, options)
        epochs = setting.get('epochs', study.epochs)
        if epochs is not None:
            stretched = schedules.stretched(cfg, epochs)
            options.update(stretched)
            launch.merge_options(cfg, stretched)
        for more in tests.values():
            launch.merge_options(copy.deepcopy(cfg), more)
    except (ValueError, OSError) as error:
        raise ValueError(f'study: runs[{run!r}]: {error}') from error
    asked = json.dumps([study.checkpoint, study.equivariance, tests], sort_keys=True)
    training, code = digests.of_config(cfg), digests.of_code(cfg)
    measured = digests.of_code(cfg, *MEASURING) if study.equivariance else code
    try:
        data, without_data = digests.of_data(cfg), None
    except Exception as error:  # of whichever dataset is not on this machine
        data, without_data = '', f'study: runs[{run!r}]: its data cannot be read: {error}'
    if study.checkpoint == 'best':
        hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        options.update({} if hook.get('save_best') else SAVE_BEST)
    options['randomness.seed'] = seed
    words = re.sub(r'[^A-Za-z0-9.]+', '-', run).strip('-').lower()
    cell = dict(
        cell=run,
        seed=seed,
        file=setting['config'],
        options=as_words(options),
        checkpoint=study.checkpoint,
        tests={name: as_words(more) for name, more in tests.items()},
        equivariance=study.equivariance,
        without_data=without_data,
        config=short(training, asked),
        data=data[:12],
        code=measured[:12],
        slug=f'{words}_seed{seed}',
    )
    # Names change with what the numbers depend on. What was trained stays where only what is
    # measured of it has changed.
    cell['folder'] = f'{cell["slug"]}_{short(training, study.checkpoint, data, code)}'
    cell['result'] = short(*(cell[name] for name in DIGESTS))
    return cell


SAVE_BEST = {'default_hooks.checkpoint.save_best': 'auto'}


def as_words(options: dict) -> list[str]:
    """Options as they stand behind ``--cfg-options``."""
    return [f'{key}={_word(value)}' for key, value in options.items()]


def _word(value) -> str:
    """A value as the command line takes it: without white space, strings in lists in quotes."""
    if isinstance(value, list | tuple):
        inside = ','.join(repr(v) if isinstance(v, str) else _word(v) for v in value)
        return f'[{inside}]' if isinstance(value, list) else f'({inside})'
    return str(value)


def short(*parts: str) -> str:
    """Twelve hexadecimal digits of the digest of several texts."""
    return digest(part.encode() for part in parts)[:12]


def read_rows(path: Path) -> list[dict]:
    """The lines of a CSV file of results, none if there is no such file yet."""
    if not path.is_file():
        return []
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def changed(cell: dict, row: dict) -> list[str]:
    """Which digests of a cell are not those of its measurement. What is unknown has not changed."""
    return [name for name in DIGESTS if row[name] and cell[name] and row[name] != cell[name]]


def plan(study: SimpleNamespace, results: Path, only: str = '') -> dict:
    """The cells that are to run, and lines that say what was measured already.

    Args:
        study (SimpleNamespace): As :func:`read_study` gives it.
        results (Path): CSV file of what was measured, on whichever machine.
        only (str): A regular expression; cells are left out whose ``name, seed 0`` has no match.
    """
    known = {(row['cell'], int(row['seed'])): row for row in read_rows(results)}
    todo, lines, done = [], [], 0
    for seed in study.seeds:
        for run in study.runs:
            name = f'{run}, seed {seed}'
            if not re.search(only, name):
                continue
            cell = make_cell(study, run, seed)
            row = known.get((run, seed))
            if row is not None and not changed(cell, row):
                done += 1
                continue
            if cell['without_data']:
                raise ValueError(cell['without_data'])
            reason = f'changed: {", ".join(changed(cell, row))}' if row else 'missing'
            lines.append(f'  {name}: {reason}')
            todo.append(cell)
    first = f'{study.title}: {done} cells are measured, in {results}; {len(todo)} are to run'
    return dict(todo=todo, lines=[first, *lines])


@one_line_errors()
def main():
    parser = argparse.ArgumentParser(description='Print the cells of a study that are to run')
    parser.add_argument('study', help='its name, or the path of its file')
    parser.add_argument('--results', type=Path, required=True, help='CSV file of results')
    parser.add_argument('--only', default='', help='regular expression of cells')
    args = parser.parse_args()
    with redirect_stdout(sys.stderr):  # datasets say what they make
        found = plan(read_study(find_study(args.study)), args.results, args.only)
    print(json.dumps(found))


if __name__ == '__main__':
    main()
