# Copyright (c) mmscale contributors.
from .scale_convnet import ScaleConvNet
from .scale_resnet import ScaleResNet, ScaleResNet_CIFAR

__all__ = ['ScaleConvNet', 'ScaleResNet', 'ScaleResNet_CIFAR']
