# Copyright (c) mmscale contributors.
"""Support ``mmengine.hub``, which imports this module by name."""

import time
from pathlib import Path
from typing import Any

from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_local

from .model_index import find_model_index


def register_all_modules(init_default_scope: bool = True) -> None:
    """Make ``mmpretrain``, the scope of our classifiers, the default scope if asked to.

    The import of the package has registered all modules. ``mmengine.hub`` calls this function:

    >>> import mmscale  # MMEngine knows the configs of a package that is imported
    >>> from mmengine.hub import get_model
    >>> model = get_model('mmscale::dss/scaleresnet50-s4_8xb32_in1k.py')
    """
    if init_default_scope:
        DefaultScope.get_instance(f'mmscale-{time.time()}', scope_name='mmpretrain')


@CheckpointLoader.register_scheme('checkpoints/')
def load_from_package(filename: str, map_location: Any = None) -> dict:
    """Load weights that a metafile names, unless the working folder has such a file."""
    index = find_model_index()
    if index and not Path(filename).is_file() and (index.parent / filename).is_file():
        filename = str(index.parent / filename)
    return load_from_local(filename, map_location)
