# Copyright (c) mmscale contributors.
import os
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Folder of real data: ``$MMSCALE_DATA``, or ``../shared/data`` beside the repository."""
    default = Path(__file__).resolve().parents[2] / 'shared' / 'data'
    folder = Path(os.environ.get('MMSCALE_DATA', default))
    if not folder.is_dir():
        # The package and its suite must not depend on them: what needs them says so.
        pytest.skip(f'no real data: {folder} does not exist (set MMSCALE_DATA)')
    return folder
