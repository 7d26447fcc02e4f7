# Copyright (c) mmscale contributors.
"""Max and average pooling with windows that grow with the level."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmscale.scale_space import Levels, ScaleGrid, Signal, check_signal
from mmscale.scale_space.resample import keep_constants, resample, resampling_matrix

from .scale_conv import as_pair, tap_distances


def check_pool(kernel_size: tuple, stride: tuple, padding: tuple) -> None:
    """Raises ``ValueError`` unless every window holds its own origin."""
    for axis in (0, 1):
        name, kernel, step, pad = (
            ('height', 'width')[axis],
            *(pair[axis] for pair in (kernel_size, stride, padding)),
        )
        if kernel < 1:
            raise ValueError(f'kernel_size must be at least 1, got {kernel} ({name})')
        if step < 1:
            raise ValueError(f'stride must be at least 1, got {step} ({name})')
        if not 0 <= pad < kernel:
            raise ValueError(
                f'padding must be from 0 to kernel_size - 1 = {kernel - 1}, got {pad} ({name})'
            )


def scale_max_pool2d(
    x: Signal,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int] = 0,
    *,
    scale_space: dict | ScaleGrid,
) -> Signal:
    r"""Maximum over a window whose taps lie :math:`a^k` pixels apart.

    .. math:: y(k, j) = \max_u x(k, s j + a^k u), \quad u = -p, \dots, n - 1 - p

    with kernel size n, stride s and padding p, over the taps that lie inside the image. Fractional
    taps are read by bilinear interpolation. A pyramid has ordinary windows.

    Args:
        x (Tensor | tuple[Tensor, ...] | Levels): Dense ``(N, C, S, H, W)`` or a pyramid.
        kernel_size (int | tuple[int, int]): Taps of the window.
        stride (int | tuple[int, int]): Distance of the outputs, in samples of their level.
        padding (int | tuple[int, int]): Taps of the window before its origin.
        scale_space (dict | ScaleGrid): The levels.

    Returns:
        Tensor | tuple[Tensor, ...]: The same form, each side ``ceil(size / stride)``. At level 0
        that is ``torch.nn.MaxPool2d`` where ``kernel_size = 2 padding + 1``, and, with
        ``ceil_mode=True``, where ``kernel_size = stride`` and ``padding = 0``.
    """
    return _pool_levels(_max_pool_level, x, kernel_size, stride, padding, scale_space)


def scale_avg_pool2d(
    x: Signal,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int] = 0,
    *,
    scale_space: dict | ScaleGrid,
) -> Signal:
    """Mean over a window whose taps lie ``base**k`` pixels apart.

    Taps outside the image do not count (``count_include_pad=False``). Arguments and shapes are
    those of :func:`scale_max_pool2d`.
    """
    return _pool_levels(_avg_pool_level, x, kernel_size, stride, padding, scale_space)


def _pool_levels(pool_level, x, kernel_size, stride, padding, scale_space) -> Signal:
    window = (
        as_pair('kernel_size', kernel_size),
        as_pair('stride', stride),
        as_pair('padding', padding),
    )
    check_pool(*window)
    grid = ScaleGrid.build(scale_space)
    check_signal(x, grid)
    return map_dilated(lambda maps, step: pool_level(maps, *window, step), x, grid)


def map_dilated(fn: Callable[[Tensor, float], Tensor], x: Signal, grid: ScaleGrid) -> Signal:
    """Applies a function of the maps of a level, ``(M, C, H, W)``, and the distance of its taps."""
    levels = Levels.of(x)
    y = levels.map_maps(fn, tap_distances(levels, grid))
    return y if isinstance(x, Levels) else y.to_signal()


def _max_pool_level(x, kernel_size, stride, padding, dilation) -> Tensor:
    if dilation != int(dilation):
        return _max_pool_between_pixels(x, kernel_size, stride, padding, dilation)
    if dilation == 1 and all(n == 2 * p + 1 for n, p in zip(kernel_size, padding, strict=True)):
        return F.max_pool2d(x, kernel_size, stride, padding)
    pads = []
    for axis in (1, 0):  # F.pad counts from the last axis
        size, step = x.shape[axis - 2], stride[axis]
        last = step * (math.ceil(size / step) - 1)
        after = last + dilation * (kernel_size[axis] - 1 - padding[axis]) - (size - 1)
        # Where the window ends inside the image, the samples behind it give no output.
        pads += [dilation * padding[axis], after]
    x = F.pad(x, pads, value=-math.inf)
    return F.max_pool2d(x, kernel_size, stride, dilation=dilation)


def _window(size, count, stride, padding, dilation) -> list[list[float]]:
    """Positions that each tap of the window reads along one axis, one list a tap."""
    origins = range(0, size, stride)
    return [[o + dilation * (tap - padding) for o in origins] for tap in range(count)]


def _max_pool_between_pixels(x, kernel_size, stride, padding, dilation) -> Tensor:
    height, width = x.shape[-2:]
    windows = [
        _window(size, kernel_size[axis], stride[axis], padding[axis], dilation)
        for axis, size in enumerate((height, width))
    ]
    y = None
    for rows in windows[0]:
        for columns in windows[1]:
            read = resample(x, tuple(rows), tuple(columns), padding='replicate')
            outside = torch.tensor([not 0 <= r < height for r in rows], device=x.device)[:, None]
            outside = outside | torch.tensor([not 0 <= c < width for c in columns]).to(x.device)
            read = read.masked_fill(outside, -math.inf)
            y = read if y is None else torch.maximum(y, read)
    return y


def _avg_pool_level(x, kernel_size, stride, padding, dilation) -> Tensor:
    rows, columns = (
        _mean_matrix(int(size), kernel_size[axis], stride[axis], padding[axis], dilation).to(x)
        for axis, size in enumerate(x.shape[-2:])
    )
    return rows @ x @ columns.mT


@keep_constants
def _mean_matrix(size, count, stride, padding, dilation) -> Tensor:
    """Reads the mean of each window along one axis; the mean over both is their product."""
    window = _window(size, count, stride, padding, dilation)
    inside = torch.tensor([[0 <= p < size for p in tap] for tap in window], device='cpu')
    taps = [
        resampling_matrix(size, tuple(tap), 0.0, 'bilinear', 'replicate', torch.float64)
        for tap in window
    ]
    return (torch.stack(taps) * inside[..., None]).sum(0) / inside.sum(0)[:, None]
