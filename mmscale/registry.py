# Copyright (c) mmscale contributors.
"""Child registries of MMEngine's roots, scope ``mmscale``.

``type='mmscale.ScaleResNet'`` resolves from any toolbox, also before ``mmscale`` was imported:
MMEngine imports ``mmscale.registry`` for an unknown scope, and a registry that misses a name
imports its ``locations``. The registries hang directly on the roots (not on MMPretrain's), so that
an environment without MMPretrain can use the models.
"""

from ._requirements import need_mmengine

need_mmengine()

from mmengine import registry as roots
from mmengine.registry import DefaultScope, Registry

__all__ = ['DATASETS', 'HOOKS', 'MODELS', 'TRANSFORMS', 'find_class', 'is_kind']

LOCATIONS = {
    'MODELS': ['mmscale.models'],
    'DATASETS': ['mmscale.datasets'],
    'TRANSFORMS': ['mmscale.datasets'],
    'HOOKS': ['mmscale.engine'],
}


class _Registry(Registry):
    """One in which short names of MMPretrain are known while ``mmscale`` is the scope.

    MMEngine builds what a file behind ``_base_ = 'mmscale::...'`` says in this scope, and our
    configs are configs of MMPretrain. ``type='mmscale.ResNet'`` stays an error elsewhere.
    """

    def get(self, key: str):
        found, scope = super().get(key), DefaultScope.get_current_instance()
        if found is None and '.' not in key and scope and scope.scope_name == self.scope:
            return super().get(f'mmpretrain.{key}')
        return found


# Of each root: MMEngine warns of a scope that one of them does not have.
_CHILDREN = {
    name: _Registry(root.name, parent=root, scope='mmscale', locations=LOCATIONS.get(name, []))
    for name, root in vars(roots).items()
    if isinstance(root, Registry) and root.parent is None
}
MODELS, DATASETS = _CHILDREN['MODELS'], _CHILDREN['DATASETS']
TRANSFORMS, HOOKS = _CHILDREN['TRANSFORMS'], _CHILDREN['HOOKS']


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
