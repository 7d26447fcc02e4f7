# Copyright (c) mmscale contributors.
"""Equivariance error against cost: which base, which blur, which zero_scale, which kernel.

Networks of random weights and calibrated norms on crops of photographs; the error is that of the
last feature maps, at each of several factors, the cost that of a training step, in steps of the
ordinary network. How much the network amplifies any small change of the images stands beside them:
it amplifies errors of its first layers likewise. A table, a figure and all numbers as CSV are left
in the folder of ``--out``.
"""

import argparse
import itertools
import shlex
import statistics
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmscale.models  # noqa: F401  (registers the networks)
from mmscale.datasets.images import photograph_crops
from mmscale.engine.allocator import keep_freed_blocks
from mmscale.engine.cost import count as count_operations
from mmscale.engine.report import write_text
from mmscale.evaluation import equivariance_error
from mmscale.registry import MODELS
from mmscale.scale_space import split_levels
from mmscale.visualization import save_figure

# Levels an octave; the base is its root of 2.
DENSITIES = {'2': 1, '√2': 2, '∛2': 3, '∜2': 4}

FACTORS = (1.1, 1.25, 1.5, 2.0, 2.5, 3.0)
BLURS = {
    'none': None,
    '3 taps': dict(kernel_size=3),
    '5 taps': dict(kernel_size=5),
    '7 taps': dict(kernel_size=7),
    'variance 3': dict(variance=3.0),
}
COLOURS = dict(zip(BLURS, ('#999999', '#56b4e9', '#0072b2', '#009e73', '#d55e00')))
MARKERS = dict(zip(DENSITIES, 'osD^'))
# (base, zero_scale, blur)
NAMED = {
    'economical': ('2', 0.5, '5 taps'),
    'balanced': ('√2', 1.0, '7 taps'),
    'accurate': ('∜2', 0.5, 'variance 3'),
}

# With ``--kernels``, of 3x3 taps: form, lift, kernel. On pyramids a discrete kernel is the dilated.
DENSE, REPEAT, PYRAMID = 'GaussianLift', 'RepeatLift', 'GaussianPyramidLift'
HERMITE = dict(type='mmscale.HermiteBasis', effective_size=3, width=0.9)
JET = dict(type='mmscale.GaussianDerivativeBasis', max_order=2, width=0.9)
KERNELS = {
    'dense, dilated': (DENSE, None),
    'dense, discrete': (DENSE, dict(type='mmscale.DiscreteBasis', effective_size=3)),
    'dense, Hermite': (DENSE, HERMITE),
    'dense, Gaussian derivatives': (DENSE, JET),
    'repeated image, Hermite': (REPEAT, HERMITE),
    'repeated image, Gaussian derivatives': (REPEAT, JET),
    'pyramid, dilated': (PYRAMID, None),
    'pyramid, Hermite': (PYRAMID, HERMITE),
    'pyramid, Gaussian derivatives': (PYRAMID, JET),
}
KERNEL_COLOURS = {kernel: f'C{i}' for i, kernel in enumerate(KERNELS)}
# Taps of the support of Hermite functions of 3x3 at level 0.
HERMITE_SUPPORT = 5

# What is built, the side and number of crops, octaves from the finest level to the coarsest, and
# factors: three octaves of a map of stride 4 leave no sample off the border at the last of them.
NETWORKS = {
    'cifar18': (
        dict(type='mmscale.ScaleResNet_CIFAR', depth=18, stem_channels=16, base_channels=16,
             num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)),
        128, 12, 2, FACTORS,
    ),
    'resnet18': (
        dict(type='mmscale.ScaleResNet', depth=18, out_indices=(1, 2)), 416, 16, 2, FACTORS
    ),
    'resnet34': (
        dict(type='mmscale.ScaleResNet', depth=34, out_indices=(1, 2)), 416, 16, 2, FACTORS
    ),
    'resnet50': (
        dict(type='mmscale.ScaleResNet', depth=50, out_indices=(1, 2)), 416, 16, 2, FACTORS
    ),
    'convnet': (
        dict(type='mmscale.ScaleConvNet', in_channels=3, channels=(32, 63, 95)),
        64, 12, 1, (1.1, 1.26, 1.5, 2.0),
    ),
}  # fmt: skip


