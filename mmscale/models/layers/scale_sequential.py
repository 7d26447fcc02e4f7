# Copyright (c) mmscale contributors.
"""Layers in turn, on signals in any form."""

from torch import nn

from mmscale.scale_space import Levels, Signal


def run(layer: nn.Module, x: Levels) -> Levels:
    """Runs a layer; SyncBatchNorm in training, whose kernel knows tensors alone, on the pixels."""
    if layer.training and isinstance(layer, nn.SyncBatchNorm):
        return x.map(layer)
    return layer(x)


class ScaleSequential(nn.Sequential):
    """``torch.nn.Sequential`` of layers and blocks for signals in any form.

    Layers see :class:`mmscale.scale_space.Levels`, and may give a signal in any form.
    """

    def forward(self, x: Signal) -> Signal:
        levels = Levels.of(x)
        for layer in self:
            y = run(layer, levels)
            levels = y if isinstance(y, Levels) else Levels.of(y)
        return levels if isinstance(x, Levels) else levels.to_signal()
