# Copyright (c) mmscale contributors.
from .hooks import EpochSeedHook, EquivarianceHook
from .optim_wrapper_constructor import OptimWrapperConstructor

__all__ = ['EpochSeedHook', 'EquivarianceHook', 'OptimWrapperConstructor']
