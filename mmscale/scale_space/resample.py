# Copyright (c) mmscale contributors.
"""Separable linear resampling, written as one matrix per image axis.

Blurring, interpolating and decimating are linear and separable, so each is a product
``A_h @ x @ A_w.T``. The matrices are made in float64 and kept per device and dtype.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .gaussian import discrete_gaussian

PADDINGS = ('zeros', 'replicate', 'reflect', 'circular')
INTERPOLATIONS = ('bilinear', 'bicubic')


def check_choice(name: str, value, choices: tuple) -> None:
    """Raises ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f'{name} must be one of {", ".join(map(repr, choices))}, got {value!r}')


def _scatter(matrix: np.ndarray, columns: np.ndarray, weights: np.ndarray, padding: str) -> None:
    """Adds ``weights[i]`` to row ``i`` at ``columns[i]``, folded into the image by ``padding``."""
    size = matrix.shape[1]
    inside = np.ones(len(columns), dtype=bool)
    if padding == 'zeros':
        inside = (columns >= 0) & (columns < size)
    elif padding == 'replicate':
        columns = columns.clip(0, size - 1)
    elif padding == 'circular':
        columns = columns % size
    elif size == 1:
        columns = np.zeros_like(columns)
    else:
        period = 2 * (size - 1)
        columns = columns % period
        columns = np.minimum(columns, period - columns)
    np.add.at(matrix, (np.flatnonzero(inside), columns[inside]), weights[inside])


def _bilinear(distance: np.ndarray) -> np.ndarray:
    return np.clip(1 - np.abs(distance), 0, None)


def _bicubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2, exact on quadratics (Keys 1981, eq. 15)."""
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


@lru_cache(maxsize=32)
def _matrix64(size, positions, variance, interpolation, padding) -> np.ndarray:
    positions = np.asarray(positions)
    first = np.floor(positions).astype(np.int64)
    read = np.zeros((len(positions), size))
    reach, kernel = {'bilinear': (1, _bilinear), 'bicubic': (2, _bicubic)}[interpolation]
    for tap in range(1 - reach, reach + 1):
        weights = kernel(positions - (first + tap))
        _scatter(read, first + tap, weights, padding)
    if variance == 0:
        return read
    taps = discrete_gaussian(variance).numpy()
    radius = len(taps) // 2
    blur = np.zeros((size, size))
    for tap, weight in zip(range(-radius, radius + 1), taps, strict=True):
        _scatter(blur, np.arange(size) + tap, np.full(size, weight), padding)
    return read @ blur


@torch.compiler.assume_constant_result
@lru_cache(maxsize=128)
def resampling_matrix(
    size: int,
    positions: tuple[float, ...],
    variance: float = 0.0,
    interpolation: str = 'bilinear',
    padding: str = 'zeros',
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """The matrix that blurs a signal and then reads it at real positions.

    Args:
        size (int): Samples of the signal.
        positions (tuple[float, ...]): Where to read, in samples from the first one.
        variance (float): Variance of the discrete Gaussian blur, in samples². 0 does not blur.
        interpolation (str): ``'bilinear'`` or ``'bicubic'`` (Keys, a = -1/2).
        padding (str): What lies outside: ``'zeros'``, ``'replicate'``, ``'reflect'`` (without
            repeating the border) or ``'circular'``.
        dtype (torch.dtype): Of the matrix returned.
        device (torch.device, optional): Of the matrix returned.

    Returns:
        Tensor: ``(len(positions), size)``, to be shared and not written to.
    """
    check_choice('interpolation', interpolation, INTERPOLATIONS)
    check_choice('padding', padding, PADDINGS)
    matrix = _matrix64(size, positions, variance, interpolation, padding)
    # A cached tensor made under inference_mode could never be used in training afterwards.
    with torch.inference_mode(False):
        return torch.as_tensor(matrix, dtype=dtype, device=device).clone()


def _is_decimation(positions: tuple[float, ...], size: int) -> int:
    """Returns the step if ``positions`` are 0, step, 2 step, ... inside the signal, else 0."""
    step = positions[1] if len(positions) > 1 else 1
    if step != int(step) or step < 1 or math.ceil(size / step) < len(positions):
        return 0
    return int(step) if all(p == step * i for i, p in enumerate(positions)) else 0


def resample(
    x: Tensor,
    rows: tuple[float, ...],
    columns: tuple[float, ...],
    variance: float = 0.0,
    interpolation: str = 'bilinear',
    padding: str = 'zeros',
) -> Tensor:
    """Blurs images and reads them at the grid ``rows x columns``.

    Args:
        x (Tensor): ``(..., H, W)``.
        rows (tuple[float, ...]): Positions along H, in pixels from the first row.
        columns (tuple[float, ...]): Positions along W, in pixels from the first column.
        variance (float): Variance of the blur before reading, in pixels². Defaults to 0.
        interpolation (str): ``'bilinear'`` or ``'bicubic'``.
        padding (str): ``'zeros'``, ``'replicate'``, ``'reflect'`` or ``'circular'``.

    Returns:
        Tensor: ``(..., len(rows), len(columns))``. Decimation without blur is a view.
    """
    height, width = x.shape[-2:]
    if variance == 0:
        step_h, step_w = _is_decimation(rows, height), _is_decimation(columns, width)
        if step_h and step_w:
            x = x[..., ::step_h, ::step_w]
            return x[..., : len(rows), : len(columns)]
    args = (variance, interpolation, padding, x.dtype, x.device)
    # A blur in half precision would lose what the levels differ by.
    with torch.autocast(x.device.type, enabled=False):
        x = resampling_matrix(height, rows, *args) @ x
        return x @ resampling_matrix(width, columns, *args).mT


def grid_positions(count: int, step: float) -> tuple[float, ...]:
    """``count`` positions ``0, step, 2 step, ...`` from the origin pixel."""
    return tuple(step * i for i in range(count))
