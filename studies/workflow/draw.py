# Copyright (c) mmscale contributors.
"""Draw the page and the pictures of a study: ``draw.py STUDY FILE FOLDER``.

The page, ``<study>.md``, goes beside the CSV file of results, the pictures into a folder. Each
entry of a study's ``pictures`` is a dict with its ``kind``:

- 'scale': accuracy and equivariance error against scale, side by side. ``runs`` names the runs
  (default: all). ``layer`` names the layer of the error (default: the last), or several layers; of
  these, each run shows its first.
- 'scatter': the mean error over all factors above 1 against the mean accuracy there.
- 'factors': accuracy, or with ``measure='error'`` equivariance error, against scale for each value
  of each varied factor. There is a row for each ``model``, a column for each ``factor`` and a line
  for each ``value``; runs have these keys in the study. Runs without a factor are the common
  setting, drawn in every panel of their model at ``values[factor]``.
- 'columns': the ``columns`` of the study that the picture names, a line for each run, with
  ``label`` at the axis, and a panel for each value of the runs' key ``panels``.

``name`` becomes part of the file's name. Runs have ``style``, a dict of arguments of Matplotlib.
``comparisons`` are tuples of a title and two runs. The page compares the second run with the first.
"""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import tables
from cells import find_study, read_study
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from tables import by_seed, spread

from mmscale.engine.report import write_text
from mmscale.visualization import save_figure

MARKERS = 'osD^vP*X<>hd'
MOST_TICKS = 12
LINE = dict(ms=4.5, lw=1.3, capsize=2, elinewidth=0.9)


