# Copyright (c) mmscale contributors.
from .hooks import EpochSeedHook, EquivarianceHook

__all__ = ['EpochSeedHook', 'EquivarianceHook']
