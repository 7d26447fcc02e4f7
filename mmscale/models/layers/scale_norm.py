# Copyright (c) mmscale contributors.
"""Batch normalisation whose statistics are shared by all levels."""

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmscale.registry import MODELS
from mmscale.scale_space import (
    PackedLevels,
    Signal,
    fold_levels,
    is_pyramid,
    map_levels,
    unfold_levels,
)


@MODELS.register_module()
class ScaleBN(_BatchNorm):
    """Batch normalisation with one mean and variance per channel over all pixels of all levels.

    Statistics per level would treat one object differently at each of its scales. Parameters and
    buffers are those of ``torch.nn.BatchNorm2d``, so its checkpoints load.

    Shape:
        - Input: dense ``(N, C, S, H, W)``, a pyramid of S tensors ``(N, C, H_k, W_k)``, or any
          tensor ``(N, C, ...)``.
        - Output: the same.
    """

    def forward(self, x: Signal) -> Signal:
        if isinstance(x, PackedLevels):
            return x.map(super().forward)
        if is_pyramid(x):
            if not self.training and self.running_mean is not None:
                return map_levels(super().forward, tuple(x))
            return PackedLevels.pack(x).map(super().forward).unpack()
        if x.ndim == 5:
            # One batch of images keeps the level-major memory, which a 5-D batch norm would not.
            return unfold_levels(super().forward(fold_levels(x)), x.shape[2])
        return super().forward(x)

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2 or x.shape[1] != self.num_features:
            raise ValueError(
                f'expected a tensor (N, {self.num_features}, ...), got the shape {tuple(x.shape)}'
            )
