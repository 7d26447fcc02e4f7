# Copyright (c) mmscale contributors.
"""Batch normalisation that shares its statistics over all levels."""

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmscale.registry import MODELS
from mmscale.scale_space import Levels, Signal, is_pyramid


@MODELS.register_module()
class ScaleBN(_BatchNorm):
    """Batch normalisation with one mean and variance per channel over all pixels of all levels.

    Statistics per level would treat an object differently at each of its scales. Parameters and
    buffers are those of ``torch.nn.BatchNorm2d``, whose checkpoints therefore load.

    Shape:
        - Input: dense ``(N, C, S, H, W)``, a pyramid of S tensors ``(N, C, H_k, W_k)``,
          :class:`mmscale.scale_space.Levels`, or any tensor ``(N, C, ...)``.
        - Output: the same.
    """

    def forward(self, x: Signal) -> Signal:
        if isinstance(x, Levels):
            return x.map(self._normalise)
        if is_pyramid(x) or x.ndim == 5:
            return Levels.of(x).map(self._normalise).to_signal()
        return super().forward(x)

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Normalise pixels ``(P, C)`` or maps ``(N, C, H, W)``."""
        if pixels.ndim == 4 or not self.training:
            return super().forward(pixels)
        # As a channels-last image, since PyTorch reads a matrix column by column for statistics.
        # The strides matter: other strides of the axes of length 1 give a wrong gradient.
        image = super().forward(pixels[None, :, None].permute(0, 3, 1, 2))
        return image.permute(0, 2, 3, 1).flatten(0, 2)  # the gradient of an index would copy

    def _check_input_dim(self, x: Tensor) -> None:
        """Accept any number of axes; PyTorch's function reports a wrong number of channels."""
