# Copyright (c) mmscale contributors.
"""Make the cells of a study, one for each run and seed, and find the cells that are to run.

A study is a Python file with the names

- ``title`` (str): Title of the tables and pictures.
- ``runs`` (dict[str, dict]): For each run its ``config``, a path from the root of the repository,
  and its own ``options``, ``epochs`` (see below), and plain values for tables and pictures. A run
  with ``weights_of``, the name of another run, is not trained: it takes that run's weights.
- ``seeds`` (list[int]): Seeds of each run. All runs with the first seed come first.

and, optionally,

- ``seed_options`` (list[str] | dict[str, str]): Options whose value is the seed, beside
  ``randomness.seed``, or names of options with texts in which ``{seed}`` stands for the seed.
- ``options`` (dict): Options of every run, as in ``--cfg-options`` of ``tools/train.py``.
- ``epochs`` (int): Epochs in place of the configs' epochs; schedules are stretched in proportion.
- ``checkpoint`` (str): The measured checkpoint, 'last' (default) or 'best' in the validation.
- ``equivariance`` (dict): Arguments of ``tools/equivariance.py``, without the dashes. By default
  nothing is measured over scale.
- ``test`` (bool): Whether ``tools/test.py`` runs, too, on the config's test data.
- ``tests`` (dict[str, dict]): Names of further tests, and the options of each test.
- ``columns`` (dict[str, list[str]]): Columns of the table of these tests. Each has the name of a
  test and of a metric of its evaluator.
- ``pictures`` (list[dict]), ``comparisons`` (list[tuple]): See ``draw.py``.

``cells.py STUDY FILE [REGEX]`` prints, as JSON, the cells that a CSV file of results lacks. With a
regular expression, it prints only cells whose ``run, seed 0`` matches.
"""

import copy
import csv
import itertools
import json
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import digests
from mmengine.config import Config

from mmscale.engine import models, schedules
from mmscale.engine.errors import one_line_errors
from mmscale.engine.study import digest

ROOT = Path(__file__).resolve().parents[2]
STUDIES, RESULTS = ROOT / 'studies', ROOT / 'studies' / 'results'
NEEDED = ('title', 'runs', 'seeds')
DEFAULTS = dict(seed_options=[], options={}, epochs=None, checkpoint='last', equivariance=None,
                test=False, tests={}, columns={}, pictures=[], comparisons=[])  # fmt: skip
DIGESTS = ('config', 'data', 'code')  # columns of the results, empty if unknown
# Modules that measure, beside the modules of the network and its data.
MEASURING = ('mmscale.engine.study', 'mmscale.engine.accuracy')
LENGTHS = ('begin', 'end', 'T_max', 'total_steps', 'total_iters', 'step_size')  # of schedules


def find_study(name: str) -> Path:
    """Find the file of a study, by its path or by the name of its file in ``studies/``."""
    path = Path(name) if name.endswith('.py') else STUDIES / f'{name}.py'
    if not path.is_file():
        known = ', '.join(sorted(path.stem for path in STUDIES.glob('*.py')))
        raise FileNotFoundError(f'study: there is no file {path}; this repository has {known}')
    return path


def read_study(path: Path) -> SimpleNamespace:
    """Read a study; raise ValueError for names or values that are not allowed."""
    names = runpy.run_path(str(path)).items()
    found = {name: value for name, value in names if name[0] != '_' and not callable(value)}
    known = (*NEEDED, *DEFAULTS)
    wrong = [f'no {name}' for name in NEEDED if not found.get(name)]
    wrong += [f'{name}; known are {", ".join(known)}' for name in found if name not in known]
    study = SimpleNamespace(**{**DEFAULTS, **found})
    if study.checkpoint not in ('last', 'best'):
        wrong.append(f"checkpoint={study.checkpoint!r}; it must be 'last' or 'best'")
    flags = (ROOT / 'tools' / 'equivariance.py').read_text(encoding='utf-8')
    wrong += [f'equivariance with {name}, unknown to tools/equivariance.py'
              for name in study.equivariance or {}
              if f"'--{name.replace('_', '-')}'" not in flags]  # fmt: skip
    named = [run for picture in study.pictures for run in picture.get('runs', [])]
    named += [run for _, *pair in study.comparisons for run in pair]
    named += [run['weights_of'] for run in study.runs.values() if 'weights_of' in run]
    wrong += [f'no run {run!r} for pictures, comparisons or weights'
              for run in named if run not in study.runs]  # fmt: skip
    wrong += [f'no test {test!r} for columns'
              for test, _ in study.columns.values() if test not in study.tests]  # fmt: skip
    if wrong:
        raise ValueError(f'study: {path} has {wrong[0]}')
    return study


