# Copyright (c) mmscale contributors.
"""Tables of a study, in Markdown."""

import math
from functools import partial

import numpy as np
from mmengine.config import Config

from mmscale.evaluation.report import metric_name

from . import summary
from .summary import Spread


def document(study: Config, name: str, entries: list[dict], pictures: list[tuple[str, str]]) -> str:
    """The page of a study: how it was made, tables, pictures.

    Args:
        study (Config): As :func:`mmscale.studies.cells.read_study` gives it.
        name (str): Of its file.
        entries (list[dict]): Of its ledger.
        pictures (list[tuple[str, str]]): Titles and names of files.
    """
    runs = summary.runs_of(study, entries)
    parts = [f'# {study.title}', _how(study, name, runs)]
    if not runs:
        return '\n\n'.join([*parts, 'No run is finished.']) + '\n'
    parts += [_costs(study, runs), columns(study, runs), accuracy(runs), errors(runs)]
    parts += [
        comparison(title, first, second, runs)
        for title, first, second in study.comparisons
        if first in runs and second in runs
    ]
    parts += [f'![{title}]({path})' for title, path in pictures]
    return '\n\n'.join(filter(None, parts)) + '\n'


def _how(study: Config, name: str, runs: dict) -> str:
    done = sum(map(len, runs.values()))
    asked = len(study.runs) * len(study.seeds)
    lines = [
        f'`python tools/study.py studies/{name}.py`: {done} of {asked} runs, '
        f'seeds {", ".join(map(str, study.seeds))}.',
    ]
    missing = [
        f'{run} ({len(runs.get(run, []))} of {len(study.seeds)})'
        for run in study.runs
        if len(runs.get(run, [])) < len(study.seeds)
    ]
    if missing:
        lines.append(f'Not all seeds are finished of: {"; ".join(missing)}.')
    made = [entry['made'] for found in runs.values() for entry in found]
    if made:
        places = sorted({
            f'{one["device"]}, {one["threads"]} thread(s), torch {one["packages"]["torch"]}'
            for one in made
        })  # fmt: skip
        commits = ', '.join(sorted({str(one['commit']) for one in made}))
        lines.append(f'Run on {"; ".join(places)}; revision {commits}.')
    lines.append(
        'Means over seeds ± their standard deviation. The command of each run is in '
        f'`studies/results/{name}.json`.'
    )
    if study.comparisons:
        lines.append(
            'Of one run against another: the mean difference, seed by seed, ± its standard error; '
            'of errors the mean ratio, with the factor (×÷) of its standard error.'
        )
    return '\n'.join(lines)


def markdown(head: list[str], rows: list[list[str]], text: int = 1) -> str:
    """A table whose first columns are text, the others numbers."""
    rule = ['---'] * text + ['---:'] * (len(head) - text)
    return '\n'.join(f'| {" | ".join(line)} |' for line in [head, rule, *rows])


def cell(mean: float, deviation: float, form: str) -> str:
    if math.isnan(mean):
        return '-'
    text = format(mean, form)
    return text if math.isnan(deviation) else f'{text} ± {format(deviation, form)}'


def _cells(spread: Spread, form: str) -> list[str]:
    pairs = zip(np.atleast_1d(spread.mean), np.atleast_1d(spread.deviation))
    return [cell(mean, deviation, form) for mean, deviation in pairs]


def _costs(study: Config, runs: dict) -> str:
    devices = summary.devices(_entries(runs))
    head = ['run', 'config', 'seeds', 'parameters', 'multiply-adds']
    head += [f'training on {device}, minutes' for device in devices]
    tested = any(summary.test_error(found) for found in runs.values())
    rows = []
    for run, found in runs.items():
        counts = [len(found), f'{found[0]["parameters"]:,}']
        flops = f'{found[0]["multiply_adds"] / 1e6:,.1f} M'
        row = [run, f'`{study.runs[run].config}`', *map(str, counts), flops]
        for device in devices:
            minutes = summary.training_minutes(found, device)
            row += _cells(minutes, '.1f') if minutes else ['-']
        error = summary.test_error(found)
        rows.append(row + (_cells(error, '.2f') if error else ['-']) * tested)
    return markdown(head + ['test error, %'] * tested, rows, text=2)


