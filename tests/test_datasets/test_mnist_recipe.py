# Copyright (c) mmscale contributors.
import json
import random

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split

from mmscale.datasets import mnist_recipe
from mmscale.datasets.cache import digest
from mmscale.datasets.scale_mnist import PUBLISHED_DIGESTS, read_pool

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


def test_global_generators_are_left_alone():
    before = random.getstate(), np.random.get_state()[1].tolist()
    mnist_recipe.split_pool(mnist_pool()[1], 0, SIZES)
    mnist_recipe.draw_split_factors(0, sizes=SIZES)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_doubling():
    image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    assert mnist_recipe.double(image).tolist() == [
        [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    ]


@pytest.mark.parametrize('realization', range(6))
def test_published_realizations_bit_for_bit(shared_data, realization):
    images, labels = read_pool(shared_data / 'mnist', may_download=False)
    table = json.loads((shared_data / 'mnist_scale.json').read_text(encoding='utf-8'))
    published = table['realizations'][realization]['splits']
    splits = mnist_recipe.split_pool(labels, realization)
    factors = mnist_recipe.draw_split_factors(realization)
    for split, chosen in splits.items():
        rescaled = mnist_recipe.rescale_digits(images[chosen], factors[split])
        digests = [digest(rescaled), digest(labels[chosen])]
        assert digests == PUBLISHED_DIGESTS[realization][split]
        assert digests == [published[split]['pixels_sha256'], published[split]['labels_sha256']]
        assert chosen[:10].tolist() == published[split]['first_ten_source_indices']
