# Copyright (c) mmscale contributors.
from .scale_pooling import ScaleGlobalPooling, ScaleLevels, ScalePooling

__all__ = ['ScaleGlobalPooling', 'ScaleLevels', 'ScalePooling']
