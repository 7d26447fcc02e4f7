# Copyright (c) mmscale contributors.
import importlib
import os
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

# What takes a quarter of a minute or more, or runs tools as programs, the longest first: in the end
# there are short ones to share. `make test` leaves all of them out.
SLOW = (
    'test_workflow.py', 'test_the_notebook', 'test_export.py', 'test_quickstart.py',
    'test_a_quick_run_of_this_checkout', 'test_the_script_for_a_gpu', 'test_a_process_measures',
    'test_the_frontier', 'test_the_site', 'test_equivariance_tool.py', 'test_train.py',
    'test_test.py', 'test_export_onnx.py', 'test_indexed_models_build', 'test_package.py',
    'test_two_processes', 'test_distributed.py', 'TestParts', 'test_allocator.py',
    'test_folders.py', 'test_the_published_images', 'test_misuse.py', 'test_commands_that_take',
    'test_the_page_of_the_equivariance_error',
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before markers select
def pytest_collection_modifyitems(items):
    def place(item) -> int:
        return next((i for i, part in enumerate(SLOW) if part in item.nodeid), len(SLOW))

    items.sort(key=place)
    for item in items:
        if place(item) < len(SLOW):
            item.add_marker('slow')


@pytest.fixture(autouse=True)
def own_scope(monkeypatch):
    """The scope and the environment that a run sets do not stay for other tests."""
    environment = dict(os.environ)
    monkeypatch.setattr(DefaultScope, '_instance_dict', DefaultScope._instance_dict.copy())
    yield
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


@pytest.fixture
def nothing_kept(monkeypatch):
    """The module that keeps constants, which has none yet."""
    module = importlib.import_module('mmscale.scale_space.resample')
    monkeypatch.setattr(module, '_kept', {})
    monkeypatch.setattr(module, '_kept_bytes', 0)
    return module


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Folder of real data: ``$MMSCALE_DATA``, or ``../shared/data`` beside the repository."""
    default = Path(__file__).resolve().parents[2] / 'shared' / 'data'
    folder = Path(os.environ.get('MMSCALE_DATA', default))
    if not folder.is_dir():
        # The package and its suite must not depend on them: what needs them says so.
        pytest.skip(f'no real data: {folder} does not exist (set MMSCALE_DATA)')
    return folder
