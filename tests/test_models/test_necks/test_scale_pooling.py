# Copyright (c) mmscale contributors.
import itertools
import math

import mmpretrain.models  # noqa: F401  registers classifiers, necks and heads
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from naive import largest_difference, randn, read, to_levels
from networks import as_if_trained

from mmscale.models import ScaleConvNet, ScaleGlobalPooling, ScalePooling

GRID = dict(base=2, num_scales=3)
ROOT2 = dict(base=2**0.5, num_scales=4, first_level=-1)


DENSE = randn(2, 3, 3, 7, 5)
PYRAMID = tuple(randn(2, 3, *size, seed=i) for i, size in enumerate([(11, 9), (6, 5), (3, 3)]))
REDUCE = dict(max=np.max, avg=np.mean)


def cells(size, count):
    """Return the bins of adaptive pooling: every sample is in at least one of ``count`` bins."""
    return [
        slice(math.floor(i * size / count), math.ceil((i + 1) * size / count)) for i in range(count)
    ]


def pool_cells(level, rows, columns, reduce):
    """Reduce each of rows x columns cells of (N, C, H, W)."""
    pooled = np.empty((*level.shape[:2], rows, columns))
    spans = enumerate(cells(level.shape[2], rows)), enumerate(cells(level.shape[3], columns))
    for (i, row), (j, column) in itertools.product(*map(list, spans)):
        pooled[:, :, i, j] = reduce(level[:, :, row, column], axis=(2, 3))
    return pooled


class TestScalePooling:
    @pytest.mark.parametrize('mode', ['max', 'avg'])
    @pytest.mark.parametrize('align', ['smallest', 'largest'])
    def test_dense(self, mode, align):
        outputs = ScalePooling(mode, align, GRID)((DENSE, DENSE[..., :2]))
        expected = REDUCE[mode](np.stack(to_levels(DENSE)), axis=0)
        assert isinstance(outputs, tuple) and len(outputs) == 2
        assert largest_difference(outputs[0], expected) < 1e-14
        assert largest_difference(outputs[1], expected[..., :2]) < 1e-14

    @pytest.mark.parametrize('mode', ['max', 'avg'])
    def test_pyramids_brought_to_the_smallest_map_by_max_pooling(self, mode):
        levels = [pool_cells(level, 3, 3, np.max) for level in to_levels(PYRAMID)]
        (found,) = ScalePooling(mode)((PYRAMID,))
        assert largest_difference(found, REDUCE[mode](np.stack(levels), axis=0)) < 1e-14

    @pytest.mark.parametrize('mode', ['max', 'avg'])
    @pytest.mark.parametrize('grid', [GRID, ROOT2], ids=['base2', 'root2'])
    def test_pyramids_brought_to_the_largest_map_by_interpolation(self, mode, grid):
        """Samples of level k are a^k pixels apart, and pooling samples the level there."""
        levels = to_levels(PYRAMID)
        if grid is ROOT2:
            sizes = [(15, 13), (11, 9), (8, 7), (6, 5)]
            levels = [randn(2, 3, *size, seed=i).numpy() for i, size in enumerate(sizes)]
        height, width = levels[0].shape[2:]
        read_levels = np.empty((len(levels), 2, 3, height, width))
        for k, i, j in itertools.product(range(len(levels)), range(height), range(width)):
            at = i / grid['base'] ** k, j / grid['base'] ** k
            at = [min(p, n - 1) for p, n in zip(at, levels[k].shape[2:])]
            read_levels[k, :, :, i, j] = read(levels[k], *at)
        pyramid = tuple(map(torch.from_numpy, levels))
        (found,) = ScalePooling(mode, 'largest', grid)((pyramid,))
        assert largest_difference(found, REDUCE[mode](read_levels, axis=0)) < 1e-12

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="mode must be one of 'max', 'avg', got 'sum'"):
            ScalePooling('sum')
        with pytest.raises(ValueError, match="align must be one of .*, got 'middle'"):
            ScalePooling(align='middle')
        with pytest.raises(ValueError, match='needs scale_space'):
            ScalePooling(align='largest')
        with pytest.raises(ValueError, match='has 3 levels, but .* num_scales=2'):
            ScalePooling('max', 'largest', dict(num_scales=2))((PYRAMID,))


