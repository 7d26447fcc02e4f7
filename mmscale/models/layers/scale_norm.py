# Copyright (c) mmscale contributors.
"""Batch normalisation whose statistics are shared by all levels."""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmscale.registry import MODELS
from mmscale.scale_space import Signal, map_levels


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

    knows_levels = True

    def forward(self, x: Signal) -> Signal:
        if isinstance(x, Tensor) and x.ndim != 5:
            return super().forward(x)
        return map_levels(self._normalise, x)

    def _normalise(self, maps: Tensor) -> Tensor:
        """Maps ``(M, C, H, W)`` in any order in memory."""
        channels = self.num_features
        fills_registers = channels >= 16 and channels % 8 == 0
        if maps.device.type != 'cpu' or fills_registers or channels >= 48 or maps.is_contiguous():
            return super().forward(maps)
        # Channels last, PyTorch takes those that fill no vector register one by one: seven of them
        # cost more than sixteen. Of many channels such are few.
        return super().forward(maps.contiguous()).contiguous(memory_format=torch.channels_last)

    def _check_input_dim(self, x: Tensor) -> None:
        channels = x.shape[1] if x.ndim > 1 else 0
        if channels != self.num_features:
            raise ValueError(
                f'expected a tensor (N, {self.num_features}, ...), got one of {channels} channels'
            )
