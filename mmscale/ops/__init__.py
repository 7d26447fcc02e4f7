# Copyright (c) mmscale contributors.
"""Functional layers."""

from .deform_scale_conv import choose_backend, deform_scale_conv2d
from .scale_blur import binomial, check_blur, scale_blur_pool2d
from .scale_conv import as_pair, check_window, scale_conv2d
from .scale_pool import check_pool, scale_avg_pool2d, scale_max_pool2d

__all__ = [
    'as_pair',
    'binomial',
    'check_blur',
    'check_pool',
    'check_window',
    'choose_backend',
    'deform_scale_conv2d',
    'scale_avg_pool2d',
    'scale_blur_pool2d',
    'scale_conv2d',
    'scale_max_pool2d',
]
