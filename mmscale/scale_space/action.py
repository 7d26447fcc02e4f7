# Copyright (c) mmscale contributors.
"""The scaling action L_s on images, feature maps and scale spaces.

Scaling by ``s >= 1`` shrinks the content by ``s``. Two canvas modes say what becomes of the frame:
``'shrink'`` shrinks it alike, aligned at the origin pixel; ``'keep'`` leaves it as it is, aligned
at the centre, and fills with zeros.
"""

import math

from torch import Tensor

from .grid import ScaleGrid, snap
from .levels import Signal, check_signal, is_pyramid
from .resample import check_choice, fourier_matrix, grid_positions, resample
from .signals import split_levels, stack_levels

CANVASES = ('shrink', 'keep')
BETWEEN_LEVELS = ('linear', 'cubic')


def _check(factor: float, canvas: str) -> None:
    check_choice('canvas', canvas, CANVASES)
    if not 1 <= factor < math.inf:
        raise ValueError(f'factor must be a finite number of at least 1, got {factor}')


def _positions(size: int, factor: float, centre: float, step: float = 1.0) -> tuple[float, ...]:
    """Where an axis scaled about ``centre`` is read, in pixels; its samples lie ``step`` apart."""
    return tuple(factor * step * i + (1 - factor) * centre for i in range(size))


def scale_image(
    image: Tensor,
    factor: float,
    zero_scale: float = 0.5,
    canvas: str = 'shrink',
    padding: str = 'zeros',
    interpolation: str = 'bicubic',
    centre: tuple[float, float] | None = None,
    variance: float | None = None,
) -> Tensor:
    """L_s on an image or an ordinary feature map: anti-aliased, then sampled at ``s z``.

    By default the blur has the variance ``zero_scale**2 (s**2 - 1)``, so that for ``s = base**m``
    level ``k`` of the lift of the result is level ``k + m`` of the lift of ``image``, sampled at
    ``s z``.

    Args:
        image (Tensor): ``(..., H, W)``.
        factor (float): ``s``, at least 1.
        zero_scale (float): Standard deviation of the image's own blur, in pixels.
        canvas (str): ``'shrink'``: ``(..., ceil(H / s), ceil(W / s))``, aligned at the origin
            pixel. ``'keep'``: ``(..., H, W)``, aligned at the centre, filled with zeros.
        padding (str): What the blur sees outside the image.
        interpolation (str): ``'bicubic'``, ``'bilinear'``, or ``'ideal'``: the image is taken to
            be periodic, loses the frequencies that the smaller sampling cannot hold, and is
            interpolated by its Fourier series. There is no blur then.
        centre (tuple[float, float], optional): Fixed point of ``'keep'``, in pixels. Defaults to
            the centre of the canvas; the feature map of a strided network has it elsewhere.
        variance (float, optional): Variance of the blur, in pixels², in place of the default.

    Returns:
        Tensor: The scaled image.

    Raises:
        ValueError: If an argument is out of range.
    """
    _check(factor, canvas)
    if not zero_scale > 0:
        raise ValueError(f'zero_scale must be a number greater than 0, got {zero_scale}')
    sizes = image.shape[-2:]
    if canvas == 'shrink':
        axes = [grid_positions(math.ceil(size / factor - 1e-9), factor) for size in sizes]
    else:
        middle = [(size - 1) / 2 for size in sizes] if centre is None else centre
        axes = [_positions(size, factor, at) for size, at in zip(sizes, middle)]
    if interpolation == 'ideal':
        return _read_ideal(image, *axes, factor)
    if variance is None:
        variance = zero_scale**2 * (factor**2 - 1)
    if canvas == 'keep' and padding != 'zeros':
        # Only the blur may see the padding: what the canvas gains outside the image is zero.
        still = [grid_positions(size, 1) for size in sizes]
        image = resample(image, *still, variance, padding=padding)
        variance, padding = 0.0, 'zeros'
    return resample(image, *axes, variance, interpolation, padding)


def _read_ideal(image, rows, columns, factor: float = 1.0) -> Tensor:
    """Reads a periodic image; where the canvas has more than one period, that is zeros."""
    matrices = []
    for size, positions in zip(image.shape[-2:], (rows, columns), strict=True):
        matrix = fourier_matrix(size, positions, factor, image.dtype, image.device)
        inside = [-0.5 <= p < size for p in positions]
        matrices.append(matrix if all(inside) else matrix * matrix.new_tensor(inside)[:, None])
    return matrices[0] @ image @ matrices[1].mT


