# Copyright (c) mmscale contributors.
"""Spatial pooling of scale spaces as layers."""

from torch import nn

from mmscale.ops import as_pair, check_pool, scale_avg_pool2d, scale_max_pool2d
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

    def extra_repr(self) -> str:
        return (
            f'kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, '
            f'{self.grid}'
        )


@MODELS.register_module()
class ScaleMaxPool2d(_ScalePool2d):
    """Max pooling whose windows grow with the level, :func:`mmscale.ops.scale_max_pool2d`.

    Args:
        kernel_size (int | tuple[int, int]): Taps of the window.
        stride (int | tuple[int, int], optional): Distance of the outputs, in samples of their
            level. Defaults to ``kernel_size``.
        padding (int | tuple[int, int]): Taps of the window before its origin.
        scale_space (dict | ScaleGrid): The levels.

    Shape:
        - Input: dense ``(N, C, S, H, W)`` or a pyramid of S tensors ``(N, C, H_k, W_k)``.
        - Output: the same form, each side ``ceil(size / stride)``.
    """

    def forward(self, x: Signal) -> Signal:
        return scale_max_pool2d(
            x, self.kernel_size, self.stride, self.padding, scale_space=self.grid
        )


@MODELS.register_module()
class ScaleAvgPool2d(_ScalePool2d):
    """Average pooling whose windows grow with the level, :func:`mmscale.ops.scale_avg_pool2d`.

    Arguments and shapes are those of :class:`ScaleMaxPool2d`; taps outside the image do not
    count.
    """

    def forward(self, x: Signal) -> Signal:
        return scale_avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, scale_space=self.grid
        )
