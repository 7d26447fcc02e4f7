# Copyright (c) mmscale contributors.
# ruff: noqa: F403
from mmscale._requirements import has_module, need_mmengine

need_mmengine()

from . import backbones, heads, layers, necks
from .backbones import *
from .heads import *
from .layers import *
from .necks import *

__all__ = [*backbones.__all__, *heads.__all__, *layers.__all__, *necks.__all__]

# This and ScaleClsHead need MMPretrain; everything else works without it.
if has_module('mmpretrain'):
    from .data_preprocessor import MultiScaleClsDataPreprocessor

    __all__ += [MultiScaleClsDataPreprocessor.__name__]
