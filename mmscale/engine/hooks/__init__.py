# Copyright (c) mmscale contributors.
from .epoch_seed_hook import EpochSeedHook
from .equivariance_hook import EquivarianceHook

__all__ = ['EpochSeedHook', 'EquivarianceHook']
