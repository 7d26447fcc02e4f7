# Copyright (c) mmscale contributors.
from .lift import BilinearPyramidLift, GaussianLift, GaussianPyramidLift
from .scale_conv import ScaleConv
from .scale_norm import ScaleBN
from .scale_pool import ScaleAvgPool2d, ScaleMaxPool2d

__all__ = [
    'BilinearPyramidLift',
    'GaussianLift',
    'GaussianPyramidLift',
    'ScaleAvgPool2d',
    'ScaleBN',
    'ScaleConv',
    'ScaleMaxPool2d',
]
