# Copyright (c) mmscale contributors.
from torch import nn

from mmscale.models.layers import GaussianLift
from mmscale.scale_space.signals import TAKERS

from .scale_pooling import ScaleGlobalPooling


def check_neck(model: nn.Module) -> None:
    """Check that the layers behind the backbone of any network take the levels that come to them.

    Raises:
        ValueError: If the layer behind the backbone belongs to MMPretrain, MMDetection or
            MMSegmentation, whose layers take ordinary maps only; or if a neck is to keep levels
            that the backbone does not return, or that the head does not take.
    """
    backbone = getattr(model, 'backbone', None)
    has_levels = hasattr(backbone, 'grid') and getattr(backbone, 'scale_pooling', None) is None
    neck, head = getattr(model, 'neck', None), getattr(model, 'head', None)
    if isinstance(neck, ScaleGlobalPooling) and neck.scale == 'none':
        if not has_levels:
            raise ValueError(
                "model.neck has scale='none', which keeps levels, but the backbone returns none: "
                f'{type(backbone).__name__} must have a scale_space and no scale_pooling'
            )
        if _takes_ordinary_maps(head):
            raise ValueError(
                f'model.head: {type(head).__name__} takes one vector, and model.neck with '
                "scale='none' returns one per level: use mmscale.ScaleClsHead, or scale='max'"
            )
    if not has_levels:
        return
    if backbone.grid.num_scales == 1 and isinstance(backbone.lift, GaussianLift):
        return  # ordinary pooling takes a map with one additional axis
    parts = ('neck', 'decode_head', 'rpn_head', 'bbox_head', 'head')
    which, first = next(
        ((part, found) for part in parts if (found := getattr(model, part, None)) is not None),
        (None, None),
    )
    first = first[0] if isinstance(first, nn.Sequential | nn.ModuleList) else first
    if _takes_ordinary_maps(first):
        raise ValueError(
            f'model.{which}: {type(first).__name__} does not take the scale spaces of '
            f'{type(backbone).__name__}: {TAKERS}'
        )


def _takes_ordinary_maps(layer: nn.Module | None) -> bool:
    return type(layer).__module__.partition('.')[0] in ('mmpretrain', 'mmdet', 'mmseg')
