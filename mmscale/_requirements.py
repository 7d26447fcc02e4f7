# Copyright (c) mmscale contributors.
"""Which MM packages are installed, and whether they are ones that mmscale works with.

Two families of distributions own the same modules: the originals (``mmengine``, ``mmcv``,
``mmpretrain``) and their maintained continuations (``onedl-*``). Everything here goes by the
metadata of the distributions, for a package of the wrong version may not even be importable.
"""

import warnings
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from packaging.specifiers import SpecifierSet

from .version import __version__


class Requirement(NamedTuple):
    """A module, the versions that will do, and the distributions that may bring it.

    Of the originals the last is the one to recommend: what pip installs without a compiler.
    """

    module: str
    versions: str
    onedl: str
    originals: tuple
    optional: bool = False


REQUIREMENTS = (
    Requirement('mmengine', '>=0.10.0,<1.0.0', 'onedl-mmengine', ('mmengine-lite', 'mmengine')),
    Requirement('mmcv', '>=2.0.0,<3.0.0', 'onedl-mmcv', ('mmcv', 'mmcv-lite')),
    # Optional: the models work in an environment of MMDetection or MMSegmentation alone.
    Requirement('mmpretrain', '>=1.2.0,<2.0.0', 'onedl-mmpretrain', ('mmpretrain',), True),
)


def has_module(name: str) -> bool:
    """Whether ``import name`` would find a package, and not just a folder of that name."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def _owners(requirement: Requirement) -> list:
    """The installed distributions whose files ``import module`` would load.

    An editable install keeps its files elsewhere; where no distribution matches by location, all
    that are installed by a right name are returned.
    """
    installed = []
    for name in (requirement.onedl, *requirement.originals):
        try:
            installed.append(distribution(name))
        except PackageNotFoundError:
            continue
    origin = Path(find_spec(requirement.module).origin).resolve()
    here = [
        dist
        for dist in installed
        if Path(dist.locate_file(f'{requirement.module}/__init__.py')).resolve() == origin
    ]
    return here or installed


def _uses_originals() -> bool:
    """Whether the MM packages of this environment are of the original family."""
    owners = [dist for req in REQUIREMENTS if has_module(req.module) for dist in _owners(req)]
    names = {dist.metadata['Name'] for dist in owners}
    return bool(names) and not any(name.startswith('onedl-') for name in names)


def _install_command(requirement: Requirement, originals: bool) -> str:
    name = requirement.originals[-1] if originals else requirement.onedl
    return f"pip install '{name}{requirement.versions}'"


def _problem(requirement: Requirement) -> str | None:
    """What is wrong with one requirement and the command that mends it, or None."""
    if not has_module(requirement.module):
        if requirement.optional:
            return None
        command = _install_command(requirement, _uses_originals())
        return f'{requirement.module} is not installed. Run: {command}'
    owners = _owners(requirement)
    allowed = SpecifierSet(requirement.versions)
    for dist in owners:
        if not allowed.contains(dist.version, prereleases=True):
            name = dist.metadata['Name']
            return (
                f'{name} {dist.version} is installed, but {requirement.module} '
                f"{requirement.versions} is needed. Run: pip install '{name}{requirement.versions}'"
            )
    return None


def _warn_of_mixture(requirement: Requirement):
    names = [dist.metadata['Name'] for dist in _owners(requirement)]
    if len(names) > 1:
        warnings.warn(
            f'{" and ".join(names)} are both installed and have overwritten each other, for both '
            f'own the module {requirement.module}. Keep one. Run: '
            f"pip uninstall -y {' '.join(names)} && pip install '{names[0]}{requirement.versions}'",
            stacklevel=2,
        )


def check_requirements():
    """Checks that the MM packages are there, in versions that mmscale works with.

    Raises:
        RuntimeError: If one is missing or of a wrong version; the message has one line for each
            fault and names the command that mends it. Not an ImportError: MMEngine's registries
            swallow that, and would report a class that does not exist instead.
    """
    problems = [problem for problem in map(_problem, REQUIREMENTS) if problem]
    if problems:
        raise RuntimeError('\n'.join([f'mmscale {__version__} cannot be used:', *problems]))
    for requirement in REQUIREMENTS:
        if has_module(requirement.module):
            _warn_of_mixture(requirement)


def need_mmengine():
    """Says what is missing, as :func:`check_requirements` does, where MMEngine is not installed."""
    if not has_module('mmengine'):
        check_requirements()
