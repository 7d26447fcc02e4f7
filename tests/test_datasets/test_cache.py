# Copyright (c) mmscale contributors.
import multiprocessing
import stat

import numpy as np
import pytest

from mmscale.datasets import cache
from mmscale.datasets.cache import digest, load_or_build

ARRAYS = {'images': np.arange(4000, dtype=np.uint8).reshape(10, 20, 20), 'labels': np.arange(10)}
PUBLISHED = {'images': digest(ARRAYS['images'])}


class Builder:
    """Builds ARRAYS and counts how often it was asked to."""

    def __init__(self, arrays=ARRAYS):
        self.arrays = arrays
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.arrays


def assert_is_arrays(arrays):
    assert sorted(arrays) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_built_once(tmp_path):
    path = tmp_path / 'deep' / 'a.npz'
    build = Builder()
    for _ in range(2):
        assert_is_arrays(load_or_build(path, build, PUBLISHED))
    assert build.calls == 1
    assert [file.name for file in path.parent.glob('[!.]*')] == ['a.npz']
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def truncate(path):
    path.write_bytes(path.read_bytes()[:1500])


def empty(path):
    path.write_bytes(b'')


def flip_a_pixel(path):
    content = bytearray(path.read_bytes())
    position = content.index(bytes(range(100, 140)))
    content[position] ^= 1
    path.write_bytes(content)


def exchange_pixels(path):
    """A sound archive with other contents under the old digests."""
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **{**arrays, 'images': arrays['images'] + np.uint8(1)})


def drop_digests(path):
    np.savez(path, **ARRAYS)


def leave_out_labels(path):
    with np.load(path) as stored:
        arrays = dict(stored)
    del arrays['labels']
    np.savez(path, **arrays)


def pickled(path):
    np.savez(path, images=np.array([{}], dtype=object))


@pytest.mark.parametrize(
    'damage',
    [truncate, empty, flip_a_pixel, exchange_pixels, drop_digests, leave_out_labels, pickled],
)
def test_damage_is_found_and_mended(tmp_path, damage):
    path = tmp_path / 'a.npz'
    load_or_build(path, Builder())
    damage(path)
    build = Builder()
    for _ in range(2):
        assert_is_arrays(load_or_build(path, build))
    assert build.calls == 1


def test_stored_file_must_have_the_published_digests(tmp_path):
    path = tmp_path / 'a.npz'
    load_or_build(path, Builder({**ARRAYS, 'images': ARRAYS['images'] + np.uint8(1)}))
    assert_is_arrays(load_or_build(path, Builder(), PUBLISHED))


def test_what_is_built_must_have_the_published_digests(tmp_path):
    build = Builder({**ARRAYS, 'images': ARRAYS['images'] + np.uint8(1)})
    with pytest.raises(RuntimeError, match='images made for .*a.npz differ .*Pillow .* NumPy'):
        load_or_build(tmp_path / 'a.npz', build, PUBLISHED)
    assert not list(tmp_path.glob('[!.]*'))


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.np, 'savez', interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_or_build(tmp_path / 'a.npz', Builder())
    assert not list(tmp_path.glob('[!.]*'))


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    reported = []
    monkeypatch.setattr(cache, 'print_log', lambda message, **_: reported.append(message))
    assert_is_arrays(load_or_build(tmp_path / 'file' / 'a.npz', Builder()))
    assert len(reported) == 1 and 'cache_dir' in reported[0]


def build_in_process(path, start, results):
    start.wait()
    results.put(digest(load_or_build(path, Builder())['images']))


def test_several_processes_at_once(tmp_path):
    context = multiprocessing.get_context('fork')
    start, results = context.Barrier(4), context.Queue()
    path = tmp_path / 'a.npz'
    processes = [
        context.Process(target=build_in_process, args=(path, start, results)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    assert {results.get(timeout=60) for _ in processes} == {PUBLISHED['images']}
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert [file.name for file in tmp_path.glob('[!.]*')] == ['a.npz']
