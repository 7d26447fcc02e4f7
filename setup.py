# Copyright (c) mmscale contributors.
"""Build of ``mmscale``; the only unusual thing is ``mmscale/.mim``.

MIM and MMEngine look for configs, tools and the model index in ``<package>/.mim``. A wheel gets
copies, an editable install gets symbolic links, so that edits of ``configs/`` are seen at once.
"""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_ENTRIES = ('checkpoints', 'configs', 'tools', 'model-index.yml')
# Of those, what only a checkout of the repository can run.
NOT_IN_A_WHEEL = ('__pycache__', 'benchmark', 'quickstart.py')
# The repository, such as 'https://github.com/OWNER/mmscale'; a maintainer fills it in.
REPOSITORY = None


def read_version() -> str:
    """The version, without importing the package (that needs torch and the MM packages)."""
    text = (ROOT / 'mmscale' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE).group(1)


def read_requirements(name: str) -> list:
    """The requirements of ``requirements/<name>.txt``, without comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    stripped = (line.split('#')[0].strip() for line in lines)
    return [line for line in stripped if line]


def remove(path: Path):
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def copy(source: Path, target: Path):
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*NOT_IN_A_WHEEL))
    else:
        shutil.copy2(source, target)


def link(source: Path, target: Path):
    try:
        target.symlink_to(os.path.relpath(source, target.parent))
    except OSError:  # Windows without the right to make links
        copy(source, target)


class BuildPyWithMim(build_py):
    """``build_py`` that also makes ``mmscale/.mim``."""

    def run(self):
        super().run()
        root = ROOT if self.editable_mode else Path(self.build_lib)
        mim = root / 'mmscale' / '.mim'
        mim.mkdir(parents=True, exist_ok=True)
        for name in MIM_ENTRIES:
            remove(mim / name)
            (link if self.editable_mode else copy)(ROOT / name, mim / name)


if __name__ == '__main__':
    readme = ROOT / 'README.md'
    setup(
        name='mmscale',
        version=read_version(),
        description='Scale-equivariant networks for MMPretrain, MMDetection and MMSegmentation',
        long_description=readme.read_text(encoding='utf-8') if readme.is_file() else '',
        long_description_content_type='text/markdown',
        author='mmscale contributors',
        url=REPOSITORY or '',
        project_urls={
            name: f'{REPOSITORY}/{path}'
            for name, path in {'Changelog': 'blob/main/CHANGELOG.md', 'Issues': 'issues'}.items()
            if REPOSITORY
        },
        license='Apache-2.0',
        keywords='computer vision, scale equivariance, scale space, deep learning',
        classifiers=[
            'Development Status :: 4 - Beta',
            'Operating System :: OS Independent',
            'Intended Audience :: Science/Research',
            'Programming Language :: Python :: 3',
            *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)),
            'Topic :: Scientific/Engineering :: Image Recognition',
        ],
        packages=find_packages(include=['mmscale', 'mmscale.*']),
        package_data={'mmscale': ['py.typed', 'datasets/*.json']},
        python_requires='>=3.10',
        # No MM package here: pip would install an original over a maintained fork (or the other
        # way round), for both own the same modules. The family is the user's choice, by extra.
        install_requires=read_requirements('runtime'),
        extras_require={
            'onedl': read_requirements('mminstall'),
            'openmmlab': read_requirements('openmmlab'),
            'deployment': read_requirements('deployment'),
            'docs': read_requirements('docs'),
            'studies': read_requirements('studies'),
            'tests': read_requirements('tests'),
        },
        entry_points={'console_scripts': ['mmscale = mmscale.__main__:main']},
        cmdclass={'build_py': BuildPyWithMim},
        zip_safe=False,
    )
