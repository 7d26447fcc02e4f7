# Copyright (c) mmscale contributors.
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS
from sklearn.datasets import load_digits

from mmscale.datasets import ScaleDigits

from .synthetic import column

SIZES = {'train': 1000, 'val': 297, 'test': 500}


def test_splits_partition_the_original_digits_and_are_stratified():
    """Scale 1/3 shows the 8x8 pixels unresampled in the middle of the canvas."""
    digits, labels = load_digits(return_X_y=True)
    pixels = np.rint(digits * 255 / 16).astype(np.uint8)
    expected = sorted((image.tobytes(), label) for image, label in zip(pixels, labels))
    found = []
    for split, size in SIZES.items():
        dataset = ScaleDigits(split, scale=1 / 3)
        images, own = column(dataset, 'img'), dataset.get_gt_labels()
        assert images.shape == (size, 32, 32)
        assert images.sum() == images[:, 12:20, 12:20].sum()
        found += [(i.tobytes(), label) for i, label in zip(images[:, 12:20, 12:20], own)]
        np.testing.assert_allclose(np.bincount(own) / size, np.bincount(labels) / 1797, atol=0.01)
    assert sorted(found) == expected


def test_scale_is_the_digits_size():
    images = {s: column(ScaleDigits('test', scale=s), 'img').astype(float) for s in (1, 0.5)}
    assert images[0.5].sum() / images[1].sum() == pytest.approx(0.25, rel=0.02)
    # 24 of 32 pixels at scale 1: what lies outside them is the kernel's spread
    assert images[1][:, 4:28, 4:28].sum() / images[1].sum() > 0.97


def test_factors_depend_on_seed_and_digit_only():
    by_digit = {}
    for split in SIZES:
        dataset, again = ScaleDigits(split, seed=4), ScaleDigits(split, seed=4)
        np.testing.assert_array_equal(column(dataset, 'img'), column(again, 'img'))
        by_digit[split] = column(dataset, 'rescale_factor')
        assert 0.3 <= by_digit[split].min() and by_digit[split].max() <= 1.0
        assert by_digit[split].mean() == pytest.approx(0.65, abs=0.04)
    assert len(np.unique(np.concatenate(list(by_digit.values())))) == 1797
    assert (column(ScaleDigits('val', seed=5), 'rescale_factor') != by_digit['val']).all()
    halved = column(ScaleDigits('val', seed=4, scale_range=(0.15, 0.5)), 'rescale_factor')
    np.testing.assert_allclose(halved, by_digit['val'] / 2)


@pytest.mark.parametrize(
    'wrapper, count',
    [
        (dict(type='RepeatDataset', times=3), 69),
        (dict(type='KFoldDataset', num_splits=3, fold=0), 16),
        (None, 23),
    ],
)
def test_built_by_name_alone_and_within_wrappers(wrapper, count):
    pipeline = [dict(type='PackInputs', meta_keys=('rescale_factor',))]
    config = dict(type='mmscale.ScaleDigits', indices=23, pipeline=pipeline)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        plain = DATASETS.build(config)
        dataset = DATASETS.build(config if wrapper is None else dict(wrapper, dataset=config))
    assert len(dataset) == count and len(dataset.metainfo['classes']) == 10
    known = {item['inputs'].numpy().tobytes() for item in plain}
    for item in (dataset[i] for i in range(count)):
        assert item['inputs'].shape == (1, 32, 32) and item['inputs'].dtype == torch.uint8
        assert 0.3 <= item['data_samples'].rescale_factor <= 1.0
        assert item['inputs'].numpy().tobytes() in known
