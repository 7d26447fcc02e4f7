# Copyright (c) mmscale contributors.
"""What a benchmark leaves: rows of ratios as CSV, as Markdown tables and, of levels, as a figure.

A row is a dict of plain values, in the order of the CSV file's columns.
"""

import csv
import io
import os
import statistics
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

HEAD = ('measured', 'against', 'ratio', 'quartiles', 'multiply-adds', 'target', '', 'median',
        'reference')  # fmt: skip
UNITS = {'time': (1e3, ' ms'), 'memory': (2**-20, ' MiB')}


def compare(title, row, against: str, values: list, references: list, work=None) -> dict:
    """The row of one quantity: median and quartiles of ``values[i] / references[i]``.

    Args:
        title (str): Of its group.
        row (cases.Row): What was measured, and the target.
        against (str): Against what.
        values (list): A number a round.
        references (list): The same of the reference.
        work (float, optional): Ratio of the multiply-adds.

    Raises:
        ValueError: If the two differ in length or are empty.
    """
    if not values or len(values) != len(references):
        raise ValueError(
            f'values and references must be equally many and at least one, got {len(values)} and '
            f'{len(references)}'
        )
    ratios = [value / reference for value, reference in zip(values, references)]
    lower = upper = None
    if len(ratios) > 1:
        lower, _, upper = statistics.quantiles(ratios, n=4, method='inclusive')
    ratio, held = statistics.median(ratios), None
    if row.target:
        sense, number = row.target.split()
        held = ratio <= float(number) if sense == '<=' else ratio >= float(number)
    return dict(
        group=title, measured=row.measured, quantity=row.quantity, against=against, ratio=ratio,
        lower_quartile=lower, upper_quartile=upper, rounds=len(ratios), multiply_adds=work,
        target=row.target, held=held,
        value=statistics.median(values), reference=statistics.median(references),
    )  # fmt: skip


def write(folder: Path, name: str, run: dict, rows: list[dict]):
    """Writes ``name.csv``, ``name.md`` and ``name.png``, each as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0], lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    files = {'csv': text.getvalue().encode(), 'md': to_markdown(run, rows).encode()}
    if grown := [row for row in rows if row['group'].startswith('Growth over levels')]:
        picture = io.BytesIO()
        draw_growth(run, grown).savefig(picture, dpi=130)
        files['png'] = picture.getvalue()
    for ending, content in files.items():
        part = folder / f'{name}.{ending}.part'
        part.write_bytes(content)
        os.replace(part, folder / f'{name}.{ending}')


def table(head: tuple, lines: list, right: tuple) -> list[str]:
    """A table of Markdown; the columns of ``right`` are aligned there."""
    marks = ['---:' if column in right else '---' for column in range(len(head))]
    return [f'| {" | ".join(line)} |' for line in (head, marks, *lines)]


def to_markdown(run: dict, rows: list[dict]) -> str:
    """A table a group, under the command and the machine."""
    lines = ['# Benchmark', '', f'`{run["command"]}`', '', f'{run.get("machine", "")}.', '']
    lines += [f'- {note}' for note in run['notes']]
    for title in dict.fromkeys(row['group'] for row in rows):
        cells = [cells_of(row) for row in rows if row['group'] == title]
        lines += ['', f'### {title}', '', *table(HEAD, cells, (2, 3, 4, 7, 8))]
    return '\n'.join([*lines, *run.get('tables', [])]) + '\n'


def kernel_table(title: str, kernels: list[tuple[str, float, float]], most: int = 10) -> list[str]:
    """The costliest kernels with their share of the time of all."""
    total = sum(milliseconds for *_, milliseconds in kernels) or 1
    lines = [
        (f'`{name[:80]}`', f'{number:g}', f'{milliseconds:.4g} ms', f'{milliseconds / total:.1%}')
        for name, number, milliseconds in kernels[:most]
    ]
    head = f'{len(kernels)} kernels, {total:.4g} ms', 'calls', 'time', 'share'
    return ['', f'### {title}', '', *table(head, lines, (1, 2, 3))]


def cells_of(row: dict) -> list[str]:
    """A row of the Markdown table."""
    scale, unit = UNITS.get(row['quantity'].split(' of ')[0], (1, ''))
    lower, upper, work = row['lower_quartile'], row['upper_quartile'], row['multiply_adds']
    return [
        f'{row["measured"]}, {row["quantity"]}',
        row['against'],
        f'**{row["ratio"]:.3g}**',
        '' if lower is None else f'{lower:.3g} to {upper:.3g}',
        '' if work is None else f'{work:.3g}',
        (row['target'] or '').replace('<=', '≤').replace('>=', '≥'),
        {True: 'held', False: 'missed', None: ''}[row['held']],
        *(readable(row[name] * scale) + unit for name in ('value', 'reference')),
    ]


def readable(number: float) -> str:
    """Four digits, more where the number has them before the point."""
    return f'{number:,.0f}' if number >= 1000 else f'{number:.4g}'


def draw_growth(run: dict, rows: list[dict]) -> Figure:
    """Time of a training step against the number of levels, beside the least that it can be."""
    figure = Figure(figsize=(7, 4.6), layout='constrained')
    axes = figure.subplots()
    most = max(int(row['measured'].split(' = ')[1]) for row in rows)
    counts = range(1, most + 1)
    squares = [sum(4.0**-k for k in range(count)) for count in counts]
    for form, color, marker, limit, label, place in (
        ('dense', '#d62728', 'o', counts, 'S', (17, -3)),
        ('pyramid', '#1f77b4', 's', squares, r'$\sum_{k<S} 2^{-2k}$', (2, 8)),
    ):
        found = [row for row in rows if row['measured'].startswith(form)]
        levels = [int(row['measured'].split(' = ')[1]) for row in found]
        ratios = [row['ratio'] for row in found]
        bars = [[abs(row['ratio'] - row[side]) for row in found]
                for side in ('lower_quartile', 'upper_quartile')]  # fmt: skip
        axes.plot(counts, limit, '--', color=color, lw=1, label=f'limit, {form}: {label}')
        axes.errorbar(levels, ratios, bars, fmt=marker, color=color, ms=5, capsize=2,
                      label=f'measured, {form}')  # fmt: skip
        for at, ratio in zip(levels, ratios):
            axes.annotate(f'{ratio:.2f}', (at, ratio), xytext=place, fontsize=8, color=color,
                          textcoords='offset points', ha='center')  # fmt: skip
    axes.axhline(1, color='black', lw=0.8, ls=':')
    axes.set(xlim=(0, most + 0.5), ylim=(0, None), xlabel='number of levels S')
    axes.set_ylabel(f'time of a step / time of a step of {rows[0]["against"]}')
    axes.set_title(textwrap.fill(run['machine'], 110), fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9, loc='upper left')
    return figure
