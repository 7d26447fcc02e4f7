# Copyright (c) mmscale contributors.
"""Pictures of a study. Each entry of its ``pictures`` is a dict with its ``kind``:

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
default: the last.

``name`` becomes part of the file's name. Runs have ``style``, a dict of arguments of Matplotlib.
"""

import math
from pathlib import Path

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config

from mmscale.evaluation.report import metric_name, write_text
from mmscale.visualization import save_figure

from . import summary, tables

MARKERS = 'osD^vP*X<>hd'
SUFFIXES = ('.png', '.svg')


def write(study: Config, entries: list[dict], out: Path, name: str) -> list[Path]:
    """Writes the page of a study, ``<name>.md``, and its pictures beside it."""
    drawn = draw(study, entries, out, name)
    page = out / f'{name}.md'
    write_text(page, tables.document(study, name, entries, drawn))
    return [page, *(out / file for _, file in drawn)]


def draw(study: Config, entries: list[dict], out: Path, name: str) -> list[tuple[str, str]]:
    """Writes the pictures of a study, ``<name>_<picture>``; returns their titles and files."""
    out.mkdir(parents=True, exist_ok=True)
    runs = summary.runs_of(study, entries)
    drawn = []
    for picture in study.pictures if runs else []:
        figure = KINDS[picture.kind](study, runs, picture)
        if figure is None:
            continue
        path = out / f'{name}_{picture.get("name", picture.kind)}.png'
        for suffix in SUFFIXES:
            save_figure(figure, path.with_suffix(suffix), dpi=150)
        drawn.append((picture.get('title', study.title), path.name))
    return drawn


def check_pictures(study: Config) -> None:
    """Raises a ValueError for a picture or a comparison that could not be made in the end."""
    for picture in study.pictures:
        if picture.get('kind') not in KINDS:
            raise ValueError(
                f'study: the kind of a picture must be one of {", ".join(KINDS)}, '
                f'got {picture.get("kind")!r}'
            )
    named = [run for picture in study.pictures for run in picture.get('runs', [])]
    named += [run for _, *pair in study.comparisons for run in pair]
    for run in named:
        if run not in study.runs:
            raise ValueError(f'study: pictures or comparisons have {run!r}, which is no run of it')


def styles(study: Config, runs) -> dict[str, dict]:
    """Colour, marker and line of each run; those that the study does not say are its own."""
    palette = matplotlib.colormaps['tab20']
    found = {}
    for place, run in enumerate(study.runs):
        style = dict(color=palette(place % 20), marker=MARKERS[place % len(MARKERS)])
        found[run] = {**style, **(study.runs[run].get('style') or {})}
    return {run: found[run] for run in runs}


def draw_scale(study: Config, runs: dict, picture: Config) -> Figure | None:
    """Accuracy and error against scale, side by side."""
    chosen = [run for run in picture.get('runs') or runs if run in runs]
    entries = [entry for run in chosen for entry in runs[run]]
    if not chosen or not summary.factors(entries):
        return None
    factors = np.array(summary.factors(entries))
    layers = picture.get('layer', summary.layers(entries)[-1:])
    layers = [layers] if isinstance(layers, str) else layers
    rows = math.ceil(len(chosen) / 5)
    figure = Figure(figsize=(11.5, 4.4 + 0.22 * rows), layout='constrained')
    left, right = figure.subplots(1, 2)
    looks = styles(study, chosen)
    for run in chosen:
        common = dict(ms=4.5, lw=1.3, capsize=2, elinewidth=0.9, label=run)
        style = {**common, **looks[run]}
        accuracy = summary.accuracy_over_scale(runs[run])
        errors = (summary.error_over_scale(runs[run], layer) for layer in layers)
        error = next((one for one in errors if one is not None), None)
        if accuracy is not None:
            left.errorbar(factors, accuracy.mean, _bars(accuracy), **style)
        if error is not None:
            shown = error.mean > 0  # at 1 it is 0, off a logarithmic axis
            right.errorbar(factors[shown], error.mean[shown], _bars(error, shown), **style)
    metric = summary.metric_over_scale(entries)
    if metric == metric_name({}):
        left.set(title='Accuracy', ylabel='accuracy (%)')
    else:
        left.set(title=metric, ylabel=metric, ylim=(0, None))
    right.set(
        title=f'Equivariance error of {" or ".join(layers)}',
        yscale='log',
        ylabel=r'error $\Delta(s)$',
    )
    for axes in (left, right):
        axes.set_xlabel('scale factor s: everything is s times smaller')
        axes.set_xticks(factors, [f'{s:g}' for s in factors], fontsize=8)
        axes.grid(alpha=0.3, which='both')
    figure.suptitle(f'{picture.get("title", study.title)}{_seeds(runs, chosen)}', fontsize=11)
    handles, labels = left.get_legend_handles_labels()
    rows = math.ceil(len(labels) / 5) or 1
    figure.legend(handles, labels, loc='outside lower center', fontsize=8, frameon=False,
                  ncols=math.ceil(len(labels) / rows))  # fmt: skip
    return figure


