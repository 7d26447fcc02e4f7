# Copyright (c) mmscale contributors.
"""The check of the installed MM packages, against made-up environments."""

import subprocess
import sys
import warnings
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mmscale import _requirements
from mmscale._requirements import REQUIREMENTS, check_requirements

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def install(monkeypatch):
    """Makes the check see exactly the given distributions, ``{name: version}``."""

    def install(packages):
        modules = {name.removeprefix('onedl-').removesuffix('-lite') for name in packages}

        def version(name):
            if name not in packages:
                raise PackageNotFoundError(name)
            return packages[name]

        def find_spec(name):
            return ModuleSpec(name, None, origin='__init__.py') if name in modules else None

        monkeypatch.setattr(_requirements, 'version', version)
        monkeypatch.setattr(_requirements, 'find_spec', find_spec)

    return install


ONEDL = {'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6', 'onedl-mmpretrain': '1.3.6'}
ORIGINALS = {'mmengine': '0.10.7', 'mmcv-lite': '2.2.0', 'mmpretrain': '1.2.0'}
OF_A_DETECTOR = {'mmengine': '0.10.7', 'mmcv': '2.1.0'}  # without MMPretrain


@pytest.mark.parametrize(
    'packages', [ONEDL, ORIGINALS, OF_A_DETECTOR, {**ONEDL, 'onedl-mmengine': '0.10.8rc1'}]
)
def test_good_environments_pass_silently(install, packages):
    install(packages)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_requirements()


@pytest.mark.parametrize(
    'packages, expected',
    [
        (
            {**ONEDL, 'onedl-mmcv': '3.0.0'},
            'onedl-mmcv 3.0.0 is installed, but mmcv >=2.0.0,<3.0.0 is needed. '
            "Run: pip install 'onedl-mmcv>=2.0.0,<3.0.0'",
        ),
        ({**ORIGINALS, 'mmpretrain': '1.0.0'}, "Run: pip install 'mmpretrain>=1.2.0,<2.0.0'"),
        ({}, "mmengine is not installed. Run: pip install 'onedl-mmengine>=0.10.0,<1.0.0'"),
        (
            {'mmengine': '0.10.7'},
            "mmcv is not installed. Run: pip install 'mmcv-lite>=2.0.0,<3.0.0'",
        ),
    ],
)
def test_message_names_fault_and_command(install, packages, expected):
    install(packages)
    with pytest.raises(RuntimeError) as error:
        check_requirements()
    assert expected in str(error.value)


def test_all_faults_are_reported_at_once(install):
    install({'mmcv': '1.7.0', 'mmpretrain': '0.9.0'})
    with pytest.raises(RuntimeError) as error:
        check_requirements()
    lines = str(error.value).splitlines()
    assert [line.split()[0] for line in lines] == ['mmscale', 'mmengine', 'mmcv', 'mmpretrain']


def test_two_distributions_over_one_module_are_warned_of(install):
    install({**ONEDL, 'mmengine': '0.10.7'})
    with pytest.warns(UserWarning, match='onedl-mmengine and mmengine .* pip uninstall -y'):
        check_requirements()


WITHOUT_MM = """
import importlib.util, sys

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in blocked else find_spec(name, *a)
blocked = ('mmengine', 'mmcv', 'mmpretrain', 'scipy', 'sklearn', 'matplotlib')
sys.modules.update({name: None for name in blocked})  # whose import is an ImportError

import torch
import mmscale
from mmscale.ops import scale_conv2d
from mmscale.scale_space import gaussian_pyramid_lift
from mmscale.testing import assert_scale_equivariant

grid = dict(base=2, num_scales=3)
signal = gaussian_pyramid_lift(torch.rand(1, 3, 32, 32).double(), grid)
weight = torch.randn(4, 3, 1, 3, 3).double()
assert_scale_equivariant(lambda x: scale_conv2d(x, weight, scale_space=grid), signal, 2, grid)
for name in ('models', 'datasets', 'engine', 'evaluation', 'registry'):
    try:
        __import__(f'mmscale.{name}')
    except RuntimeError as error:
        assert 'mmengine is not installed. Run: pip install' in str(error), error
    else:
        raise AssertionError(name)
"""


def test_users_of_pytorch_alone_need_no_other_package():
    done = subprocess.run([sys.executable, '-c', WITHOUT_MM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_mere_folder_is_not_a_package(tmp_path, monkeypatch):
    (tmp_path / 'nothing_in_here').mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not _requirements.has_module('nothing_in_here')


@pytest.mark.parametrize('name', ['mminstall', 'openmmlab'])
def test_extras_install_what_the_check_accepts(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    listed = [Requirement(line) for line in lines if line.startswith(('mm', 'onedl-mm'))]
    assert len(listed) == len(REQUIREMENTS)
    for requirement in listed:
        (checked,) = (a for a, names in REQUIREMENTS.values() if requirement.name in names)
        ends = {s.operator: s.version for s in requirement.specifier}
        assert SpecifierSet(checked).contains(ends['>=']) and f'<{ends["<"]}' in checked
