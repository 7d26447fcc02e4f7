# Copyright (c) mmscale contributors.
import stat

import numpy as np
import pytest

from mmscale.datasets import cache
from mmscale.datasets.cache import digest, load_or_build

ARRAYS = {'images': np.arange(4000, dtype=np.uint8).reshape(10, 20, 20), 'labels': np.arange(10)}
OTHERS = {**ARRAYS, 'images': ARRAYS['images'] + np.uint8(1)}
PUBLISHED = {'images': digest(ARRAYS['images'])}


def assert_made(path, times, arrays=ARRAYS, published=None):
    """Loading twice gives ARRAYS, which are made so many times."""
    made = []
    for _ in range(2):
        found = load_or_build(path, lambda: made.append(1) or arrays, published)
        assert sorted(found) == sorted(ARRAYS)
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    assert len(made) == times


def test_built_once(tmp_path):
    path = tmp_path / 'deep' / 'a.npz'
    assert_made(path, 1, published=PUBLISHED)
    assert [file.name for file in path.parent.glob('[!.]*')] == ['a.npz']
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def truncate(path):
    path.write_bytes(path.read_bytes()[:1500])


def exchange_pixels(path):
    """A sound archive with other contents under the old digests."""
    with np.load(path) as stored:
        np.savez(path, **{**stored, 'images': OTHERS['images']})


def leave_out_labels(path):
    with np.load(path) as stored:
        np.savez(path, **{name: stored[name] for name in stored.files if name != 'labels'})


def drop_digests(path):
    np.savez(path, **ARRAYS)


@pytest.mark.parametrize('damage', [truncate, exchange_pixels, leave_out_labels, drop_digests])
def test_damage_is_found_and_mended(tmp_path, damage):
    path = tmp_path / 'a.npz'
    load_or_build(path, lambda: ARRAYS)
    damage(path)
    assert_made(path, 1)


def test_published_digests_bind_what_is_stored_and_what_is_built(tmp_path):
    path = tmp_path / 'a.npz'
    with pytest.raises(RuntimeError, match='images made for .*a.npz differ .*Pillow .* NumPy'):
        load_or_build(path, lambda: OTHERS, PUBLISHED)
    assert not list(tmp_path.glob('[!.]*'))
    load_or_build(path, lambda: OTHERS)
    assert_made(path, 1, published=PUBLISHED)


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.np, 'savez', interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_or_build(tmp_path / 'a.npz', lambda: ARRAYS)
    assert not list(tmp_path.glob('[!.]*'))


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('', encoding='utf-8')
    reported = []
    monkeypatch.setattr(cache, 'print_log', lambda message, **_: reported.append(message))
    assert_made(tmp_path / 'file' / 'a.npz', 2)
    assert len(reported) == 2 and 'cache_dir' in reported[0]
