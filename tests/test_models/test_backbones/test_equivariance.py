# Copyright (c) mmscale contributors.
"""Whole networks commute with scaling, and pyramids sample dense ones, to rounding, in float64."""

import pytest
from naive import largest_difference, randn, scaled
from networks import as_if_trained, assert_every_stage_is_equivariant
from torch import nn

from mmscale.models import ScaleConvNet, ScaleResNet, ScaleResNet_CIFAR
from mmscale.scale_space import ScaleGrid
from mmscale.testing import assert_scale_equivariant

BASE2, BASE3 = dict(base=2, num_scales=4), dict(base=3, num_scales=3)
SMALL = dict(base_channels=8, stem_channels=8, out_indices=(0, 1, 2, 3))
DENSE, PYRAMID = dict(type='mmscale.GaussianLift'), dict(type='mmscale.GaussianPyramidLift')
BLUR = dict(aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5))
GAUSSIAN = dict(aa_layer=dict(type='mmscale.ScaleBlurPool2d', variance=3.0))


def scale_space_of(grid, height, width, channels=3, pyramid=False):
    grid = ScaleGrid.build(grid)
    if not pyramid:
        return randn(1, channels, grid.num_scales, height, width)
    return tuple(
        randn(1, channels, grid.level_size(height, k), grid.level_size(width, k), seed=k + 9)
        for k in grid.levels
    )


@pytest.mark.parametrize('interaction', [1, (1, 3, 2, 1)])
@pytest.mark.parametrize(
    'depth, grid, variant',
    [
        (18, BASE2, {}),
        (18, BASE3, {}),
        (50, BASE2, dict(deep_stem=True)),
        (50, BASE2, dict(avg_down=True)),
        (50, BASE2, dict(style='caffe')),
        (50, BASE2, dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))),
        (50, BASE2, dict(strides=(1, 3, 2, 1))),
        (50, dict(BASE2, first_level=1), {}),
        (50, BASE2, dict(BLUR, deep_stem=True, aa_stem=True)),
        (50, BASE2, dict(BLUR, avg_down=True, style='caffe')),
        (50, BASE2, dict(BLUR, strides=(1, 3, 2, 1))),
        (18, BASE2, dict(GAUSSIAN, aa_stem=True)),
    ],
    ids=str,
)
def test_dense_resnets_commute_with_scaling(depth, grid, variant, interaction):
    model = as_if_trained(ScaleResNet(depth, grid, DENSE, interaction, **SMALL, **variant))
    assert_every_stage_is_equivariant(model, scale_space_of(grid, 45, 58), grid)


@pytest.mark.parametrize('interaction', [1, 2])
@pytest.mark.parametrize(
    'depth, first_level, variant',
    [
        (18, 0, {}),
        (50, 0, {}),
        (18, -1, {}),
        (50, 0, BLUR),
        (18, 0, dict(GAUSSIAN, aa_stem=True)),
    ],
)
def test_resnets_on_pyramids_commute_with_scaling(depth, first_level, variant, interaction):
    grid = dict(BASE2, first_level=first_level)
    model = as_if_trained(ScaleResNet(depth, grid, PYRAMID, interaction, **SMALL, **variant))
    assert_every_stage_is_equivariant(model, scale_space_of(grid, 117, 90, pyramid=True), grid)


@pytest.mark.parametrize('lift', [DENSE, PYRAMID])
@pytest.mark.parametrize('variant', [{}, BLUR, dict(BLUR, pool_size=1, pool_stride=2)], ids=str)
def test_networks_for_small_images_commute_with_scaling(lift, variant):
    channels = dict(in_channels=3, channels=(4, 5, 6), out_indices=(0, 1, 2))
    convnet = ScaleConvNet(BASE2, lift, 3, **channels, **variant)
    variant = {key: value for key, value in variant.items() if 'pool' not in key}
    resnet = ScaleResNet_CIFAR(18, BASE2, lift, 2, **SMALL, **variant)
    signal = scale_space_of(BASE2, 67, 50, pyramid=lift is PYRAMID)
    for model in (convnet, resnet):
        assert_every_stage_is_equivariant(as_if_trained(model), signal, BASE2)


@pytest.mark.parametrize('base', [2**0.5, 2 ** (1 / 3)])
def test_pyramids_commute_at_powers_of_a_fractional_base(base):
    """K = 1: no level sees another one, so the shifted signal has the same values."""
    grid = dict(base=base, num_scales=5, zero_scale=1.0)
    model = as_if_trained(ScaleResNet(18, grid, PYRAMID, **GAUSSIAN, **SMALL))
    signal = scale_space_of(grid, 75, 66, pyramid=True)
    outputs = model.body(signal)
    for shift in range(1, 5):
        for whole, found in zip(outputs, model.body(signal[shift:]), strict=True):
            largest = max(level.abs().max() for level in whole)
            assert largest_difference(found, whole[shift:]) < 1e-12 * largest


