# Copyright (c) mmscale contributors.
"""What ``mmengine.hub`` asks of a package whose models it builds."""

import time
from pathlib import Path

from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_local

from .model_index import find_model_index


def register_all_modules(init_default_scope: bool = True) -> None:
    """Makes MMPretrain's scope, that of our classifiers, the current one if asked to.

    The import of the package has registered all modules. ``mmengine.hub.get_model`` calls this:

    >>> import mmscale  # MMEngine knows the configs of a package that is imported
    >>> from mmengine.hub import get_model
    >>> model = get_model('mmscale::dss/scaleresnet50-s4_8xb32_in1k.py')
    """
    if init_default_scope:
        DefaultScope.get_instance(f'mmscale-{time.time()}', scope_name='mmpretrain')


@CheckpointLoader.register_scheme('checkpoints/')
def load_from_package(filename: str, map_location=None) -> dict:
    """Loads weights that a metafile names, unless the working folder has such a file."""
    index = find_model_index()
    if index and not Path(filename).is_file() and (index.parent / filename).is_file():
        filename = str(index.parent / filename)
    return load_from_local(filename, map_location)
