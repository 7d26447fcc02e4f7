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

__all__ = ['DATASETS', 'HOOKS', 'MODELS', 'TRANSFORMS', 'find_class', 'is_kind']

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmscale', locations=['mmscale.models'])
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope='mmscale', locations=['mmscale.datasets']
)
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='mmscale', locations=['mmscale.datasets']
)
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmscale', locations=['mmscale.engine'])


def find_class(kind, registry: Registry, scope: str | None = None):
    """What the ``type`` of a config means.

    Args:
        kind (str | type): A name, with a scope before it or without, or the class itself, as
            configs in pure Python have it.
        registry (Registry): Of the things that it is one of.
        scope (str, optional): Where a name without a scope is looked up. Defaults to the default
            scope of the moment.

    Returns:
        The class, or whatever else is registered; None where a name is not known.
    """
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(scope) as scoped:
        try:
            return scoped.get(kind)
        except RuntimeError:
            return None


def is_kind(kind, expected: type, registry: Registry, scope: str | None = None) -> bool:
    """Whether the ``type`` of a config is ``expected`` or derived from it, however it is written.

    A comparison with a name would miss the class itself, a name with its scope, and subclasses.
    """
    found = find_class(kind, registry, scope)
    return isinstance(found, type) and issubclass(found, expected)
