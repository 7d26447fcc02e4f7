# Copyright (c) mmscale contributors.
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
