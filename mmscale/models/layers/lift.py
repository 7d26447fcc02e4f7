# Copyright (c) mmscale contributors.
"""Lifting stems: the first layer of a network on scale spaces."""

from torch import Tensor, nn

from mmscale.registry import MODELS
from mmscale.scale_space import (
    ScaleGrid,
    bilinear_pyramid_lift,
    gaussian_lift,
    gaussian_pyramid_lift,
)
from mmscale.scale_space.resample import INTERPOLATIONS, PADDINGS, check_choice


@MODELS.register_module()
class GaussianLift(nn.Module):
    """The dense Gaussian scale space ("DSS v1"), :func:`mmscale.scale_space.gaussian_lift`.

    Args:
        scale_space (dict | ScaleGrid): The levels.
        padding (str): What lies outside the image: ``'zeros'``, ``'replicate'``, ``'reflect'`` or
            ``'circular'``.

    Shape:
        - Input: ``(N, C, H, W)``.
        - Output: ``(N, C, S, H, W)``.
    """

    def __init__(self, scale_space: dict | ScaleGrid, padding: str = 'zeros'):
        super().__init__()
        check_choice('padding', padding, PADDINGS)
        self.grid, self.padding = ScaleGrid.build(scale_space), padding

    def forward(self, image: Tensor) -> Tensor:
        return gaussian_lift(image, self.grid, self.padding)

    def extra_repr(self) -> str:
        return f'{self.grid}, padding={self.padding!r}'


@MODELS.register_module()
class BilinearPyramidLift(nn.Module):
    """The bilinear pyramid ("DSS v2"), :func:`mmscale.scale_space.bilinear_pyramid_lift`.

    Args:
        scale_space (dict | ScaleGrid): The levels.
        padding (str): What lies outside the image, as in :class:`GaussianLift`.

    Shape:
        - Input: ``(N, C, H, W)``.
        - Output: S tensors ``(N, C, ceil(H / base**k), ceil(W / base**k))``.
    """

    def __init__(self, scale_space: dict | ScaleGrid, padding: str = 'zeros'):
        super().__init__()
        check_choice('padding', padding, PADDINGS)
        self.grid, self.padding = ScaleGrid.build(scale_space), padding

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return bilinear_pyramid_lift(image, self.grid, self.padding)

    def extra_repr(self) -> str:
        return f'{self.grid}, padding={self.padding!r}'


@MODELS.register_module()
class GaussianPyramidLift(nn.Module):
    """The Gaussian pyramid, :func:`mmscale.scale_space.gaussian_pyramid_lift`.

    Args:
        scale_space (dict | ScaleGrid): The levels. Negative ones are finer than the image.
        padding (str): What lies outside the image, as in :class:`GaussianLift`.
        interpolation (str): How positions between pixels are read: ``'bicubic'`` or
            ``'bilinear'``.

    Shape:
        - Input: ``(N, C, H, W)``.
        - Output: S tensors ``(N, C, ceil(H / base**k), ceil(W / base**k))``.
    """

    def __init__(
        self,
        scale_space: dict | ScaleGrid,
        padding: str = 'zeros',
        interpolation: str = 'bicubic',
    ):
        super().__init__()
        check_choice('padding', padding, PADDINGS)
        check_choice('interpolation', interpolation, INTERPOLATIONS)
        self.grid, self.padding = ScaleGrid.build(scale_space), padding
        self.interpolation = interpolation

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return gaussian_pyramid_lift(image, self.grid, self.padding, self.interpolation)

    def extra_repr(self) -> str:
        return f'{self.grid}, padding={self.padding!r}, interpolation={self.interpolation!r}'
