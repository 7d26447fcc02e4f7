# Copyright (c) mmscale contributors.
"""Write the results of a study of several models over scale: JSON, CSV, a table and a figure.

The *result* of a model is a dict of plain values. It has the ``name`` of the model, the ``factors``
(equal for all models) and ``layers``, a dict of curves by name. ``lift`` and ``body`` are curves
for a network on scale spaces, else None. ``accuracy`` is a curve in percent or of its ``metric``,
or None. A detector or segmentor also has ``metrics``, the curves of all metrics of its evaluator by
name. A ``breakdown`` has the curves of the ``whole`` error of the backbone and of its parts.
A *curve* has the lists ``mean``, ``standard_error`` and ``n``. Each has one entry for each factor,
None if there is no number. The curve of a layer also has ``truncated``, the curve of the levels
that were cut off at the coarse end, or None.
"""

import json
import math
import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from mmscale.evaluation import EquivarianceError, ErrorBreakdown

COLUMNS = ('model', 'layer', 'part', 'factor', 'mean', 'standard_error', 'n')
ACCURACY = 'accuracy in %'


def curve(error: EquivarianceError) -> dict:
    """Return the curve of a layer, with the curve of its truncated levels."""
    truncated = _curve(replace(error, per_sample=error.truncated))
    return dict(_curve(error), truncated=truncated if any(truncated['n']) else None)


def _curve(error: EquivarianceError) -> dict:
    n = (~error.per_sample.isnan()).sum(1)
    return plain(dict(mean=error.mean, standard_error=error.standard_error, n=n))


def breakdown_curves(found: ErrorBreakdown) -> dict[str, dict]:
    """Return the curves of the whole error of a backbone and of each part of it, by name."""
    columns = dict(whole=found.whole, **found.parts)
    return {
        name: _curve(EquivarianceError(found.factors, values, values))
        for name, values in columns.items()
    }


def accuracy_curve(right: list[int], count: int) -> dict:
    """Return the accuracy in percent from the number of ``right`` images at each factor."""
    shares = np.array(right) / count
    errors = 100 * np.sqrt(shares * (1 - shares) / count)
    mean = [100 * number / count for number in right]
    return dict(mean=mean, standard_error=errors.tolist(), n=[count] * len(right))


def metric_curve(name: str, values: list[float], count: int) -> dict:
    """Return the curve of a metric of an evaluator on all ``count`` images, with its name."""
    errors, n = [None] * len(values), [count] * len(values)
    return dict(mean=plain(values), standard_error=errors, n=n, metric=name)


def plain(value: object) -> dict | list | str | int | float | None:
    """Convert a value to JSON's types: arrays to lists, nan and infinity to None, rest to text."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(part) for part in value]
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, int | str) else str(value)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    part = path.with_name(f'{path.name}.part')
    part.write_text(text, encoding='utf-8')
    os.replace(part, path)


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file atomically; :func:`plain` converts its values."""
    write_text(path, json.dumps(plain(content), indent=2, allow_nan=False))


def _layers(results: list[dict]) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(result['layers'] for result in results)))


def _accuracies(results: list[dict]) -> dict[str, list[dict | None]]:
    """Return, for each metric, the accuracy of each model, None if it is of another metric."""
    names = [one and one.get('metric', ACCURACY) for one in (r['accuracy'] for r in results)]
    return {
        metric: [r['accuracy'] if name == metric else None for r, name in zip(results, names)]
        for metric in dict.fromkeys(filter(None, names))
    }


def curves(result: dict) -> Iterator[tuple[str, str, dict]]:
    """Yield layer, part and curve of all measurements of a model."""
    metrics = result.get('metrics') or dict(accuracy=result['accuracy'])
    yield from (('', metric, found) for metric, found in metrics.items())
    for layer, found in result['layers'].items():
        yield layer, 'network', found
        yield layer, 'network, truncated levels', found['truncated']
    yield from ((f'backbone.{part}', part, result[part]) for part in ('lift', 'body'))
    for part, found in (result.get('breakdown') or {}).items():
        yield 'backbone', f'breakdown, {part}', found


