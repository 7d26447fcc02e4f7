# Copyright (c) mmscale contributors.
"""How far a network is from commuting with scaling."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmscale.models.layers import ScaleConv
from mmscale.scale_space import ScaleGrid, Signal, is_pyramid, scale_image, scale_scale_space

FACTORS = (1.0, 1.1, 1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class EquivarianceError:
    """Errors of one network.

    Attributes:
        factors (tuple[float, ...]): The F scale factors.
        per_sample (Tensor): ``(F, N)``, over the valid levels; nan where there is none or the
            feature is zero.
        truncated (Tensor): ``(F, N)``, over the levels whose sources were cut off at the coarse
            end, likewise. Ordinary feature maps have none.
    """

    factors: tuple[float, ...]
    per_sample: Tensor
    truncated: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean over samples, ``(F,)``."""
        return self.per_sample.nanmean(1)

    @property
    def standard_error(self) -> Tensor:
        """Standard error of the mean over samples, ``(F,)``."""
        count = (~self.per_sample.isnan()).sum(1)
        squares = (self.per_sample - self.mean[:, None]).square().nansum(1)
        return (squares / (count - 1) / count).sqrt()


def scale_signal(
    x: Signal,
    factor: float,
    scale_space: dict | ScaleGrid | None = None,
    zero_scale: float = 0.5,
    canvas: str = 'shrink',
    centre: tuple[float, float] | None = None,
) -> Signal:
    """L_s on whatever a network takes or gives.

    Args:
        x (Tensor | tuple[Tensor, ...]): An image or feature map ``(N, C, H, W)``, a dense scale
            space ``(N, C, S, H, W)``, a pyramid, or vectors ``(N, C)``, which scaling leaves as
            they are.
        factor (float): ``s``, at least 1.
        scale_space (dict | ScaleGrid, optional): The levels of a scale space.
        zero_scale (float): Blur that images and feature maps are taken to have, in their pixels.
        canvas (str): ``'shrink'`` or ``'keep'``.
        centre (tuple[float, float], optional): Fixed point of ``'keep'``, in pixels of ``x``.

    Returns:
        Tensor | tuple[Tensor, ...]: The scaled signal.
    """
    if is_pyramid(x) or x.ndim == 5:
        if scale_space is None:
            raise ValueError('scale_space must be given: the signal is a scale space')
        return scale_scale_space(x, factor, scale_space, canvas, centre=centre)
    if x.ndim == 4:
        return scale_image(x, factor, zero_scale, canvas, centre=centre)
    if x.ndim == 2:
        return x
    raise ValueError(
        'a signal is (N, C), (N, C, H, W), (N, C, S, H, W) or a pyramid, got the shape '
        f'{tuple(x.shape)}'
    )


def _only_output(x):
    """What a backbone gives, a tuple of one output, as that output."""
    return x[0] if is_pyramid(x) and len(x) == 1 else x


def _levels(x: Signal) -> list[Tensor]:
    """The parts of a signal that are compared with each other, each with the batch in front."""
    if is_pyramid(x):
        return list(x)
    return list(x.unbind(2)) if x.ndim == 5 else [x]


def _crop(x: Tensor, size: Sequence[int], border: int) -> Tensor:
    if x.ndim < 4:
        return x
    height, width = size
    if min(height, width) <= 2 * border:
        raise ValueError(
            f'border={border} leaves nothing of a feature map of {height}x{width}: use a smaller '
            'border or larger images'
        )
    return x[..., border : height - border, border : width - border]


def _norms(
    expected: list[Tensor], found: list[Tensor], valid: int, border: int
) -> tuple[Tensor, Tensor]:
    """Squared norms of difference and reference, ``(2, N)``, of valid and of truncated levels."""
    sums = [torch.zeros(2, len(found[0]), dtype=torch.float64) for _ in range(2)]
    for level, (a, b) in enumerate(zip(expected, found)):
        size = [min(sides) for sides in zip(a.shape[2:], b.shape[2:])]
        a, b = (_crop(part.double().cpu(), size, border) for part in (a, b))
        terms = [part.flatten(1).square().sum(1) for part in (a - b, a)]
        sums[level >= valid] += torch.stack(terms)
    return sums[0], sums[1]


def _truncation(phi: Callable) -> int:
    """Coarse levels that the interactions of a network spoil."""
    layers = phi.modules() if isinstance(phi, nn.Module) else ()
    return sum(layer.interaction - 1 for layer in layers if isinstance(layer, ScaleConv))


