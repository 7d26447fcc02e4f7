# Copyright (c) mmscale contributors.
from .scale_convnet import ScaleConvNet
from .scale_resnet import ScaleResNet, ScaleResNetV1c
from .scale_resnet_cifar import ScaleResNet_CIFAR
from .so2_convnet import SO2ConvNet
from .so2_resnet import SO2ResNet, SO2ResNet_CIFAR

__all__ = [
    'ScaleConvNet',
    'ScaleResNet',
    'ScaleResNetV1c',
    'ScaleResNet_CIFAR',
    'SO2ConvNet',
    'SO2ResNet',
    'SO2ResNet_CIFAR',
]
