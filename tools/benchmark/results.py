# Copyright (c) mmscale contributors.
"""What a benchmark leaves: rows of ratios, as JSON, as a Markdown table and as a figure.

A *row* is a dict of plain values: its ``section``, what was ``measured``, ``against`` what, the
``ratio`` (median, quartiles, rounds) of the two, their raw medians ``value`` and ``reference`` in
``unit``, the ratio of their multiply-adds, ``work``, or None, the ``target`` as
``('<=' or '>=', number)`` or None, and whether it was ``held``: None where there is no target or
the run was a quick one.
"""

import statistics
import textwrap
from pathlib import Path

from matplotlib.figure import Figure
from timing import ratio

from mmscale.evaluation.report import write_json, write_text
from mmscale.visualization import save_figure

HEAD = (
    'measured',
    'against',
    'ratio',
    'quartiles',
    'multiply-adds',
    'target',
    '',
    'median',
    'reference',
)
UNITS = {
    's': (1e3, 'ms'),
    'bytes': (1 / 2**20, 'MiB'),
    'images/s': (1, 'images/s'),
    'calls/s': (1, 'a second'),
}


def compare(
    section: str,
    measured: str,
    against: str,
    values: list[float],
    references: list[float],
    unit: str = 's',
    target: tuple[str, float] | None = None,
    work: float | None = None,
    judge: bool = True,
    **more,
) -> dict:
    """The row of one quantity, measured in turn with its reference.

    Args:
        section (str): Heading under which it stands.
        measured (str): What was measured.
        against (str): Against what.
        values (list[float]): One number a round.
        references (list[float]): The same of the reference.
        unit (str): ``'s'``, ``'bytes'`` or ``'images/s'``.
        target (tuple[str, float], optional): ``('<=' or '>=', number)`` for the median ratio.
        work (float, optional): Ratio of the multiply-adds.
        judge (bool): False leaves open whether the target is held.
        **more: Further plain values of the row.
    """
    found = ratio(values, references)
    return dict(
        section=section,
        measured=measured,
        against=against,
        ratio=found,
        work=work,
        target=target,
        held=is_held(found['median'], target) if judge and target else None,
        value=statistics.median(values),
        reference=statistics.median(references),
        unit=unit,
        **more,
    )


def is_held(value: float, target: tuple[str, float]) -> bool:
    sense, number = target
    return value <= number if sense == '<=' else value >= number


