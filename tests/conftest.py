# Copyright (c) mmscale contributors.
import os
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

# What takes half a minute or more, the longest first: in the end there are short ones to share.
LONG = (
    '[growth]', 'test_the_notebook', 'test_workflow.py', '[backbones]', 'test_the_frontier',
    'ahead_of_time', 'test_quickstart.py', 'compiled_resnet', '[precisions]', '[data_loading]',
    'test_the_site', 'test_equivariance_tool.py', 'test_train.py', 'test_test.py',
)  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    def place(item) -> int:
        return next((i for i, part in enumerate(LONG) if part in item.nodeid), len(LONG))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def own_scope(monkeypatch):
    """The scope that a runner sets does not stay for other tests."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', DefaultScope._instance_dict.copy())


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Folder of real data: ``$MMSCALE_DATA``, or ``../shared/data`` beside the repository."""
    default = Path(__file__).resolve().parents[2] / 'shared' / 'data'
    folder = Path(os.environ.get('MMSCALE_DATA', default))
    if not folder.is_dir():
        # The package and its suite must not depend on them: what needs them says so.
        pytest.skip(f'no real data: {folder} does not exist (set MMSCALE_DATA)')
    return folder