def progress(text: str):
    print(text, file=sys.stderr, flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--network', choices=NETWORKS, default='cifar18')
    parser.add_argument(
        '--named', action='store_true', help='only the three named configurations, not all 40'
    )
    parser.add_argument(
        '--kernels',
        action='store_true',
        help='kernels of the field, dense and pyramid, blur 5 taps',
    )
    parser.add_argument(
        '--aa-stem',
        action='store_true',
        help='blur behind the strided convolution of the stem, too',
    )
    parser.add_argument('--no-cost', action='store_true', help='errors alone')
    parser.add_argument('--border', type=int, default=2, help='samples left out; default: 2')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='of the weights')
    parser.add_argument('--num-images', type=int, help='crops; default: that of the network')
    parser.add_argument('--batch-size', type=int, default=4, help='of a training step')
    parser.add_argument('--images', type=Path, help="default: scikit-learn's two photographs")
    parser.add_argument('--out', type=Path, default=Path('work_dirs/frontier'), help='a folder')
    args = parser.parse_args()
    if args.images and not args.images.is_dir():
        parser.error(f'--images: there is no folder {args.images}')
    return args


def configurations(named: bool, kernels: bool) -> list[tuple]:
    """``(base, zero_scale, blur[, kernel])``; ordinary networks, one level, have the base None."""
    if kernels:
        ordinary = [(None, 0.5, blur) for blur in ('none', '5 taps')]
        return ordinary + [(b, 0.5, '5 taps', kernel) for b in ('2', '√2') for kernel in KERNELS]
    blurs = ['none', *dict.fromkeys(blur for *_, blur in NAMED.values())] if named else BLURS
    ordinary = [(None, 0.5, blur) for blur in blurs]
    return ordinary + (
        list(NAMED.values()) if named else [*itertools.product(DENSITIES, (0.5, 1.0), BLURS)]
    )


