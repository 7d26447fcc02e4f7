# Copyright (c) mmscale contributors.
"""Draw the picture and print the table of the first page, from the results of studies.

They compare an ordinary network with the same network on three levels, on sizes of the training and
on other sizes.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'studies' / 'workflow'))

import tables  # noqa: E402
from cells import STUDIES, read_study  # noqa: E402

from mmscale.visualization import save_figure  # noqa: E402

PICTURE = ROOT / 'docs' / 'images' / 'sizes.png'
LARGEST_DIGIT, TRAINED_SIDE = 64, 96  # pixels
# Each row has the study, its images, the sizes of the training, the run of an ordinary network, our
# run and its name, and the factors of the training.
ROWS = (
    ('sizes_stir', 'digits (STIR-MNIST, 64x64)', '17 to 32 pixels',
     'ResNet, blur, 17 to 32', 'mean of probabilities, 17 to 32', 'mean of 3 levels', (2, 3.77)),
    ('sizes_stir', 'emoji (STIR, 64x64)', '17 to 32 pixels', 'emoji, ResNet, blur, 17 to 32',
     'emoji, mean of probabilities, 17 to 32', 'mean of 3 levels', (2, 3.77)),
    ('sizes_scalecifar10', 'photographs (CIFAR-10, 32x32)', 'full size to 1/1.5, 60 epochs',
     'ResNet, blur, 60 epochs, 1 to 1/1.5', 'gate, 60 epochs, 1 to 1/1.5', 'gate of 3 levels',
     (1, 1.5)),
    ('sizes_scalecifar10', 'photographs (CIFAR-10, 32x32)', 'full size to 1/1.5, 60 epochs',
     'ResNet, blur, 60 epochs, 1 to 1/1.5', 'gate, finest level, 60 epochs, 1 to 1/1.5',
     'tested on its finest level', (1, 1.5)),
    ('sizes_scalecifar10', 'photographs (CIFAR-10, 32x32)', 'full size to 1/1.5, 30 epochs',
     'ResNet, blur, 1 to 1/1.5', 'gate, 1 to 1/1.5', 'gate of 3 levels', (1, 1.5)),
    ('sizes_scalecifar10', 'photographs (CIFAR-10, 32x32)', 'half size to 0.3, 30 epochs',
     'ResNet, blur, 1/2 to .3', 'gate, 1/2 to .3', 'gate of 3 levels', (2, 3)),
    ('sizes_scalecifar10', 'photographs (CIFAR-10, 32x32)', 'full size to 0.3, 30 epochs',
     'ResNet, blur, 1 to .3', 'gate, 1 to .3', 'gate of 3 levels', (1, 3)),
    ('pretrained_caltech101', 'photographs (Caltech-101)', '96-pixel images',
     'ResNet', 'ResNet, three sizes, mean', 'trained weights on 3 levels', (1, 1)),
)  # fmt: skip


def measured(name: str, run: str) -> tuple:
    """Return factors, mean accuracies in %, and multiply-adds of a run."""
    study = read_study(STUDIES / f'{name}.py')
    frame = tables.select(study, tables.load(name), (run,))
    # Tests at sizes in pixels take the place of measurements over scale.
    metrics = [f'test/{"/".join(place)}' for place in study.columns.values()] or ['accuracy']
    mean, _ = tables.spread(tables.by_seed(frame, *metrics))
    mean = mean[metrics] if study.columns else mean
    factors = [TRAINED_SIDE / float(side) for side, _ in study.columns.values()] or mean.columns
    # The study counts them for its largest images, of twice the side of those of the training.
    cost = frame.multiply_adds.iloc[0] / (4 if study.columns else 1)
    return np.array(factors), mean.loc[run].to_numpy(), cost


def table() -> str:
    """Return a table of mean accuracies over the sizes of the training, and over other sizes."""
    rows = []
    for name, images, trained, ordinary, ours, network, (lowest, highest) in ROWS:
        factors, before, cost = measured(name, ordinary)
        _, after, our_cost = measured(name, ours)
        inside = (factors >= lowest) & (factors <= highest)
        means = [f'{before[chosen].mean():.1f} → {after[chosen].mean():.1f} %' if chosen.any()
                 else '-' for chosen in (inside, ~inside)]  # fmt: skip
        rows.append([images, trained, network, f'x {our_cost / cost:.2f}', *means])
    head = ['images', 'trained on', 'network of mmscale', 'multiply-adds', 'at trained sizes',
            'at other sizes']  # fmt: skip
    return tables.markdown(head, rows, text=3)


def draw() -> Figure:
    figure = Figure(figsize=(9.6, 3.7), layout='constrained')
    rows = zip(figure.subplots(1, 2), (ROWS[0], ROWS[2]))
    for axes, (name, images, _, *runs, network, (lowest, highest)) in rows:
        digits = name == 'sizes_stir'
        size = (lambda s: LARGEST_DIGIT / s) if digits else (lambda s: 1 / s)
        labels = 'narrow ResNet-18', f'mmscale, {network}'
        for run, label, color in zip(runs, labels, ('black', 'tab:red')):
            factors, accuracy, _ = measured(name, run)
            few = len(factors) < 10
            axes.plot(size(factors), accuracy, color=color, lw=2, marker='o' if few else '',
                      label=label)  # fmt: skip
        axes.axvspan(size(highest), size(lowest), color='0.9', zorder=0)
        middle = np.sqrt(size(highest) * size(lowest))
        axes.text(middle, 3, 'trained sizes', ha='center', color='0.35')
        ticks = [17, 24, 32, 48, 64] if digits else [1 / 3, 0.4, 0.5, 2 / 3, 1]
        labels = ticks if digits else ['1/3', '1/2.5', '1/2', '1/1.5', '1']
        axes.set(xscale='log', ylim=(0, 100), ylabel='accuracy (%)')
        axes.set_title(f'{images[0].upper()}{images[1:]}')
        axes.set_xlabel('size of the digit, pixels' if digits else 'size relative to the original')
        axes.set_xticks(ticks, labels)
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
        axes.legend(loc='lower right' if digits else 'upper left', frameon=False)
    return figure


if __name__ == '__main__':
    save_figure(draw(), PICTURE, dpi=150)
    print(table(), PICTURE, sep='\n\n')
