# Copyright (c) mmscale contributors.
"""Draws the page and the pictures of a study: ``draw.py STUDY FILE FOLDER``.

The page, ``<study>.md``, goes beside the CSV file of results, the pictures into a folder, and test
accuracies into the model index. Each entry of a study's ``pictures`` is a dict with its ``kind``:

- 'scale': accuracy and equivariance error against scale, side by side; ``runs`` names those to draw
  (default: all).
- 'scatter': the mean error over all factors above 1 against the mean accuracy there, a point a
  run.
- 'factors': accuracy, or with ``measure='error'`` equivariance error, against scale for each value
  of each factor that was varied: a row for each ``model``, a column for each ``factor`` and a line
  for each ``value`` of the runs, which have these keys in the study; runs without a factor are the
  setting around which the others vary, drawn in every panel of their model at ``values[factor]``.
- 'columns': the ``columns`` of the study that the picture names, a line a run, with ``label``
  (default: 'result') at its axis; a panel for each value that the runs have of the key ``panels``.

'scale' may name the ``layer`` whose error is drawn, or several, of which each run has its first;
default: the last. ``name`` becomes part of the file's name. Runs have ``style``, a dict of
arguments of Matplotlib. ``comparisons`` are tuples of a title and two runs, of which the page
compares the second with the first.
"""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import matplotlib.ticker
import numpy as np
import pandas as pd
import tables
from cells import RESULTS, STUDIES, find_study, read_study
from fill_index import fill
from matplotlib.figure import Figure
from tables import by_seed, spread

from mmscale.evaluation.report import write_text
from mmscale.visualization import save_figure

MARKERS = 'osD^vP*X<>hd'


def draw(study: SimpleNamespace, name: str, frame: pd.DataFrame, out: Path) -> list:
    """Writes the pictures of a study, ``<name>_<picture>.png``; returns their titles and files."""
    out.mkdir(parents=True, exist_ok=True)
    frame, drawn = tables.select(study, frame), []
    for picture in study.pictures:
        figure = KINDS[picture['kind']](study, frame, picture)
        if figure is not None:
            path = out / f'{name}_{picture.get("name", picture["kind"])}.png'
            save_figure(figure, path, dpi=150)
            drawn.append((picture.get('title', study.title), path.name))
    return drawn


def styles(study: SimpleNamespace) -> dict[str, dict]:
    """Colour, marker and line of each run; those that the study does not say are its own."""
    palette, found = matplotlib.colormaps['tab20'], {}
    for place, (run, setting) in enumerate(study.runs.items()):
        style = dict(color=palette(place % 20), marker=MARKERS[place % len(MARKERS)])
        found[run] = {**style, **setting.get('style', {})}
    return found


def curves(table: pd.DataFrame) -> dict[str, tuple]:
    """For each cell the factors, the means over seeds, and their deviations or None of one seed."""
    mean, deviation = spread(table)
    bars = {run: None if row.isna().all() else row.to_numpy() for run, row in deviation.iterrows()}
    return {run: (mean.columns, row.to_numpy(), bars[run]) for run, row in mean.iterrows()}


def plot(axes, curve: tuple, shown, **style):
    """A line of :func:`curves`, as far as it is shown."""
    factors, mean, bars = curve
    bars = None if bars is None else bars[shown]
    return axes.errorbar(factors[shown], mean[shown], bars, **style)


def _title(study: SimpleNamespace, frame: pd.DataFrame, picture: dict) -> str:
    counts = sorted(set(tables.count(frame)))
    words = f'{counts[0]}' if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'
    seeds = f'means over {words} seeds and their standard deviation'
    return f'{picture.get("title", study.title)}\n{"one seed" if counts == [1] else seeds}'


