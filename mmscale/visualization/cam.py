# Copyright (c) mmscale contributors.
"""What class activation maps need to read a scale space."""

import torch
from torch import Tensor

from mmscale.scale_space import ScaleGrid, Signal, is_pyramid, resample_level, split_levels


def levels_as_channels(x: Signal, scale_space: dict | ScaleGrid) -> Tensor:
    """A scale space as ordinary maps, whose channels are the channels of all levels.

    For ``pytorch_grad_cam``: ``GradCAM(model, [model.backbone.layer4],
    reshape_transform=lambda x: levels_as_channels(x, model.backbone.grid))``. Each channel of each
    level then has a weight of its own, as the head pools each level by itself.

    Args:
        x (Tensor | tuple[Tensor, ...] | Levels): Dense ``(N, C, S, H, W)`` or a pyramid of S
            tensors ``(N, C, H_k, W_k)``.
        scale_space (dict | ScaleGrid): The levels.

    Returns:
        Tensor: ``(N, S C, H, W)`` at the samples of the finest level, the channels of level 0
        first. Coarser levels of a pyramid are read there by bilinear interpolation.
    """
    levels = split_levels(x)
    if is_pyramid(x):
        grid, size = ScaleGrid.build(scale_space), levels[0].shape[-2:]
        pairs = zip(levels, grid.factors)
        levels = [resample_level(y, grid.factors[0] / factor, size) for y, factor in pairs]
    return torch.cat(levels, dim=1)
