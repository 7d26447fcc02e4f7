# Copyright (c) mmscale contributors.
from .backbones import ScaleConvNet, ScaleResNet, ScaleResNet_CIFAR
from .layers import (
    BilinearPyramidLift,
    GaussianLift,
    GaussianPyramidLift,
    ScaleAvgPool2d,
    ScaleBN,
    ScaleConv,
    ScaleMaxPool2d,
)
from .necks import ScaleGlobalPooling, ScalePooling

__all__ = [
    'BilinearPyramidLift',
    'GaussianLift',
    'GaussianPyramidLift',
    'ScaleAvgPool2d',
    'ScaleBN',
    'ScaleConv',
    'ScaleConvNet',
    'ScaleGlobalPooling',
    'ScaleMaxPool2d',
    'ScalePooling',
    'ScaleResNet',
    'ScaleResNet_CIFAR',
]
