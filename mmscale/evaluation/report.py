# Copyright (c) mmscale contributors.
"""What a study of several models over scale leaves: JSON, CSV, a table and a figure.

The *result* of a model is a dict of plain values: its ``name``, the ``factors``, the ``layers`` as
a dict of curves by name, and curves or None for the ``lift`` and the ``body`` of a network on
scale spaces and for the ``accuracy``, in percent or of the ``metric`` that it names. One of a
detector or segmentor has ``metrics``, too: the curves of all that its evaluator finds, by name.
A *curve* has the lists ``mean``, ``standard_error`` and ``n``, one entry a factor, None where there
is no number. That of a layer also has ``truncated``: the curve of the levels that were cut off at
the coarse end, or None.
All results of a study have the same factors.
A result may have a ``breakdown``, too: a dict of the curves of the ``whole`` error of the backbone
and of its parts, which add up to it, or None.
"""

import csv
import io
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
from matplotlib.figure import Figure
from torch import Tensor

from .breakdown import ErrorBreakdown
from .equivariance import EquivarianceError

COLUMNS = ('model', 'layer', 'part', 'factor', 'mean', 'standard_error', 'n')


def curve(error: EquivarianceError) -> dict:
    """The curve of a layer, with that of its truncated levels."""
    truncated = _curve(replace(error, per_sample=error.truncated))
    return dict(_curve(error), truncated=truncated if any(truncated['n']) else None)


def _curve(error: EquivarianceError) -> dict:
    return dict(
        mean=[plain(value) for value in error.mean.tolist()],
        standard_error=[plain(value) for value in error.standard_error.tolist()],
        n=(~error.per_sample.isnan()).sum(1).tolist(),
    )


def breakdown_curves(found: ErrorBreakdown) -> dict[str, dict]:
    """Curves of the whole error of a backbone and of each of its parts."""
    columns = dict(whole=found.whole, **found.parts)
    return {
        name: _curve(EquivarianceError(found.factors, values, values))
        for name, values in columns.items()
    }


def accuracy_curve(right: list[int], count: int) -> dict:
    """Percent of ``count`` images of which ``right`` were recognised at each factor."""
    shares = [number / count for number in right]
    return dict(
        mean=[100 * number / count for number in right],
        standard_error=[100 * math.sqrt(share * (1 - share) / count) for share in shares],
        n=[count] * len(right),
    )


def metric_curve(name: str, values: list[float], count: int) -> dict:
    """What an evaluator has found on all of ``count`` images, at each factor, and its name."""
    nothing = [None] * len(values)
    return dict(
        mean=[plain(value) for value in values],
        standard_error=nothing,
        n=[count] * len(values),
        metric=name,
    )


def metric_name(found: dict) -> str:
    """What the curve of a model's accuracy is of."""
    return found.get('metric', 'accuracy in %')


def plain(value):
    """A value in forms that JSON has: lists for arrays, None for nan and infinities, else text."""
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
    """Writes a file as a whole or not at all."""
    part = path.with_name(f'{path.name}.part')
    part.write_text(text, encoding='utf-8')
    os.replace(part, path)


def write_json(path: Path, content: dict) -> None:
    """Writes a file as a whole or not at all; what JSON has no form for as :func:`plain` says."""
    write_text(path, json.dumps(plain(content), indent=2, allow_nan=False))


def layer_names(results: list[dict]) -> list[str]:
    """The layers of all models, each once."""
    return list(dict.fromkeys(chain.from_iterable(result['layers'] for result in results)))


def metric_names(results: list[dict]) -> list[str]:
    """What the accuracies of all models are of, each once."""
    found = (result['accuracy'] for result in results)
    return list(dict.fromkeys(metric_name(one) for one in found if one))


def _of_metric(results: list[dict], metric: str) -> list[dict | None]:
    """The accuracy of each model that is of this metric."""
    found = (result['accuracy'] for result in results)
    return [one if one and metric_name(one) == metric else None for one in found]


def curves(result: dict) -> Iterator[tuple[str, str, dict]]:
    """Layer, part and curve of all that was measured of a model."""
    if result['accuracy'] and not result.get('metrics'):
        yield '', 'accuracy', result['accuracy']
    for metric, found in (result.get('metrics') or {}).items():
        yield '', metric, found
    for layer, found in result['layers'].items():
        yield layer, 'network', found
        if found['truncated']:
            yield layer, 'network, truncated levels', found['truncated']
    for part in ('lift', 'body'):
        if result[part]:
            yield f'backbone.{part}', part, result[part]
    for part, found in (result.get('breakdown') or {}).items():
        yield 'backbone', f'breakdown, {part}', found


