# Copyright (c) mmscale contributors.
"""Convert scale spaces for class activation maps."""

import torch
from torch import Tensor

from mmscale.scale_space import ScaleGrid, Signal, is_pyramid, resample_level, split_levels


def levels_as_channels(x: Signal, scale_space: dict | ScaleGrid) -> Tensor:
    """Convert a scale space to ordinary maps with the channels of all levels.

    With ``pytorch_grad_cam``, use ``GradCAM(model, [model.backbone.layer4],
    reshape_transform=lambda x: levels_as_channels(x, model.backbone.grid))``. Each channel of each
    level then has its own weight, because the head pools each level by itself.

    Args:
        x (Tensor | tuple[Tensor, ...] | Levels): Dense ``(N, C, S, H, W)`` or a pyramid of S
            tensors ``(N, C, H_k, W_k)``.
        scale_space (dict | ScaleGrid): The levels.

    Returns:
        Tensor: ``(N, S C, H, W)`` at the samples of the finest level, the channels of the finest
        level first. Coarser levels of a pyramid are interpolated bilinearly.
    """
    levels = split_levels(x)
    if is_pyramid(x):
        grid, size = ScaleGrid.build(scale_space), levels[0].shape[-2:]
        pairs = zip(levels, grid.factors)
        levels = [resample_level(y, grid.factors[0] / factor, size) for y, factor in pairs]
    return torch.cat(levels, dim=1)
