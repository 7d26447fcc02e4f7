# Copyright (c) mmscale contributors.
"""Measure equivariance error against cost for bases, blurs, zero scales and kernels.

The networks have random weights and calibrated norms and run on crops of photographs. The error is
the error of the last feature maps, at several factors. The cost is the time of a training step,
relative to the ordinary network. The amplification of a small change of the images stands beside
them, because a network amplifies errors of its first layers likewise. A table, a figure and all
numbers as CSV are written to the folder of ``--out``.
"""

import argparse
import itertools
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

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

# Levels per octave d of each base, 2 ** (1 / d).
DENSITIES = {'2': 1, '√2': 2, '∛2': 3, '∜2': 4}
BLURS = {
    'none': None,
    '3 taps': dict(kernel_size=3),
    '5 taps': dict(kernel_size=5),
    '7 taps': dict(kernel_size=7),
    'variance 3': dict(variance=3.0),
}
COLOURS = dict(zip(BLURS, ('#999999', '#56b4e9', '#0072b2', '#009e73', '#d55e00')))
MARKERS = dict(zip(DENSITIES, 'osD^'))

# With ``--kernels``: lift and kernel of 3x3 taps, by form. On pyramids, discrete kernels are the
# dilated kernels.
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
# Support of 3x3 Hermite functions at level 0, in taps.
HERMITE_SUPPORT = 5

# For each network, its config, the side and number of crops, the octaves from the finest level to
# the coarsest, and the factors. Three octaves of a map of stride 4 would leave only border.
FACTORS = (1.1, 1.25, 1.5, 2.0, 2.5, 3.0)
NETWORKS = {
    'cifar18': (
        dict(type='mmscale.ScaleResNet_CIFAR', depth=18, stem_channels=16, base_channels=16,
             num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)),
        128, 12, 2, FACTORS,
    ),
    'convnet': (
        dict(type='mmscale.ScaleConvNet', in_channels=3, channels=(32, 63, 95)),
        64, 12, 1, (1.1, 1.26, 1.5, 2.0),
    ),
}  # fmt: skip
for depth in (18, 34, 50):
    resnet = dict(type='mmscale.ScaleResNet', depth=depth, out_indices=(1, 2))
    NETWORKS[f'resnet{depth}'] = resnet, 416, 16, 2, FACTORS


class Configuration(NamedTuple):
    """A configuration of a network; base None is the ordinary network, of one level."""

    base: str | None
    zero_scale: float
    blur: str
    kernel: str = ''

    @property
    def work(self) -> tuple:
        """The fields that determine the cost, all but ``zero_scale``."""
        return self.base, self.blur, self.kernel

    @property
    def name(self) -> str:
        if self.base is None:
            return 'ordinary' if self.blur == 'none' else f'ordinary, blur {self.blur}'
        if self.kernel:
            return f'base {self.base}, {self.kernel}'
        return f'base {self.base}, zero_scale {self.zero_scale:g}, blur {self.blur}'

    @property
    def role(self) -> str:
        return next((name for name, named in NAMED.items() if named == self), '')


ORDINARY = Configuration(None, 0.5, 'none')
NAMED = {
    'economical': Configuration('2', 0.5, '5 taps'),
    'balanced': Configuration('√2', 1.0, '7 taps'),
    'accurate': Configuration('∜2', 0.5, 'variance 3'),
}


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--network', choices=NETWORKS, default='cifar18')
    add('--named', action='store_true', help='only the three named configurations, not all 40')
    add('--kernels', action='store_true',
        help='kernels of the field, dense and pyramid, blur 5 taps')  # fmt: skip
    add('--aa-stem', action='store_true',
        help='blur behind the strided convolution of the stem, too')  # fmt: skip
    add('--no-cost', action='store_true', help='errors alone')
    add('--border', type=int, default=2, help='samples to omit along each side; default: 2')
    add('--seeds', type=int, nargs='+', default=[0], help='seeds of the weights')
    add('--num-images', type=int, help='number of crops; default: by network')
    add('--batch-size', type=int, default=4, help='batch size of a training step')
    add('--images', type=Path, help="default: scikit-learn's two photographs")
    add('--out', type=Path, default=Path('work_dirs/frontier'), help='a folder')
    args = parser.parse_args()
    if args.images and not args.images.is_dir():
        parser.error(f'--images: there is no folder {args.images}')
    return args


def configurations(named: bool, kernels: bool) -> list[Configuration]:
    if kernels:
        blurs = ['none', '5 taps']
        ours = [Configuration(b, 0.5, '5 taps', k) for b in ('2', '√2') for k in KERNELS]
    elif named:
        ours = list(NAMED.values())
        blurs = ['none', *(one.blur for one in ours)]
    else:
        blurs = BLURS
        ours = [Configuration(*one) for one in itertools.product(DENSITIES, (0.5, 1.0), BLURS)]
    return [ORDINARY._replace(blur=blur) for blur in blurs] + ours


