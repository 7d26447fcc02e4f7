# Copyright (c) mmscale contributors.
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from sklearn.datasets import load_digits

from mmscale.datasets import ScaleDigits

SIZES = {'train': 1000, 'val': 297, 'test': 500}


def column(dataset, key):
    return np.array([dataset.get_data_info(i)[key] for i in range(len(dataset))])


def native(dataset):
    """The 8x8 pixels, which scale 1/3 shows unresampled in the middle of the canvas."""
    return column(dataset, 'img')[:, 12:20, 12:20]


@pytest.fixture(scope='module')
def smallest():
    return {split: ScaleDigits(split, scale=1 / 3) for split in SIZES}


def test_scale_one_third_shows_the_original_pixels(smallest):
    digits, labels = load_digits(return_X_y=True)
    original = {}
    for pixels, label in zip(np.rint(digits * 255 / 16).astype(np.uint8), labels):
        original.setdefault(pixels.tobytes(), set()).add(label)
    for dataset in smallest.values():
        for pixels, label in zip(native(dataset), dataset.get_gt_labels()):
            assert label in original[pixels.tobytes()]
        images = column(dataset, 'img')
        assert images.shape[1:] == (32, 32)
        assert images.sum() == native(dataset).sum()


def test_splits_partition_the_digits_and_are_stratified(smallest):
    digits, labels = load_digits(return_X_y=True)
    together = np.concatenate([native(dataset) for dataset in smallest.values()])
    expected = np.rint(digits * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, together)) == sorted(map(bytes, expected))
    for split, dataset in smallest.items():
        assert len(dataset) == SIZES[split]
        share = np.bincount(dataset.get_gt_labels()) / SIZES[split]
        np.testing.assert_allclose(share, np.bincount(labels) / 1797, atol=0.01)


def test_scale_is_the_digits_size():
    mass = {s: column(ScaleDigits('test', scale=s), 'img').sum(dtype=float) for s in (1, 0.5)}
    assert mass[0.5] / mass[1] == pytest.approx(0.25, rel=0.02)
    # 24 of 32 pixels at scale 1: what lies outside them is the kernel's spread
    images = column(ScaleDigits('test', scale=1), 'img').astype(float)
    assert images[:, 4:28, 4:28].sum() / images.sum() > 0.97


def test_factors_depend_on_seed_and_digit_only():
    by_digit = {}
    for split in SIZES:
        dataset = ScaleDigits(split, seed=4)
        again = ScaleDigits(split, seed=4)
        np.testing.assert_array_equal(column(dataset, 'img'), column(again, 'img'))
        factors = column(dataset, 'rescale_factor')
        assert 0.3 <= factors.min() and factors.max() <= 1.0
        assert factors.mean() == pytest.approx(0.65, abs=0.04)
        by_digit[split] = factors
    assert len(np.unique(np.concatenate(list(by_digit.values())))) == 1797
    assert (column(ScaleDigits('val', seed=5), 'rescale_factor') != by_digit['val']).all()
    halved = column(ScaleDigits('val', seed=4, scale_range=(0.15, 0.5)), 'rescale_factor')
    np.testing.assert_allclose(halved, by_digit['val'] / 2)


def test_built_by_name():
    pipeline = [dict(type='PackInputs', meta_keys=('rescale_factor',))]
    dataset = DATASETS.build(dict(type='mmscale.ScaleDigits', split='val', pipeline=pipeline))
    item = dataset[0]
    assert item['inputs'].shape == (1, 32, 32) and item['inputs'].dtype == torch.uint8
    assert 0.3 <= item['data_samples'].rescale_factor <= 1.0
    assert len(dataset.metainfo['classes']) == 10


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(split='all'), "split must be one of .*got 'all'"),
        (dict(scale=-1), 'scale must be a number .*got -1'),
        (dict(scale_range=0.5), 'scale_range must be two numbers .*got 0.5'),
        (dict(seed=None), 'seed must be an integer .*got None'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScaleDigits(**arguments)