def _bars(spread: summary.Spread, shown=...) -> np.ndarray | None:
    return None if spread.count == 1 else spread.deviation[shown]


def _seeds(runs: dict, chosen: list[str]) -> str:
    counts = sorted({len(runs[run]) for run in chosen})
    words = f'{counts[0]}' if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'
    if counts == [1]:
        return '\none seed'
    return f'\nmeans over {words} seeds and their standard deviation'


def draw_scatter(study: Config, runs: dict, picture: Config) -> Figure | None:
    """Error against accuracy: one may improve while the other gets worse."""
    entries = [entry for found in runs.values() for entry in found]
    layers = summary.layers(entries)
    above = np.array(summary.factors(entries)) > 1

    def mean(values: dict) -> float:
        return np.array(values['mean'], dtype=float)[above].mean()

    points = {}
    for run, found in runs.items():
        if all(entry.get('accuracy') and layers[-1] in entry['layers'] for entry in found):
            errors = summary.Spread.of(mean(entry['layers'][layers[-1]]) for entry in found)
            accuracies = summary.Spread.of(mean(entry['accuracy']) for entry in found)
            points[run] = errors, accuracies
    if len(points) < 2:
        return None
    figure = Figure(figsize=(8.2, 5.2), layout='constrained')
    axes = figure.subplots()
    looks = styles(study, points)
    for run, (error, accuracy) in points.items():
        style = {key: value for key, value in looks[run].items() if key in ('color', 'marker')}
        axes.errorbar(error.mean, accuracy.mean, _bars(accuracy), _bars(error), ls='none', ms=7,
                      elinewidth=0.8, capsize=2, label=run, **style)  # fmt: skip
    errors, accuracies = np.array([[e.mean, a.mean] for e, a in points.values()]).T
    rank = _rank_correlation(errors, accuracies)
    axes.set(xscale='log', xlabel=r'equivariance error, mean over the factors above 1',
             ylabel='accuracy (%), mean over the factors above 1')  # fmt: skip
    correlation = f'rank correlation over the {len(points)} models: {rank:+.2f}'
    axes.set_title(f'{study.title}{_seeds(runs, list(points))}\n{correlation}', fontsize=10)
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(matplotlib.ticker.FuncFormatter(lambda value, _: f'{value:g}'))
    axes.grid(alpha=0.3, which='both')
    figure.legend(*axes.get_legend_handles_labels(), loc='outside right center', frameon=False,
                  fontsize=8)  # fmt: skip
    return figure


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's; ties, which measured numbers hardly have, in the order given."""
    ranks = [np.argsort(np.argsort(values)) for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def draw_factors(study: Config, runs: dict, picture: Config) -> Figure | None:
    """A panel for each model and each factor that was varied, a line for each of its values."""
    settings = {run: study.runs[run] for run in runs}
    models = list(dict.fromkeys(setting.model for setting in settings.values()))
    names = list(dict.fromkeys(s.factor for s in study.runs.values() if s.get('factor')))
    entries = [entry for found in runs.values() for entry in found]
    factors = np.array(summary.factors(entries))
    if not names or not len(factors):
        return None
    of_error = picture.get('measure') == 'error'
    unit, layer = ('equivariance error' if of_error else 'accuracy (%)'), summary.layers(entries)
    figure = Figure(figsize=(2.9 * len(names) + 0.4, 2.9 * len(models) + 1.5), layout='constrained')
    panels = figure.subplots(len(models), len(names), squeeze=False, sharex=True, sharey='row')
    for row, model in zip(panels, models):
        for axes, name in zip(row, names):
            lines, absent = {}, []
            for run, setting in settings.items():
                of_factor = setting.get('factor') == name
                if setting.model == model and (of_factor or not setting.get('factor')):
                    value = setting.value if of_factor else setting['values'][name]
                    lines[value] = runs[run], not of_factor
            colours = matplotlib.colormaps['viridis'](np.linspace(0, 0.85, max(2, len(lines))))
            for colour, value in zip(colours, sorted(lines)):
                found, best = lines[value]
                if of_error:
                    curve = summary.error_over_scale(found, layer[-1])
                else:
                    curve = summary.accuracy_over_scale(found)
                if curve is not None:
                    # At 1 the error is 0, off a logarithmic axis.
                    shown = curve.mean > 0 if of_error else slice(None)
                    if of_error and not shown.any():
                        absent.append(f'{value:g}')
                    label = f'{value:g}' + ', the setting of the others' * best
                    axes.errorbar(factors[shown], curve.mean[shown], _bars(curve, shown),
                                  color=colour, marker='o', ms=3.5, lw=1.3, capsize=2,
                                  ls='--' if best else '-', label=label)  # fmt: skip
            axes.set_yscale('log' if of_error else 'linear')
            if absent:
                axes.text(0.03, 0.03, f'{", ".join(absent)}: no level left', fontsize=6.5,
                          transform=axes.transAxes)  # fmt: skip
            axes.grid(alpha=0.3)
            near = [False, *(np.diff(factors) < 0.2)]
            ticks = ['' if hidden else f'{s:g}' for s, hidden in zip(factors, near)]
            axes.set_xticks(factors, ticks, fontsize=7)
        row[0].set_ylabel(f'{model}\n{unit}')
    for column, name in zip(panels.T, names):
        # Above the column, where it hides no line, for all of its panels.
        shown = max((axes.get_legend_handles_labels() for axes in column), key=lambda x: len(x[0]))
        column[0].legend(*shown, fontsize=6.5, title=name.replace('_', ' '), title_fontsize=7.5,
                         frameon=False, loc='lower center', bbox_to_anchor=(0.5, 1.0))  # fmt: skip
    for axes in panels[-1]:
        axes.set_xlabel('scale factor s', fontsize=8)
    title = picture.get('title', study.title)
    figure.suptitle(f'{title}{_seeds(runs, list(runs))}', fontsize=11)
    return figure


def draw_columns(study: Config, runs: dict, picture: Config) -> Figure | None:
    """Results of several tests side by side: of objects of several sizes, for example."""
    columns = {title: study.columns[title] for title in picture.columns}
    found = {
        run: [summary.tested(entries, *place) for place in columns.values()]
        for run, entries in runs.items()
    }
    found = {run: spreads for run, spreads in found.items() if all(spreads)}
    if not found:
        return None
    values = list(dict.fromkeys(study.runs[run].get(picture.panels) for run in found))
    figure = Figure(figsize=(1.2 + 4.4 * len(values), 4.6), layout='constrained')
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    looks, labels, places = styles(study, found), {}, np.arange(len(columns))
    for axes, value in zip(panels, values):
        chosen = [run for run in found if study.runs[run].get(picture.panels) == value]
        for number, run in enumerate(chosen):
            shifts = places + 0.06 * (number - (len(chosen) - 1) / 2)  # bars beside one another
            mean, deviation = (
                np.array([getattr(spread, name) for spread in found[run]])
                for name in ('mean', 'deviation')
            )
            bars = None if np.isnan(deviation).all() else deviation
            label = study.runs[run].get('label', run)
            labels[label] = axes.errorbar(shifts, mean, bars, ms=5, lw=1.3, capsize=2, **looks[run])
        axes.set(title=value, xlim=(-0.4, len(columns) - 0.6))
        axes.set_xticks(places, columns)
        axes.grid(alpha=0.3)
    panels[0].set(ylabel=picture.get('label', 'result'), ylim=(0, None))  # all share it
    figure.suptitle(f'{picture.get("title", study.title)}{_seeds(runs, list(found))}', fontsize=11)
    figure.legend(labels.values(), labels, loc='outside lower center', ncols=5, frameon=False,
                  fontsize=8)  # fmt: skip
    return figure


KINDS = dict(scale=draw_scale, scatter=draw_scatter, factors=draw_factors, columns=draw_columns)


def accuracy(entry: dict) -> float:
    """The one number of a cell: of its test, or else the mean over the scale factors."""
    for found in [entry.get('test'), *entry.get('tests', {}).values()]:
        if found and (metric := summary.main_metric(found)):
            return math.nan if found[metric] is None else found[metric]
    if entry.get('accuracy'):
        # None where nothing was found, at the smallest sizes say.
        return float(np.mean(np.array(entry['accuracy']['mean'], dtype=float)))
    return (entry.get('validation') or {}).get('last', math.nan)


def in_short(entry: dict) -> str:
    """What a cell gave, for the terminal."""
    if entry.get('accuracy'):
        metric, of_classes = metric_name(entry['accuracy']), metric_name({})
        name, form = ('accuracy', '.1f') if metric == of_classes else (metric, '.3g')
        means = entry['accuracy']['mean']
        values = ' '.join('-' if value is None else format(value, form) for value in means)
        return f'{name} {values} at {" ".join(f"{s:g}" for s in entry["factors"])}'
    return f'result {accuracy(entry):.4g}'