def build(args: argparse.Namespace, configuration: Configuration, seed: int = 0) -> nn.Module:
    """Build a network with random weights."""
    base, zero_scale, blur, kernel = configuration
    config, _, _, octaves, _ = NETWORKS[args.network]
    grid = dict(num_scales=1)
    if base is not None:
        density = DENSITIES[base]
        grid = dict(base=2 ** (1 / density), num_scales=octaves * density + 1)
        grid['zero_scale'] = zero_scale
    lift, basis = KERNELS[kernel or 'pyramid, dilated']
    options = dict(scale_space=grid, lift=dict(type=f'mmscale.{lift}'))
    if basis is HERMITE:
        basis = dict(basis, size=HERMITE_SUPPORT * 2**octaves // 2 * 2 + 1)
    if basis is not None:
        options['kernel'] = basis
    if BLURS[blur] is not None:
        options['aa_layer'] = dict(type='mmscale.ScaleBlurPool2d', **BLURS[blur])
        if args.aa_stem:
            options['aa_stem'] = True
        if args.network == 'convnet':  # the blur replaces its max pooling
            options.update(pool_size=1, pool_stride=2)
    torch.manual_seed(seed)
    model = MODELS.build(dict(config, **options))
    model.init_weights()
    return model


@torch.no_grad()
def calibrate_norms(network: nn.Module, images: Tensor) -> nn.Module:
    """Set the batch norms of a network to the statistics of images, and set it to eval mode.

    Features of random weights would otherwise grow or vanish with the depth. Scales become 1 and
    shifts 0, because a residual branch whose last norm starts at 0 would be the identity.

    Args:
        network (nn.Module): The network, changed in place.
        images (Tensor): Images ``(N, C, H, W)`` for one pass.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # only this batch counts
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    network.train()
    network(images)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return network.eval()


def measure(
    args: argparse.Namespace, configuration: Configuration, images: Tensor
) -> dict[str, list]:
    """Measure errors and amplification of each output, as means over images and seeds."""
    errors, amplifications = [], []
    for seed in args.seeds:
        model = calibrate_norms(build(args, configuration, seed), images[:16])
        found = equivariance_error(
            model, images, NETWORKS[args.network][-1], border=args.border, batch_size=4
        )
        found = found if isinstance(found, tuple) else (found,)
        errors.append(torch.stack([output.mean for output in found]))
        amplifications.append(torch.stack(amplification(model, images[:4])))
    return dict(
        errors=torch.stack(errors).mean(0).tolist(),
        amplification=torch.stack(amplifications).mean(0).tolist(),
    )


@torch.no_grad()
def amplification(model: nn.Module, images: Tensor, share: float = 1e-3) -> list[Tensor]:
    """Measure how much each output of a network amplifies a small change of the images.

    The change adds ``share`` of the next image to each image. The amplification is the ratio of the
    relative squared norms of the change, behind and before the network.
    """
    change = share * images.roll(1, 0)
    before = change.square().sum() / images.square().sum()
    found = []
    for outputs in zip(model(images), model(images + change)):
        signal, other = (torch.cat([x.flatten() for x in split_levels(y)]) for y in outputs)
        found.append((other - signal).square().sum() / signal.square().sum() / before)
    return found


def step_of(args: argparse.Namespace, configuration: Configuration) -> Callable[[], float]:
    """Return a function that makes a training step on random images and returns its seconds."""
    model, side = build(args, configuration).train(), NETWORKS[args.network][1]
    images = torch.randn(args.batch_size, 3, side, side)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> float:
        start = time.perf_counter()
        loss = sum(level.square().mean() for level in split_levels(model(images)[-1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - start

    return step


def costs(args: argparse.Namespace, compared: list[Configuration]) -> dict[tuple, float]:
    """Measure the time of a training step relative to the ordinary network's, in turn with it.

    Each cost is the median of 9 ratios, or of fewer, at least 3, after a minute. The keys are
    :attr:`Configuration.work`.
    """
    ordinary, found = step_of(args, ORDINARY), {ORDINARY.work: 1.0}
    for configuration in compared:
        if configuration.work not in found:
            progress(f'cost of {configuration.name}')
            step = step_of(args, configuration)
            step(), ordinary()
            start, ratios = time.perf_counter(), []
            while len(ratios) < 3 or (len(ratios) < 9 and time.perf_counter() - start < 60):
                ratios.append(step() / ordinary())
            found[configuration.work] = statistics.median(ratios)
    return found


def table(rows: list[dict], factors: tuple) -> str:
    """Return a Markdown table for each output of the network."""
    head = ['network', '', 'multiply-adds', 'cost', *(f's = {s:g}' for s in factors), 'worst',
            'amplifies']  # fmt: skip
    lines = []
    for i in range(len(rows[0]['errors'])):
        lines += [f'| {" | ".join(head)} |', f'|---|---|{"---:|" * (len(factors) + 4)}']
        for row in rows:
            errors = [*row['errors'][i], max(row['errors'][i])]
            cost = '-' if row['cost'] is None else f'{row["cost"]:.2f}'
            work = f'{row["multiply_adds"] / 1e9:.2f} G'
            one = row['configuration']
            cells = [one.name, one.role, work, cost, *(f'{error:.2g}' for error in errors)]
            lines.append(f'| {" | ".join(cells)} | {row["amplification"][i]:.3g} |')
        lines.append('')
    return '\n'.join(lines)


def key(label: str, **look: object) -> Line2D:
    return Line2D([], [], label=label, **{**dict(ls='', ms=8, color='black'), **look})


def draw(rows: list[dict], title: str) -> Figure:
    """Draw the worst error against cost, on logarithmic axes, with labels of named configurations.

    The cost is the time of a training step if all times are measured, else the multiply-adds.
    """
    figure = Figure(figsize=(8.5, 5.5), layout='constrained')
    axes = figure.subplots()
    kind = 'multiply_adds' if None in (row['cost'] for row in rows) else 'cost'
    bases, kernels = {}, False
    for row in rows:
        base, zero_scale, blur, kernel = one = row['configuration']
        kernels |= bool(kernel)
        if base is not None:
            bases[base] = key(f'base {base}', marker=MARKERS[base], mfc='white')
        place = row[kind] / rows[0][kind], max(row['errors'][-1])
        axes.plot(*place, MARKERS.get(base, '*'), ms=11 if base is None else 8, mew=1.6,
                  color=KERNEL_COLOURS[kernel] if kernel else COLOURS[blur],
                  mfc=COLOURS[blur] if zero_scale == 1.0 or base is None else 'white')  # fmt: skip
        if one.role:
            axes.annotate(one.role, place, (-9, 0), textcoords='offset points', ha='right',
                          va='center')  # fmt: skip
    keys = [key('ordinary', marker='*', ms=11), *bases.values()]
    if kernels:
        colours = KERNEL_COLOURS
    else:
        colours = {f'blur: {blur}': colour for blur, colour in COLOURS.items()}
        keys += [key('zero_scale 0.5', marker='o', mfc='white'), key('zero_scale 1', marker='o')]
    keys += [key(label, ls='-', lw=5, color=colour) for label, colour in colours.items()]
    figure.legend(handles=keys, loc='outside right center', frameon=False, fontsize=9)
    said = dict(multiply_adds='multiply-adds', cost='time of a training step')[kind]
    axes.set(xscale='log', yscale='log', title=title,
             xlabel=f'{said}, in those of the ordinary network',
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
    """Return CSV with a line for each network, output and factor."""
    lines = [
        dict(network=row['configuration'].name, role=row['configuration'].role, output=i,
             factor=factor, error=error, amplification=grown, multiply_adds=row['multiply_adds'],
             cost=row['cost'])
        for row in rows
        for i, (errors, grown) in enumerate(zip(row['errors'], row['amplification']))
        for factor, error in zip(factors, errors)
    ]  # fmt: skip
    return pd.DataFrame(lines).to_csv(index=False, lineterminator='\n')


def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    keep_freed_blocks()
    MMLogger.get_instance('frontier', log_level='ERROR')  # hides logs of the initialisation
    warnings.filterwarnings('ignore', message='no level is valid')
    _, side, count, _, factors = NETWORKS[args.network]
    images = photograph_crops(args.num_images or count, side, folder=args.images).float()
    images = (images - images.mean((0, 2, 3), True)) / images.std((0, 2, 3), keepdim=True)
    compared, rows = configurations(args.named, args.kernels), []
    for i, configuration in enumerate(compared, start=1):
        progress(f'error {i} of {len(compared)}: {configuration.name}')
        work = count_operations(build(args, configuration), (3, side, side))[1]
        rows.append(dict(configuration=configuration, multiply_adds=work,
                         **measure(args, configuration, images)))  # fmt: skip
    found = {} if args.no_cost else costs(args, compared)
    for row in rows:
        row['cost'] = found.get(row['configuration'].work)
    stem = f'frontier_{args.network}{"_aa_stem" * args.aa_stem}{"_kernels" * args.kernels}'
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
