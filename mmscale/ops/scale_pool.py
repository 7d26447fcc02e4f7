# Copyright (c) mmscale contributors.
"""Max and average pooling with windows that grow with the level."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmscale.scale_space import Levels, ScaleGrid, Signal, check_signal
from mmscale.scale_space.resample import (
    apply_along_axes,
    full_precision,
    keep_constants,
    resample,
)

from .processor import tap_matrices, tap_positions
from .scale_conv import as_pair, tap_distances


def check_pool(kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> None:
    """Raise ``ValueError`` unless every window contains its origin."""
    axes = ('height', 'width'), kernel_size, stride, padding
    for name, kernel, step, pad in zip(*axes, strict=True):
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
    r"""Take the maximum over windows with taps :math:`a^k` pixels apart.

    .. math:: y(k, j) = \max_u x(k, s j + a^k u), \quad u = -p, \dots, n - 1 - p

    with kernel size n, stride s and padding p. Taps outside the image do not count. Fractional taps
    sample by bilinear interpolation. A pyramid has ordinary windows.

    Args:
        x (Tensor | tuple[Tensor, ...] | Levels): Dense ``(N, C, S, H, W)`` or a pyramid.
        kernel_size (int | tuple[int, int]): Taps of the window.
        stride (int | tuple[int, int]): Distance of the outputs, in samples of their level.
        padding (int | tuple[int, int]): Taps of the window above and left of its origin.
        scale_space (dict | ScaleGrid): The levels.

    Returns:
        Tensor | tuple[Tensor, ...]: The same form, each side ``ceil(size / stride)``. Level 0
        equals ``torch.nn.MaxPool2d`` for ``kernel_size = 2 padding + 1``, and with
        ``ceil_mode=True`` for ``kernel_size = stride`` and ``padding = 0``. On a CPU, maps pooled
        at stride 1 are channels last in memory.
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
    """Take the mean over windows with taps ``base**k`` pixels apart.

    Taps outside the image do not count (``count_include_pad=False``). Arguments and shapes are
    those of :func:`scale_max_pool2d`.
    """
    return _pool_levels(_avg_pool_level, x, kernel_size, stride, padding, scale_space)


def _pool_levels(pool_level, x, kernel_size, stride, padding, scale_space) -> Signal:
    given = dict(kernel_size=kernel_size, stride=stride, padding=padding)
    window = [as_pair(name, value) for name, value in given.items()]
    check_pool(*window)
    grid = ScaleGrid.build(scale_space)
    check_signal(x, grid)
    return map_dilated(lambda maps, step: pool_level(maps, *window, step), x, grid)


def map_dilated(fn: Callable[[Tensor, float], Tensor], x: Signal, grid: ScaleGrid) -> Signal:
    """Apply a function of the maps of a level, ``(M, C, H, W)``, and the distance of its taps."""
    levels = Levels.of(x)
    y = levels.map_maps(fn, tap_distances(levels, grid))
    return y if isinstance(x, Levels) else y.to_signal()


def _max_pool_level(x, kernel_size, stride, padding, dilation) -> Tensor:
    if dilation != int(dilation):
        return _max_pool_between_pixels(x, kernel_size, stride, padding, dilation)
    if dilation == 1 and all(n == 2 * p + 1 for n, p in zip(kernel_size, padding, strict=True)):
        if stride == (1, 1) and x.device.type == 'cpu':
            # PyTorch's kernel for contiguous maps takes four times as long, and the layers behind
            # keep the order: ResNet-50 with a blur needs .84 of the time, .88 in training.
            x = x.contiguous(memory_format=torch.channels_last)
        return F.max_pool2d(x, kernel_size, stride, padding)
    pads = []
    for axis in (1, 0):  # F.pad counts from the last axis
        size, step = x.shape[axis - 2], stride[axis]
        last = step * (math.ceil(size / step) - 1)
        after = last + dilation * (kernel_size[axis] - 1 - padding[axis]) - (size - 1)
        # A negative number crops samples that no window reaches.
        pads += [dilation * padding[axis], after]
    x = F.pad(x, pads, value=-math.inf)
    return F.max_pool2d(x, kernel_size, stride, dilation=dilation)


def _max_pool_between_pixels(x, kernel_size, stride, padding, dilation) -> Tensor:
    sizes, y = x.shape[-2:], None
    windows = [tap_positions(*axis, dilation) for axis in zip(sizes, kernel_size, stride, padding)]
    for taps in itertools.product(*windows):
        rows, columns = (
            torch.tensor([not 0 <= p < size for p in tap], device=x.device)
            for size, tap in zip(sizes, taps)
        )
        read = resample(x, *taps, padding='replicate')
        read = read.masked_fill(rows[:, None] | columns, -math.inf)
        y = read if y is None else torch.maximum(y, read)
    return y


def _avg_pool_level(x, kernel_size, stride, padding, dilation) -> Tensor:
    rows, columns = (
        _mean_matrix(int(size), *axis, dilation).to(x)
        for size, *axis in zip(x.shape[-2:], kernel_size, stride, padding)
    )
    with full_precision(x):
        return apply_along_axes(rows, x, columns)


@keep_constants
def _mean_matrix(size, count, stride, padding, dilation) -> Tensor:
    """Return the matrix of the means of windows along one axis; both axes give a product."""
    window = size, count, stride, padding, dilation
    inside = torch.tensor(
        [[0 <= p < size for p in tap] for tap in tap_positions(*window)], device='cpu'
    )
    read = tap_matrices(*window, 'replicate') * inside[..., None]
    return read.sum(0) / inside.sum(0)[:, None]