def scale_scale_space(
    signal: Signal,
    factor: float,
    scale_space: dict | ScaleGrid,
    canvas: str = 'shrink',
    interpolation: str = 'bicubic',
    centre: tuple[float, float] | None = None,
    between_levels: str = 'cubic',
    offset: float = 0.0,
) -> Signal:
    """L_s on a scale space: ``(L_s F)(k, z) = F(k + log_base(s), s z)``.

    For factors that are no power of the base the levels are interpolated, along ``k`` and so along
    log scale; for powers each is read as it is. Levels whose source lies above the coarsest level
    do not exist in the result. No blur is applied: coarser levels have it already.

    Args:
        signal (Tensor | tuple[Tensor, ...]): A dense scale space ``(N, C, S, H, W)`` or a pyramid.
        factor (float): ``s``, at least 1.
        scale_space (dict | ScaleGrid): The levels of the signal.
        canvas (str): ``'shrink'`` or ``'keep'``, see :func:`scale_image`.
        interpolation (str): How positions between samples are read: ``'bicubic'``, ``'bilinear'``
            or ``'ideal'``.
        centre (tuple[float, float], optional): Fixed point of ``'keep'``, in pixels of level 0.
        between_levels (str): How scales between levels are read, see :func:`level_weights`:
            ``'linear'`` from the two levels next to them, ``'cubic'`` from up to four. The result
            has the same levels with both.
        offset (float): Distance from the levels of ``scale_space`` to those of the signal: its
            level ``k`` is the one of scale ``base**(k + offset)``. Those of the result lie on
            ``scale_space``.

    Returns:
        Tensor | tuple[Tensor, ...]: The same form with ``S - ceil(log_base(s) - offset)`` levels.

    Raises:
        ValueError: If ``factor`` is below 1, below ``base**offset`` or leaves no level, or the
            signal does not fit.
    """
    _check(factor, canvas)
    grid = ScaleGrid.build(scale_space)
    check_signal(signal, grid)
    check_choice('between_levels', between_levels, BETWEEN_LEVELS)
    shift = snap(grid.shift(factor) - offset)
    if shift < 0:
        raise ValueError(
            f'offset must be at most log_base(factor)={grid.shift(factor):.3g}, got {offset}'
        )
    pyramid, levels = is_pyramid(signal), split_levels(signal)
    count = len(levels)
    remaining = count - math.ceil(shift)
    if remaining < 1:
        raise ValueError(
            f'factor {factor} shifts by {shift:.3g} levels and leaves none of the {count}'
        )
    targets = grid.factors if pyramid else (1,) * count
    steps = [step * grid.base**offset for step in targets] if pyramid else targets
    middle = (0, 0)
    if canvas == 'keep':
        # Of the largest canvas that has this many samples: the one there is, for finer levels.
        sides = [math.floor(side * steps[0] + 1e-9) for side in levels[0].shape[-2:]]
        middle = [(side - 1) / 2 for side in sides] if centre is None else centre
    scaled = []
    for k in range(remaining):
        sizes = levels[k].shape[-2:]
        if canvas == 'shrink':
            finer = k + math.floor(shift)
            ratio = steps[finer] / (factor * targets[k])
            sizes = [math.ceil(side * ratio - 1e-9) for side in levels[finer].shape[-2:]]
        axes = [_positions(size, factor, at, targets[k]) for size, at in zip(sizes, middle)]
        level = None
        for j, weight in level_weights(k + shift, count, between_levels).items():
            part = _read_level(levels[j], axes, steps[j], interpolation)
            if level is None:
                level = part if weight == 1 else weight * part
            else:
                level = level.add(part, alpha=weight)
        scaled.append(level)
    return tuple(scaled) if pyramid else stack_levels(scaled)


def level_weights(position: float, count: int, between_levels: str = 'cubic') -> dict[int, float]:
    """The levels that are read for a scale between levels, and the weight of each.

    Args:
        position (float): Where to read, in levels from the finest one.
        count (int): Number of levels. No other is read.
        between_levels (str): ``'linear'``: of the two levels around the position; exact where
            the signal is linear along the levels. ``'cubic'``: Keys' convolution (a = -1/2) of two
            levels on either side; exact on quadratics. Below the second and above the last but one
            level, one of the four does not exist. There it is the parabola through the nearest
            three levels, which is Keys' own boundary condition and of the same order; of two
            levels it is the line.

    Returns:
        dict[int, float]: Weights by number of the level, of the sum 1. A level that is met exactly
        is read alone.
    """
    lower = math.floor(position)
    t = position - lower
    if t == 0:
        return {lower: 1.0}
    if between_levels == 'linear' or count == 2:
        return {lower: 1 - t, lower + 1: t}
    if lower == 0:
        return {0: (1 - t) * (2 - t) / 2, 1: t * (2 - t), 2: -t * (1 - t) / 2}
    if lower == count - 2:
        return {lower - 1: -t * (1 - t) / 2, lower: 1 - t**2, lower + 1: t * (1 + t) / 2}
    return {
        lower - 1: -t * (1 - t) ** 2 / 2,
        lower: 1 - (5 - 3 * t) * t**2 / 2,
        lower + 1: t * (1 + (4 - 3 * t) * t) / 2,
        lower + 2: -(t**2) * (1 - t) / 2,
    }


def _read_level(level, axes, step, interpolation) -> Tensor:
    # Without the rounding of ``base**k``, so that whole samples are read and not interpolated.
    rows, columns = (tuple(snap(position / step) for position in axis) for axis in axes)
    if interpolation == 'ideal':
        return _read_ideal(level, rows, columns)
    return resample(level, rows, columns, interpolation=interpolation)
