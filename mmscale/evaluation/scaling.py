# Copyright (c) mmscale contributors.
"""The scaling action on whatever a network takes or gives."""

import math

from torch import Tensor

from mmscale.scale_space import ScaleGrid, Signal, is_pyramid, scale_image, scale_scale_space
from mmscale.scale_space.action import BETWEEN_LEVELS
from mmscale.scale_space.resample import check_choice

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
    """L_s on whatever a network takes or gives.

    Args:
        x (Tensor | tuple[Tensor, ...]): An image or feature map ``(N, C, H, W)``, a dense scale
            space ``(N, C, S, H, W)``, a pyramid, or vectors ``(N, C)``, which scaling leaves as
            they are. A scale space of ``num_scales=1`` is scaled as the feature map that it is.
        factor (float): ``s``, at least 1.
        scale_space (dict | ScaleGrid, optional): The levels of a scale space.
        zero_scale (float): Blur that images and feature maps are taken to have, in their pixels.
        canvas (str): ``'shrink'`` or ``'keep'``, see :func:`mmscale.scale_space.scale_image`.
        centre (tuple[float, float], optional): Fixed point of ``'keep'``, in pixels of ``x``.
        resampling (str): How images and feature maps are read at ``s z``:

            - ``'matched'``: blur of variance ``zero_scale**2 (s**2 - 1)``, bicubic;
            - ``'gaussian'``: blur of standard deviation ``(s - 1) / 2``, bicubic;
            - ``'bilinear'``, ``'bicubic'``: no blur, what is too fine for the canvas aliases;
            - ``'ideal'``: frequencies that the canvas cannot hold are removed, and the Fourier
              series is read.

            Coarser levels of a scale space are blurred already: ``'bilinear'`` and ``'ideal'`` say
            how they are read between their samples, which otherwise is bicubic.
        between_levels (str): How a scale space is read between its levels: ``'linear'`` or
            ``'cubic'``, see :func:`mmscale.scale_space.action.level_weights`.

    Returns:
        Tensor | tuple[Tensor, ...]: The scaled signal.
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
        # Of an ordinary network, written as one on scale spaces: there is no level to go to.
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
    """Whether a signal is a scale space, and not a map, an image or vectors."""
    return is_pyramid(x) or x.ndim == 5


def interpolation_of(resampling: str) -> str:
    """How a resampling reads between samples."""
    return resampling if resampling in ('bilinear', 'ideal') else 'bicubic'


class Scaling:
    """L_s as it is for one batch: where the centre of the canvas lies depends on its size."""

    def __init__(
        self,
        grid: ScaleGrid | None,
        zero_scale: float,
        canvas: str,
        resampling: str,
        between_levels: str,
        batch: Signal,
    ):
        self.grid = grid
        self.arguments = dict(
            scale_space=grid,
            zero_scale=zero_scale,
            canvas=canvas,
            resampling=resampling,
            between_levels=between_levels,
        )
        step, finest = self._finest(batch)
        # Of the image, in pixels: the largest of which a pyramid's finest level has its samples.
        self.size = [math.floor(samples * step + 1e-9) for samples in finest.shape[-2:]]

    def _finest(self, x: Signal) -> tuple[float, Tensor]:
        """The finest level and the distance of its samples, in those of level 0."""
        step = self.grid.factors[0] if self.grid is not None and is_pyramid(x) else 1
        return step, x[0] if is_pyramid(x) else x

    def __call__(self, x: Signal, factor: float, **changed) -> Signal:
        step, finest = self._finest(x)
        centre = None if finest.ndim < 4 else self._centre(finest.shape[-2:], step)
        return scale_signal(x, factor, centre=centre, **{**self.arguments, **changed})

    def is_whole(self, factor: float) -> bool:
        """Whether scaling shifts by whole levels, so that none is read between levels."""
        return self.grid is None or self.grid.shift(factor) % 1 == 0

    def leaves_a_level(self, x: Signal, factor: float) -> bool:
        """Whether anything of a signal is left; maps and vectors have no level to lose."""
        if self.grid is None or self.grid.num_scales == 1 or not has_levels(x):
            return True
        return self.grid.shift(factor) <= (len(x) if is_pyramid(x) else x.shape[2]) - 1

    def _centre(self, size, step: float) -> tuple[float, float]:
        """The centre of the image in samples of a feature map, or of level 0 of a scale space.

        Strided networks are aligned at the origin pixel, so that it lies at ``centre / stride`` of
        the feature map and not at the map's own centre.
        """
        strides = [find_stride(before / step, after) for before, after in zip(self.size, size)]
        return tuple((before - 1) / 2 / stride for before, stride in zip(self.size, strides))


def find_stride(before: float, after: int) -> int:
    """The stride of a network that makes ``after`` samples of ``before``.

    A stride t makes ceil(before / t) of them. Where that leaves several t, the one that is a power
    of two, as strides of networks are: 28 samples of which 4 are left have been strided by 8, not
    by 7. A map that is finer than the image has a stride below 1.
    """
    stride = 1
    while math.ceil(before / stride - 1e-6) < after:
        stride /= 2
    while math.ceil(before / stride - 1e-6) > after:
        stride *= 2
    if math.ceil(before / stride - 1e-6) == after:
        return stride
    return round(before / after) if before > after else before / after
