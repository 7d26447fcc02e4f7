# Copyright (c) mmscale contributors.
from mmscale._requirements import need_mmengine

need_mmengine()

from .breakdown import ErrorBreakdown, error_breakdown
from .equivariance import EquivarianceError, equivariance_error
from .scaling import scale_signal

__all__ = [
    'EquivarianceError',
    'ErrorBreakdown',
    'equivariance_error',
    'error_breakdown',
    'scale_signal',
]