def test_the_assertion_agrees_with_slicing():
    """The same statement with L_s written as a slice, in case the helper shares a fault."""
    model = as_if_trained(ScaleResNet(18, BASE2, DENSE, interaction=2, **SMALL, **BLUR))
    signal = scale_space_of(BASE2, 61, 44)
    outputs = model.body(signal)
    for shift in (1, 2, 3):
        for f, g in zip(outputs, model.body(scaled(signal, 2, shift)), strict=True):
            expected = scaled(f, 2, shift)
            assert largest_difference(g, expected) < 1e-12 * expected.abs().max()


class Ordinary(nn.MaxPool2d):
    def forward(self, x):
        return type(x)(*[super(Ordinary, self).forward(level) for level in x])


class PerLevel(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(as_if_trained(nn.BatchNorm2d(8), seed) for seed in range(4))

    def forward(self, x):
        return type(x)(*[norm(level) for norm, level in zip(self.norms, x)])


def undilated(model):
    model.conv1.grid = ScaleGrid(1.2, 4, truncate_dilation=True)
    assert model.conv1.grid.dilations == (1, 1, 1, 1)


@pytest.mark.parametrize(
    'spoil, by',
    [
        (lambda model: setattr(model, 'maxpool', Ordinary(3, 2, 1)), 1e-2),
        (lambda model: setattr(model, 'bn1', PerLevel()), 1e-2),
        (undilated, 1e-2),
        (lambda model: model.train(), 1e-3),  # no fault: other signals, other statistics
    ],
    ids=['ordinary pooling', 'statistics per level', 'undilated', 'statistics of the batch'],
)
def test_one_wrong_layer_breaks_it_by_a_lot(spoil, by):
    model = as_if_trained(ScaleResNet(18, BASE2, DENSE, **SMALL))
    spoil(model)
    with pytest.raises(AssertionError, match='not scale-equivariant'):
        assert_scale_equivariant(
            lambda x: model.body(x)[0], scale_space_of(BASE2, 61, 44), 2, BASE2, atol=by
        )


@pytest.mark.parametrize(
    'network, grid',
    [
        (lambda **kw: ScaleResNet(18, **SMALL, **kw), BASE3),
        (lambda **kw: ScaleResNet(50, deep_stem=True, avg_down=True, **SMALL, **kw), BASE2),
        (lambda **kw: ScaleResNet(50, aa_stem=True, **BLUR, **SMALL, **kw), BASE2),
        (lambda **kw: ScaleResNet_CIFAR(18, **SMALL, **kw), BASE2),
        (
            lambda **kw: ScaleConvNet(in_channels=3, channels=(4, 5), out_indices=(0, 1), **kw),
            BASE3,
        ),
    ],
    ids=['resnet18', 'resnet50d', 'blur', 'cifar', 'convnet'],
)
def test_a_pyramid_is_the_dense_network_sampled(network, grid):
    """With K = 1 and an integer base, at every stage, from the same image."""
    dense = as_if_trained(network(scale_space=grid, lift=DENSE))
    pyramid = as_if_trained(network(scale_space=grid, lift=PYRAMID))
    pyramid.load_state_dict(dense.state_dict())
    image = randn(2, 3, 53, 66)
    steps = [grid['base'] ** k for k in range(grid['num_scales'])]
    for full, sampled in zip(dense(image), pyramid(image), strict=True):
        expected = tuple(full[:, :, k, ::step, ::step] for k, step in enumerate(steps))
        assert largest_difference(sampled, expected) < 1e-12 * full.abs().max()


def test_with_interaction_a_pyramid_is_not_the_dense_network():
    """Coarser levels are interpolated to the grid of finer ones."""
    dense = as_if_trained(ScaleResNet(18, BASE2, DENSE, interaction=2, **SMALL))
    pyramid = as_if_trained(ScaleResNet(18, BASE2, PYRAMID, interaction=2, **SMALL))
    pyramid.load_state_dict(dense.state_dict())
    image = randn(1, 3, 64, 64)
    full, sampled = dense(image)[0], pyramid(image)[0]
    assert largest_difference(sampled[0], full[:, :, 0]) > 1e-2 * full.abs().max()
    # The coarsest level sees no other level and stays exact.
    assert largest_difference(sampled[3], full[:, :, 3, ::8, ::8]) < 1e-12 * full.abs().max()
