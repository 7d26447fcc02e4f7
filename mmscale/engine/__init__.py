# Copyright (c) mmscale contributors.
from .hooks import EpochSeedHook

__all__ = ['EpochSeedHook']
