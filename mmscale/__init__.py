# Copyright (c) mmscale contributors.
"""Scale-equivariant networks for MMPretrain, MMDetection and MMSegmentation.

Importing the package, or naming it in a config's ``custom_imports``, registers all models,
datasets, transforms and hooks under the scope ``mmscale`` and, where MMPretrain is installed, the
models of the model index by name. Configs read after it can name those of this package as
``_base_ = 'mmscale::dss/scaleresnet50-s4_8xb32_in1k.py'``.
"""

from ._requirements import check_requirements, has_module
from .version import __version__

check_requirements()

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

from . import datasets, engine, models  # noqa: E402

MODULE2PACKAGE['mmscale'] = 'mmscale'  # a scope, and the package whose configs it stands for

if has_module('mmpretrain'):
    from .model_index import register_model_index

    register_model_index()

__all__ = ['__version__', 'datasets', 'engine', 'models']