class TestScaleGlobalPooling:
    @pytest.mark.parametrize('scale', ['max', 'avg', 'none'])
    @pytest.mark.parametrize('space', ['max', 'avg'])
    @pytest.mark.parametrize('size', [1, 2, 3])
    @pytest.mark.parametrize('x', [DENSE, PYRAMID], ids=['dense', 'pyramid'])
    def test_is_pooling_over_space_and_then_over_scale(self, scale, space, size, x):
        levels = [pool_cells(level, size, size, REDUCE[space]) for level in to_levels(x)]
        levels = np.stack(levels).reshape(3, 2, -1)
        if scale == 'none':
            expected = np.moveaxis(levels, 0, 2)[..., None, None]
        else:
            expected = REDUCE[scale](levels, axis=0)
        for found in ScaleGlobalPooling(scale, space, size)((x, x)):
            assert largest_difference(found, expected) < 1e-14

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="scale must be one of .*, 'none', got 'sum'"):
            ScaleGlobalPooling('sum')
        with pytest.raises(ValueError, match='give it to the head, mmscale.ScaleClsHead; got 0.5'):
            ScaleGlobalPooling('none', scale_dropout=0.5)
        with pytest.raises(ValueError, match='output_size must be at least 1, got 0'):
            ScaleGlobalPooling(output_size=0)


def powers_of_two(num_levels, batch, dense):
    """Level k holds ``2**k`` everywhere, so that a mean tells its levels."""
    levels = [torch.full((batch, 1, 4, 4), 2.0**k).double() for k in range(num_levels)]
    if dense:
        return torch.stack(levels, 2)
    return tuple(level[..., : 4 - k, : 4 - k] for k, level in enumerate(levels))


NECKS = {
    'maps': lambda mode, p: ScalePooling(mode, scale_dropout=p),
    'vectors': lambda mode, p: ScaleGlobalPooling(mode, scale_dropout=p),
}


@pytest.mark.parametrize('dense', [True, False])
@pytest.mark.parametrize('neck', NECKS.values(), ids=NECKS)
class TestScaleDropout:
    def test_mean_or_maximum_of_the_levels_that_stay(self, neck, dense):
        """Every sample has a subset of levels, and each subset has the right probability."""
        x = powers_of_two(3, 4000, dense)
        torch.manual_seed(0)
        (means,) = neck('avg', 0.5).train()((x,))
        torch.manual_seed(0)
        (lowest,) = neck('max', 0.5).train()((-x if dense else tuple(-level for level in x),))
        means, lowest = means.flatten(1), -lowest.flatten(1)
        assert (means == means[:, :1]).all()  # a level is left out of the whole sample
        total = 0
        for kept in (subset for n in (1, 2, 3) for subset in itertools.combinations((1, 2, 4), n)):
            of_subset = (means[:, 0] - sum(kept) / len(kept)).abs() < 1e-9
            expected = 1 / 8 + (len(kept) == 1) / 24
            share = of_subset.double().mean().item()
            assert abs(share - expected) < 0.03  # more than five standard deviations
            assert (lowest[of_subset] == kept[0]).all()
            total += of_subset.sum()
        assert total == 4000

    def test_nothing_in_evaluation_or_with_one_level(self, neck, dense):
        x = randn(5, 3, 4, 6, 6)
        x = x if dense else x.unbind(2)
        for mode in ('max', 'avg'):
            expected = neck(mode, 0.0)((x,))[0]
            assert torch.equal(neck(mode, 0.9).eval()((x,))[0], expected)
            one = x[:, :, :1] if dense else x[:1]
            state = torch.get_rng_state()
            found = neck(mode, 0.9).train()((one,))[0]
            assert torch.equal(found, neck(mode, 0.0)((one,))[0])
            assert torch.equal(torch.get_rng_state(), state)  # no random numbers were drawn

    def test_half_precision(self, neck, dense):
        x = powers_of_two(3, 16, dense)
        x = x.half() if dense else tuple(level.half() for level in x)
        for mode in ('max', 'avg'):
            (y,) = neck(mode, 0.5).train()((x,))
            assert y.dtype == torch.half and y.isfinite().all()


