# Copyright (c) mmscale contributors.
from .rescale import FixedRescale, RandomRescale

__all__ = ['FixedRescale', 'RandomRescale']
