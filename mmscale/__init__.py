# Copyright (c) mmscale contributors.
"""Scale-equivariant convolutional networks for MMPretrain, MMDetection and MMSegmentation.

The import of the package, also by a config's ``custom_imports``, registers all models, datasets,
transforms and hooks under the scope ``mmscale``. If MMPretrain is installed, the import also
registers the models of the model index by name. Without MMEngine nothing is registered:
``mmscale.scale_space``, ``mmscale.ops`` and ``mmscale.testing`` need PyTorch and NumPy alone.
"""

from ._requirements import check_requirements, has_module, without_chatter
from .version import __version__

__all__ = ['__version__', 'datasets', 'engine', 'models']

if has_module('mmengine'):
    check_requirements()

    from mmengine.config.utils import MODULE2PACKAGE

    with without_chatter():
        from . import datasets, engine, models

    # This enables `_base_ = 'mmscale::...'` and `'mmseg::...'`. MMEngine knows only a few packages,
    # and MMSegmentation only by the name of the original distribution.
    MODULE2PACKAGE.update(mmscale='mmscale', mmseg='mmseg')

    if has_module('mmpretrain'):
        from .model_index import register_model_index

        register_model_index()
