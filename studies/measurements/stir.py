# Copyright (c) mmscale contributors.
"""Draw the accuracies of the study of STIR beside the published, and print their means.

``stir_published.csv`` has the accuracies that Altstidl et al. (arXiv 2211.10288) publish, in %,
means over their seeds, by the size of the digits or emoji in pixels.
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'studies' / 'workflow'))

import tables  # noqa: E402
from cells import STUDIES, read_study  # noqa: E402

from mmscale.visualization import save_figure  # noqa: E402

# By the objects, as the published data and the runs of the study name them.
PICTURES = {'mnist': ROOT / 'docs' / 'images' / 'stir.png',
            'emoji': ROOT / 'docs' / 'images' / 'stir_emoji.png'}  # fmt: skip
PREFIXES = {'mnist': '', 'emoji': 'emoji, '}
PUBLISHED = Path(__file__).with_name('stir_published.csv')
LARGEST = 64  # pixels
EVALUATIONS = {1: (17, 32), 2: (33, 48), 3: (49, 64), 4: (17, 64)}
THEIRS = {
    'standard': ('CNN', dict(color='tab:gray', ls=':')),
    'hermite': ('SESN', dict(color='tab:orange', ls='--')),
    'disco': ('DISCO', dict(color='tab:purple', ls='--')),
    'pixel_pool': ('pixel pooling', dict(color='tab:green', ls='--')),
    'ensemble': ('ensemble over a pyramid', dict(color='tab:blue', ls='--')),
}
LEVELS = 'ResNet-18, blur, 3 levels'
# By the name of the run, without the sizes of its training.
OURS = {
    'ResNet, blur, {}': ('ResNet-18, blur', dict(color='black')),
    'gate, {}': (f'{LEVELS}, gate', dict(color='tab:pink')),
    'mean of probabilities, {}': (f'{LEVELS}, mean of probabilities', dict(color='tab:red')),
    'finest level, {}': (f'{LEVELS}, its finest level alone', dict(color='tab:red', ls=':')),
    'mean of probabilities, {}, 20 epochs': (
        f'{LEVELS}, mean of probabilities, 20 epochs', dict(color='tab:red', ls='-.')
    ),
}  # fmt: skip


def published(objects: str) -> dict[tuple[str, int], pd.Series]:
    """Return accuracies by size for each published model and evaluation."""
    frame = pd.read_csv(PUBLISHED).set_index(['data', 'model', 'evaluation'])
    frame = frame.loc[objects].filter(regex=r'^s\d+$')
    return {key: row.rename(lambda size: int(size[1:])) for key, row in frame.iterrows()}


def measured(objects: str) -> tuple[dict[tuple[str, int], pd.DataFrame], dict[str, float]]:
    """Return accuracies by seed and size for each of our models and evaluations, and costs."""
    study, frame = read_study(STUDIES / 'sizes_stir.py'), tables.load('sizes_stir')
    done = set(frame.cell)
    found, costs = {}, {}
    for model in OURS:
        for evaluation, (lowest, highest) in EVALUATIONS.items():
            name = PREFIXES[objects] + model.format(f'{lowest} to {highest}')
            if name in done:
                run = tables.select(study, frame, (name,))
                table = tables.by_seed(run, 'accuracy').droplevel('cell')
                found[model, evaluation] = table.rename(columns=lambda s: round(LARGEST / s))
                costs[model] = run.multiply_adds.iloc[0]
    return found, costs


def table(objects: str) -> str:
    """Return a table of means over all sizes, for each evaluation."""
    rows, theirs, (ours, costs) = [], published(objects), measured(objects)
    for model, (name, _) in THEIRS.items():
        means = [f'{theirs[model, i].mean():.1f}' for i in EVALUATIONS]
        rows.append([f'published: {name}', '', *means])
    for model in costs:
        cells, name = [], OURS[model][0]
        for i in EVALUATIONS:
            seeds = ours[model, i].mean(axis=1) if (model, i) in ours else []
            spread = f' ± {seeds.std():.1f}' if len(seeds) > 1 else ''
            cells.append(f'{seeds.mean():.1f}{spread}' if len(seeds) else '-')
        rows.append([name, f'{costs[model] / 1e6:.1f} M', *cells])
    trained = (f'{i}: {lowest} to {highest}' for i, (lowest, highest) in EVALUATIONS.items())
    return tables.markdown(['mean accuracy in %', 'multiply-adds', *trained], rows, text=1)


def draw(objects: str) -> Figure:
    figure = Figure(figsize=(11.5, 8), layout='constrained')
    theirs, (ours, _) = published(objects), measured(objects)
    for (i, (lowest, highest)), axes in zip(EVALUATIONS.items(), figure.subplots(2, 2).flat):
        for model, (name, style) in THEIRS.items():
            axes.plot(theirs[model, i], lw=1.2, label=f'published: {name}', **style)
        for model, (name, style) in OURS.items():
            if (model, i) in ours:
                axes.plot(ours[model, i].mean(), lw=2, label=name, **style)
        axes.axvspan(lowest, highest, color='0.93', zorder=0)
        axes.set(ylim=(0, 101), xlabel='size of the object, pixels', ylabel='accuracy (%)')
        axes.set_title(f'Evaluation {i}: trained on {lowest} to {highest} pixels')
        axes.set_xticks([17, 24, 32, 40, 48, 56, 64])
        axes.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=3, frameon=False)
    return figure


if __name__ == '__main__':
    for objects, picture in PICTURES.items():
        save_figure(draw(objects), picture, dpi=150)
        print(table(objects), picture, sep='\n\n', end='\n\n')
