# Copyright (c) mmscale contributors.
"""Define child registries of MMEngine's roots, with the scope ``mmscale``.

``type='mmscale.ScaleResNet'`` resolves from any toolbox, also before the import of ``mmscale``:
MMEngine imports ``mmscale.registry`` for an unknown scope, and a registry imports its ``locations``
for an unknown name. The registries are children of the roots, not of MMPretrain's registries, so
that the models work without MMPretrain.
"""

from typing import Any

from ._requirements import need_mmengine

need_mmengine()

from mmengine import registry as roots
from mmengine.registry import DefaultScope, Registry

__all__ = ['DATASETS', 'HOOKS', 'MODELS', 'TRANSFORMS', 'VISUALIZERS', 'find_class', 'is_kind']

LOCATIONS = {
    'MODELS': ['mmscale.models'],
    'DATASETS': ['mmscale.datasets'],
    'TRANSFORMS': ['mmscale.datasets'],
    'HOOKS': ['mmscale.engine'],
    'VISUALIZERS': ['mmscale.visualization'],
}


class _Registry(Registry):
    """A registry that knows short names of MMPretrain while ``mmscale`` is the default scope.

    MMEngine builds a file behind ``_base_ = 'mmscale::...'`` in this scope, and the configs of this
    package are configs of MMPretrain. In other scopes ``type='mmscale.ResNet'`` stays an error.
    """

    def get(self, key: str) -> type | None:
        found, scope = super().get(key), DefaultScope.get_current_instance()
        if found is None and '.' not in key and scope and scope.scope_name == self.scope:
            return super().get(f'mmpretrain.{key}')
        return found


# Each root has a child, because MMEngine warns if a root does not have the scope.
_CHILDREN = {
    name: _Registry(root.name, parent=root, scope='mmscale', locations=LOCATIONS.get(name, []))
    for name, root in vars(roots).items()
    if isinstance(root, Registry) and root.parent is None
}
MODELS, DATASETS = _CHILDREN['MODELS'], _CHILDREN['DATASETS']
TRANSFORMS, HOOKS = _CHILDREN['TRANSFORMS'], _CHILDREN['HOOKS']
VISUALIZERS = _CHILDREN['VISUALIZERS']


def find_class(kind: Any, registry: Registry, scope: str | None = None) -> Any:
    """Find the class, or other registered object, of the ``type`` of a config.

    None stands for an unknown name. A name without a scope is sought in ``scope``, by default the
    current scope.
    """
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(scope) as scoped:
        try:
            return scoped.get(kind)
        except RuntimeError:
            return None


def is_kind(kind: Any, expected: type, registry: Registry, scope: str | None = None) -> bool:
    """Tell whether the ``type`` of a config is the class ``expected`` or a subclass.

    A comparison of names would miss a class, a name with a scope, and subclasses.
    """
    found = find_class(kind, registry, scope)
    return isinstance(found, type) and issubclass(found, expected)
