# Copyright (c) mmscale contributors.
from torch import nn

from mmscale.models.layers import GaussianLift
from mmscale.scale_space.signals import TAKERS


def check_neck(model: nn.Module) -> None:
    """Check that the layer behind a backbone takes the scale spaces that the backbone returns.

    Args:
        model (nn.Module): A classifier, detector, segmentor or any other network.

    Raises:
        ValueError: If the layer belongs to MMPretrain, MMDetection or MMSegmentation, whose layers
            take ordinary maps only.
    """
    backbone = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'grid') or getattr(backbone, 'scale_pooling', None) is not None:
        return
    if backbone.grid.num_scales == 1 and isinstance(backbone.lift, GaussianLift):
        return  # ordinary pooling takes a map with one additional axis
    parts = ('neck', 'decode_head', 'rpn_head', 'bbox_head', 'head')
    which, first = next(
        ((part, found) for part in parts if (found := getattr(model, part, None)) is not None),
        (None, None),
    )
    first = first[0] if isinstance(first, nn.Sequential | nn.ModuleList) else first
    if type(first).__module__.partition('.')[0] in ('mmpretrain', 'mmdet', 'mmseg'):
        raise ValueError(
            f'model.{which}: {type(first).__name__} does not take the scale spaces of '
            f'{type(backbone).__name__}: {TAKERS}'
        )
