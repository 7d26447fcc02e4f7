# Copyright (c) mmscale contributors.
import numpy as np
import pytest
from mmcv.transforms.utils import cache_random_params
from mmengine.registry import TRANSFORMS
from torch.utils.data import DataLoader

from mmscale.datasets import FixedRescale, RandomRescale, ScaleDigits, rescale


def digit(index=0):
    image = np.zeros((28, 28), np.uint8)
    image[6:22, 9:19] = 200
    return dict(img=image, gt_label=1, sample_idx=index)


def factors_of(transform, count):
    return np.array([transform(digit(i))['rescale_factor'] for i in range(count)])


def test_fixed_rescale():
    results = FixedRescale(0.5, padding='replicate')(digit())
    expected = rescale(digit()['img'], 0.5, padding='replicate')
    np.testing.assert_array_equal(results['img'], expected)
    assert results['rescale_factor'] == 0.5
    assert results['gt_label'] == 1


def test_fixed_rescale_as_mnist_scale():
    results = FixedRescale(0.5, center=(14.5, 14.5), antialias=False)(digit())
    expected = rescale(digit()['img'], 0.5, center=(14.5, 14.5), antialias=False)
    np.testing.assert_array_equal(results['img'], expected)


def test_factors_multiply():
    results = FixedRescale(2.0)(FixedRescale(0.25)(digit()))
    assert results['rescale_factor'] == 0.5


@pytest.mark.parametrize('distribution, median', [('log_uniform', 1.0), ('uniform', 1.25)])
def test_distribution(distribution, median):
    np.random.seed(0)
    factors = factors_of(RandomRescale(distribution=distribution), 2000)
    assert factors.min() >= 0.5 and factors.max() <= 2.0
    assert np.median(factors) == pytest.approx(median, abs=0.06)
    # the quartiles tell a uniform density from a peaked one
    lower, upper = np.quantile(factors, (0.25, 0.75))
    if distribution == 'uniform':
        assert (lower, upper) == pytest.approx((0.875, 1.625), abs=0.06)
    else:
        assert (lower, upper) == pytest.approx((2**-0.5, 2**0.5), abs=0.06)


def test_redrawn_each_time_and_reproducible():
    transform = RandomRescale()
    np.random.seed(3)
    first, second = factors_of(transform, 10), factors_of(transform, 10)
    np.random.seed(3)
    again = factors_of(transform, 10)
    assert (first != second).all()
    np.testing.assert_array_equal(first, again)


def test_image_shows_the_recorded_factor():
    results = RandomRescale(seed=1, padding='reflect')(digit(7))
    expected = rescale(digit()['img'], results['rescale_factor'], padding='reflect')
    np.testing.assert_array_equal(results['img'], expected)


def test_seed_fixes_the_factor_of_each_image():
    ascending = factors_of(RandomRescale(seed=5), 50)
    np.random.seed(11)  # must not matter
    transform = RandomRescale(seed=5)
    descending = [transform(digit(i))['rescale_factor'] for i in reversed(range(50))]
    np.testing.assert_array_equal(ascending, descending[::-1])
    assert len(set(ascending)) == 50
    assert (factors_of(RandomRescale(seed=6), 50) != ascending).all()


def first_of(batch):
    return batch[0]


def load_factors(dataset, num_workers):
    loader = DataLoader(dataset, num_workers=num_workers, batch_size=1, collate_fn=first_of)
    return [item['rescale_factor'] for item in loader]


def test_seed_fixes_the_factor_whatever_the_workers():
    pipeline = [dict(type='mmscale.RandomRescale', seed=5)]
    dataset = ScaleDigits('train', scale=0.5, pipeline=pipeline, indices=12)
    alone = load_factors(dataset, 0)
    assert load_factors(dataset, 1) == load_factors(dataset, 2) == alone
    assert len(set(alone)) == 12


def test_random_parameters_can_be_cached():
    transform = RandomRescale()
    with cache_random_params(transform):
        cached = {transform(digit(i))['rescale_factor'] for i in range(5)}
    assert len(cached) == 1
    assert len({transform(digit(i))['rescale_factor'] for i in range(5)}) == 5


def test_registered_in_every_toolbox():
    for cfg in (
        dict(type='mmscale.FixedRescale', scale=0.5),
        dict(type='mmscale.RandomRescale', scale_range=[0.5, 2.0], center=[3, 4]),
    ):
        transform = TRANSFORMS.build(cfg)
        assert type(transform).__name__ in repr(transform)


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: FixedRescale(0), 'scale must be a number .*got 0'),
        (lambda: FixedRescale(0.5, padding='x'), "padding must be .*got 'x'"),
        (lambda: FixedRescale(0.5, center=3), 'center must be .*got 3'),
        (lambda: RandomRescale(scale_range=(2, 1)), r'scale_range must be .*got \(2, 1\)'),
        (lambda: RandomRescale(distribution='x'), "distribution must be .*got 'x'"),
        (lambda: RandomRescale(seed=-1), 'seed must be .*got -1'),
        (lambda: RandomRescale(padding='x'), "padding must be .*got 'x'"),
        (lambda: RandomRescale(seed=1)({'img': digit()['img']}), 'sample_idx'),
        (lambda: FixedRescale(0.5)({**digit(), 'gt_bboxes': []}), 'gt_bboxes'),
    ],
)
def test_wrong_use(make, message):
    with pytest.raises(ValueError, match=message):
        make()
