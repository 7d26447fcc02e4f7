# Copyright (c) mmscale contributors.
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split

from mmscale.datasets import mnist_recipe
from mmscale.datasets.scale_mnist import _DIGESTS, PUBLISHED_DIGESTS, read_pool

from .synthetic import SIZES, mnist_pool


def naive_realization(images, labels, realization):
    """The preparation as published: global generators, lists of pairs, an affine map."""
    np.random.seed(realization)
    random.seed(realization)
    pool = list(zip(images, labels))
    train_val, test = train_test_split(
        pool,
        train_size=SIZES['train'] + SIZES['val'],
        test_size=SIZES['test'],
        stratify=[label for _, label in pool],
    )
    train, val = train_test_split(
        train_val,
        train_size=SIZES['train'],
        test_size=SIZES['val'],
        stratify=[label for _, label in train_val],
    )
    result = {}
    for split, pairs in (('train', train), ('test', test), ('val', val)):
        rescaled = []
        for image, _ in pairs:
            random.uniform(-0.0, 0.0)
            scale = random.uniform(0.3, 1.0)
            to_center = np.array([[1, 0, 14.5], [0, 1, 14.5], [0, 0, 1]])
            shrink = np.diag([scale, scale, 1])
            inverse = np.linalg.inv(to_center @ shrink @ np.linalg.inv(to_center))
            transformed = Image.fromarray(image).transform(
                (28, 28),
                Image.Transform.AFFINE,
                tuple(inverse[:2].ravel()),
                resample=Image.Resampling.BICUBIC,
            )
            rescaled.append(np.asarray(transformed))
        result[split] = np.stack(rescaled), np.array([label for _, label in pairs])
    return result


@pytest.mark.parametrize('realization', [0, 3])
def test_equals_the_published_preparation(realization):
    images, labels = mnist_pool()
    expected = naive_realization(images, labels, realization)
    splits = mnist_recipe.split_pool(labels, realization, SIZES)
    factors = mnist_recipe.draw_split_factors(realization, sizes=SIZES)
    for split, chosen in splits.items():
        rescaled = mnist_recipe.rescale_digits(images[chosen], factors[split])
        np.testing.assert_array_equal(labels[chosen], expected[split][1])
        # The inverse of a matrix may differ in its last bit, and then a pixel by one.
        difference = np.abs(rescaled.astype(int) - expected[split][0])
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3


def test_splits_are_disjoint_and_stratified():
    _, labels = mnist_pool()
    splits = mnist_recipe.split_pool(labels, 0, SIZES)
    together = np.concatenate(list(splits.values()))
    assert len(set(together)) == sum(SIZES.values())
    for split, chosen in splits.items():
        assert len(chosen) == SIZES[split]
        assert np.bincount(labels[chosen]).tolist() == [SIZES[split] // 10] * 10


def test_global_generators_are_left_alone():
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    mnist_recipe.split_pool(mnist_pool()[1], 0, SIZES)
    mnist_recipe.draw_split_factors(0, sizes=SIZES)
    assert (random.random(), np.random.random()) == expected


def test_doubling():
    image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    assert mnist_recipe.double(image).tolist() == [
        [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    ]


def test_digest_table_is_the_published_one(shared_data):
    table = json.loads((shared_data / 'mnist_scale.json').read_text())['realizations']
    assert [entry['realization'] for entry in table] == list(range(6))
    published = json.loads(_DIGESTS.read_text(encoding='utf-8'))['png_md5']
    assert [entry['published_png_md5'] for entry in table] == published
    for entry, digests in zip(table, PUBLISHED_DIGESTS):
        assert digests == {
            split: [values['pixels_sha256'], values['labels_sha256']]
            for split, values in entry['splits'].items()
        }


@pytest.fixture(scope='module')
def pool(shared_data):
    return read_pool(Path(shared_data) / 'mnist', may_download=False)


@pytest.mark.parametrize('realization', range(6))
def test_published_realizations_bit_for_bit(pool, realization):
    images, labels = pool
    splits = mnist_recipe.split_pool(labels, realization)
    factors = mnist_recipe.draw_split_factors(realization)
    for split, chosen in splits.items():
        rescaled = mnist_recipe.rescale_digits(images[chosen], factors[split])
        digests = tuple(hashlib.sha256(array).hexdigest() for array in (rescaled, labels[chosen]))
        assert list(digests) == PUBLISHED_DIGESTS[realization][split]


def test_splits_come_from_the_published_source_images(shared_data, pool):
    table = json.loads((shared_data / 'mnist_scale.json').read_text())['realizations']
    for entry in table:
        splits = mnist_recipe.split_pool(pool[1], entry['realization'])
        for split, values in entry['splits'].items():
            assert splits[split][:10].tolist() == values['first_ten_source_indices']
