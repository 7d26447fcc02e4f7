# Copyright (c) mmscale contributors.
"""Lifts from images to scale spaces."""

from torch import Tensor

from mmscale.checks import check_choice

from .grid import ScaleGrid
from .resample import PADDINGS, grid_positions, resample
from .signals import stack_levels


def _check(image: Tensor, scale_space: dict | ScaleGrid, padding: str) -> ScaleGrid:
    check_choice('padding', padding, PADDINGS)
    if not image.is_floating_point():
        raise TypeError(f'image must be of a floating dtype, got {image.dtype}')
    if image.ndim != 4:
        raise ValueError(f'image must be (N, C, H, W), got the shape {tuple(image.shape)}')
    grid = ScaleGrid.build(scale_space)
    grid.check_image_size(*image.shape[-2:])
    return grid


def gaussian_lift(image: Tensor, scale_space: dict | ScaleGrid, padding: str = 'zeros') -> Tensor:
    """Lift an image to its dense Gaussian scale space ("DSS v1").

    Level ``k`` is the image, blurred by the discrete Gaussian of variance
    ``zero_scale**2 (base**2k - 1)``; levels ``k <= 0`` equal the image.
    Source: Worrall & Welling, Deep Scale-Spaces, NeurIPS 2019.

    Args:
        image (Tensor): ``(N, C, H, W)``.
        scale_space (dict | ScaleGrid): The levels.
        padding (str): Padding of the image: ``'zeros'``, ``'replicate'``, ``'reflect'`` or
            ``'circular'``.

    Returns:
        Tensor: ``(N, C, S, H, W)``.

    Raises:
        TypeError: If the image is of an integer dtype.
        ValueError: If the image is too small for the coarsest level.
    """
    grid = _check(image, scale_space, padding)
    rows, columns = (grid_positions(count, 1) for count in image.shape[-2:])
    return stack_levels(
        [resample(image, rows, columns, t, padding=padding) if t else image for t in grid.variances]
    )


def repeat_lift(image: Tensor, scale_space: dict | ScaleGrid) -> Tensor:
    """Repeat an image at all levels of a dense scale space, for networks whose kernels blur.

    Arguments, result and errors are those of :func:`gaussian_lift`.
    Source: Sosnovik et al., Scale-Equivariant Steerable Networks, ICLR 2020.
    """
    return stack_levels([image] * _check(image, scale_space, 'zeros').num_scales)


def gaussian_pyramid_lift(
    image: Tensor,
    scale_space: dict | ScaleGrid,
    padding: str = 'zeros',
    interpolation: str = 'bicubic',
) -> tuple[Tensor, ...]:
    """Lift an image to its Gaussian scale space with level ``k`` sampled at ``base**k z``.

    Levels finer than the image (``k < 0``) hold the interpolated image.

    Other arguments and errors are those of :func:`gaussian_lift`.

    Args:
        interpolation (str): Interpolation between pixels, ``'bicubic'`` or ``'bilinear'``. Integral
            factors need no interpolation.

    Returns:
        tuple[Tensor, ...]: S tensors ``(N, C, ceil(H / base**k), ceil(W / base**k))``.
    """
    grid = _check(image, scale_space, padding)
    return _sampled_lift(image, grid, grid.variances, padding, interpolation)


def bilinear_pyramid_lift(
    image: Tensor, scale_space: dict | ScaleGrid, padding: str = 'zeros'
) -> tuple[Tensor, ...]:
    """Lift an image to a pyramid by bilinear resizing with the factors ``base**-k`` ("DSS v2").

    Level ``k`` samples the image at ``base**k z``, without a blur. Coarse levels alias;
    :func:`gaussian_pyramid_lift` is the anti-aliased version. Arguments, result and errors are
    the same.
    """
    grid = _check(image, scale_space, padding)
    return _sampled_lift(image, grid, (0.0,) * grid.num_scales, padding, 'bilinear')


def _sampled_lift(image, grid, variances, padding, interpolation) -> tuple[Tensor, ...]:
    levels = []
    for k, factor, variance in zip(grid.levels, grid.factors, variances, strict=True):
        if factor == 1 and variance == 0:
            levels.append(image)
            continue
        rows, columns = (
            grid_positions(grid.level_size(size, k), factor) for size in image.shape[-2:]
        )
        levels.append(resample(image, rows, columns, variance, interpolation, padding))
    return tuple(levels)
