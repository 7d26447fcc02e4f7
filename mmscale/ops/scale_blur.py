# Copyright (c) mmscale contributors.
"""Low-pass filters with a stride and with taps that grow with the level."""

import math
from numbers import Integral, Real

import torch
import torch.nn.functional as F
from torch import Tensor

from mmscale.scale_space import ScaleGrid, Signal, check_signal, discrete_gaussian
from mmscale.scale_space.resample import apply_along_axes, keep_constants

from .processor import splat_kernel, tap_matrices
from .scale_conv import as_pair
from .scale_pool import check_pool, map_dilated


def binomial(count: int) -> Tensor:
    """Return the binomial filter, float64, with the sum 1 and the variance ``(count - 1) / 4``."""
    return torch.tensor(
        [math.comb(count - 1, i) / 2 ** (count - 1) for i in range(count)], dtype=torch.float64
    )


def check_blur(kernel_size: int | None, variance: float | None) -> None:
    """Raise ``ValueError`` unless exactly one of the two is given, and in range."""
    if (kernel_size is None) == (variance is None):
        raise ValueError(
            f'give kernel_size or variance, not both and not neither, got {kernel_size} and '
            f'{variance}'
        )
    if variance is None:
        sound = isinstance(kernel_size, Integral) and kernel_size >= 3 and kernel_size % 2 == 1
        if not sound:
            raise ValueError(
                f'kernel_size must be an odd integer of at least 3 (taps), got {kernel_size!r}'
            )
    elif not isinstance(variance, Real) or not 0 < variance < math.inf:
        raise ValueError(
            f'variance must be a finite number greater than 0 (samples²), got {variance!r}'
        )


def scale_blur_pool2d(
    x: Signal,
    kernel_size: int | None = None,
    stride: int | tuple[int, int] = 2,
    *,
    variance: float | None = None,
    scale_space: dict | ScaleGrid,
) -> Signal:
    r"""Blur with taps :math:`a^k` pixels apart and keep every ``stride``-th sample.

    .. math:: y(k, j) = \sum_u h(u) \, x(k, s j + a^k u)

    with zeros outside the image. A stride without a blur aliases: its result depends on the places
    of the samples, and nothing between two samples or two levels can be interpolated. On dense
    signals the function commutes with scaling for integer bases, like dilated max pooling; if
    :math:`a^k` is no integer, it interpolates bilinearly. A pyramid has ordinary filters.
    Sources: Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019 (blur pooling);
    Lindeberg, Scale-space for discrete signals, IEEE TPAMI 12(3), 1990 (the discrete Gaussian).

    Args:
        x (Tensor | tuple[Tensor, ...] | Levels): Dense ``(N, C, S, H, W)`` or a pyramid.
        kernel_size (int, optional): Taps of a binomial filter, odd and at least 3; its variance
            is ``(kernel_size - 1) / 4`` samples².
        stride (int | tuple[int, int]): Distance of the outputs, in samples of their level.
        variance (float, optional): Variance of a discrete Gaussian filter, in samples².
        scale_space (dict | ScaleGrid): The levels.

    Returns:
        Tensor | tuple[Tensor, ...]: The same form, each side ``ceil(size / stride)``.

    Raises:
        ValueError: If an argument is out of range, or the signal does not fit the grid.
    """
    check_blur(kernel_size, variance)
    stride = as_pair('stride', stride)
    check_pool((1, 1), stride, (0, 0))
    grid = ScaleGrid.build(scale_space)
    check_signal(x, grid)
    low_pass = kernel_size, variance
    return map_dilated(lambda maps, step: _blur_level(maps, low_pass, stride, step), x, grid)


def _taps(kernel_size: int | None, variance: float | None) -> Tensor:
    """Return the filter along one axis, float64, with an odd size and the sum 1."""
    return binomial(kernel_size) if variance is None else discrete_gaussian(variance)


@keep_constants
def _kernel(low_pass, dilation, dtype, device) -> Tensor:
    """Return the filter along both axes, with its taps at whole pixels."""
    taps = _taps(*low_pass)
    kernel = torch.outer(taps, taps)
    if dilation != int(dilation):
        kernel = splat_kernel(kernel, (dilation, dilation))
    return kernel.to(device, dtype)


@keep_constants
def _matrix(size, low_pass, stride, dilation, dtype, device) -> Tensor:
    """Return the matrix of blur and decimation on an axis, ``(ceil(size / stride), size)``."""
    taps = _taps(*low_pass)
    read = tap_matrices(size, len(taps), stride, len(taps) // 2, dilation)
    return torch.tensordot(taps, read, 1).to(device, dtype)


def _blur_level(x, low_pass, stride, dilation) -> Tensor:
    kept = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if dilation != 1 and x.device.type == 'cpu' and not kept:
        # Dilated depthwise convolutions take several times as long on a CPU.
        rows, columns = (
            _matrix(size, low_pass, step, dilation, x.dtype, x.device)
            for size, step in zip(x.shape[-2:], stride)
        )
        return apply_along_axes(rows, x, columns)
    kernel = _kernel(low_pass, dilation, x.dtype, x.device).expand(x.shape[1], 1, -1, -1)
    distance = int(dilation) if dilation == int(dilation) else 1
    padding = distance * (kernel.shape[-1] // 2)
    return F.conv2d(x, kernel, None, stride, padding, distance, x.shape[1])