@pytest.mark.parametrize('neck', NECKS.values(), ids=NECKS)
def test_shares_of_dropped_levels_that_cannot_be(neck):
    for wrong in (1, -0.1, 'half'):
        with pytest.raises(ValueError, match='scale_dropout must be from 0 to below 1, got'):
            neck('max', wrong)


def test_a_batch_of_no_image():
    for x in (DENSE, PYRAMID):
        empty = x[:0] if x is DENSE else tuple(level[:0] for level in x)
        for neck in (ScalePooling('avg', 'largest', GRID, 0.5), ScaleGlobalPooling('none'),
                     ScaleGlobalPooling(output_size=2, scale_dropout=0.5)):  # fmt: skip
            ((few,), (none,)) = neck((x,)), neck((empty,))
            assert none.shape == (0, *few.shape[1:])


@pytest.mark.parametrize('neck', [ScalePooling, ScaleGlobalPooling])
def test_ordinary_maps_and_bare_pyramids_are_refused(neck):
    """Without an error the neck would pool a 4-D tensor over its rows."""
    for inputs in ((randn(1, 3, 7, 5), randn(1, 3, 4, 3)), PYRAMID):
        with pytest.raises(ValueError, match=r'dense tensor \(N, C, S, H, W\)'):
            neck()(inputs)


def test_the_one_map_of_an_ordinary_network_is_one_level():
    x = randn(2, 3, 7, 5)
    for inputs in ((x,), x):
        (found,) = ScaleGlobalPooling(space='max')(inputs)
        assert torch.equal(found, x.amax((2, 3)))
        with pytest.raises(ValueError, match=r'dense tensor \(N, C, S, H, W\)'):
            ScalePooling()(inputs)


@pytest.mark.parametrize(
    'lift, pooling',
    [
        ('GaussianLift', dict()),
        ('BilinearPyramidLift', dict(mode='avg')),
        ('GaussianPyramidLift', dict(align='largest', scale_space=GRID)),
        ('GaussianPyramidLift', None),
    ],
)
def test_classifiers_of_mmpretrain_train_and_predict(lift, pooling):
    """Build a network from configs, as users do."""
    backbone = dict(scale_space=GRID, lift=dict(type=f'mmscale.{lift}'))
    if pooling is None:
        backbone |= dict(type='mmscale.ScaleConvNet', in_channels=3, channels=(4, 5, 6))
        neck = dict(type='mmscale.ScaleGlobalPooling', output_size=2)
        head = dict(type='StackedLinearClsHead', in_channels=6 * 4, mid_channels=[16],
                    dropout_rate=0.7, norm_cfg=dict(type='BN1d'))  # fmt: skip
    else:
        small = dict(depth=18, base_channels=4, stem_channels=4, interaction=2)
        backbone |= dict(type='mmscale.ScaleResNet', **small)
        neck = [dict(type='mmscale.ScalePooling', **pooling), dict(type='GlobalAveragePooling')]
        head = dict(type='LinearClsHead', in_channels=32)
    parts = dict(backbone=backbone, neck=neck, head=dict(head, num_classes=10))
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', **parts))
    model.init_weights()
    images = torch.randn(4, 3, 32, 32)
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    loss = model.train()(images, samples, mode='loss')['loss']
    loss.backward()
    assert 0.1 < loss < 20
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    results = model.eval()(images, samples, mode='predict')
    assert [r.pred_score.shape for r in results] == [(10,)] * 4
    assert all(r.pred_score.sum().item() == pytest.approx(1, abs=1e-5) for r in results)


def test_pooled_features_of_a_scaled_signal_are_the_same():
    """A maximum over all levels and positions does not change when the levels shift."""
    model = as_if_trained(ScaleConvNet(GRID, in_channels=3, channels=(4, 5, 6)))
    signal = randn(1, 3, 3, 40, 36)
    shifted = model.body(signal[:, :, 1:, ::2, ::2])[0]
    kept = model.body(signal)[0][:, :, 1:, ::2, ::2]
    pool = ScaleGlobalPooling(space='max')
    assert largest_difference(pool((shifted,)), pool((kept,))) < 1e-12
