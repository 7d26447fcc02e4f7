# Copyright (c) mmscale contributors.
"""The scaling action L_s on images, feature maps and scale spaces.

Scaling by ``s >= 1`` shrinks the content by ``s``. There are two modes for the canvas.
``'shrink'`` shrinks the canvas with the content, aligned at the origin pixel. ``'keep'`` keeps the
size of the canvas, aligns the content at the centre and fills with zeros.
"""

import math

from torch import Tensor

from mmscale.checks import check_choice

from .grid import ScaleGrid, snap
from .levels import Signal, check_signal, is_pyramid
from .resample import fourier_matrix, grid_positions, resample
from .signals import split_levels, stack_levels

CANVASES = ('shrink', 'keep')
BETWEEN_LEVELS = ('linear', 'cubic')


def _check(factor: float, canvas: str) -> None:
    check_choice('canvas', canvas, CANVASES)
    if not 1 <= factor < math.inf:
        raise ValueError(f'factor must be a finite number of at least 1, got {factor}')


def _positions(size: int, factor: float, centre: float, step: float = 1.0) -> tuple[float, ...]:
    """Return positions, in pixels, of the samples of an axis that is scaled about ``centre``."""
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
    """Apply L_s to an image or an ordinary feature map: blur it, then sample it at ``s z``.

    By default the blur has the variance ``zero_scale**2 (s**2 - 1)``. For ``s = base**m``, level
    ``k`` of the lift of the result then is level ``k + m`` of the lift of ``image``, sampled at
    ``s z``.

    Args:
        image (Tensor): ``(..., H, W)``.
        factor (float): ``s``, at least 1.
        zero_scale (float): Standard deviation of the image's own blur, in pixels.
        canvas (str): ``'shrink'``: ``(..., ceil(H / s), ceil(W / s))``, aligned at the origin
            pixel. ``'keep'``: ``(..., H, W)``, aligned at the centre, filled with zeros.
        padding (str): Padding of the image for the blur.
        interpolation (str): ``'bicubic'``, ``'bilinear'`` or ``'ideal'``. ``'ideal'`` replaces the
            blur: it treats the image as periodic, removes frequencies above the new Nyquist limit
            and evaluates the Fourier series.
        centre (tuple[float, float], optional): Fixed point of ``'keep'``, in pixels. Defaults to
            the centre of the canvas; feature maps of strided networks have another fixed point.
        variance (float, optional): Variance of the blur, in pixels², if not the default.

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
        # Only the blur uses the padding: the canvas outside the image is zero.
        still = [grid_positions(size, 1) for size in sizes]
        image = resample(image, *still, variance, padding=padding)
        variance, padding = 0.0, 'zeros'
    return resample(image, *axes, variance, interpolation, padding)


def _read_ideal(image, rows, columns, factor: float = 1.0) -> Tensor:
    """Sample a periodic image; positions outside its first period give zeros."""
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
    """Apply L_s to a scale space: ``(L_s F)(k, z) = F(k + log_base(s), s z)``.

    Powers of the base shift the levels; other factors interpolate along ``k``, that is along log
    scale. The result lacks levels whose source lies above the coarsest level. There is no blur,
    because coarser levels are already blurred.

    Args:
        signal (Tensor | tuple[Tensor, ...]): A dense scale space ``(N, C, S, H, W)`` or a pyramid.
        factor (float): ``s``, at least 1.
        scale_space (dict | ScaleGrid): The levels of the signal.
        canvas (str): ``'shrink'`` or ``'keep'``, see :func:`scale_image`.
        interpolation (str): Interpolation between samples: ``'bicubic'``, ``'bilinear'`` or
            ``'ideal'``.
        centre (tuple[float, float], optional): Fixed point of ``'keep'``, in pixels of level 0.
        between_levels (str): Interpolation between levels, see :func:`level_weights`: ``'linear'``
            reads two levels, ``'cubic'`` up to four. The number of levels of the result is the
            same.
        offset (float): Offset of the signal's levels from ``scale_space``: level ``k`` of the
            signal has the scale ``base**(k + offset)``. The levels of the result have no offset.

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
        # The largest canvas that has this many samples; for finer levels it is the true canvas.
        sides = [math.floor(side * steps[0] + 1e-9) for side in levels[0].shape[-2:]]
        middle = [(side - 1) / 2 for side in sides] if centre is None else centre
    # The largest image whose levels have these sizes. The levels of the result are those of one
    # image, too.
    all_sides = zip(*(level.shape[-2:] for level in levels))
    largest = [min(side * step for side, step in zip(sides, steps)) for sides in all_sides]
    scaled = []
    for k in range(remaining):
        sizes = levels[k].shape[-2:]
        if canvas == 'shrink':
            sizes = [math.ceil(side / (factor * targets[k]) - 1e-9) for side in largest]
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
    """Return the weights of the levels for an interpolation between levels.

    Args:
        position (float): Position in levels, from the finest level.
        count (int): Number of levels.
        between_levels (str): ``'linear'`` interpolates between two levels; it is exact on signals
            that are linear along the levels. ``'cubic'`` is Keys' convolution (a = -1/2) of two
            levels on each side; it is exact on quadratics. The first and the last interval lack
            one of the four levels. There ``'cubic'`` is the parabola through the nearest three
            levels, Keys' boundary condition of the same order. For two levels it is linear.

    Returns:
        dict[int, float]: Weights by number of the level, with the sum 1. At an integral position
        one level has the weight 1.
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
    # Snap off the rounding of ``base**k``, so that integral positions need no interpolation.
    rows, columns = (tuple(snap(position / step) for position in axis) for axis in axes)
    if interpolation == 'ideal':
        return _read_ideal(level, rows, columns)
    return resample(level, rows, columns, interpolation=interpolation)
