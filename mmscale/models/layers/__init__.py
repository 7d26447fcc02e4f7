# Copyright (c) mmscale contributors.
from .deform_scale_conv import DeformScaleConv, ModulatedDeformScaleConv
from .lift import BilinearPyramidLift, GaussianLift, GaussianPyramidLift, RepeatLift
from .scale_conv import ScaleConv
from .scale_norm import ScaleBN
from .scale_pool import ScaleAvgPool2d, ScaleBlurPool2d, ScaleMaxPool2d
from .scale_sequential import ScaleSequential

__all__ = [
    'BilinearPyramidLift',
    'DeformScaleConv',
    'GaussianLift',
    'GaussianPyramidLift',
    'ModulatedDeformScaleConv',
    'RepeatLift',
    'ScaleAvgPool2d',
    'ScaleBN',
    'ScaleBlurPool2d',
    'ScaleConv',
    'ScaleMaxPool2d',
    'ScaleSequential',
]
