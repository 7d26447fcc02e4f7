# Copyright (c) mmscale contributors.
"""The two forms of a scale-space signal, and what works level by level on both.

*Dense*: a tensor ``(N, C, S, H, W)``, every level at full resolution. Our own layers keep it
level-major in memory, so that one level, and all levels as one batch, are views.

*Pyramid*: a tuple of S tensors ``(N, C, H_k, W_k)``, level ``k`` sampled at ``base**k`` times the
distance of level 0, from the origin pixel.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .grid import ScaleGrid
from .resample import grid_positions, resample

Signal = Tensor | tuple[Tensor, ...]


def is_pyramid(x: Signal) -> bool:
    """Whether a signal is a pyramid rather than dense."""
    return isinstance(x, tuple | list)


def check_signal(x: Signal, grid: ScaleGrid, channels: int | None = None) -> None:
    """Raises ``ValueError`` unless ``x`` is a dense or pyramid signal on (the start of) ``grid``.

    A signal with fewer levels than the grid is one whose coarsest levels were cut off.
    """
    levels = split_levels(x)
    if not 1 <= len(levels) <= grid.num_scales:
        raise ValueError(
            f'the signal has {len(levels)} levels, but the scale space has '
            f'num_scales={grid.num_scales}'
        )
    for level in levels:
        if channels is not None and level.shape[1] != channels:
            raise ValueError(f'the signal has {level.shape[1]} channels, expected {channels}')


def split_levels(x: Signal) -> tuple[Tensor, ...]:
    """The levels of a signal, each ``(N, C, H_k, W_k)``; ``ValueError`` if it is not one."""
    if is_pyramid(x):
        form, levels = 'a pyramid of tensors (N, C, H_k, W_k)', tuple(x)
        wrong = [tuple(level.shape) for level in levels if level.ndim != 4]
    else:
        form, levels = 'a dense tensor (N, C, S, H, W)', ()
        wrong = [] if x.ndim == 5 else [tuple(x.shape)]
    if wrong:
        raise ValueError(f'a scale-space signal is {form}, got the shape {wrong[0]}')
    return levels if is_pyramid(x) else x.unbind(2)


def stack_levels(levels: Sequence[Tensor]) -> Tensor:
    """A dense signal, level-major in memory, from levels of equal size."""
    return torch.stack(tuple(levels)).permute(1, 2, 0, 3, 4)


def fold_levels(x: Tensor) -> Tensor:
    """``(N, C, S, H, W)`` as one batch ``(S N, C, H, W)``; a view where level-major."""
    return x.permute(2, 0, 1, 3, 4).flatten(0, 1)


def unfold_levels(x: Tensor, num_levels: int) -> Tensor:
    """The inverse of :func:`fold_levels`, always a view."""
    return x.unflatten(0, (num_levels, -1)).permute(1, 2, 0, 3, 4)


def map_levels(fn: Callable[..., Tensor], *signals: Signal) -> Signal:
    """Applies a pointwise function of one or several signals of the same form."""
    if not is_pyramid(signals[0]):
        return fn(*signals)
    return tuple(fn(*levels) for levels in zip(*signals, strict=True))


def apply_jointly(fn: Callable[[Tensor], Tensor], x: Signal) -> Signal:
    """Applies a function that must see all levels at once, such as a norm or stochastic depth.

    Dense signals are passed as they are, pyramids as ``(N, C, sum of H_k W_k)``.
    """
    if not is_pyramid(x):
        return fn(x)
    y = fn(torch.cat([level.flatten(2) for level in x], dim=2))
    parts = y.split([level[0, 0].numel() for level in x], dim=2)
    # Copies: autograd forbids in-place layers behind views of one tensor, and convolutions would
    # copy these strides anyway.
    return tuple(
        part.unflatten(2, level.shape[2:]).clone(memory_format=torch.contiguous_format)
        for part, level in zip(parts, x, strict=True)
    )


def resample_level(level: Tensor, factor: float, size: tuple[int, int]) -> Tensor:
    """Reads a pyramid level at the grid of another one, by bilinear interpolation.

    Args:
        level (Tensor): ``(N, C, H, W)``.
        factor (float): Distance of the samples of the other level, in samples of this one: below
            1 for a finer level, above 1 for a coarser one.
        size (tuple[int, int]): Height and width of the other level.

    Returns:
        Tensor: ``(N, C, *size)``. Beyond the last sample the border is repeated.
    """
    rows, columns = (grid_positions(count, factor) for count in size)
    return resample(level, rows, columns, padding='replicate')
