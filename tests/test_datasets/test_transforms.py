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


def factors_of(transform, places):
    return np.array([transform(digit(i))['rescale_factor'] for i in places])


AS_MNIST_SCALE = dict(center=(14.5, 14.5), antialias=False)
FIXED = dict(type='mmscale.FixedRescale', scale=0.5)
RANDOM = dict(type='mmscale.RandomRescale', scale_range=[0.5, 0.8])


@pytest.mark.parametrize('options', [dict(padding='replicate', center=(9, 4)), AS_MNIST_SCALE])
@pytest.mark.parametrize('cfg', [FIXED, RANDOM])
def test_the_image_shows_the_recorded_factor(cfg, options):
    transform = TRANSFORMS.build(dict(cfg, **options))
    results = transform(digit())
    expected = rescale(digit()['img'], results['rescale_factor'], **options)
    np.testing.assert_array_equal(results['img'], expected)
    assert results['rescale_factor'] == cfg.get('scale', results['rescale_factor'])
    assert results['gt_label'] == 1 and type(transform).__name__ in repr(transform)


def test_factors_multiply():
    assert FixedRescale(2.0)(FixedRescale(0.25)(digit()))['rescale_factor'] == 0.5


@pytest.mark.parametrize(
    'distribution, quartiles',
    [('log_uniform', (2**-0.5, 1, 2**0.5)), ('uniform', (0.875, 1.25, 1.625))],
)
def test_distribution(distribution, quartiles):
    np.random.seed(0)
    factors = factors_of(RandomRescale(distribution=distribution), range(2000))
    assert factors.min() >= 0.5 and factors.max() <= 2.0
    assert np.quantile(factors, (0.25, 0.5, 0.75)) == pytest.approx(quartiles, abs=0.06)


def test_redrawn_each_time_and_reproducible():
    transform = RandomRescale()
    np.random.seed(3)
    first, second = factors_of(transform, range(10)), factors_of(transform, range(10))
    np.random.seed(3)
    np.testing.assert_array_equal(first, factors_of(transform, range(10)))
    assert (first != second).all()


def test_seed_fixes_the_factor_of_each_image():
    ascending = factors_of(RandomRescale(seed=5), range(50))
    np.random.seed(11)  # must not matter
    descending = factors_of(RandomRescale(seed=5), reversed(range(50)))
    np.testing.assert_array_equal(ascending, descending[::-1])
    assert len(set(ascending)) == 50
    assert (factors_of(RandomRescale(seed=6), range(50)) != ascending).all()


def first_of(batch):
    return batch[0]


def test_seed_fixes_the_factor_whatever_the_workers():
    pipeline = [dict(type='mmscale.RandomRescale', seed=5)]
    dataset = ScaleDigits('train', scale=0.5, pipeline=pipeline, indices=12)
    loaders = [DataLoader(dataset, num_workers=n, collate_fn=first_of) for n in (0, 2)]
    alone, shared = ([item['rescale_factor'] for item in loader] for loader in loaders)
    assert alone == shared and len(set(alone)) == 12


def test_random_parameters_can_be_cached():
    transform = RandomRescale()
    with cache_random_params(transform):
        assert len(set(factors_of(transform, range(5)))) == 1
    assert len(set(factors_of(transform, range(5)))) == 5


def test_wrong_use():
    with pytest.raises(ValueError, match='sample_idx'):
        RandomRescale(seed=1)({'img': digit()['img']})
    with pytest.raises(ValueError, match='gt_bboxes'):
        FixedRescale(0.5)({**digit(), 'gt_bboxes': []})
