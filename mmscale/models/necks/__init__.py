# Copyright (c) mmscale contributors.
from .scale_fpn import ScaleFPN
from .scale_pooling import ScaleGlobalPooling, ScaleLevels, ScalePooling

__all__ = ['ScaleFPN', 'ScaleGlobalPooling', 'ScaleLevels', 'ScalePooling']
