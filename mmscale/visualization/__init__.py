# Copyright (c) mmscale contributors.
"""Draw networks: load them, read their taps, transform their features, and write figures."""

from mmscale._requirements import has_module

from .cam import levels_as_channels
from .figure import make_folder, save_figure, write_figure
from .network import Network, load_network, read_image, to_picture
from .pairs import (
    LastOutput,
    Pair,
    common_side,
    crop,
    disc,
    finest,
    rotate,
    rotated_pair,
    scaled_pair,
)
from .sampling import Reading, find_layer, read_layer, read_lifted, stride_before

__all__ = [
    'LastOutput',
    'Network',
    'Pair',
    'Reading',
    'common_side',
    'crop',
    'disc',
    'find_layer',
    'finest',
    'levels_as_channels',
    'load_network',
    'make_folder',
    'read_image',
    'read_layer',
    'read_lifted',
    'rotate',
    'rotated_pair',
    'save_figure',
    'scaled_pair',
    'stride_before',
    'to_picture',
    'write_figure',
]

# This needs MMPretrain; everything else works without it.
if has_module('mmpretrain'):
    from .visualizer import ScaleVisualizer

    __all__ += [ScaleVisualizer.__name__]
