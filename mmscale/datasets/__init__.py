# Copyright (c) mmscale contributors.
from mmscale._requirements import has_module, need_mmengine

need_mmengine()

from .rescaling import rescale
from .transforms import FixedRescale, RandomRescale

__all__ = ['FixedRescale', 'RandomRescale', 'rescale']

# The transforms need only MMCV, so they work without MMPretrain.
if has_module('mmpretrain'):
    from .scale_cifar10 import ScaleCIFAR10
    from .scale_digits import ScaleDigits
    from .scale_mnist import ScaleMNIST
    from .stir import STIR

    __all__ += ['ScaleCIFAR10', 'STIR', 'ScaleDigits', 'ScaleMNIST']