def to_csv(results: list[dict]) -> str:
    """A line a model, layer, part and factor; numbers that do not exist are left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(COLUMNS)
    for result in results:
        for layer, part, found in curves(result):
            values = zip(found['mean'], found['standard_error'], found['n'])
            for factor, row in zip(result['factors'], values):
                writer.writerow([result['name'], layer, part, factor, *row])
    return text.getvalue()


def table(results: list[dict]) -> str:
    """Means, a block for each thing measured and a line for each model that has it."""
    layers, names = layer_names(results), [result['name'] for result in results]
    blocks = [
        (metric, '.1f' if metric == 'accuracy in %' else '.3g', _of_metric(results, metric))
        for metric in metric_names(results)
    ]
    for layer in layers:
        found = [result['layers'].get(layer) for result in results]
        blocks.append((f'equivariance error, {layer}', '.1e', found))
        truncated = [one and one['truncated'] for one in found]
        blocks.append((f'its truncated levels, {layer}', '.1e', truncated))
    for part in ('lift', 'body'):
        found = [result[part] for result in results]
        blocks.append((f'equivariance error, {part} alone', '.1e', found))

    width = max(map(len, chain((block[0] for block in blocks), names))) + 4
    lines = []
    for title, form, found in blocks:
        if any(found):
            lines += ['', title.ljust(width) + ''.join(f'{f:>9g}' for f in results[0]['factors'])]
        for name, one in zip(names, found):
            if one:
                cells = ['-' if mean is None else format(mean, form) for mean in one['mean']]
                lines.append(f'  {name}'.ljust(width) + ''.join(f'{cell:>9}' for cell in cells))
    return '\n'.join(lines[1:])


def breakdown_table(results: list[dict]) -> str:
    """The whole error of each backbone that has a breakdown, and its parts in percent of it."""
    found = {result['name']: result['breakdown'] for result in results if result.get('breakdown')}
    if not found:
        return ''
    factors = results[0]['factors']
    title = 'whole error of the backbone, and where it comes from'
    width = max(map(len, chain([title], found))) + 4
    lines = [title.ljust(width) + ''.join(f'{factor:>9g}' for factor in factors)]
    for name, parts in found.items():
        whole = parts['whole']['mean']
        rows = {f'  {name}': ['-' if mean is None else f'{mean:.1e}' for mean in whole]}
        for part in list(parts)[1:]:
            rows[f'    {part}'] = [
                f'{100 * mean / total:.1f} %' if total else '-'
                for mean, total in zip(parts[part]['mean'], whole)
            ]
        for label, cells in rows.items():
            lines.append(label.ljust(width) + ''.join(f'{cell:>9}' for cell in cells))
    return '\n'.join(lines)


def draw(results: list[dict], chance: float | None = None, note: str = '') -> Figure:
    """Accuracy and equivariance error against scale and, of several layers, against depth.

    Args:
        results (list[dict]): Of the models, a colour each.
        chance (float, optional): Accuracy of a guess, in percent.
        note (str): How the error was measured, to stand in its title.
    """
    layers = layer_names(results)
    metrics = metric_names(results)
    factors = [factor for factor in results[0]['factors'] if factor > 1]
    deep = len(layers) > 1
    columns = 1 + len(metrics)
    width = max(5.6 * columns, 2.3 * len(factors) + 0.8 if deep else 0)
    legend_columns = 2 if len(results) > 4 and width > 8 else 1
    height = 3.9 + 2.9 * deep + 0.2 * math.ceil(len(results) / legend_columns)
    figure = Figure(figsize=(width, height), layout='constrained')
    rows = figure.subfigures(1 + deep, 1, height_ratios=[3.9, 2.9][: 1 + deep], squeeze=False)
    panels = list(rows[0, 0].subplots(1, columns, squeeze=False)[0])
    for axes, metric in zip(panels, metrics):
        _draw_accuracy(axes, results, metric, chance)
    _draw_error(panels[-1], results, layers[-1], note)
    for axes in panels:
        axes.set_xlabel('scale factor s: everything is s times smaller')
        ticks = factors if axes is panels[-1] else results[0]['factors']
        axes.set_xticks(ticks, [f'{tick:g}' for tick in ticks], fontsize=8)
    if deep:
        _draw_depth(rows[1, 0], results, layers, factors)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower left', ncols=legend_columns, frameon=False,
                  fontsize=8)  # fmt: skip
    return figure


def _styles(results: list[dict]) -> list[dict]:
    """A colour and a marker for each model."""
    palette = matplotlib.colormaps['tab10' if len(results) <= 10 else 'turbo']
    places = range(10) if len(results) <= 10 else np.linspace(0.05, 0.95, len(results))
    return [
        dict(color=palette(place), marker='osD^vP*X<>'[i % 10], ms=4, lw=1.3, capsize=2,
             elinewidth=0.9, label=result['name'])
        for i, (place, result) in enumerate(zip(places, results))
    ]  # fmt: skip


def _values(entries: list) -> np.ndarray:
    return np.array([math.nan if entry is None else entry for entry in entries], float)


def _plot(axes, x, found: list, bars: list, style: dict) -> None:
    """Points with bars; a logarithmic axis has no place for what is not above 0."""
    means = _values(found)
    axes.errorbar(x, np.where(means > 0, means, math.nan), _values(bars), **style)


def _draw_accuracy(axes, results: list[dict], metric: str, chance: float | None) -> None:
    of_metric = _of_metric(results, metric)
    for result, found, style in zip(results, of_metric, _styles(results)):
        if found:
            bars = _values(found['standard_error'])
            axes.errorbar(result['factors'], _values(found['mean']), bars, **style)
    counts = sorted({found['n'][0] for found in of_metric if found})
    numbers = ' or '.join(map(str, counts))
    if metric == 'accuracy in %':
        axes.set(title=f'Accuracy on {numbers} images', ylabel='accuracy (%)', ylim=(0, 102))
    else:
        axes.set(title=f'{metric} on {numbers} images', ylabel=metric)
        axes.set_ylim(bottom=0)
    if chance is not None:
        axes.axhline(chance, color='black', lw=0.8, ls=':')
        axes.text(0.02, chance + 1, 'chance', transform=axes.get_yaxis_transform(), va='bottom',
                  fontsize=8)  # fmt: skip
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)


def _draw_error(axes, results: list[dict], layer: str, note: str) -> None:
    """Without factor 1, at which the error is 0 and off a logarithmic axis."""
    missing = []
    start = results[0]['factors'][0] == 1
    nothing = dict.fromkeys(('mean', 'standard_error'), [None] * len(results[0]['factors']))
    for result, style in zip(results, _styles(results)):
        found = result['layers'].get(layer, nothing)
        means, bars = (found[key][start:] for key in ('mean', 'standard_error'))
        _plot(axes, result['factors'][start:], means, bars, style)
        missing += [result['name']] * (0 in means)
    found = [result['layers'][layer] for result in results if layer in result['layers']]
    counts = {n for one in found for n in one['n'] if n} or {0}
    numbers = ' to '.join(map(str, sorted({min(counts), max(counts)})))
    lines = [f'Equivariance error of {layer}, {numbers} images', *textwrap.wrap(note, 60)]
    if missing:
        lines.append(f'0 somewhere, and not drawn there: {", ".join(missing)}')
    axes.set_title('\n'.join(filter(None, lines)), fontsize=10)
    axes.set_yscale('log', nonpositive='mask')
    axes.set_ylabel(r'error $\Delta(s)$ and its standard error')
    axes.text(0.99, 0.02, 'at s = 1 it is 0: not drawn', transform=axes.transAxes, ha='right',
              va='bottom', fontsize=7, color='0.35')  # fmt: skip
    axes.grid(alpha=0.3, which='both')


def _draw_depth(figure, results: list[dict], layers: list[str], factors: list[float]) -> None:
    """A panel a factor; the layers stand in the order in which they were named."""
    panels = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
    short = _without_common_start(layers)
    for axes, factor in zip(panels, factors):
        place = results[0]['factors'].index(factor)
        for result, style in zip(results, _styles(results)):
            found = [result['layers'].get(layer) for layer in layers]
            means, bars = (
                [one and one[key][place] for one in found] for key in ('mean', 'standard_error')
            )
            _plot(axes, range(len(layers)), means, bars, style)
        axes.set_title(f's = {factor:g}', fontsize=9)
        axes.set_xticks(range(len(layers)), short, fontsize=7, rotation=40, ha='right',
                        rotation_mode='anchor')  # fmt: skip
        axes.set_yscale('log', nonpositive='mask')
        axes.set_xlim(-0.4, len(layers) - 0.6)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(r'error $\Delta(s)$')
    figure.suptitle('Equivariance error, layer by layer', fontsize=10)


def _without_common_start(names: list[str]) -> list[str]:
    """``backbone.layer1`` and ``backbone.layer2`` as ``layer1`` and ``layer2``."""
    parts = [name.split('.') for name in names]
    while all(len(part) > 1 for part in parts) and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    return ['.'.join(part) for part in parts]
