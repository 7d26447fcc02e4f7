# Copyright (c) mmscale contributors.
"""Scale the inputs and outputs of networks: images, maps, scale spaces and vectors."""

import math

from torch import Tensor

from mmscale.checks import check_choice
from mmscale.scale_space import ScaleGrid, Signal, is_pyramid, scale_image, scale_scale_space
from mmscale.scale_space.action import BETWEEN_LEVELS

RESAMPLINGS = ('matched', 'gaussian', 'bilinear', 'bicubic', 'ideal')


def scale_signal(
    x: Signal,
    factor: float,
    scale_space: dict | ScaleGrid | None = None,
    zero_scale: float = 0.5,
    canvas: str = 'shrink',
    centre: tuple[float, float] | None = None,
    resampling: str = 'matched',
    between_levels: str = 'cubic',
) -> Signal:
    """Apply the scaling action L_s to an input or output of a network.

    Args:
        x (Tensor | tuple[Tensor, ...]): An image or feature map ``(N, C, H, W)``, a dense scale
            space ``(N, C, S, H, W)``, a pyramid, or vectors ``(N, C)``, which do not change. A
            scale space of ``num_scales=1`` is scaled as a feature map.
        factor (float): The factor ``s``, at least 1.
        scale_space (dict | ScaleGrid, optional): The levels of a scale space.
        zero_scale (float): Assumed blur of images and maps, a standard deviation in their pixels.
        canvas (str): ``'shrink'`` or ``'keep'``, see :func:`mmscale.scale_space.scale_image`.
        centre (tuple[float, float], optional): Fixed point of ``'keep'``, in pixels of ``x``.
        resampling (str): How images and feature maps are read at ``s z``:

            - ``'matched'``: blur of variance ``zero_scale**2 (s**2 - 1)``, bicubic;
            - ``'gaussian'``: blur of standard deviation ``(s - 1) / 2``, bicubic;
            - ``'bilinear'``, ``'bicubic'``: no blur, frequencies too high for the canvas alias;
            - ``'ideal'``: frequencies too high for the canvas are removed, and the Fourier series
              is evaluated.

            Coarser levels of a scale space are blurred already: ``'bilinear'`` and ``'ideal'`` set
            their interpolation, all others use bicubic.
        between_levels (str): Interpolation between the levels of a scale space: ``'linear'`` or
            ``'cubic'``, see :func:`mmscale.scale_space.action.level_weights`.

    Returns:
        Tensor | tuple[Tensor, ...]: The scaled signal, in the form of ``x``.

    Raises:
        ValueError: If an argument is out of range, or a scale space has no ``scale_space``.
    """
    check_choice('resampling', resampling, RESAMPLINGS)
    check_choice('between_levels', between_levels, BETWEEN_LEVELS)
    interpolation = interpolation_of(resampling)
    if has_levels(x):
        if scale_space is None:
            raise ValueError('scale_space must be given: the signal is a scale space')
        if ScaleGrid.build(scale_space).num_scales > 1:
            return scale_scale_space(
                x, factor, scale_space, canvas, interpolation, centre, between_levels
            )
        # A scale space of one level is a feature map of an ordinary network.
        image = x[0] if is_pyramid(x) else x[:, :, 0]
        y = scale_signal(image, factor, None, zero_scale, canvas, centre, resampling)
        return (y,) if is_pyramid(x) else y[:, :, None]
    if x.ndim == 2:
        return x
    if x.ndim != 4:
        raise ValueError(
            'a signal is (N, C), (N, C, H, W), (N, C, S, H, W) or a pyramid, got the shape '
            f'{tuple(x.shape)}'
        )
    variance = {'matched': None, 'gaussian': (factor - 1) ** 2 / 4}.get(resampling, 0.0)
    return scale_image(x, factor, zero_scale, canvas, interpolation=interpolation,
                       centre=centre, variance=variance)  # fmt: skip


def has_levels(x: Signal) -> bool:
    """Tell whether a signal is a scale space, and not a map, an image or vectors."""
    return is_pyramid(x) or x.ndim == 5


def interpolation_of(resampling: str) -> str:
    """Return the interpolation between samples of a resampling."""
    return resampling if resampling in ('bilinear', 'ideal') else 'bicubic'


class Scaling:
    """The scaling action L_s for a batch, whose size sets the centre of the canvas."""

    def __init__(
        self,
        grid: ScaleGrid | None,
        zero_scale: float,
        canvas: str,
        resampling: str,
        between_levels: str,
        batch: Signal,
    ) -> None:
        self.grid = grid
        self.arguments = dict(
            scale_space=grid,
            zero_scale=zero_scale,
            canvas=canvas,
            resampling=resampling,
            between_levels=between_levels,
        )
        step, finest = self._finest(batch)
        # The size of the image in pixels: the largest that has the finest level of the pyramid.
        self.size = [math.floor(samples * step + 1e-9) for samples in finest.shape[-2:]]

    def _finest(self, x: Signal) -> tuple[float, Tensor]:
        """Return the finest level, after the distance of its samples in samples of level 0."""
        step = self.grid.factors[0] if self.grid is not None and is_pyramid(x) else 1
        return step, x[0] if is_pyramid(x) else x

    def __call__(self, x: Signal, factor: float, **changed: object) -> Signal:
        step, finest = self._finest(x)
        centre = None if finest.ndim < 4 else self._centre(finest.shape[-2:], step)
        return scale_signal(x, factor, centre=centre, **{**self.arguments, **changed})

    def is_whole(self, factor: float) -> bool:
        """Tell whether scaling shifts by whole levels, without reading between levels."""
        return self.grid is None or self.grid.shift(factor) % 1 == 0

    def leaves_a_level(self, x: Signal, factor: float) -> bool:
        """Tell whether scaling leaves a level of a signal; maps and vectors always remain."""
        if self.grid is None or self.grid.num_scales == 1 or not has_levels(x):
            return True
        return self.grid.shift(factor) <= (len(x) if is_pyramid(x) else x.shape[2]) - 1

    def _centre(self, size, step: float) -> tuple[float, float]:
        """Return the image's centre in samples of a feature map, or of level 0 of a scale space.

        Strided networks are aligned at the origin pixel. The centre therefore lies at
        ``centre / stride`` of the feature map, not at the centre of the map.
        """
        strides = [find_stride(before / step, after) for before, after in zip(self.size, size)]
        return tuple((before - 1) / 2 / stride for before, stride in zip(self.size, strides))


def find_stride(before: float, after: int) -> float:
    """Find the stride of a network that makes ``after`` samples of ``before`` samples.

    A stride t makes ceil(before / t) samples. Of several such t the power of two is taken, because
    strides of networks are powers of two: from 28 to 4 samples the stride is 8, not 7. A map that
    is finer than the image has a stride below 1.
    """
    stride = 1
    while math.ceil(before / stride - 1e-6) < after:
        stride /= 2
    while math.ceil(before / stride - 1e-6) > after:
        stride *= 2
    if math.ceil(before / stride - 1e-6) == after:
        return stride
    return round(before / after) if before > after else before / after