def to_csv(results: list[dict]) -> str:
    """Return one line for each model, layer, part and factor; missing numbers are left empty."""
    rows = [
        (result['name'], layer, part, *row)
        for result in results
        for layer, part, found in curves(result)
        if found
        for row in zip(result['factors'], found['mean'], found['standard_error'], found['n'])
    ]
    return pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False, lineterminator='\n')


def _block(title: str, factors: list[float], rows: dict[str, list], form: str) -> str:
    heads = [f'{factor:g}' for factor in factors]
    frame = pd.DataFrame.from_dict(rows, orient='index', columns=heads, dtype=float)
    texts = frame.map(lambda value: '-' if math.isnan(value) else form.format(value))
    return texts.rename_axis(columns=title).to_string(col_space=8)


def table(results: list[dict]) -> str:
    """Return a table of the means: a block for each quantity, a line for each model that has it."""
    blocks = [
        (metric, '{:.1f}' if metric == ACCURACY else '{:.3g}', found)
        for metric, found in _accuracies(results).items()
    ]
    for layer in _layers(results):
        found = [result['layers'].get(layer) for result in results]
        blocks.append((f'equivariance error, {layer}', '{:.1e}', found))
        truncated = [one and one['truncated'] for one in found]
        blocks.append((f'its truncated levels, {layer}', '{:.1e}', truncated))
    for part in ('lift', 'body'):
        found = [result[part] for result in results]
        blocks.append((f'equivariance error, {part} alone', '{:.1e}', found))
    names = [result['name'] for result in results]
    width = max(map(len, chain((title for title, *_ in blocks), names)))
    return '\n\n'.join(
        _block(title.ljust(width), results[0]['factors'],
               {name: one['mean'] for name, one in zip(names, found) if one}, form)
        for title, form, found in blocks if any(found)
    )  # fmt: skip


def breakdown_table(results: list[dict]) -> str:
    """Return a table of the whole error of each backbone and of its parts in percent of it."""
    found = {r['name']: dict(r['breakdown']) for r in results if r.get('breakdown')}
    blocks, factors = [], results[0]['factors']
    for name, parts in found.items():
        title, whole = f'error of the backbone of {name}', parts.pop('whole')['mean']
        shares = {
            part: [100 * m / w if w else math.nan for m, w in zip(one['mean'], whole)]
            for part, one in parts.items()
        }
        head, *rows = _block(title, factors, shares, '{:.1f} %').splitlines()
        blocks.append('\n'.join([_block(title, factors, dict(whole=whole), '{:.1e}'), *rows]))
    return '\n\n'.join(blocks)


def draw(results: list[dict], chance: float | None = None, note: str = '') -> Figure:
    """Draw accuracy and equivariance error against scale and, for several layers, against depth.

    Args:
        results (list[dict]): Results of the models. Each model has its own colour.
        chance (float, optional): Accuracy of a guess, in percent.
        note (str): A note on how the error was measured, for the title of the panel.
    """
    layers, metrics = _layers(results), _accuracies(results)
    factors = [factor for factor in results[0]['factors'] if factor > 1]
    deep, columns = len(layers) > 1, 1 + len(metrics)
    width = max(5.6 * columns, 2.3 * len(factors) + 0.8 if deep else 0)
    longest = max(len(result['name']) for result in results)
    # A letter is about .07 inches wide, a line with its marker eight letters.
    legend_columns = max(1, min(len(results), int(width / (0.07 * (longest + 8)))))
    height = 3.9 + 2.9 * deep + 0.2 * math.ceil(len(results) / legend_columns)
    figure = Figure(figsize=(width, height), layout='constrained')
    rows = figure.subfigures(1 + deep, 1, height_ratios=[3.9, 2.9][: 1 + deep], squeeze=False)
    *panels, last = rows[0, 0].subplots(1, columns, squeeze=False)[0]
    for axes, (metric, found) in zip(panels, metrics.items()):
        _draw_accuracy(axes, results, metric, found, chance)
    _draw_error(last, results, layers[-1], note)
    for axes, ticks in [*((axes, results[0]['factors']) for axes in panels), (last, factors)]:
        axes.set_xlabel('scale factor s: everything is s times smaller')
        axes.set_xticks(ticks, [f'{tick:g}' for tick in ticks], fontsize=8)
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3, which='both')
    if deep:
        _draw_depth(rows[1, 0], results, layers, factors)
    figure.legend(*last.get_legend_handles_labels(), loc='outside lower left',
                  ncols=legend_columns, frameon=False, fontsize=8)  # fmt: skip
    return figure


