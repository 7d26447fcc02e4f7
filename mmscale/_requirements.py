# Copyright (c) mmscale contributors.
"""Check that MM packages are installed in versions that mmscale works with.

Two families of distributions own the same modules: the originals (``mmengine``, ``mmcv``,
``mmpretrain``) and their maintained forks (``onedl-*``). The functions read only the metadata of
distributions, because a package of a wrong version may fail at its import.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from packaging.specifiers import SpecifierSet

from .version import __version__

# For each module, the accepted versions and the distributions that contain the module. The first
# is the fork; pip installs the last without a compiler.
REQUIREMENTS = {
    'mmengine': ('>=0.10.0,<1.0.0', ('onedl-mmengine', 'mmengine-lite', 'mmengine')),
    'mmcv': ('>=2.0.0,<3.0.0', ('onedl-mmcv', 'mmcv', 'mmcv-lite')),
    # MMPretrain is optional: MMDetection or MMSegmentation suffice for the models.
    'mmpretrain': ('>=1.2.0,<2.0.0', ('onedl-mmpretrain', 'mmpretrain')),
}


def has_module(name: str) -> bool:
    """Tell whether ``import name`` would find a package, and not just a folder of that name."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the installed distributions, by name."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_requirements() -> None:
    """Check that the MM packages are installed in versions that mmscale works with.

    Raises:
        RuntimeError: If a package is missing or of a wrong version. The message has one line for
            each fault, with the command that repairs it. It is no ImportError, because MMEngine's
            registries swallow an ImportError and report a missing class instead.
    """
    owners = {module: _installed(names) for module, (_, names) in REQUIREMENTS.items()}
    known = [name for found in owners.values() for name in found]
    originals = known and not any(name.startswith('onedl-') for name in known)
    problems = []
    for module, (allowed, names) in REQUIREMENTS.items():
        run = f"Run: pip install '{names[-1 if originals else 0]}{allowed}'"
        if not has_module(module):
            problems += [f'{module} is not installed. {run}'] * (module != 'mmpretrain')
            continue
        for name, found in owners[module].items():
            if not SpecifierSet(allowed).contains(found, prereleases=True):
                problems.append(f'{name} {found} is installed, but {module} {allowed} is needed. '
                                f"Run: pip install '{name}{allowed}'")  # fmt: skip
        if len(owners[module]) > 1:
            both = list(owners[module])
            warnings.warn(
                f'{" and ".join(both)} are both installed and have overwritten each other: '
                f'both own the module {module}. Keep one. Run: pip uninstall -y {" ".join(both)} '
                f"&& pip install '{both[0]}{allowed}'",
                stacklevel=2,
            )
    if problems:
        raise RuntimeError('\n'.join([f'mmscale {__version__} cannot be used:', *problems]))


def need_mmengine() -> None:
    """Raise the error of :func:`check_requirements` if MMEngine is not installed."""
    if not has_module('mmengine'):
        check_requirements()


@contextmanager
def without_chatter() -> Iterator[None]:
    """Hide a line that MMPretrain prints at its import without an optional client."""
    from mmengine import logging

    print_log = logging.print_log

    def print_others(msg, *args, **kwargs):
        if msg != 'Could not import OneDL':
            print_log(msg, *args, **kwargs)

    logging.print_log = print_others
    try:
        yield
    finally:
        logging.print_log = print_log