def draw_scale(study: SimpleNamespace, frame: pd.DataFrame, picture: dict) -> Figure | None:
    """Accuracy and error against scale, side by side."""
    frame = tables.select(study, frame, [r for r in picture.get('runs', study.runs)])
    metric, layers = tables.over_scale(study, frame), tables.layers(frame)
    if not layers:
        return None
    layers = picture.get('layer', layers[-1:])
    layers = [layers] if isinstance(layers, str) else layers
    runs, looks = list(frame.cell.cat.categories), styles(study)
    figure = Figure(figsize=(11.5, 4.4 + 0.22 * math.ceil(len(runs) / 5)), layout='constrained')
    left, right = figure.subplots(1, 2)
    accuracies = curves(by_seed(frame, metric)) if metric else {}
    errors = {}
    for layer in reversed(layers):  # the first that a run has
        errors.update(curves(by_seed(frame, f'error/{layer}')))
    for run in runs:
        style = {**dict(ms=4.5, lw=1.3, capsize=2, elinewidth=0.9, label=run), **looks[run]}
        if run in accuracies:
            plot(left, accuracies[run], slice(None), **style)
        if run in errors:
            plot(right, errors[run], errors[run][1] > 0, **style)  # at 1 it is 0: off a log axis
    if metric == 'accuracy':
        left.set(title='Accuracy', ylabel='accuracy (%)')
    else:
        left.set(title=metric, ylabel=metric, ylim=(0, None))
    title = f'Equivariance error of {" or ".join(layers)}'
    right.set(title=title, yscale='log', ylabel=r'error $\Delta(s)$')
    factors = tables.factors(frame)
    for axes in (left, right):
        axes.set_xlabel('scale factor s: everything is s times smaller')
        axes.set_xticks(factors, [f'{s:g}' for s in factors], fontsize=8)
        axes.grid(alpha=0.3, which='both')
    figure.suptitle(_title(study, frame, picture), fontsize=11)
    handles, labels = left.get_legend_handles_labels()
    rows = math.ceil(len(labels) / 5) or 1
    figure.legend(handles, labels, loc='outside lower center', fontsize=8, frameon=False,
                  ncols=math.ceil(len(labels) / rows))  # fmt: skip
    return figure


def draw_scatter(study: SimpleNamespace, frame: pd.DataFrame, picture: dict) -> Figure | None:
    """Error against accuracy: one may improve while the other gets worse."""
    metric, layers = tables.over_scale(study, frame), tables.layers(frame)
    if not metric or not layers:
        return None
    above = frame[frame.factor > 1]
    both = [by_seed(above, name).mean(axis=1, skipna=False).rename(name).to_frame()
            for name in (f'error/{layers[-1]}', metric)]  # fmt: skip
    mean, deviation = spread(both[0].join(both[1], how='inner'))
    figure, looks = Figure(figsize=(8.2, 5.2), layout='constrained'), styles(study)
    axes = figure.subplots()
    for run, (error, accuracy) in mean.iterrows():
        style = {key: looks[run][key] for key in ('color', 'marker')}
        bars = [None if math.isnan(bar) else bar for bar in deviation.loc[run]]
        axes.errorbar(error, accuracy, bars[1], bars[0], ls='none', ms=7, elinewidth=0.8,
                      capsize=2, label=run, **style)  # fmt: skip
    rank = mean.rank().corr().iloc[0, 1]  # Spearman's
    axes.set(xscale='log', xlabel=r'equivariance error, mean over the factors above 1',
             ylabel='accuracy (%), mean over the factors above 1')  # fmt: skip
    # The title of the study: all of its runs are in it.
    correlation = f'rank correlation over the {len(mean)} models: {rank:+.2f}'
    axes.set_title(f'{_title(study, frame, {})}\n{correlation}', fontsize=10)
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(matplotlib.ticker.FuncFormatter(lambda value, _: f'{value:g}'))
    axes.grid(alpha=0.3, which='both')
    figure.legend(*axes.get_legend_handles_labels(), loc='outside right center', frameon=False,
                  fontsize=8)  # fmt: skip
    return figure


