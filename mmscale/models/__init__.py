# Copyright (c) mmscale contributors.
from mmscale._requirements import has_module, need_mmengine

need_mmengine()

from .backbones import (
    ScaleConvNet,
    ScaleResNet,
    ScaleResNet_CIFAR,
    ScaleResNetV1c,
    SO2ConvNet,
    SO2ResNet,
    SO2ResNet_CIFAR,
)
from .layers import (
    BilinearPyramidLift,
    DeformScaleConv,
    GaussianLift,
    GaussianPyramidLift,
    ModulatedDeformScaleConv,
    RepeatLift,
    ScaleAvgPool2d,
    ScaleBlurPool2d,
    ScaleBN,
    ScaleConv,
    ScaleMaxPool2d,
    ScaleSequential,
)
from .necks import ScaleFPN, ScaleGlobalPooling, ScaleLevels, ScalePooling

__all__ = [
    'BilinearPyramidLift',
    'DeformScaleConv',
    'GaussianLift',
    'GaussianPyramidLift',
    'ModulatedDeformScaleConv',
    'RepeatLift',
    'ScaleAvgPool2d',
    'ScaleBlurPool2d',
    'ScaleBN',
    'ScaleConv',
    'ScaleConvNet',
    'ScaleFPN',
    'ScaleGlobalPooling',
    'ScaleLevels',
    'ScaleMaxPool2d',
    'ScalePooling',
    'ScaleResNet',
    'ScaleResNetV1c',
    'ScaleResNet_CIFAR',
    'ScaleSequential',
    'SO2ConvNet',
    'SO2ResNet',
    'SO2ResNet_CIFAR',
]

# The others serve where MMPretrain is not installed.
if has_module('mmpretrain'):
    from .heads import ScaleClsHead

    __all__ += ['ScaleClsHead']
