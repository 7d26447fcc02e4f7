# Copyright (c) mmscale contributors.
"""Split the equivariance error of a network on scale spaces into its parts."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from mmscale.checks import check_choice, check_count
from mmscale.scale_space import ScaleGrid, Signal, is_pyramid, scale_scale_space
from mmscale.scale_space.action import BETWEEN_LEVELS

from .equivariance import (
    FACTORS,
    check_factors,
    crop_border,
    eval_mode,
    levels_of,
    scale_levels,
    split_batches,
)
from .features import Features, find_grid
from .scaling import RESAMPLINGS, Scaling, interpolation_of

PARTS = ('lift', 'body', 'between levels', 'border')


@dataclass(frozen=True)
class ErrorBreakdown:
    """The error of one network and its parts, whose sum is the error.

    Attributes:
        factors (tuple[float, ...]): The F scale factors.
        whole (Tensor): ``(F, N)``, the error of each sample, border included; nan if no level is
            left or valid, or the feature is zero.
        parts (dict[str, Tensor]): The parts ``'lift'``, ``'body'``, ``'between levels'`` and
            ``'border'``, each ``(F, N)``.
    """

    factors: tuple[float, ...]
    whole: Tensor
    parts: dict[str, Tensor]


@torch.no_grad()
def error_breakdown(
    backbone: nn.Module,
    images: Tensor | Iterable[Tensor],
    factors: Sequence[float] = FACTORS,
    *,
    resampling: str = 'matched',
    between_levels: str = 'cubic',
    border: int = 0,
    batch_size: int = 32,
) -> ErrorBreakdown:
    r"""Split a network's equivariance error into the shares of lift, body, reading and border.

    Let :math:`\Phi = B \Lambda` be body and lift. Let :math:`\Phi^s = B^s \Lambda^s` be the same
    network on the levels of scale :math:`s a^k`, the levels that :math:`L_s` reads. :math:`T_s`
    takes these levels at the positions :math:`s z`: like :math:`L_s` it reads between samples, but
    it never reads between levels. The error is the squared norm of a difference, and the difference
    is the sum

    .. math:: L_s \Phi f - \Phi L_s f = (L_s \Phi f - T_s \Phi^s f)
        + (T_s \Phi^s f - B\, T_s \Lambda^s f) + (B\, T_s \Lambda^s f - B \Lambda L_s f)

    of three terms:

    - reading *between levels*: a level interpolated from its neighbours, minus the level itself. It
      is zero at powers of the base. (In a pyramid, neighbours have samples at other positions, so
      this term contains reading between samples.)
    - the *body*: layers that are not equivariant, and features of dense scale spaces that alias
      between samples. It is zero for the layers of this package at powers of an integer base and,
      on pyramids without interaction, at every factor.
    - the *lift*: the error :math:`T_s \Lambda^s f - \Lambda L_s f`, passed through the body.

    Each part is the inner product of its term with the whole difference, over the norm of the
    reference :math:`\|L_s \Phi f\|^2`, so the parts add up. A part is negative if it cancels some
    of the others. The three parts are measured off the border; the samples at the *border* are a
    fourth part.

    Args:
        backbone (nn.Module): A network with ``lift`` and ``body``, whose layers hold the scale grid
            as ``grid``. The valid levels of the last output of ``body`` are measured.
        images (Tensor | Iterable): ``(N, C, H, W)``, or an iterator of such batches.
        factors (Sequence[float]): The factors ``s``, each at least 1.
        resampling (str): See :func:`equivariance_error`. The canvas shrinks.
        between_levels (str): ``'linear'`` or ``'cubic'``.
        border (int): Width of the border along each side of every level, in samples.
        batch_size (int): Number of samples measured at a time.

    Returns:
        ErrorBreakdown: The errors, in squared norms.

    Raises:
        ValueError: If an argument is out of range, the network has no lift and body on one scale
            grid, an image is too small for a factor, or a layer on a dense scale space has a
            ``kernel`` and a factor is no power of the base.
    """
    factors = check_factors(factors)
    check_choice('resampling', resampling, RESAMPLINGS)
    check_choice('between_levels', between_levels, BETWEEN_LEVELS)
    check_count('border', border, 0)
    grid = find_grid(backbone)
    if grid is None or not all(hasattr(backbone, part) for part in ('lift', 'body')):
        raise ValueError(
            f'backbone must have a lift and a body on a scale grid, got {type(backbone).__name__}'
        )
    if grid.num_scales == 1:
        raise ValueError('backbone must have at least two levels to read between, got num_scales=1')
    body = Features(backbone.body, None, grid)
    columns = []
    with eval_mode(backbone):
        for batch in split_batches(images, batch_size):
            scale = Scaling(grid, grid.zero_scale, 'shrink', resampling, between_levels, batch)
            lifted = backbone.lift(batch)
            _check_kernels(backbone, lifted, grid, factors)
            before = lifted, *_run(body, lifted)
            rows = [_measure(backbone, body, batch, before, scale, s, border) for s in factors]
            columns.append(torch.stack(rows))
    if not columns:
        raise ValueError('images must hold at least one image, got none')
    whole, *parts = torch.cat(columns, 2).unbind(1)
    return ErrorBreakdown(factors, whole, dict(zip(PARTS, parts, strict=True)))


def _check_kernels(backbone, lifted: Signal, grid: ScaleGrid, factors) -> None:
    if is_pyramid(lifted) or not any(grid.shift(factor) % 1 for factor in factors):
        return
    for name, module in backbone.named_modules():
        if hasattr(getattr(module, 'kernel', None), 'tables'):
            raise ValueError(
                f'factors must be powers of base={grid.base:g} on a dense scale space if layers '
                f'have a kernel, as {name} has: levels between its own have no kernels'
            )


def _run(body: Features, signal: Signal) -> tuple[Signal, int]:
    outputs = body(signal)
    name = list(outputs)[-1]
    return outputs[name], body.truncation[name]


def _measure(backbone, body, batch, before, scale: Scaling, factor, border) -> Tensor:
    """Return the whole error and its parts at one factor, ``(5, N)``."""
    size = 1 + len(PARTS), len(batch)
    if factor == 1:  # L_1 is the identity
        return torch.zeros(size, dtype=torch.float64, device='cpu')
    lifted, feature, spoiled = before
    if not scale.leaves_a_level(feature, factor):
        warnings.warn(
            f'no level is left at factor {factor:g}, which shifts by '
            f'{scale.grid.shift(factor):.3g} levels: its error and its parts are nan',
            stacklevel=3,
        )
        return torch.full(size, torch.nan, dtype=torch.float64, device='cpu')
    expected = scale_levels(scale, feature, factor, spoiled)
    offset = scale.grid.shift(factor) % 1
    if offset:
        # S levels have S - 1 levels between them.
        fewer = {**asdict(scale.grid), 'num_scales': scale.grid.num_scales - 1}
        with _on_grid(backbone, _GridBetween(**fewer, offset=offset)):
            lifted = backbone.lift(batch)
            feature, _ = _run(body, lifted)

    interpolation = interpolation_of(scale.arguments['resampling'])

    def take(signal: Signal) -> Signal:
        return scale_scale_space(
            signal, factor, scale.grid, interpolation=interpolation, offset=offset
        )

    chain = [
        expected,
        levels_of(take(feature)),
        levels_of(_run(body, take(lifted))[0]),
        levels_of(_run(body, backbone.lift(scale(batch, factor)))[0]),
    ]
    return _add_up(list(zip(*chain))[: max(0, len(expected) - spoiled)], border, len(batch))


def _add_up(levels: list[tuple[Tensor, ...]], border: int, count: int) -> Tensor:
    sums = torch.zeros(6, count, dtype=torch.float64, device='cpu')
    for chain in levels:
        size = [min(sides) for sides in zip(*(x.shape[2:] for x in chain))]
        chain = [crop_border(x.double().cpu(), size, 0) for x in chain]
        inner = [crop_border(x, size, border) for x in chain]
        whole, inside = chain[0] - chain[-1], inner[0] - inner[-1]
        reading, body, lift = (a - b for a, b in zip(inner, inner[1:]))
        terms = [whole.square(), *(part * inside for part in (lift, body, reading))]
        terms += [inside.square(), chain[0].square()]
        sums += torch.stack([term.flatten(1).sum(1) for term in terms])
    *parts, inside, reference = sums
    return torch.stack([*parts, parts[0] - inside]) / reference


@dataclass(frozen=True)
class _GridBetween(ScaleGrid):
    """A grid whose levels lie ``offset``, a part of a level, above the levels of another grid."""

    offset: float = 0.0

    @property
    def levels(self) -> tuple[float, ...]:
        return tuple(level + self.offset for level in super().levels)


@contextmanager
def _on_grid(backbone: nn.Module, grid: ScaleGrid) -> Iterator[None]:
    """Let all layers work on the levels of another grid, with the same weights."""
    modules = [m for m in backbone.modules() if isinstance(getattr(m, 'grid', None), ScaleGrid)]
    own = [module.grid for module in modules]
    for module in modules:
        module.grid = grid
    try:
        yield
    finally:
        for module, before in zip(modules, own):
            module.grid = before