def write_results(run: dict, rows: list[dict], folder: Path, name: str) -> None:
    """Writes ``name.json``, ``name.md`` and ``name.png``, each as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f'{name}.json', dict(run, rows=rows))
    write_text(folder / f'{name}.md', to_markdown(run, rows))
    grows = any('num_scales' in row for row in rows)
    save_figure((draw_growth if grows else draw_ratios)(run, rows), folder / f'{name}.png')


def to_markdown(run: dict, rows: list[dict]) -> str:
    """A table a section, under the machine and the command."""
    lines = ['# Benchmark', '', f'`{run["command"]}`', '', machine_line(run) + '.', '']
    lines += [f'- {note}' for note in run.get('notes', [])]
    for section in dict.fromkeys(row['section'] for row in rows):
        cells = [cells_of(row) for row in rows if row['section'] == section]
        marks = ['---', '---', *['---:'] * 3, '---', '---', '---:', '---:']
        lines += ['', f'## {section}', '']
        lines += [f'| {" | ".join(line)} |' for line in (HEAD, marks, *cells)]
    return '\n'.join(lines) + '\n'


def cells_of(row: dict) -> list[str]:
    """A row of the Markdown table."""
    quartiles, target = row['ratio']['quartiles'], row['target']
    scale, unit = UNITS[row['unit']]
    return [
        row['measured'],
        row['against'],
        f'**{row["ratio"]["median"]:.3g}**',
        ' to '.join(f'{value:.3g}' for value in quartiles) if quartiles else '',
        '' if row['work'] is None else f'{row["work"]:.3g}',
        f'{sign(target)} {target[1]:g}' if target else '',
        {True: 'held', False: 'missed', None: ''}[row['held']],
        *(f'{readable(row[name] * scale)} {unit}' for name in ('value', 'reference')),
    ]


def readable(number: float) -> str:
    """Four digits, more where the number has them before the point."""
    return f'{number:,.0f}' if number >= 1000 else f'{number:.4g}'


def sign(target: tuple[str, float]) -> str:
    return {'<=': '≤', '>=': '≥'}[target[0]]


def machine_line(run: dict) -> str:
    """Machine and versions in one line."""
    where = f'{run["cpu"]}, {run["threads"]} of {run["cores"]} threads'
    if run['gpu']:
        where = f'{run["gpu"]} ({where})'
    packages = [f'{name} {run[name]}' for name in ('torch', 'mmcv', 'mmpretrain', 'mmscale')]
    return ', '.join([where, *packages, *(f'{k}={v}' for k, v in run['allocator'].items())])


def draw_ratios(run: dict, rows: list[dict]) -> Figure:
    """Every ratio with its quartiles and, as a bar across, its target."""
    figure = Figure(figsize=(9, 1.4 + 0.26 * len(rows)), layout='constrained')
    axes = figure.subplots()
    places = range(len(rows), 0, -1)
    for place, row in zip(places, rows):
        median = row['ratio']['median']
        lower, upper = row['ratio']['quartiles'] or (median, median)
        color = {True: '#2ca02c', False: '#d62728', None: '#1f77b4'}[row['held']]
        axes.plot([lower, upper], [place, place], color=color, lw=3, alpha=0.4)
        axes.plot(median, place, 'o', color=color, ms=4)
        if row['target']:
            axes.plot(row['target'][1], place, '|', color='black', ms=11)
    axes.set_yticks(places, [f'{row["measured"]} / {row["against"]}' for row in rows], fontsize=7)
    axes.set_xlim(left=0)
    axes.set_xlabel('ratio: median and quartiles; a stroke marks the target')
    axes.grid(axis='x', alpha=0.3)
    figure.suptitle(textwrap.fill(machine_line(run), 140), fontsize=7)
    return figure


def draw_growth(run: dict, rows: list[dict]) -> Figure:
    """Time of a training step against the number of levels, beside the least that it can be."""
    rows = [row for row in rows if 'num_scales' in row]
    most = max(row['num_scales'] for row in rows)
    counts = range(1, most + 1)
    figure = Figure(figsize=(7, 4.6), layout='constrained')
    axes = figure.subplots()
    for form, color, marker, limit, label, place in (
        ('dense', '#d62728', 'o', counts, 'S', (17, -3)),
        ('pyramid', '#1f77b4', 's', [sum(4.0**-k for k in range(count)) for count in counts],
         r'$\sum_{k<S} 2^{-2k}$', (2, 8)),
    ):  # fmt: skip
        found = [row for row in rows if row['form'] == form]
        levels = [row['num_scales'] for row in found]
        medians = [row['ratio']['median'] for row in found]
        bars = [
            [abs(median - row['ratio']['quartiles'][i]) for median, row in zip(medians, found)]
            for i in (0, 1)
        ]
        axes.plot(counts, limit, '--', color=color, lw=1, label=f'limit, {form}: {label}')
        axes.errorbar(levels, medians, bars, fmt=marker, color=color, ms=5, capsize=2,
                      label=f'measured, {form}')  # fmt: skip
        for at, median in zip(levels, medians):
            axes.annotate(f'{median:.2f}', (at, median), xytext=place, fontsize=8, color=color,
                          textcoords='offset points', ha='center')  # fmt: skip
    axes.axhline(1, color='black', lw=0.8, ls=':')
    axes.set(xlim=(0, most + 0.5), ylim=(0, None), xlabel='number of levels S')
    axes.set_ylabel(f'time of a step / time of a step of {rows[0]["against"]}')
    machine = textwrap.fill(machine_line(run), 110)
    axes.set_title(f'{rows[0]["setting"]}\n{machine}', fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9, loc='upper left')
    return figure
