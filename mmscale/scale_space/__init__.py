# Copyright (c) mmscale contributors.
"""The mathematics of scale spaces, without OpenMMLab."""

from .action import scale_image, scale_scale_space
from .gaussian import discrete_gaussian
from .grid import ScaleGrid
from .kernel_basis import DiscreteBasis, GaussianDerivativeBasis, HermiteBasis, KernelTable
from .levels import DenseLevels, Levels, Signal, check_signal, is_pyramid, map_levels
from .lift import bilinear_pyramid_lift, gaussian_lift, gaussian_pyramid_lift, repeat_lift
from .resample import resample, resample_level
from .signals import split_levels, stack_levels

__all__ = [
    'DenseLevels',
    'DiscreteBasis',
    'GaussianDerivativeBasis',
    'HermiteBasis',
    'KernelTable',
    'Levels',
    'ScaleGrid',
    'Signal',
    'bilinear_pyramid_lift',
    'check_signal',
    'discrete_gaussian',
    'gaussian_lift',
    'gaussian_pyramid_lift',
    'is_pyramid',
    'map_levels',
    'repeat_lift',
    'resample',
    'resample_level',
    'scale_image',
    'scale_scale_space',
    'split_levels',
    'stack_levels',
]