def _plot(axes, results: list[dict], x, found: list[dict | None], places, log: bool) -> None:
    """Plot a line with error bars for each model, on a logarithmic axis without values up to 0."""
    many = len(results) > 10
    palette = matplotlib.colormaps['turbo' if many else 'tab10']
    for i, (result, one) in enumerate(zip(results, found)):
        if one is None and not log:
            continue  # the panel of the error makes the entry in the legend
        nothing = [None] * len(result['factors'])
        curves = [np.array((one or {}).get(key, nothing), float)[places]
                  for key in ('mean', 'standard_error')]  # fmt: skip
        means = np.where(curves[0] > 0, curves[0], math.nan) if log else curves[0]
        axes.errorbar(x, means, curves[1], color=palette(i / len(results) if many else i),
                      marker='osD^vP*X<>'[i % 10], ms=4, lw=1.3, capsize=2, elinewidth=0.9,
                      label=result['name'])  # fmt: skip
    if log:
        axes.set_yscale('log', nonpositive='mask')


def _draw_accuracy(axes, results, metric: str, found: list, chance: float | None) -> None:
    _plot(axes, results, results[0]['factors'], found, slice(None), log=False)
    numbers = ' or '.join(map(str, sorted({one['n'][0] for one in found if one})))
    if metric == ACCURACY:
        axes.set(title=f'Accuracy on {numbers} images', ylabel='accuracy (%)', ylim=(0, 102))
    else:
        axes.set(title=f'{metric} on {numbers} images', ylabel=metric)
        axes.set_ylim(bottom=0)
    if chance is not None:
        axes.axhline(chance, color='black', lw=0.8, ls=':')
        axes.text(0.02, chance + 1, 'chance', transform=axes.get_yaxis_transform(), va='bottom',
                  fontsize=8)  # fmt: skip


def _draw_error(axes, results: list[dict], layer: str, note: str) -> None:
    """Plot the errors; factor 1 is left out, because the error 0 is off a logarithmic axis."""
    places = slice(int(results[0]['factors'][0] == 1), None)
    found = [result['layers'].get(layer) for result in results]
    _plot(axes, results, results[0]['factors'][places], found, places, log=True)
    zero = [r['name'] for r, one in zip(results, found) if one and 0 in one['mean'][places]]
    counts = {n for one in found if one for n in one['n'] if n} or {0}
    numbers = ' to '.join(map(str, sorted({min(counts), max(counts)})))
    lines = [f'Equivariance error of {layer}, {numbers} images', *textwrap.wrap(note, 60)]
    lines += [f'0 somewhere, and not drawn there: {", ".join(zero)}'] * bool(zero)
    axes.set(title='\n'.join(lines), ylabel=r'error $\Delta(s)$ and its standard error')
    axes.text(0.99, 0.02, 'at s = 1 it is 0: not drawn', transform=axes.transAxes, ha='right',
              va='bottom', fontsize=7, color='0.35')  # fmt: skip


def _draw_depth(figure, results: list[dict], layers: list[str], factors: list[float]) -> None:
    """Plot a panel for each factor, with the layers in the order of ``layers``."""
    panels = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
    parts = [layer.split('.') for layer in layers]
    common = len(os.path.commonprefix([names[:-1] for names in parts]))
    short = ['.'.join(names[common:]) for names in parts]
    for axes, factor in zip(panels, factors):
        place = results[0]['factors'].index(factor)
        # These curves run over the layers, all others over the factors.
        found = [
            {
                key: [(result['layers'].get(layer) or {key: [None] * (place + 1)})[key][place]
                      for layer in layers]
                for key in ('mean', 'standard_error')
            }
            for result in results
        ]  # fmt: skip
        _plot(axes, results, range(len(layers)), found, slice(None), log=True)
        axes.set_title(f's = {factor:g}', fontsize=9)
        axes.set_xticks(range(len(layers)), short, fontsize=7, rotation=40, ha='right',
                        rotation_mode='anchor')  # fmt: skip
        axes.set_xlim(-0.4, len(layers) - 0.6)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(r'error $\Delta(s)$')
    figure.suptitle('Equivariance error, layer by layer', fontsize=10)
