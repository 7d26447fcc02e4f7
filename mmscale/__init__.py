# Copyright (c) mmscale contributors.
"""Scale-equivariant networks for MMPretrain, MMDetection and MMSegmentation.

Importing the package, or naming it in a config's ``custom_imports``, registers all models,
datasets, transforms and hooks under the scope ``mmscale`` and, where MMPretrain is installed, the
models of the model index by name.
"""

from ._requirements import check_requirements, has_module
from .version import __version__

check_requirements()

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

from . import datasets, engine, models  # noqa: E402

# For `_base_ = 'mmscale::...'` and `'mmseg::...'`: MMEngine knows a few packages alone, and of
# MMSegmentation the name of the original distribution.
MODULE2PACKAGE.update(mmscale='mmscale', mmseg='mmseg')

if has_module('mmpretrain'):
    from .model_index import register_model_index

    register_model_index()

__all__ = ['__version__', 'datasets', 'engine', 'models']