def accuracy(runs: dict) -> str:
    """Accuracy over scale of the entries of each run; empty if it was not measured."""
    metric = summary.metric_over_scale(_entries(runs))
    title, form = ('Accuracy in %', '.2f') if metric == metric_name({}) else (metric, '.3g')
    return _over_scale(title, runs, summary.accuracy_over_scale, form)


def errors(runs: dict) -> str:
    """Equivariance error over scale of each run, a table for each layer."""
    found = []
    for layer in summary.layers(_entries(runs)):
        measured = partial(summary.error_over_scale, layer=layer)
        found.append(_over_scale(f'Equivariance error of `{layer}`', runs, measured, '.2g'))
    return '\n\n'.join(found)


def columns(study: Config, runs: dict) -> str:
    """What the further tests of a study give, its ``columns``; empty if it has none."""
    rows = []
    for run, found in runs.items():
        spreads = [summary.tested(found, *place) for place in study.columns.values()]
        if any(spreads):
            rows.append([run, str(len(found))])
            rows[-1] += [''.join(_cells(spread, '.3g')) if spread else '-' for spread in spreads]
    return markdown(['', 'seeds', *study.columns], rows) if rows else ''


def tests(runs: dict) -> str:
    """Error on the whole test data of each run."""
    rows = []
    for run, found in runs.items():
        spread = summary.test_error(found)
        if spread is not None:
            rows.append([run, str(spread.count), f'{found[0]["parameters"]:,}'])
            rows[-1] += _cells(spread, '.2f')
    return markdown(['', 'trainings', 'parameters', 'test error, %'], rows) if rows else ''


def _entries(runs: dict) -> list[dict]:
    return [entry for found in runs.values() for entry in found]


def _scales(runs: dict) -> list[str]:
    """Heads of columns: what everything is scaled by."""
    return ['1' if s == 1 else f'1/{s:g}' for s in summary.factors(_entries(runs))]


def _over_scale(title: str, runs: dict, measured, form: str) -> str:
    rows = []
    for run, found in runs.items():
        spread = measured(found)
        if spread is not None:
            rows.append([run, *_cells(spread, form)])
    return markdown([title, *_scales(runs)], rows) if rows else ''


def comparison(title: str, first: str, second: str, runs: dict) -> str:
    """Of two runs, seed by seed: points of accuracy, and the ratio of their errors."""
    a, b = runs[first], runs[second]
    rows = []
    if all(entry.get('accuracy') for entry in a + b):

        def over_scale(entry):
            return np.array(entry['accuracy']['mean'], dtype=float)

        points = summary.difference(a, b, over_scale)
        if points is not None:
            metric = summary.metric_over_scale(a)
            of_classes = metric == metric_name({})
            row = _signed(points, '+.2f' if of_classes else '+.3g')
            rows.append(['accuracy, points' if of_classes else metric, *row])
    for layer in summary.layers(a + b):
        if not all(layer in (entry.get('layers') or {}) for entry in a + b):
            continue  # networks of other layers

        def logs(entry, layer=layer):
            values = np.array(entry['layers'][layer]['mean'], dtype=float)
            return np.log(np.where(values > 0, values, math.nan))

        ratio = summary.difference(a, b, logs)
        if ratio is not None:
            # A standard error e of a logarithm is a factor exp(e) of the ratio.
            means, spreads = np.exp(ratio.mean), np.exp(ratio.error)
            rows.append([f'error of `{layer}`, ratio', *map(_ratio, means, spreads)])
    head = ': '.join(filter(None, [title, f'{second} against {first}']))
    return markdown([head, *_scales(runs)], rows)


def _ratio(mean: float, spread: float) -> str:
    if math.isnan(mean):
        return '-'
    text = f'{mean:.0f}' if mean >= 100 else f'{mean:.2g}'
    return text if math.isnan(spread) else f'{text} (×÷ {spread:.2f})'


def _signed(points: Spread, form: str) -> list[str]:
    pairs = zip(points.mean, points.error)
    return [cell(mean, error, form).replace('± +', '± ') for mean, error in pairs]
