# Copyright (c) mmscale contributors.
"""STIR-MNIST: the published images, and which of them a split has."""

import numpy as np
import pytest

from mmscale.datasets import STIR, stir

from .synthetic import expect_synthetic_mnist, write_mnist


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Data root with images of STIR that were made before; each is its size, digit and number."""
    images = np.zeros((48, 10, 50, 64, 64), np.uint8)
    images[..., 0, 0] = np.arange(64, 16, -1)[:, None, None]
    images[..., 0, 1] = np.arange(10)[:, None]
    images[..., 0, 2] = np.arange(50)
    monkeypatch.setattr(stir, 'load_or_build', lambda path, build, published: dict(images=images))
    return str(tmp_path)


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_the_published_images(split, shared_data, tmp_path):
    """Their digests are checked whenever they are made."""
    dataset = STIR(str(shared_data / 'mnist'), split, cache_dir=str(tmp_path), download=False)
    assert len(dataset) == 24000
    again = STIR(str(tmp_path / 'nothing'), split, cache_dir=str(tmp_path), download=False)
    assert np.array_equal(again[-1]['img'], dataset[-1]['img'])


@pytest.mark.parametrize(
    'kwargs, sizes',
    [
        (dict(), range(64, 16, -1)),
        (dict(sizes=(17, 32)), range(32, 16, -1)),
        (dict(sizes=(49, 64)), range(64, 48, -1)),
        (dict(scale=0.5), [32]),
        (dict(scale=1 / 1.5, sizes=(17, 32)), [43]),
        (dict(scale=17 / 64), [17]),
    ],
)
def test_sizes(root, kwargs, sizes):
    dataset = STIR(root, 'test', **kwargs)
    expected = [(size, digit, n) for size in sizes for digit in range(10) for n in range(50)]
    items = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [tuple(item['img'][0, :3]) for item in items] == expected
    assert [item['gt_label'] for item in items] == [digit for _, digit, _ in expected]
    assert [item['rescale_factor'] for item in items] == [size / 64 for size, _, _ in expected]
    assert f'{sizes[-1]} to {sizes[0]} pixels' in repr(dataset)


def test_other_digits_are_not_taken_for_the_published_ones(tmp_path, monkeypatch):
    expect_synthetic_mnist(monkeypatch)
    write_mnist(tmp_path)
    monkeypatch.setattr(stir, 'TRAINING_IMAGES', 500)
    monkeypatch.setattr(stir, 'INSTANCES', 1)
    with pytest.raises(RuntimeError, match='differ from the published ones'):
        STIR(str(tmp_path), 'val', download=False)
