# Copyright (c) mmscale contributors.
from .scale_pooling import ScaleGlobalPooling, ScalePooling

__all__ = ['ScaleGlobalPooling', 'ScalePooling']
