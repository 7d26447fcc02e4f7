# Copyright (c) mmscale contributors.
"""Heads that combine the predictions of levels."""

from mmscale._requirements import has_module

from .scale_decode_head import ScaleDecodeHead

__all__ = ['ScaleDecodeHead']

# This needs MMPretrain.
if has_module('mmpretrain'):
    from .scale_cls_head import ScaleClsHead

    __all__ += [ScaleClsHead.__name__]
