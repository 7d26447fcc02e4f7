# Copyright (c) mmscale contributors.
"""Make the tables of a study, in Markdown, from the CSV file of its results."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from cells import RESULTS

from mmscale.engine.accuracy import MAIN_METRICS
from mmscale.evaluation.equivariance import FACTORS

BOTH = ['cell', 'seed']


def load(name: str, folder: Path = RESULTS) -> pd.DataFrame:
    """Load the results of a study, a line for each number, without rounding."""
    return pd.read_csv(folder / f'{name}.csv', float_precision='round_trip')


def select(study: SimpleNamespace, frame: pd.DataFrame, chosen: tuple = ()) -> pd.DataFrame:
    """Return the lines of the study's runs, or of the chosen runs; ``cell`` is ordered categories.

    Cells with measurements at other factors than the factors of the study are left out.

    Raises:
        ValueError: If the study does not have a chosen run.
    """
    for run in chosen:
        if run not in study.runs:
            raise ValueError(f'study: there is no run {run!r}')
    frame = frame[frame.cell.isin(chosen or study.runs)]
    if study.equivariance:
        asked = np.atleast_1d(study.equivariance.get('factors', FACTORS)).astype(float)
        other = pd.MultiIndex.from_frame(frame[~frame.factor.isin([*asked, math.nan])][BOTH])
        frame = frame[~pd.MultiIndex.from_frame(frame[BOTH]).isin(other)]
    order = [run for run in chosen or study.runs if run in set(frame.cell)]
    return frame.assign(cell=pd.Categorical(frame.cell, order, ordered=True))


def by_seed(frame: pd.DataFrame, *metrics: str) -> pd.DataFrame:
    """Return a table with a row for each cell and seed, and a column for each metric.

    For a single metric, there is a column for each factor instead, 0 if the metric has no factor. A
    cell has a row for each of its seeds, or none.
    """
    columns = 'metric' if len(metrics) > 1 else 'factor'
    found = frame[frame.metric.isin(metrics)].assign(factor=lambda f: f.factor.fillna(0))
    table = found.pivot(index=BOTH, columns=columns, values='value')
    # An evaluator that found nothing has no line.
    pairs = frame[frame.cell.isin(set(found.cell))][BOTH].drop_duplicates()
    return table.reindex(pd.MultiIndex.from_frame(pairs)).sort_index()


def spread(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return mean and standard deviation (with Bessel's correction) over seeds for each cell."""
    groups = table.groupby(level='cell', observed=True)
    return groups.agg(lambda x: x.mean(skipna=False)), groups.agg(lambda x: x.std(skipna=False))


def layers(frame: pd.DataFrame) -> list[str]:
    """Return the layers whose equivariance error was measured."""
    names = frame.metric.unique()
    return [name[6:] for name in names if name[:6] == 'error/' and name[-10:] != '/truncated']


def over_scale(study: SimpleNamespace, frame: pd.DataFrame) -> str | None:
    """Return the main metric over scale: accuracy, mean AP or mean IoU."""
    names = frame[frame.factor.notna()].metric.unique()
    ends = ((study.equivariance or {}).get('metric') or 'accuracy', *MAIN_METRICS)
    return next((name for end in ends for name in names if name.endswith(end)), None)


def factors(frame: pd.DataFrame) -> np.ndarray:
    return np.sort(frame.factor.dropna().unique())


def markdown(head: list[str], rows: list[list[str]], text: int = 1) -> str:
    """Return a Markdown table, its first ``text`` columns text, the rest numbers; '' if no row."""
    rule = ['---'] * text + ['---:'] * (len(head) - text)
    return '\n'.join(f'| {" | ".join(line)} |' for line in [head, rule, *rows]) if rows else ''


def show(mean: float, deviation: float, form: str) -> str:
    if math.isnan(mean):
        return '-'
    text = format(mean, form)
    return text if math.isnan(deviation) else f'{text} ± {format(deviation, form.lstrip("+"))}'


def shown(table: pd.DataFrame, form: str) -> dict[str, list[str]]:
    """Return, for each cell, a text with mean and deviation for each column."""
    rows = zip(*(part.itertuples() for part in spread(table)))
    return {mean[0]: [show(*pair, form) for pair in zip(mean[1:], bars[1:])] for mean, bars in rows}


def heads(frame: pd.DataFrame) -> list[str]:
    """Return the scales of the images as heads of columns."""
    return ['1' if s == 1 else f'1/{s:g}' for s in factors(frame)]


def accuracy(study: SimpleNamespace, frame: pd.DataFrame) -> str:
    """Return a table of the accuracy over scale of each run; empty if it was not measured."""
    metric = over_scale(study, frame)
    form, title = ('.2f', 'Accuracy in %') if metric == 'accuracy' else ('.3g', metric)
    rows = shown(by_seed(frame, metric), form).items() if metric else []
    return markdown([title, *heads(frame)], [[run, *texts] for run, texts in rows])


def errors(frame: pd.DataFrame) -> str:
    """Return tables of the equivariance error over scale of each run, one for each layer."""
    found = []
    for layer in layers(frame):
        rows = shown(by_seed(frame, f'error/{layer}'), '.2g').items()
        head = [f'Equivariance error of `{layer}`', *heads(frame)]
        found.append(markdown(head, [[run, *texts] for run, texts in rows]))
    return '\n\n'.join(found)