def make_cell(study: SimpleNamespace, run: str, seed: int) -> dict:
    """Make a cell: a training, its measurements, and the digests that determine the results.

    Raises:
        ValueError: If the config does not take the options.
    """
    setting = study.runs[run]
    options = {**study.options, **setting.get('options', {})}
    asked = study.seed_options
    options |= {
        key: asked[key].format(seed=seed) if isinstance(asked, dict) else seed for key in asked
    }
    tests = {'test': {}} if study.test else {}
    tests |= {f'test/{name}': more for name, more in study.tests.items()}
    try:
        cfg = models.load_config(str(ROOT / setting['config']))
        models.merge_options(cfg, options)
        if (epochs := setting.get('epochs', study.epochs)) is not None:
            longer = stretched(cfg, epochs)
            options |= longer
            models.merge_options(cfg, longer)
        for more in tests.values():
            models.merge_options(copy.deepcopy(cfg), more)
    except (ValueError, OSError) as error:
        raise ValueError(f'study: runs[{run!r}]: {error}') from error
    data, without_data = '', None
    try:
        data = digests.of_data(cfg)
    except ValueError as error:  # the data may be missing on this machine
        without_data = f'study: runs[{run!r}]: its data cannot be read: {error}'
    of_hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if study.checkpoint == 'best' and not of_hook.get('save_best'):
        options['default_hooks.checkpoint.save_best'] = 'auto'
    options['randomness.seed'] = seed
    asked = json.dumps([study.checkpoint, study.equivariance, tests], sort_keys=True)
    training, code = digests.of_config(cfg), digests.of_code(cfg)
    cell = dict(
        cell=run,
        seed=seed,
        file=setting['config'],
        options=options,
        checkpoint=study.checkpoint,
        tests=tests,
        equivariance=study.equivariance,
        without_data=without_data,
        config=short(training, asked),
        data=data[:12],
        code=(digests.of_code(cfg, *MEASURING) if study.equivariance else code)[:12],
        trained=dict(file=setting['config'], options=options),
        slug=f'{re.sub("[^a-z0-9.]+", "-", run.lower()).strip("-")}_seed{seed}',
    )
    # Names change with the digests. A training keeps its folder if only measurements have changed.
    cell['folder'] = f'{cell["slug"]}_{short(training, study.checkpoint, data, code)}'
    if source := setting.get('weights_of'):
        other = make_cell(study, source, seed)
        cell |= {name: other[name] for name in ('trained', 'folder')}
        cell['config'] = short(cell['config'], other['config'])
    cell['result'] = short(*(cell[name] for name in DIGESTS))
    return cell


def stretched(cfg: Config, epochs: int) -> dict:
    """Return options that set the epochs of a training and stretch its schedules in proportion.

    Raises:
        ValueError: If the training is not by epochs, a schedule does not count in epochs, or a part
            of a schedule would be shorter than one epoch.
    """
    before = (cfg.get('train_cfg') or {}).get('max_epochs')
    if type(epochs) is not int or epochs < 1:
        raise ValueError(f'epochs must be an integer from 1, got {epochs!r}')
    if before is None:
        raise ValueError('epochs: the training of this config is not by epochs')
    options = {'train_cfg.max_epochs': epochs}
    for key, schedule in schedules.schedules(cfg.get('param_scheduler')):
        if not schedule.get('by_epoch', True):
            raise ValueError(f'epochs: {key} counts in iterations, and cannot be stretched')
        for name in (one for one in LENGTHS if one in schedule):
            length = round(schedule[name] * epochs / before)
            if name in ('begin', 'end') and schedule[name] > 0:
                length = max(1, length)  # a warm-up keeps an epoch, and the next part begins there
            options[f'{key}.{name}'] = length
            least = {'begin': 0, 'end': options.get(f'{key}.begin', 0) + 1}.get(name, 1)
            if length < least:
                raise ValueError(
                    f'epochs: {epochs} are too few for {key}.{name}, which is '
                    f'{schedule[name]} of {before}'
                )
        if 'milestones' in schedule:
            stones = [round(stone * epochs / before) for stone in schedule['milestones']]
            options[f'{key}.milestones'] = stones
    return options


def short(*parts: str) -> str:
    """Return twelve hexadecimal digits of the digest of several texts."""
    return digest(part.encode() for part in parts)[:12]


def changed(cell: dict, row: dict) -> list[str]:
    """Return the names of the digests that changed since a measurement; unknown ones have not."""
    return [name for name in DIGESTS if row[name] and cell[name] and row[name] != cell[name]]


def plan(study: SimpleNamespace, results: Path, only: str = '') -> dict:
    """Return the cells to run, and lines with reasons; raise ValueError if data are missing."""
    known, todo, lines, done = {}, [], [], 0
    if results.is_file():
        with results.open(encoding='utf-8', newline='') as file:
            known = {(row['cell'], int(row['seed'])): row for row in csv.DictReader(file)}
    for seed, run in itertools.product(study.seeds, study.runs):
        if not re.search(only, f'{run}, seed {seed}'):
            continue
        cell, row = make_cell(study, run, seed), known.get((run, seed))
        differs = ['missing'] if row is None else changed(cell, row)
        if not differs:
            done += 1
            continue
        if cell['without_data']:
            raise ValueError(cell['without_data'])
        lines.append(f'  {run}, seed {seed}: {"changed: " * bool(row)}{", ".join(differs)}')
        todo.append(cell)
    first = f'{study.title}: {done} cells are measured, in {results}; {len(todo)} are to run'
    return dict(todo=todo, lines=[first, *lines])


@one_line_errors()
def main() -> None:
    name, results, *only = sys.argv[1:]
    with redirect_stdout(sys.stderr):  # datasets print messages
        found = plan(read_study(find_study(name)), Path(results), *only)
    print(f'\n{json.dumps(found)}')  # a progress bar has left its line unfinished


if __name__ == '__main__':
    main()
