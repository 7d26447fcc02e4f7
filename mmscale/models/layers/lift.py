# Copyright (c) mmscale contributors.
"""Lifts, the first layers of networks on scale spaces."""

from torch import Tensor, nn

from mmscale.checks import check_choice
from mmscale.registry import MODELS
from mmscale.scale_space import (
    ScaleGrid,
    Signal,
    bilinear_pyramid_lift,
    gaussian_lift,
    gaussian_pyramid_lift,
    repeat_lift,
)
from mmscale.scale_space.resample import INTERPOLATIONS, PADDINGS


class Lift(nn.Module):
    """Base class of the lifts.

    Args:
        scale_space (dict | ScaleGrid): The levels.
        padding (str): Padding of the image: ``'zeros'``, ``'replicate'``, ``'reflect'`` or
            ``'circular'``.

    Shape:
        - Input: ``(N, C, H, W)``.
        - Output: dense ``(N, C, S, H, W)``, or a pyramid of S tensors
          ``(N, C, ceil(H / base**k), ceil(W / base**k))``.

    Raises:
        ValueError: If an argument is out of range; in ``forward``, if the image is too small for
            the coarsest level.
    """

    def __init__(self, scale_space: dict | ScaleGrid, padding: str = 'zeros'):
        super().__init__()
        check_choice('padding', padding, PADDINGS)
        self.grid, self.padding = ScaleGrid.build(scale_space), padding

    def forward(self, image: Tensor) -> Signal:
        return self.lift(image, self.grid, self.padding)

    def extra_repr(self) -> str:
        return f'{self.grid}, padding={self.padding!r}'


@MODELS.register_module()
class GaussianLift(Lift):
    """The dense Gaussian scale space ("DSS v1"), :func:`mmscale.scale_space.gaussian_lift`.

    Arguments and shapes are those of :class:`Lift`.
    """

    lift = staticmethod(gaussian_lift)


@MODELS.register_module()
class RepeatLift(Lift):
    """The dense scale space that repeats the image, :func:`mmscale.scale_space.repeat_lift`.

    Args:
        scale_space (dict | ScaleGrid): The levels.
    """

    def __init__(self, scale_space: dict | ScaleGrid):
        super().__init__(scale_space)

    def forward(self, image: Tensor) -> Tensor:
        return repeat_lift(image, self.grid)


@MODELS.register_module()
class BilinearPyramidLift(Lift):
    """The bilinear pyramid ("DSS v2"), :func:`mmscale.scale_space.bilinear_pyramid_lift`.

    Arguments and shapes are those of :class:`Lift`.
    """

    lift = staticmethod(bilinear_pyramid_lift)


@MODELS.register_module()
class GaussianPyramidLift(Lift):
    """The Gaussian pyramid, :func:`mmscale.scale_space.gaussian_pyramid_lift`.

    Arguments are those of :class:`Lift`, and ``interpolation`` (str) between pixels, ``'bicubic'``
    or ``'bilinear'``. Negative levels are finer than the image.
    """

    def __init__(
        self, scale_space: dict | ScaleGrid, padding: str = 'zeros', interpolation: str = 'bicubic'
    ):
        super().__init__(scale_space, padding)
        check_choice('interpolation', interpolation, INTERPOLATIONS)
        self.interpolation = interpolation

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return gaussian_pyramid_lift(image, self.grid, self.padding, self.interpolation)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, interpolation={self.interpolation!r}'
