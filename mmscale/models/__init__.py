# Copyright (c) mmscale contributors.
# ruff: noqa: F403
from mmscale._requirements import has_module, need_mmengine

need_mmengine()

from . import backbones, layers, necks
from .backbones import *
from .layers import *
from .necks import *

__all__ = [*backbones.__all__, *layers.__all__, *necks.__all__]

# These two need MMPretrain; everything else works without it.
if has_module('mmpretrain'):
    from .data_preprocessor import MultiScaleClsDataPreprocessor
    from .heads import ScaleClsHead

    __all__ += [MultiScaleClsDataPreprocessor.__name__, ScaleClsHead.__name__]