@torch.no_grad()
def equivariance_error(
    phi: Callable[[Signal], Signal],
    images: Signal,
    factors: Sequence[float] = FACTORS,
    *,
    scale_space: dict | ScaleGrid | None = None,
    zero_scale: float = 0.5,
    canvas: str = 'shrink',
    border: int = 0,
    squared: bool = True,
    truncation: int | None = None,
    batch_size: int = 32,
) -> EquivarianceError:
    r"""Measures how far ``phi`` is from commuting with scaling.

    .. math:: \Delta(s) = \|L_s \Phi(f) - \Phi(L_s f)\|^2 / \|L_s \Phi(f)\|^2

    per sample, over the valid levels of a scale space: those that see no level beyond the
    coarsest one, on either side. Vectors have the invariance error, ``L_s`` being the identity.

    Args:
        phi (Callable): From images (or a scale space) to one feature map, scale space or batch of
            vectors, or to a tuple of just one, as backbones give. A module is put into eval mode
            and back.
        images (Tensor | tuple[Tensor, ...]): ``(N, C, H, W)``; or a scale space, to measure the
            body of a network without its lift.
        factors (Sequence[float]): ``s``, each at least 1.
        scale_space (dict | ScaleGrid, optional): The levels of the scale spaces that occur.
        zero_scale (float): Blur that images and ordinary feature maps are taken to have, in their
            pixels; the one of ``scale_space`` where that is given.
        canvas (str): ``'shrink'``: scaled images are smaller, aligned at the origin pixel;
            ``'keep'``: of the same size, aligned at the centre, filled with zeros.
        border (int): Samples left out along each side of every level.
        squared (bool): Squared norms, or their square root.
        truncation (int, optional): Levels that the interactions of the network spoil. Defaults to
            the sum of ``interaction - 1`` over the scale convolutions of a module, and to 0 for a
            function. A scale space as input is cut alike on both sides: nothing is spoiled.
        batch_size (int): Samples measured at a time.

    Returns:
        EquivarianceError: Errors per factor and sample.

    Raises:
        ValueError: If a factor is below 1, or leaves no level of a scale space.
    """
    grid = None if scale_space is None else ScaleGrid.build(scale_space)
    zero_scale = zero_scale if grid is None else grid.zero_scale
    factors = tuple(float(factor) for factor in factors)
    for factor in factors:
        if factor < 1:
            raise ValueError(f'factors must be at least 1, got {factor}')
    if not factors:
        raise ValueError('factors must name at least one scale factor, got none')
    is_image = not is_pyramid(images) and images.ndim == 4
    if truncation is None:
        truncation = _truncation(phi) if is_image else 0

    modules = list(phi.modules()) if isinstance(phi, nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        columns = [
            _measure(phi, batch, factors, grid, zero_scale, canvas, border, truncation)
            for batch in _batches(images, batch_size)
        ]
    finally:
        # Each its own: frozen stages are in eval mode inside of a network in training.
        for module, mode in zip(modules, modes):
            module.training = mode
    valid, truncated = (torch.cat(parts, dim=1) for parts in zip(*columns))
    if (valid.isnan() & truncated.isnan()).any():
        warnings.warn('a feature was zero or not finite: its error is nan', stacklevel=2)
    if not squared:
        valid, truncated = valid.sqrt(), truncated.sqrt()
    return EquivarianceError(factors, valid, truncated)


def _batches(images: Signal, batch_size: int):
    count = len(images[0]) if is_pyramid(images) else len(images)
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        yield tuple(level[part] for level in images) if is_pyramid(images) else images[part]


def _measure(phi, batch, factors, grid, zero_scale, canvas, border, truncation):
    """Errors of one batch, each ``(F, N)``: over valid and over truncated levels."""
    feature = _only_output(phi(batch))
    centre, feature_centre = _centres(batch, feature)
    errors = []
    for factor in factors:
        scaled = scale_signal(batch, factor, grid, zero_scale, canvas, centre)
        found = _levels(_only_output(phi(scaled)))
        expected = _levels(scale_signal(feature, factor, grid, zero_scale, canvas, feature_centre))
        valid = len(expected) - truncation
        if valid < 1:
            warnings.warn(
                f'no level is valid at factor {factor:g}: {len(expected)} remain, and the '
                f'interactions of the network spoil {truncation}',
                stacklevel=4,
            )
        sums = _norms(expected, found, valid, border)
        errors.append([difference / reference for difference, reference in sums])
    return [torch.stack(parts) for parts in zip(*errors)]


def _centres(image: Signal, feature: Signal):
    """The centre of the canvas, in pixels of the input and of the output's level 0.

    Strided networks are aligned at the origin pixel, so that the centre of the image lies at
    ``centre / stride`` of the feature map and not at the map's own centre.
    """
    image, feature = (x[0] if is_pyramid(x) else x for x in (image, feature))
    if feature.ndim < 4:
        return tuple((size - 1) / 2 for size in image.shape[-2:]), None
    sizes = list(zip(image.shape[-2:], feature.shape[-2:]))
    centre = tuple((before - 1) / 2 for before, _ in sizes)
    strides = [max(1, round(before / after)) for before, after in sizes]
    return centre, tuple(c / stride for c, stride in zip(centre, strides))
