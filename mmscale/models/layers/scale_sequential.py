# Copyright (c) mmscale contributors.
"""Sequences of layers on signals in any form."""

from torch import nn

from mmscale.scale_space import Levels, Signal


def run(layer: nn.Module, x: Levels) -> Levels:
    """Run a layer; SyncBatchNorm in training runs on the pixels, for its kernel takes tensors."""
    if layer.training and isinstance(layer, nn.SyncBatchNorm):
        return x.map(layer)
    return layer(x)


class ScaleSequential(nn.Sequential):
    """A ``torch.nn.Sequential`` for signals in any form.

    Its layers take :class:`mmscale.scale_space.Levels` and may return a signal in any form.
    """

    def forward(self, x: Signal) -> Signal:
        levels = Levels.of(x)
        for layer in self:
            y = run(layer, levels)
            levels = y if isinstance(y, Levels) else Levels.of(y)
        return levels if isinstance(x, Levels) else levels.to_signal()
