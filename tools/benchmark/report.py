# Copyright (c) mmscale contributors.
"""What a benchmark leaves: ratios as CSV, as Markdown tables and, of levels, as a figure."""

import io
import os
import statistics
import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

HEAD = """
| measured | against | ratio | quartiles | multiply-adds | target |  | median | reference |
| --- | --- | ---: | ---: | ---: | --- | --- | ---: | ---: |
"""
UNITS = {'time': (1e3, ' ms'), 'memory': (2**-20, ' MiB')}


def compare(title: str, row, against: str, values: list, references: list, work=None) -> dict:
    """The median and the quartiles of ``values[i] / references[i]``, a ratio a round.

    ``row`` says what was measured and has the target, ``work`` is the ratio of the multiply-adds.
    The keys are the columns of the CSV file.
    """
    ratios = [value / reference for value, reference in zip(values, references, strict=True)]
    several = statistics.quantiles(ratios, method='inclusive') if len(ratios) > 1 else [None] * 3
    ratio, held = statistics.median(ratios), None
    if row.target:
        sense, number = row.target.split()
        held = ratio <= float(number) if sense == '<=' else ratio >= float(number)
    return dict(
        group=title, measured=row.measured, quantity=row.quantity, against=against, ratio=ratio,
        lower_quartile=several[0], upper_quartile=several[2], rounds=len(ratios),
        multiply_adds=work, target=row.target, held=held, value=statistics.median(values),
        reference=statistics.median(references),
    )  # fmt: skip


def write(folder: Path, name: str, run: dict, rows: list[dict]):
    """Writes ``name.csv``, ``name.md`` and ``name.png``, each as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator='\n')
    files = dict(csv=table.encode(), md=to_markdown(run, rows).encode())
    if grown := [row for row in rows if row['group'].startswith('Growth over levels')]:
        draw_growth(run, grown).savefig(picture := io.BytesIO(), dpi=130)
        files['png'] = picture.getvalue()
    for ending, content in files.items():
        part = folder / f'{name}.{ending}.part'
        part.write_bytes(content)
        os.replace(part, folder / f'{name}.{ending}')


def to_markdown(run: dict, rows: list[dict]) -> str:
    """A table a group, under command, machine and notes."""
    lines = ['# Benchmark', '', f'`{run["command"]}`', '', f'{run["machine"]}.', '']
    lines += [f'- {note}' for note in run['notes']]
    for title, text in run['profiles'].items():
        lines += ['', f'### {title}', '', '```text', *text.splitlines(), '```']
    for title in dict.fromkeys(row['group'] for row in rows):
        cells = (cells_of(row) for row in rows if row['group'] == title)
        lines += ['', f'### {title}', HEAD.rstrip(), *(f'| {" | ".join(one)} |' for one in cells)]
    return '\n'.join(lines) + '\n'


def cells_of(row: dict) -> list[str]:
    """A row of the Markdown table; medians have four digits, more if they are before the point."""
    scale, unit = UNITS.get(row['quantity'].split(' of ')[0], (1, ''))
    medians = [row[name] * scale for name in ('value', 'reference')]
    lower, upper, work = row['lower_quartile'], row['upper_quartile'], row['multiply_adds']
    return [
        f'{row["measured"]}, {row["quantity"]}',
        row['against'],
        f'**{row["ratio"]:.3g}**',
        '' if lower is None else f'{lower:.3g} to {upper:.3g}',
        '' if work is None else f'{work:.3g}',
        (row['target'] or '').replace('<=', '≤').replace('>=', '≥'),
        {True: 'held', False: 'missed', None: ''}[row['held']],
        *(f'{median:,.0f}{unit}' if median >= 1e3 else f'{median:.4g}{unit}' for median in medians),
    ]


def draw_growth(run: dict, rows: list[dict]) -> Figure:
    """Time of a training step against the number of levels, beside the least that it can be."""
    figure = Figure(figsize=(7, 4.6), layout='constrained')
    axes, most = figure.subplots(), 1
    for form, color, mark, label in (
        ('dense', '#d62728', 'o', 'S'), ('pyramid', '#1f77b4', 's', r'$\sum_{k<S} 2^{-2k}$'),
    ):  # fmt: skip
        found = {int(row['measured'].split(' = ')[1]): row for row in rows
                 if row['measured'].startswith(form)}  # fmt: skip
        ratios, most = [row['ratio'] for row in found.values()], max([most, *found])
        bars = [[abs(row['ratio'] - row[side]) for row in found.values()]
                for side in ('lower_quartile', 'upper_quartile')]  # fmt: skip
        counts = range(1, most + 1)
        least = counts if form == 'dense' else [(1 - 4.0**-n) * 4 / 3 for n in counts]
        axes.plot(counts, least, '--', color=color, lw=1, label=f'limit, {form}: {label}')
        axes.errorbar([*found], ratios, bars, fmt=mark, color=color, ms=5, capsize=2,
                      label=f'measured, {form}')  # fmt: skip
        for at, ratio in zip(found, ratios):
            axes.annotate(f'{ratio:.2f}', (at, ratio), (2, 8), textcoords='offset points',
                          fontsize=8, color=color, ha='center')  # fmt: skip
    axes.axhline(1, color='black', lw=0.8, ls=':')
    axes.set(xlim=(0, most + 0.5), ylim=(0, None), xlabel='number of levels S')
    axes.set_ylabel(f'time of a step / time of a step of {rows[0]["against"]}')
    axes.set_title(textwrap.fill(run['machine'], 110), fontsize=8)
    axes.legend(frameon=False, fontsize=9, loc='upper left')
    return figure
