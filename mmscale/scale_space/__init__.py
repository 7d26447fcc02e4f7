# Copyright (c) mmscale contributors.
"""The mathematics of scale spaces, on torch alone."""

from .action import scale_image, scale_scale_space
from .gaussian import discrete_gaussian
from .grid import ScaleGrid
from .levels import (
    PackedLevels,
    Signal,
    apply_jointly,
    check_signal,
    fold_levels,
    is_pyramid,
    map_levels,
    on_packed,
    resample_level,
    split_levels,
    stack_levels,
    unfold_levels,
)
from .lift import bilinear_pyramid_lift, gaussian_lift, gaussian_pyramid_lift
from .resample import resample

__all__ = [
    'PackedLevels',
    'ScaleGrid',
    'Signal',
    'apply_jointly',
    'bilinear_pyramid_lift',
    'check_signal',
    'discrete_gaussian',
    'fold_levels',
    'gaussian_lift',
    'gaussian_pyramid_lift',
    'is_pyramid',
    'map_levels',
    'on_packed',
    'resample',
    'resample_level',
    'scale_image',
    'scale_scale_space',
    'split_levels',
    'stack_levels',
    'unfold_levels',
]
