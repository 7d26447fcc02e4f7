# Copyright (c) mmscale contributors.
"""Child registries of MMEngine's roots, scope ``mmscale``.

``type='mmscale.ScaleResNet'`` resolves from any toolbox, also before ``mmscale`` was imported:
MMEngine imports ``mmscale.registry`` for an unknown scope, and a registry that misses a name
imports its ``locations``. The registries hang directly on the roots (not on MMPretrain's), so that
an environment without MMPretrain can use the models.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

__all__ = ['DATASETS', 'HOOKS', 'MODELS', 'TRANSFORMS']

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmscale', locations=['mmscale.models'])
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope='mmscale', locations=['mmscale.datasets']
)
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='mmscale', locations=['mmscale.datasets']
)
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmscale', locations=['mmscale.engine'])
