# Copyright (c) mmscale contributors.
"""Separable linear resampling, with one matrix per image axis.

Blur, interpolation and decimation are linear and separable: each is a product
``A_h @ x @ A_w.T``. The matrices are computed in float64 and cached, except under compilers.
"""

import math
from collections.abc import Callable
from functools import wraps
from threading import Lock

import torch
from torch import Tensor

from mmscale.checks import check_choice

from .gaussian import discrete_gaussian

PADDINGS = ('zeros', 'replicate', 'reflect', 'circular')


def _bilinear(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _bicubic(distance: Tensor) -> Tensor:
    """Evaluate Keys' cubic convolution kernel with a = -1/2, exact on quadratics (Keys 1981)."""
    d = distance.abs()
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


# Kernels and their radii in samples.
_KERNELS = {'bilinear': (_bilinear, 1), 'bicubic': (_bicubic, 2)}
INTERPOLATIONS = tuple(_KERNELS)


KEPT_BYTES = 256 * 2**20
_kept, _kept_bytes, _lock = {}, 0, Lock()


def keep_constants(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Cache the tensors that functions of hashable values return, up to ``KEPT_BYTES`` in total.

    Under a compiler the function runs as part of the graph.
    """

    @wraps(fn)
    def wrapper(*args, **kwargs):
        if torch.compiler.is_compiling():
            return fn(*args, **kwargs)
        key = fn, args, tuple(kwargs.items())
        constant = _kept.get(key)
        return _make_constant(key, fn, args, kwargs) if constant is None else constant

    return wrapper


def _make_constant(key, fn, args, kwargs) -> Tensor:
    global _kept_bytes
    # A tracer would record the computation, and find another graph once the constant is cached.
    tracing = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        # The modes of the caller must not matter: training could not use a tensor made under
        # inference_mode, nor any other code a tensor made under torch.device('meta').
        with torch.inference_mode(False), torch.no_grad(), torch.device('cpu'):
            constant = fn(*args, **kwargs)
    finally:
        torch._C._set_tracing_state(tracing)
    if type(constant) is not Tensor:  # a fake tensor
        return constant
    size = constant.untyped_storage().nbytes()
    if size > KEPT_BYTES:  # it would evict all other constants
        return constant
    with _lock:  # servers have threads
        if key not in _kept:
            _kept[key] = constant
            _kept_bytes += size
        while _kept_bytes > KEPT_BYTES:
            _kept_bytes -= _kept.pop(next(iter(_kept))).untyped_storage().nbytes()
    return constant


def _scatter(columns: Tensor, weights: Tensor, size: int, padding: str) -> Tensor:
    """Make a matrix ``(rows, size)`` with ``weights`` at ``columns``, both ``(rows, taps)``.

    ``padding`` says where columns outside the signal go.
    """
    if padding == 'zeros':
        weights = weights * ((columns >= 0) & (columns < size))
    elif padding == 'circular':
        columns = columns % size
    elif padding == 'reflect' and size > 1:
        columns = columns % (2 * size - 2)
        columns = torch.minimum(columns, 2 * size - 2 - columns)
    columns = columns.clamp(0, size - 1)
    return weights.new_zeros(len(columns), size).scatter_add(1, columns, weights)


@keep_constants
def resampling_matrix(
    size: int,
    positions: tuple[float, ...],
    variance: float = 0.0,
    interpolation: str = 'bilinear',
    padding: str = 'zeros',
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = 'cpu',
) -> Tensor:
    """Return the matrix ``(len(positions), size)`` that blurs a signal and samples it.

    ``positions`` count samples from the first sample, ``variance`` is the variance of the discrete
    Gaussian in samples², ``'reflect'`` does not repeat the border. Do not modify the cached result.
    """
    kernel, reach = _KERNELS[interpolation]
    where = torch.tensor(positions, dtype=torch.float64)[:, None]
    columns = where.floor().long() + torch.arange(1 - reach, reach + 1)
    matrix = _scatter(columns, kernel(where - columns), size, padding)
    if variance > 0:
        taps = discrete_gaussian(variance)
        radius = len(taps) // 2
        columns = torch.arange(size)[:, None] + torch.arange(-radius, radius + 1)
        matrix = matrix @ _scatter(columns, taps.expand(size, -1), size, padding)
    return matrix.to(device, dtype)


@keep_constants
def fourier_matrix(
    size: int,
    positions: tuple[float, ...],
    factor: float = 1.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = 'cpu',
) -> Tensor:
    """Return the matrix of ideal resampling of a periodic signal that shrinks by ``factor``.

    It removes frequencies above ``1 / (2 factor)``, the limit of the new sampling, and evaluates
    the trigonometric polynomial through the samples at ``positions``. Shapes are those of
    :func:`resampling_matrix`.
    """
    half = math.floor(size / (2 * factor) + 1e-9)
    waves = torch.arange(half + 1, dtype=torch.float64)
    # At the Nyquist frequency the sine vanishes on the samples: it counts once, not twice.
    amplitudes = torch.full((half + 1,), 2.0, dtype=torch.float64)
    amplitudes[0] = 1
    if abs(half - size / (2 * factor)) < 1e-9:
        amplitudes[half] = 1
    where, samples = (
        torch.polar(torch.ones(()).double(), 2 * math.pi / size * torch.outer(at, waves))
        for at in (torch.tensor(positions, dtype=torch.float64), torch.arange(size).double())
    )
    return ((amplitudes * where) @ samples.mH).real.div(size).to(device, dtype)


def full_precision(x: Tensor) -> torch.autocast:
    """Return a context that switches autocast off on the device of a tensor."""
    return torch.autocast('cpu' if x.is_meta else x.device.type, enabled=False)


def apply_along_axes(across: Tensor, x: Tensor, along: Tensor) -> Tensor:
    """Compute ``across @ x @ along.T`` on the last two axes; keep the memory format of ``x``."""
    if x.ndim == 4 and x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last):
        # The same products without a copy into another memory format.
        x = x.permute(0, 2, 3, 1)
        x = (across @ x.flatten(2)).unflatten(2, x.shape[2:])
        return (along @ x).permute(0, 3, 1, 2)
    return across @ x @ along.mT


def _is_decimation(positions: tuple[float, ...], size: int) -> int:
    """Return the step if ``positions`` are 0, step, 2 step, ... inside the signal, else 0."""
    step = positions[1] if len(positions) > 1 else 1
    if step != int(step) or step < 1 or math.ceil(size / step) < len(positions):
        return 0
    return int(step) if positions == grid_positions(len(positions), step) else 0


def resample(
    x: Tensor,
    rows: tuple[float, ...],
    columns: tuple[float, ...],
    variance: float = 0.0,
    interpolation: str = 'bilinear',
    padding: str = 'zeros',
) -> Tensor:
    """Blur images and sample them on the grid ``rows x columns``.

    Args:
        x (Tensor): ``(..., H, W)``.
        rows (tuple[float, ...]): Positions along H, in pixels from the first row.
        columns (tuple[float, ...]): Positions along W, in pixels from the first column.
        variance (float): Variance of the blur, in pixels². Defaults to 0.
        interpolation (str): ``'bilinear'`` or ``'bicubic'``.
        padding (str): ``'zeros'``, ``'replicate'``, ``'reflect'`` or ``'circular'``.

    Returns:
        Tensor: ``(..., len(rows), len(columns))``. Decimation without blur is a view.
    """
    check_choice('interpolation', interpolation, INTERPOLATIONS)
    check_choice('padding', padding, PADDINGS)
    # Under torch.jit.trace sizes are tensors, which are no keys of a cache.
    height, width = (int(size) for size in x.shape[-2:])
    if variance == 0:
        step_h, step_w = _is_decimation(rows, height), _is_decimation(columns, width)
        if step_h and step_w:
            x = x[..., ::step_h, ::step_w]
            return x[..., : len(rows), : len(columns)]
    if not x.is_floating_point():
        raise TypeError(f'images must be of a floating dtype, got {x.dtype}')
    # Autocast would round the matrices, and images in full precision.
    with full_precision(x):
        across, along = (
            resampling_matrix(size, where, variance, interpolation, padding, x.dtype, x.device)
            for size, where in ((height, rows), (width, columns))
        )
        return apply_along_axes(across, x, along)


def grid_positions(count: int, step: float) -> tuple[float, ...]:
    """Return ``count`` positions ``0, step, 2 step, ...`` from the origin pixel."""
    return tuple([step * i for i in range(count)])


def resample_level(level: Tensor, factor: float, size: tuple[int, int]) -> Tensor:
    """Sample a pyramid level on the grid of another level, by bilinear interpolation.

    Args:
        level (Tensor): ``(N, C, H, W)``.
        factor (float): Distance of the other level's samples, in samples of ``level``: below 1 for
            a finer level, above 1 for a coarser level.
        size (tuple[int, int]): Height and width of the other level.

    Returns:
        Tensor: ``(N, C, *size)``. Beyond the last sample the border is replicated.
    """
    rows, columns = (grid_positions(count, factor) for count in size)
    return resample(level, rows, columns, padding='replicate')
