# Copyright (c) mmscale contributors.
"""Made of the heads of MMPretrain, which must be installed."""

from .scale_cls_head import ScaleClsHead

__all__ = ['ScaleClsHead']