def draw(study: SimpleNamespace, name: str, frame: pd.DataFrame, out: Path) -> list:
    """Write the pictures of a study, ``<name>_<picture>.png``; return their titles and files."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = []
    for picture in study.pictures:
        title, file = picture.get('title', study.title), picture.get('name', picture['kind'])
        found = tables.select(study, frame, picture.get('runs', ()))
        if found.empty:  # nothing is measured yet
            continue
        figure = KINDS[picture['kind']](study, found, picture)
        seeds = sorted(set(found.groupby('cell', observed=True).seed.nunique()))
        words = f'means over {" to ".join(map(str, seeds))} seeds and their standard deviation'
        figure.suptitle(f'{title}\n{"one seed" if seeds == [1] else words}', fontsize=11)
        save_figure(figure, out / f'{name}_{file}.png', dpi=150)
        drawn.append((title, f'{name}_{file}.png'))
    return drawn


def styles(study: SimpleNamespace) -> dict[str, dict]:
    """Return the style of each run; colours and markers that the study does not set differ."""
    palette = colormaps['tab20']
    own = (dict(color=palette(i % 20), marker=MARKERS[i % 12]) for i in range(len(study.runs)))
    return {
        run: {**style, **study.runs[run].get('style', {})} for run, style in zip(study.runs, own)
    }


def curves(table: pd.DataFrame) -> dict[str, tuple]:
    """Return, for each run, columns, means over seeds, and deviations (None for one seed)."""
    rows = zip(*(part.iterrows() for part in spread(table)))
    return {
        run: (mean.index, mean.to_numpy(), None if bars.isna().all() else bars.to_numpy())
        for (run, mean), (_, bars) in rows
    }


def plot(axes: Axes, curve: tuple, log: bool, **style: object) -> ErrorbarContainer:
    """Plot a curve; a logarithmic axis omits the error 0 at factor 1."""
    x, mean, bars = curve
    shown = mean > 0 if log else slice(None)
    return axes.errorbar(x[shown], mean[shown], None if bars is None else bars[shown], **style)


def draw_scale(study: SimpleNamespace, frame: pd.DataFrame, picture: dict) -> Figure:
    """Draw accuracy and error against scale, side by side."""
    metric, layers = tables.over_scale(study, frame), tables.layers(frame)
    layers = np.atleast_1d(picture.get('layer', layers[-1:]))
    runs, looks, accuracy, error = frame.cell.cat.categories, styles(study), {}, {}
    if metric:
        accuracy = curves(by_seed(frame, metric))
    for layer in layers[::-1]:  # the first layer of a run overwrites the others
        error.update(curves(by_seed(frame, f'error/{layer}')))
    rows = math.ceil(len(runs) / 5)
    figure = Figure(figsize=(11.5, 4.4 + 0.22 * rows), layout='constrained')
    left, right = figure.subplots(1, 2)
    for axes, found in ((left, accuracy), (right, error)):
        for run in runs.intersection(found):
            plot(axes, found[run], axes is right, **{**LINE, **looks[run], 'label': run})
        factors = tables.factors(frame)
        if len(factors) <= MOST_TICKS:
            axes.set_xticks(factors, [f'{s:g}' for s in factors], fontsize=8)
        axes.set_xlabel('scale factor s: everything is s times smaller')
        axes.grid(alpha=0.3, which='both')
    if metric == 'accuracy':
        left.set(title='Accuracy', ylabel='accuracy (%)')
    else:
        left.set(title=metric, ylabel=metric, ylim=(0, None))
    right.set(title=f'Equivariance error of {" or ".join(layers)}', yscale='log',
              ylabel=r'error $\Delta(s)$')  # fmt: skip
    figure.legend(*right.get_legend_handles_labels(), loc='outside lower center', fontsize=8,
                  frameon=False, ncols=math.ceil(len(runs) / rows))  # fmt: skip
    return figure


def draw_scatter(study: SimpleNamespace, frame: pd.DataFrame, picture: dict) -> Figure:
    """Draw error against accuracy: one may improve while the other gets worse."""
    names = f'error/{tables.layers(frame)[-1]}', tables.over_scale(study, frame)
    above = frame[frame.factor > 1]
    both = (by_seed(above, name).mean(axis=1, skipna=False).rename(name) for name in names)
    # A model without an error at some factor has no place.
    table = pd.concat(both, axis=1, join='inner').dropna()
    figure, looks = Figure(figsize=(8.2, 5.2), layout='constrained'), styles(study)
    axes, mean = figure.subplots(), spread(table)[0]
    for run, (_, (error, accuracy), bars) in curves(table).items():
        y_bar, x_bar = (None, None) if bars is None else bars[::-1]
        style = {name: looks[run][name] for name in ('color', 'marker')}
        axes.errorbar(error, accuracy, y_bar, x_bar, ls='none', ms=7, elinewidth=0.8, capsize=2,
                      label=run, **style)  # fmt: skip
    axes.set(xscale='log', xlabel=r'equivariance error, mean over the factors above 1',
             ylabel='accuracy (%), mean over the factors above 1')  # fmt: skip
    rank = mean.rank().corr().iloc[0, 1]  # Spearman's
    axes.set_title(f'rank correlation over the {len(mean)} models: {rank:+.2f}', fontsize=10)
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(FuncFormatter(lambda value, _: f'{value:g}'))
    axes.grid(alpha=0.3, which='both')
    figure.legend(loc='outside right center', frameon=False, fontsize=8)
    return figure


def draw_factors(study: SimpleNamespace, frame: pd.DataFrame, picture: dict) -> Figure:
    """Draw a panel for each model and each varied factor, with a line for each of its values."""
    log = picture.get('measure') == 'error'
    metric = f'error/{tables.layers(frame)[-1]}' if log else tables.over_scale(study, frame)
    found, factors = curves(by_seed(frame, metric)), tables.factors(frame)
    settings = [(run, study.runs[run]) for run in frame.cell.cat.categories]
    # Models and factors of which a value beside the setting is measured, if there is any.
    varied = [s for _, s in settings if s.get('factor')]
    varied = varied or [s for s in study.runs.values() if s.get('factor')]
    models, names = (list(dict.fromkeys(s[key] for s in varied)) for key in ('model', 'factor'))
    figure = Figure(figsize=(2.9 * len(names) + 0.4, 2.9 * len(models) + 1.5), layout='constrained')
    panels = figure.subplots(len(models), len(names), squeeze=False, sharex=True, sharey='row')
    for (row, column), axes in np.ndenumerate(panels):
        model, name = models[row], names[column]
        of_all = {s['values'][name]: (run, '--') for run, s in settings
                  if s['model'] == model and not s.get('factor')}  # fmt: skip
        of_one = {s['value']: (run, '-') for run, s in settings
                  if s['model'] == model and s.get('factor') == name}  # fmt: skip
        lines = sorted({**of_all, **of_one}.items()) if of_one else []
        if not of_one:
            axes.text(0.5, 0.5, 'not measured', transform=axes.transAxes, ha='center', color='0.5')
        for place, (value, (run, ls)) in enumerate(lines):
            label = f'{value:g}' + ', the setting of the others' * (ls == '--')
            label += ': no level left' * bool(log and not (found[run][1] > 0).any())
            color = colormaps['viridis'](0.85 * place / max(1, len(lines) - 1))
            plot(axes, found[run], log, color=color, marker='o', ms=3.5, lw=1.3, capsize=2, ls=ls,
                 label=label)  # fmt: skip
        axes.set(yscale='log' if log else 'linear')
        axes.grid(alpha=0.3)
        near = [False, *(np.diff(factors) < 0.2)]
        axes.set_xticks(factors, ['' if n else f'{s:g}' for s, n in zip(factors, near)], fontsize=7)
        if row == len(models) - 1:
            axes.set_xlabel('scale factor s', fontsize=8)
        if column == 0:
            axes.set_ylabel(f'{model}\n{"equivariance error" if log else "accuracy (%)"}')
        # The legend is above the panel, where it hides no line.
        axes.legend(*axes.get_legend_handles_labels(), fontsize=6.5, title=name.replace('_', ' '),
                    title_fontsize=7.5, frameon=False, loc='lower center',
                    bbox_to_anchor=(0.5, 1.0))  # fmt: skip
    return figure


def draw_columns(study: SimpleNamespace, frame: pd.DataFrame, picture: dict) -> Figure:
    """Draw results of several tests side by side, for example of objects of several sizes."""
    metrics = [f'test/{"/".join(study.columns[title])}' for title in picture['columns']]
    found, looks = curves(by_seed(frame, *metrics)[metrics]), styles(study)
    values = list(dict.fromkeys(study.runs[run][picture['panels']] for run in found))
    figure = Figure(figsize=(1.2 + 4.4 * len(values), 4.6), layout='constrained')
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    labels, places = {}, np.arange(len(metrics))
    for axes, value in zip(panels, values):
        chosen = [run for run in found if study.runs[run][picture['panels']] == value]
        for number, run in enumerate(chosen):
            x = places + 0.06 * (number - (len(chosen) - 1) / 2)  # bars beside one another
            line = plot(axes, (x, *found[run][1:]), False, **{**LINE, **looks[run]})
            labels[study.runs[run].get('label', run)] = line
        axes.set(title=value, xlim=(-0.4, len(metrics) - 0.6))
        axes.set_xticks(places, picture['columns'])
        axes.grid(alpha=0.3)
    panels[0].set(ylabel=picture['label'], ylim=(0, None))  # all share it
    figure.legend(labels.values(), labels, loc='outside lower center', ncols=5, frameon=False,
                  fontsize=8)  # fmt: skip
    return figure


KINDS = dict(scale=draw_scale, scatter=draw_scatter, factors=draw_factors, columns=draw_columns)


def main() -> None:
    path, results, out = find_study(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    study, frame = read_study(path), tables.load(path.stem, results.parent)
    drawn = [out / file for _, file in draw(study, path.stem, frame, out)]
    write_text(page := results.with_suffix('.md'), tables.document(study, path.stem, frame, []))
    print(*drawn, page, sep='\n')


if __name__ == '__main__':
    main()
