# Copyright (c) mmscale contributors.
from importlib.util import find_spec

from .rescaling import rescale
from .transforms import FixedRescale, RandomRescale

__all__ = ['FixedRescale', 'RandomRescale', 'rescale']

# The transforms need only MMCV, and serve where MMPretrain is not installed.
if find_spec('mmpretrain') is not None:
    from .scale_cifar10 import ScaleCIFAR10
    from .scale_digits import ScaleDigits
    from .scale_mnist import ScaleMNIST

    __all__ += ['ScaleCIFAR10', 'ScaleDigits', 'ScaleMNIST']
