# Copyright (c) mmscale contributors.
from .equivariance import EquivarianceError, equivariance_error
from .scaling import scale_signal

__all__ = ['EquivarianceError', 'equivariance_error', 'scale_signal']
