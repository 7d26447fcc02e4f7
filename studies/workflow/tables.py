# Copyright (c) mmscale contributors.
"""Tables of a study, in Markdown, from the CSV file of its results."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from cells import RESULTS

from mmscale.evaluation.accuracy import MAIN_METRICS
from mmscale.evaluation.equivariance import FACTORS

TITLES = dict(accuracy='Accuracy in %')


def load(name: str, folder: Path = RESULTS) -> pd.DataFrame:
    """The results of a study, a line a number, each to its last digit."""
    return pd.read_csv(folder / f'{name}.csv', float_precision='round_trip')


def select(study: SimpleNamespace, frame: pd.DataFrame, chosen: tuple = ()) -> pd.DataFrame:
    """The lines of the study's runs, in their order; ``cell`` becomes a categorical column.

    Cells that were measured at other factors than the study asks for are left out.

    Raises:
        ValueError: If a run was chosen that the study does not have.
    """
    for run in chosen:
        if run not in study.runs:
            raise ValueError(f'study: there is no run {run!r}')
    frame = frame[frame.cell.isin(chosen or study.runs)]
    if study.equivariance:
        asked = study.equivariance.get('factors', FACTORS)
        asked = set(np.atleast_1d(asked).astype(float))
        other = frame[~frame.factor.isin([*asked, math.nan])]
        frame = frame[~_pairs(frame).isin(_pairs(other))]
    order = [run for run in chosen or study.runs if run in set(frame.cell)]
    return frame.assign(cell=pd.Categorical(frame.cell, order, ordered=True))


def _pairs(frame: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(frame[['cell', 'seed']])


def by_seed(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Of a metric: a row for each cell and seed, a column for each factor; 0 stands for none."""
    found = frame[frame.metric == metric].assign(factor=lambda f: f.factor.fillna(0))
    table = found.pivot(index=['cell', 'seed'], columns='factor', values='value')
    # An evaluator that has found nothing has left no line.
    of_cells = frame[frame.cell.isin(set(found.cell))]
    return table.reindex(_pairs(of_cells).unique().rename(['cell', 'seed'])).sort_index()