def test_errors(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the test error in percent, in a table as of :func:`by_seed`."""
    return 100 - by_seed(frame, 'test/accuracy/top1')


def costs(study: SimpleNamespace, frame: pd.DataFrame, short: bool = False) -> str:
    """Return a table of costs and test errors of the runs, or a short one of runs with a test."""
    cells, tested = frame.drop_duplicates(BOTH), shown(test_errors(frame), '.2f')
    minutes = {
        f'training on {device}, minutes': shown(
            group[[*BOTH, 'seconds']].set_index(BOTH) / 60, '.1f'
        )
        for device, group in cells.groupby('device')
    }
    rows = []
    for run, group in cells.groupby('cell', observed=True):
        one, error = group.iloc[0], tested.get(run, ['-'])
        row = [str(len(group)), f'{one.parameters:,}']
        if short and run in tested:
            rows.append([run, *row, *error])
        elif not short:
            row = [run, f'`{study.runs[run]["config"]}`', *row, f'{one.multiply_adds / 1e6:,.1f} M']
            row += [found.get(run, ['-'])[0] for found in minutes.values()]
            rows.append(row + error * bool(tested))
    if short:
        return markdown(['', 'trainings', 'parameters', 'test error, %'], rows)
    head = ['run', 'config', 'seeds', 'parameters', 'multiply-adds', *minutes]
    return markdown(head + ['test error, %'] * bool(tested), rows, text=2)


def columns(study: SimpleNamespace, frame: pd.DataFrame) -> str:
    """Return a table of the ``columns`` of a study, its further tests; empty if it has none."""
    found = [shown(by_seed(frame, f'test/{"/".join(place)}'), '.3g')
             for place in study.columns.values()]  # fmt: skip
    seeds = frame.groupby('cell', observed=True).seed.nunique()
    rows = [[run, str(seeds[run]), *(one.get(run, ['-'])[0] for one in found)]
            for run in seeds.index if any(run in one for one in found)]  # fmt: skip
    return markdown(['', 'seeds', *study.columns], rows)


def comparison(study: SimpleNamespace, frame: pd.DataFrame, title: str, *pair: str) -> str:
    """Compare two runs seed by seed: the difference of accuracies and the ratio of errors."""
    rows, metric = [], over_scale(study, frame)
    form, name = ('+.2f', 'accuracy, points') if metric == 'accuracy' else ('+.3g', metric)
    if metric and (found := _difference(by_seed(frame, metric), pair)):
        rows.append([name, *(show(*one, form) for one in zip(*found))])
    for layer in layers(frame):
        table = by_seed(frame, f'error/{layer}')
        if found := _difference(np.log(table.where(table > 0)), pair):  # both runs have the layer
            rows.append([f'error of `{layer}`, ratio', *map(_ratio, *found)])
    head = ': '.join(filter(None, [title, f'{pair[1]} against {pair[0]}']))
    return markdown([head, *heads(frame)], rows)


def _difference(table: pd.DataFrame, pair: tuple[str, str]) -> tuple | None:
    """Return the mean difference over the seeds of both runs, and its standard error."""
    before, after = (table[table.index.get_level_values('cell') == run].droplevel('cell')
                     for run in pair)  # fmt: skip
    found = (after - before).loc[after.index.intersection(before.index)]
    if found.empty:
        return None
    return found.mean(skipna=False), found.std(skipna=False) / math.sqrt(len(found))


def _ratio(mean: float, error: float) -> str:
    """Format a ratio from its logarithm; a standard error e becomes a factor exp(e)."""
    if math.isnan(mean):
        return '-'
    text = f'{math.exp(mean):.0f}' if math.exp(mean) >= 100 else f'{math.exp(mean):.2g}'
    return text if math.isnan(error) else f'{text} (×÷ {math.exp(error):.2f})'


def document(study: SimpleNamespace, name: str, frame: pd.DataFrame, pictures: list) -> str:
    """Return the page of a study: how it was made, tables, and pictures by title and file."""
    frame = select(study, frame)
    parts = [f'# {study.title}', _how(study, name, frame)]
    parts += [costs(study, frame), columns(study, frame), accuracy(study, frame), errors(frame)]
    parts += [comparison(study, frame, *names) for names in study.comparisons]
    parts += [f'![{title}]({path})' for title, path in pictures]
    return '\n\n'.join(filter(None, parts)) + '\n'


def _how(study: SimpleNamespace, name: str, frame: pd.DataFrame) -> str:
    cells, asked = frame.drop_duplicates(BOTH), len(study.seeds)
    lines = [f'`make study NAME={name}`: {len(cells)} of {len(study.runs) * asked} runs, '
             f'seeds {", ".join(map(str, study.seeds))}.']  # fmt: skip
    seeds = cells.cell.value_counts()
    missing = [f'{run} ({n} of {asked})' for run in study.runs if (n := seeds.get(run, 0)) < asked]
    lines += [f'Not all seeds are finished of: {"; ".join(missing)}.'] * bool(missing)
    places = [f'{device}, {threads} thread(s), torch {torch}'
              for device, threads, torch in cells.groupby(['device', 'threads', 'torch']).groups
              ]  # fmt: skip
    lines.append(f'Run on {"; ".join(places)}; revision '
                 f'{", ".join(sorted(cells.commit.dropna().unique()))}.')  # fmt: skip
    lines.append('Means over seeds ± their standard deviation. The command of each number is in '
                 f'`studies/results/{name}.csv`.')  # fmt: skip
    if study.comparisons:
        lines.append('Of one run against another: the mean difference, seed by seed, ± its '
                     'standard error; of errors the mean ratio, with the factor (×÷) of its '
                     'standard error.')  # fmt: skip
    return '\n'.join(lines)