def draw_factors(study: SimpleNamespace, frame: pd.DataFrame, picture: dict) -> Figure | None:
    """A panel for each model and each factor that was varied, a line for each of its values."""
    of_error = picture.get('measure') == 'error'
    layers, metric = tables.layers(frame), tables.over_scale(study, frame)
    found = curves(by_seed(frame, f'error/{layers[-1]}' if of_error else metric))
    settings = {run: study.runs[run] for run in frame.cell.cat.categories}
    models = list(dict.fromkeys(setting['model'] for setting in settings.values()))
    names = list(dict.fromkeys(s['factor'] for s in study.runs.values() if s.get('factor')))
    factors = tables.factors(frame)
    figure = Figure(figsize=(2.9 * len(names) + 0.4, 2.9 * len(models) + 1.5), layout='constrained')
    panels = figure.subplots(len(models), len(names), squeeze=False, sharex=True, sharey='row')
    for row, model in zip(panels, models):
        for axes, name in zip(row, names):
            lines, absent = {}, []
            for run, setting in settings.items():
                of_factor = setting.get('factor') == name
                if setting['model'] == model and (of_factor or not setting.get('factor')):
                    value = setting['value'] if of_factor else setting['values'][name]
                    lines[value] = run, not of_factor
            colours = matplotlib.colormaps['viridis'](np.linspace(0, 0.85, max(2, len(lines))))
            for colour, value in zip(colours, sorted(lines)):
                run, best = lines[value]
                # At 1 the error is 0, off a logarithmic axis.
                shown = found[run][1] > 0 if of_error else slice(None)
                if of_error and not shown.any():
                    absent.append(f'{value:g}')
                plot(axes, found[run], shown, color=colour, marker='o', ms=3.5, lw=1.3, capsize=2,
                     ls='--' if best else '-',
                     label=f'{value:g}' + ', the setting of the others' * best)  # fmt: skip
            axes.set_yscale('log' if of_error else 'linear')
            if absent:
                axes.text(0.03, 0.03, f'{", ".join(absent)}: no level left', fontsize=6.5,
                          transform=axes.transAxes)  # fmt: skip
            axes.grid(alpha=0.3)
            near = [False, *(np.diff(factors) < 0.2)]
            ticks = ['' if hidden else f'{s:g}' for s, hidden in zip(factors, near)]
            axes.set_xticks(factors, ticks, fontsize=7)
        row[0].set_ylabel(f'{model}\n{"equivariance error" if of_error else "accuracy (%)"}')
    for column, name in zip(panels.T, names):
        # Above the column, where it hides no line, for all of its panels.
        shown = max((axes.get_legend_handles_labels() for axes in column), key=lambda x: len(x[0]))
        column[0].legend(*shown, fontsize=6.5, title=name.replace('_', ' '), title_fontsize=7.5,
                         frameon=False, loc='lower center', bbox_to_anchor=(0.5, 1.0))  # fmt: skip
    for axes in panels[-1]:
        axes.set_xlabel('scale factor s', fontsize=8)
    figure.suptitle(_title(study, frame, picture), fontsize=11)
    return figure


def draw_columns(study: SimpleNamespace, frame: pd.DataFrame, picture: dict) -> Figure | None:
    """Results of several tests side by side: of objects of several sizes, for example."""
    metrics = [f'test/{"/".join(study.columns[title])}' for title in picture['columns']]
    found = frame[frame.metric.isin(metrics)].pivot(
        index=['cell', 'seed'], columns='metric', values='value'
    )
    found, looks = curves(found[metrics]), styles(study)
    values = list(dict.fromkeys(study.runs[run].get(picture['panels']) for run in found))
    figure = Figure(figsize=(1.2 + 4.4 * len(values), 4.6), layout='constrained')
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    labels, places = {}, np.arange(len(metrics))
    for axes, value in zip(panels, values):
        chosen = [run for run in found if study.runs[run].get(picture['panels']) == value]
        for number, run in enumerate(chosen):
            shifts = places + 0.06 * (number - (len(chosen) - 1) / 2)  # bars beside one another
            style = dict(ms=5, lw=1.3, capsize=2, **looks[run])
            line = plot(axes, (shifts, *found[run][1:]), slice(None), **style)
            labels[study.runs[run].get('label', run)] = line
        axes.set(title=value, xlim=(-0.4, len(metrics) - 0.6))
        axes.set_xticks(places, picture['columns'])
        axes.grid(alpha=0.3)
    panels[0].set(ylabel=picture.get('label', 'result'), ylim=(0, None))  # all share it
    figure.suptitle(_title(study, frame, picture), fontsize=11)
    figure.legend(labels.values(), labels, loc='outside lower center', ncols=5, frameon=False,
                  fontsize=8)  # fmt: skip
    return figure


KINDS = dict(scale=draw_scale, scatter=draw_scatter, factors=draw_factors, columns=draw_columns)


def main():
    path, results, out = find_study(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    study, frame = read_study(path), tables.load(path.stem, results.parent)
    for _, file in draw(study, path.stem, frame, out):
        print(out / file)
    write_text(page := results.with_suffix('.md'), tables.document(study, path.stem, frame, []))
    print(page)
    if (path.parent, results.parent) == (STUDIES, RESULTS):  # of the repository
        fill(study, frame)


if __name__ == '__main__':
    main()
