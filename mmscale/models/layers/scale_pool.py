# Copyright (c) mmscale contributors.
"""Layers for spatial pooling of scale spaces."""

from torch import nn

from mmscale.ops import (
    as_pair,
    check_blur,
    check_pool,
    scale_avg_pool2d,
    scale_blur_pool2d,
    scale_max_pool2d,
)
from mmscale.registry import MODELS
from mmscale.scale_space import ScaleGrid, Signal


class _ScalePool2d(nn.Module):
    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        *,
        scale_space: dict | ScaleGrid,
    ):
        super().__init__()
        self.kernel_size = as_pair('kernel_size', kernel_size)
        self.stride = self.kernel_size if stride is None else as_pair('stride', stride)
        self.padding = as_pair('padding', padding)
        self.grid = ScaleGrid.build(scale_space)
        check_pool(self.kernel_size, self.stride, self.padding)

    def forward(self, x: Signal) -> Signal:
        return self.pool(x, self.kernel_size, self.stride, self.padding, scale_space=self.grid)

    def extra_repr(self) -> str:
        window = f'kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}'
        return f'{window}, {self.grid}'


@MODELS.register_module()
class ScaleMaxPool2d(_ScalePool2d):
    """Max pooling with windows that grow with the level, :func:`mmscale.ops.scale_max_pool2d`.

    Args:
        kernel_size (int | tuple[int, int]): Taps of the window.
        stride (int | tuple[int, int], optional): Distance of the outputs, in samples of their
            level. Defaults to ``kernel_size``.
        padding (int | tuple[int, int]): Taps of the window above and left of its origin.
        scale_space (dict | ScaleGrid): The levels.

    Shape:
        - Input: dense ``(N, C, S, H, W)`` or a pyramid of S tensors ``(N, C, H_k, W_k)``.
        - Output: the same form, each side ``ceil(size / stride)``.
    """

    pool = staticmethod(scale_max_pool2d)


@MODELS.register_module()
class ScaleAvgPool2d(_ScalePool2d):
    """Average pooling with windows that grow with the level, :func:`mmscale.ops.scale_avg_pool2d`.

    Arguments and shapes are those of :class:`ScaleMaxPool2d`. Taps outside the image do not count.
    """

    pool = staticmethod(scale_avg_pool2d)


@MODELS.register_module()
class ScaleBlurPool2d(nn.Module):
    """Low-pass filter with a stride, :func:`mmscale.ops.scale_blur_pool2d`.

    Use it as ``aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5)`` of a backbone.
    The filter is neither a parameter nor part of checkpoints.

    Args:
        kernel_size (int, optional): Taps of a binomial filter, odd and at least 3.
        stride (int | tuple[int, int]): Distance of the outputs, in samples of their level.
        variance (float, optional): Variance of a discrete Gaussian filter, in samples².
        scale_space (dict | ScaleGrid): The levels.

    Shape:
        - Input and output: see :class:`ScaleMaxPool2d`.

    Raises:
        ValueError: If an argument is out of range, or neither or both of ``kernel_size`` and
            ``variance`` are given.
    """

    def __init__(
        self,
        kernel_size: int | None = None,
        stride: int | tuple[int, int] = 2,
        *,
        variance: float | None = None,
        scale_space: dict | ScaleGrid,
    ):
        super().__init__()
        check_blur(kernel_size, variance)
        self.kernel_size, self.variance = kernel_size, variance
        self.stride = as_pair('stride', stride)
        check_pool((1, 1), self.stride, (0, 0))
        self.grid = ScaleGrid.build(scale_space)

    def forward(self, x: Signal) -> Signal:
        return scale_blur_pool2d(
            x, self.kernel_size, self.stride, variance=self.variance, scale_space=self.grid
        )

    def extra_repr(self) -> str:
        name = 'kernel_size' if self.variance is None else 'variance'
        return f'{name}={getattr(self, name)}, stride={self.stride}, {self.grid}'