def build(args, base: str | None, zero_scale: float, blur: str, kernel: str = '', seed: int = 0):
    """A network with random weights."""
    config, _, _, octaves, _ = NETWORKS[args.network]
    grid = dict(num_scales=1)
    if base is not None:
        density = DENSITIES[base]
        grid = dict(base=2 ** (1 / density), num_scales=octaves * density + 1)
        grid['zero_scale'] = zero_scale
    lift, basis = KERNELS[kernel or 'pyramid, dilated']
    options = dict(scale_space=grid, lift=dict(type=f'mmscale.{lift}'))
    if basis is not None:
        options['kernel'] = basis
        if basis is HERMITE:
            options['kernel'] = dict(basis, size=HERMITE_SUPPORT * 2**octaves // 2 * 2 + 1)
    if BLURS[blur] is not None:
        options['aa_layer'] = dict(type='mmscale.ScaleBlurPool2d', **BLURS[blur])
        if args.aa_stem:
            options['aa_stem'] = True
        if args.network == 'convnet':  # in place of its max pooling
            options.update(pool_size=1, pool_stride=2)
    torch.manual_seed(seed)
    model = MODELS.build(dict(config, **options))
    model.init_weights()
    return model


@torch.no_grad()
def calibrate_norms(network: nn.Module, images: Tensor) -> nn.Module:
    """Gives the batch norms of a network the statistics of images, and puts it into eval mode.

    The features of random weights otherwise grow or vanish with the depth. Scales become 1, shifts
    0: a residual branch whose last norm starts at 0 would be measured as the identity.

    Args:
        network (nn.Module): Changed in place.
        images (Tensor): ``(N, C, H, W)``, passed through it once.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # of this batch alone
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    network.train()
    network(images)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return network.eval()


def measure(args, configuration: tuple, images: torch.Tensor) -> dict[str, list]:
    """Errors at each factor and the amplification, by output, means over images and seeds."""
    factors = NETWORKS[args.network][-1]
    errors, amplifications = [], []
    for seed in args.seeds:
        model = calibrate_norms(build(args, *configuration, seed=seed), images[:16])
        found = equivariance_error(model, images, factors, border=args.border, batch_size=4)
        found = found if isinstance(found, tuple) else (found,)
        errors.append(torch.stack([output.mean for output in found]))
        amplifications.append(torch.stack(amplification(model, images[:4])))
    return dict(
        errors=torch.stack(errors).mean(0).tolist(),
        amplification=torch.stack(amplifications).mean(0).tolist(),
    )


@torch.no_grad()
def amplification(model, images: torch.Tensor, share: float = 1e-3) -> list[torch.Tensor]:
    """How much larger a small change of the images is behind the network, by output.

    To each image is added ``share`` of the next. Compared are squared norms of the change, each as
    a part of that of what is changed.
    """
    change = share * images.roll(1, 0)
    before = change.square().sum() / images.square().sum()
    found = []
    for levels, changed in zip(model(images), model(images + change)):
        signal, other = (
            torch.cat([x.flatten() for x in split_levels(y)]) for y in (levels, changed)
        )
        found.append((other - signal).square().sum() / signal.square().sum() / before)
    return found


def step_of(model, batch: int, side: int):
    """A training step on random images."""
    images = torch.randn(batch, 3, side, side)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3)

    def step():
        outputs = model(images)[-1]
        loss = sum(level.square().mean() for level in split_levels(outputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def seconds_of(step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def costs(args, compared: list[tuple]) -> dict[tuple, float]:
    """Seconds of a training step over those of the ordinary network, measured in turn with it.

    The median of 9 ratios. ``zero_scale`` changes numbers, not work: both values share one.
    """
    side = NETWORKS[args.network][1]
    ordinary = step_of(build(args, None, 0.5, 'none'), args.batch_size, side)
    found = {(None, 'none'): 1.0}
    for base, _, blur, *kernel in compared:
        if (base, blur, *kernel) in found:
            continue
        progress(f'cost of base {base}, blur {blur} {" ".join(kernel)}')
        step = step_of(build(args, base, 0.5, blur, *kernel), args.batch_size, side)
        step(), ordinary()
        ratios = [seconds_of(step) / seconds_of(ordinary) for _ in range(9)]
        found[(base, blur, *kernel)] = statistics.median(ratios)
    return found


def name_of(configuration: tuple) -> str:
    base, zero_scale, blur, *kernel = configuration
    if base is None:
        return 'ordinary' if blur == 'none' else f'ordinary, blur {blur}'
    if kernel:
        return f'base {base}, {kernel[0]}'
    return f'base {base}, zero_scale {zero_scale:g}, blur {blur}'


def role_of(configuration: tuple) -> str:
    return next((name for name, named in NAMED.items() if named == configuration), '')


def table(rows: list[dict], factors: tuple) -> str:
    """Markdown, one part an output of the network."""
    lines = []
    for i in range(len(rows[0]['errors'])):
        head = [
            'network',
            '',
            'multiply-adds',
            'cost',
            *(f's = {s:g}' for s in factors),
            'worst',
            'amplifies',
        ]
        lines += [f'| {" | ".join(head)} |', f'|---|---|{"---:|" * (len(factors) + 4)}']
        for row in rows:
            errors = [*row['errors'][i], max(row['errors'][i])]
            cost = '-' if row['cost'] is None else f'{row["cost"]:.2f}'
            work = f'{row["multiply_adds"] / 1e9:.2f} G'
            cells = [row['name'], row['role'], work, cost, *(f'{error:.2g}' for error in errors)]
            lines.append(f'| {" | ".join(cells)} | {row["amplification"][i]:.3g} |')
        lines.append('')
    return '\n'.join(lines)


def draw(rows: list[dict], title: str):
    """Worst error against cost, both on logarithmic axes, the named configurations labelled.

    The cost is the time of a training step where that is measured, else the multiply-adds.
    """
    figure = Figure(figsize=(8.5, 5.5), layout='constrained')
    axes = figure.subplots()
    measured = all(row['cost'] is not None for row in rows)
    for row in rows:
        cost = row['cost'] if measured else row['multiply_adds'] / rows[0]['multiply_adds']
        base, zero_scale, blur, *kernel = row['configuration']
        axes.plot(
            cost,
            max(row['errors'][-1]),
            MARKERS.get(base, '*'),
            ms=11 if base is None else 8,
            color=KERNEL_COLOURS[kernel[0]] if kernel else COLOURS[blur],
            mfc=COLOURS[blur] if zero_scale == 1.0 or base is None else 'white',
            mew=1.6,
        )
        if row['role']:
            axes.annotate(row['role'], (cost, max(row['errors'][-1])), (-9, 0),
                          textcoords='offset points', ha='right', va='center')  # fmt: skip
    keys = [Line2D([], [], ls='', marker='*', ms=11, color='black', label='ordinary')]
    keys += [
        Line2D([], [], ls='', marker=marker, ms=8, mfc='white', color='black', label=f'base {base}')
        for base, marker in MARKERS.items()
    ]
    kernels = {kernel[0] for _, _, _, *kernel in (row['configuration'] for row in rows) if kernel}
    if kernels:
        keys = [keys[0], *(key for key in keys if key.get_label() in ('base 2', 'base √2'))]
        keys += [
            Line2D([], [], lw=5, color=colour, label=kernel)
            for kernel, colour in KERNEL_COLOURS.items()
        ]
    keys += (
        []
        if kernels
        else [
            Line2D(
                [],
                [],
                ls='',
                marker='o',
                ms=8,
                color='black',
                mfc=fill,
                label=f'zero_scale {value}',
            )
            for value, fill in ((0.5, 'white'), (1, 'black'))
        ]
    )
    keys += (
        []
        if kernels
        else [
            Line2D([], [], lw=5, color=colour, label=f'blur: {blur}')
            for blur, colour in COLOURS.items()
        ]
    )
    figure.legend(handles=keys, loc='outside right center', frameon=False, fontsize=9)
    kind = 'time of a training step' if measured else 'multiply-adds'
    axes.set(xscale='log', yscale='log', title=title,
             xlabel=f'{kind}, in those of the ordinary network',
             ylabel=r'worst equivariance error $\Delta(s)$ over the factors')  # fmt: skip
    for axis, ticks in (
        (axes.xaxis, (1, 1.5, 2, 3, 4, 5, 10, 20, 50, 100)),
        (axes.yaxis, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)),
    ):
        low, high = axis.get_view_interval()
        shown = [tick for tick in ticks if low <= tick <= high]
        axis.set_ticks(shown, [f'{tick:g}' for tick in shown])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    return figure


def to_csv(rows: list[dict], factors: tuple) -> str:
    """A line a network, output and factor."""
    columns = ['network', 'role', 'output', 'factor', 'error', 'amplification', 'multiply_adds',
               'cost']  # fmt: skip
    lines = [
        (row['name'], row['role'], i, factor, error, grown, row['multiply_adds'], row['cost'])
        for row in rows
        for i, (errors, grown) in enumerate(zip(row['errors'], row['amplification']))
        for factor, error in zip(factors, errors)
    ]
    return pd.DataFrame(lines, columns=columns).to_csv(index=False, lineterminator='\n')


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    keep_freed_blocks()
    MMLogger.get_instance('frontier', log_level='ERROR')  # how each weight is initialised
    warnings.filterwarnings('ignore', message='no level is valid')
    _, side, count, _, factors = NETWORKS[args.network]
    images = photograph_crops(args.num_images or count, side, folder=args.images).float()
    images = (images - images.mean((0, 2, 3), True)) / images.std((0, 2, 3), keepdim=True)
    compared = configurations(args.named, args.kernels)
    measured = {}
    for i, configuration in enumerate(compared, start=1):
        progress(f'error {i} of {len(compared)}: {name_of(configuration)}')
        measured[configuration] = measure(args, configuration, images)
    found = {} if args.no_cost else costs(args, compared)
    rows = [
        dict(
            name=name_of(configuration),
            role=role_of(configuration),
            configuration=configuration,
            cost=found.get((configuration[0], *configuration[2:])),
            multiply_adds=count_operations(build(args, *configuration), (3, side, side))[1],
            **measured[configuration],
        )
        for configuration in compared
    ]
    stem = f'frontier_{args.network}'
    stem += '_aa_stem' * args.aa_stem + '_kernels' * args.kernels
    command = shlex.join(['python', *sys.argv])
    versions = f'torch {torch.__version__}, {torch.get_num_threads()} CPU threads'
    text = f'`{command}`\n\n{versions}.\n\n{table(rows, factors)}'
    write_text(args.out / f'{stem}.md', text)
    write_text(args.out / f'{stem}.csv', to_csv(rows, factors))
    title = f'{args.network}: {len(images)} crops of {side} px, border {args.border}'
    save_figure(draw(rows, title), args.out / f'{stem}.png')
    print(text)
    progress(f'results: {(args.out / stem).resolve()}.md and .csv')


if __name__ == '__main__':
    main()
