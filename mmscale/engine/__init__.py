# Copyright (c) mmscale contributors.
from mmscale._requirements import need_mmengine

need_mmengine()

from .hooks import EpochSeedHook, EquivarianceHook
from .optim_wrapper_constructor import OptimWrapperConstructor

__all__ = ['EpochSeedHook', 'EquivarianceHook', 'OptimWrapperConstructor']
