# Copyright (c) mmscale contributors.
"""Draw networks: load them, read their taps, transform their features, and write figures."""

from mmscale._requirements import has_module

from .cam import levels_as_channels
from .figure import make_folder, save_figure, write_figure

__all__ = ['levels_as_channels', 'make_folder', 'save_figure', 'write_figure']

# This needs MMPretrain; everything else works without it.
if has_module('mmpretrain'):
    from .visualizer import ScaleVisualizer

    __all__ += [ScaleVisualizer.__name__]