def spread(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and standard deviation (with Bessel's correction) over seeds, a row for each cell."""
    groups = table.groupby(level='cell', observed=True)
    return groups.agg(lambda x: x.mean(skipna=False)), groups.agg(lambda x: x.std(skipna=False))


def count(frame: pd.DataFrame) -> pd.Series:
    """Seeds of each cell."""
    return frame.groupby('cell', observed=True).seed.nunique()


def first(frame: pd.DataFrame, column: str) -> pd.Series:
    return frame.groupby('cell', observed=True)[column].first()


def layers(frame: pd.DataFrame) -> list[str]:
    """The layers whose equivariance error was measured."""
    found = (name for name in frame.metric.unique() if name.startswith('error/'))
    return [name.removeprefix('error/') for name in found if not name.endswith('/truncated')]


def over_scale(study: SimpleNamespace, frame: pd.DataFrame) -> str | None:
    """The metric that stands for a network over scale: accuracy, mean AP or mean IoU."""
    names = frame[frame.factor.notna()].metric.unique()
    ends = ((study.equivariance or {}).get('metric') or 'accuracy', *MAIN_METRICS)
    return next((name for end in ends for name in names if name.endswith(end)), None)


def factors(frame: pd.DataFrame) -> np.ndarray:
    return np.sort(frame.factor.dropna().unique())


def markdown(head: list[str], rows: list[list[str]], text: int = 1) -> str:
    """A table whose first columns are text, the others numbers; empty if it has no row."""
    rule = ['---'] * text + ['---:'] * (len(head) - text)
    return '\n'.join(f'| {" | ".join(line)} |' for line in [head, rule, *rows]) if rows else ''


def show(mean: float, deviation: float, form: str) -> str:
    if math.isnan(mean):
        return '-'
    text = format(mean, form)
    return text if math.isnan(deviation) else f'{text} ± {format(deviation, form.lstrip("+"))}'


def shown(table: pd.DataFrame, form: str) -> dict[str, list[str]]:
    """For each cell a text for each column."""
    mean, deviation = spread(table)
    return {
        cell: [show(*pair, form) for pair in zip(mean.loc[cell], deviation.loc[cell])]
        for cell in mean.index
    }


def _heads(frame: pd.DataFrame) -> list[str]:
    """Heads of columns: what everything is scaled by."""
    return ['1' if s == 1 else f'1/{s:g}' for s in factors(frame)]


def _over_scale(title: str, frame: pd.DataFrame, metric: str, form: str) -> str:
    found = shown(by_seed(frame, metric), form)
    return markdown([title, *_heads(frame)], [[cell, *texts] for cell, texts in found.items()])


def accuracy(study: SimpleNamespace, frame: pd.DataFrame) -> str:
    """Accuracy over scale of each run; empty if it was not measured."""
    metric = over_scale(study, frame)
    form = '.2f' if metric == 'accuracy' else '.3g'
    return _over_scale(TITLES.get(metric, metric), frame, metric, form) if metric else ''


def errors(frame: pd.DataFrame) -> str:
    """Equivariance error over scale of each run, a table for each layer."""
    return '\n\n'.join(
        _over_scale(f'Equivariance error of `{layer}`', frame, f'error/{layer}', '.2g')
        for layer in layers(frame)
    )


def test_errors(frame: pd.DataFrame) -> pd.DataFrame:
    """Percent of the test images that are not recognised, as :func:`by_seed` has it."""
    return 100 - by_seed(frame, 'test/accuracy/top1')


def tests(frame: pd.DataFrame) -> str:
    """Error on the whole test data of each run."""
    seeds, parameters = count(frame), first(frame, 'parameters')
    rows = [
        [cell, str(seeds[cell]), f'{parameters[cell]:,}', *texts]
        for cell, texts in shown(test_errors(frame), '.2f').items()
    ]
    return markdown(['', 'trainings', 'parameters', 'test error, %'], rows)


def columns(study: SimpleNamespace, frame: pd.DataFrame) -> str:
    """What the further tests of a study give, its ``columns``; empty if it has none."""
    found = [
        shown(by_seed(frame, f'test/{test}/{metric}'), '.3g')
        for test, metric in study.columns.values()
    ]
    seeds = count(frame)
    rows = [
        [cell, str(seeds[cell]), *(one.get(cell, ['-'])[0] for one in found)]
        for cell in seeds.index
        if any(cell in one for one in found)
    ]
    return markdown(['', 'seeds', *study.columns], rows)


def costs(study: SimpleNamespace, frame: pd.DataFrame) -> str:
    """Config, parameters, multiply-adds, minutes of training and test error of each run."""
    cells = frame.drop_duplicates(['cell', 'seed'])
    devices = sorted(cells.device.unique())
    minutes = [
        shown(cells[cells.device == device].set_index(['cell', 'seed'])[['seconds']] / 60, '.1f')
        for device in devices
    ]
    seeds, of_test = count(frame), shown(test_errors(frame), '.2f')
    head = ['run', 'config', 'seeds', 'parameters', 'multiply-adds']
    head += [f'training on {device}, minutes' for device in devices]
    rows = []
    for cell in seeds.index:
        one = cells[cells.cell == cell].iloc[0]
        row = [cell, f'`{study.runs[cell]["config"]}`', str(seeds[cell]), f'{one.parameters:,}']
        row += [f'{one.multiply_adds / 1e6:,.1f} M', *(m.get(cell, ['-'])[0] for m in minutes)]
        rows.append(row + of_test.get(cell, ['-']) * bool(of_test))
    return markdown(head + ['test error, %'] * bool(of_test), rows, text=2)


def comparison(study: SimpleNamespace, frame: pd.DataFrame, title: str, *pair: str) -> str:
    """Of two runs, seed by seed: points of accuracy, and the ratio of their errors."""
    rows, metric = [], over_scale(study, frame)
    if metric:
        of_classes = metric == 'accuracy'
        found = _difference(by_seed(frame, metric), pair)
        form = '+.2f' if of_classes else '+.3g'
        name = 'accuracy, points' if of_classes else metric
        rows += [[name, *(show(*one, form) for one in zip(*found))]] if found else []
    for layer in layers(frame):
        table = by_seed(frame, f'error/{layer}')
        found = _difference(np.log(table.where(table > 0)), pair)  # None: of other layers
        rows += [[f'error of `{layer}`, ratio', *map(_ratio, *found)]] if found else []
    head = ': '.join(filter(None, [title, f'{pair[1]} against {pair[0]}']))
    return markdown([head, *_heads(frame)], rows)


def _difference(table: pd.DataFrame, pair: tuple[str, str]) -> tuple | None:
    """Mean difference over the seeds that both runs have, and its standard error."""
    if not set(pair) <= set(table.index.get_level_values('cell')):
        return None
    before, after = (table.loc[cell] for cell in pair)
    found = (after - before).loc[after.index.intersection(before.index)]
    if found.empty:
        return None
    return found.mean(skipna=False), found.std(skipna=False) / math.sqrt(len(found))


def _ratio(mean: float, error: float) -> str:
    """Of logarithms; a standard error e of them is a factor exp(e) of the ratio."""
    if math.isnan(mean):
        return '-'
    text = f'{math.exp(mean):.0f}' if math.exp(mean) >= 100 else f'{math.exp(mean):.2g}'
    return text if math.isnan(error) else f'{text} (×÷ {math.exp(error):.2f})'


def document(study: SimpleNamespace, name: str, frame: pd.DataFrame, pictures: list) -> str:
    """The page of a study: how it was made, tables, pictures.

    Args:
        study (SimpleNamespace): As ``cells.read_study`` gives it.
        name (str): Of its file.
        frame (pd.DataFrame): Of its results, as :func:`load` gives them.
        pictures (list[tuple[str, str]]): Titles and names of files.
    """
    frame = select(study, frame)
    parts = [f'# {study.title}', _how(study, name, frame)]
    parts += [costs(study, frame), columns(study, frame), accuracy(study, frame), errors(frame)]
    for title, *pair in study.comparisons:
        if set(pair) <= set(frame.cell):
            parts.append(comparison(study, frame, title, *pair))
    parts += [f'![{title}]({path})' for title, path in pictures]
    return '\n\n'.join(filter(None, parts)) + '\n'


def _how(study: SimpleNamespace, name: str, frame: pd.DataFrame) -> str:
    cells, seeds = frame.drop_duplicates(['cell', 'seed']), count(frame)
    asked = len(study.seeds)
    lines = [
        f'`make study NAME={name}`: {len(cells)} of {len(study.runs) * asked} runs, '
        f'seeds {", ".join(map(str, study.seeds))}.',
    ]
    missing = [f'{run} ({n} of {asked})' for run in study.runs if (n := seeds.get(run, 0)) < asked]
    if missing:
        lines.append(f'Not all seeds are finished of: {"; ".join(missing)}.')
    places = sorted(
        f'{device}, {threads} thread(s), torch {torch}'
        for device, threads, torch in cells.groupby(['device', 'threads', 'torch']).groups
    )
    commits = ', '.join(sorted(cells.commit.dropna().unique()))
    lines.append(f'Run on {"; ".join(places)}; revision {commits}.')
    lines.append(
        'Means over seeds ± their standard deviation. The command of each number is in '
        f'`studies/results/{name}.csv`.'
    )
    if study.comparisons:
        lines.append(
            'Of one run against another: the mean difference, seed by seed, ± its standard error; '
            'of errors the mean ratio, with the factor (×÷) of its standard error.'
        )
    return '\n'.join(lines)
