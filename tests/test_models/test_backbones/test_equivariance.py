# Copyright (c) mmscale contributors.
"""Whole networks commute with scaling, and pyramids sample dense ones, to rounding, in float64."""

import pytest
import torch
from naive import largest_difference, scaled
from networks import as_if_trained, assert_every_stage_is_equivariant
from torch import nn

from mmscale.models import ScaleConvNet, ScaleResNet, ScaleResNet_CIFAR
from mmscale.scale_space import ScaleGrid, gaussian_lift, gaussian_pyramid_lift
from mmscale.testing import assert_scale_equivariant

BASE2, BASE3 = dict(base=2, num_scales=4), dict(base=3, num_scales=3)
SMALL = dict(base_channels=8, stem_channels=8, out_indices=(0, 1, 2, 3))
DENSE, PYRAMID = dict(type='mmscale.GaussianLift'), dict(type='mmscale.GaussianPyramidLift')


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def scale_space_of(grid, height, width, channels=3, pyramid=False):
    grid = ScaleGrid.build(grid)
    if not pyramid:
        return randn(1, channels, grid.num_scales, height, width)
    return tuple(
        randn(1, channels, grid.level_size(height, k), grid.level_size(width, k), seed=k)
        for k in grid.levels
    )


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('grid', [BASE2, BASE3])
@pytest.mark.parametrize('interaction', [1, 2, 3, (1, 3, 2, 1)])
def test_body_commutes_with_scaling(depth, grid, interaction):
    model = as_if_trained(ScaleResNet(depth, grid, interaction=interaction, **SMALL))
    assert_every_stage_is_equivariant(model, scale_space_of(grid, 45, 58), grid)


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('interaction', [1, 2])
def test_body_commutes_with_scaling_on_pyramids(depth, interaction):
    model = as_if_trained(ScaleResNet(depth, BASE2, PYRAMID, interaction, **SMALL))
    signal = scale_space_of(BASE2, 117, 90, pyramid=True)
    assert_every_stage_is_equivariant(model, signal, BASE2)


@pytest.mark.parametrize(
    'variant',
    [
        dict(deep_stem=True),
        dict(avg_down=True),
        dict(deep_stem=True, avg_down=True, style='caffe'),
        dict(style='caffe'),
        dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        dict(strides=(1, 3, 2, 1)),
        dict(num_stages=2, strides=(2, 2), dilations=(1, 1), out_indices=(0, 1)),
        dict(first_level=1),
    ],
    ids=str,
)
def test_variants_commute_with_scaling(variant):
    variant = dict(variant)
    grid = dict(BASE2, first_level=variant.pop('first_level', 0))
    model = as_if_trained(ScaleResNet(50, grid, interaction=2, **{**SMALL, **variant}))
    assert_every_stage_is_equivariant(model, scale_space_of(grid, 45, 58), grid)


@pytest.mark.parametrize('interaction', [1, 2])
def test_pyramids_with_levels_finer_than_the_image_commute_with_scaling(interaction):
    grid = dict(BASE2, first_level=-1)
    model = as_if_trained(ScaleResNet(18, grid, PYRAMID, interaction, **SMALL))
    signal = scale_space_of(grid, 64, 96, pyramid=True)
    assert_every_stage_is_equivariant(model, signal, grid)


@pytest.mark.parametrize('depth', [18, 50])
def test_cifar_body_commutes_with_scaling(depth):
    model = as_if_trained(ScaleResNet_CIFAR(depth, BASE2, interaction=2, **SMALL))
    assert_every_stage_is_equivariant(model, scale_space_of(BASE2, 33, 30), BASE2)


@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('interaction', [1, 3])
def test_convnet_body_commutes_with_scaling(pyramid, interaction):
    lift = PYRAMID if pyramid else dict(type='mmscale.GaussianLift')
    model = as_if_trained(
        ScaleConvNet(BASE2, lift, interaction, channels=(4, 5, 6), out_indices=(0, 1, 2))
    )
    signal = scale_space_of(BASE2, 43, 38, channels=1, pyramid=pyramid)
    assert_every_stage_is_equivariant(model, signal, BASE2)


def test_the_assertion_agrees_with_slicing():
    """The same statement with L_s written as a slice, in case the helper shares a fault."""
    model = as_if_trained(ScaleResNet(18, BASE2, DENSE, interaction=2, **SMALL))
    signal = scale_space_of(BASE2, 61, 44)
    outputs = model.body(signal)
    for shift in (1, 2, 3):
        for f, g in zip(outputs, model.body(scaled(signal, 2, shift)), strict=True):
            expected = scaled(f, 2, shift)
            assert largest_difference(g, expected) < 1e-12 * expected.abs().max()


class TestWhatBreaksIt:
    """Each check above can fail: one wrong layer in a ScaleResNet-18, and by a lot."""

    signal = scale_space_of(BASE2, 61, 44)

    def assert_broken(self, model, by=1e-2):
        def body(x):
            return model.body(x)[0]

        with pytest.raises(AssertionError, match='not scale-equivariant'):
            assert_scale_equivariant(body, self.signal, 2, BASE2, atol=by)

    def model(self, **kwargs):
        return as_if_trained(ScaleResNet(18, BASE2, **{**SMALL, **kwargs}))

    def test_ordinary_pooling(self):
        class Ordinary(nn.MaxPool2d):
            def forward(self, x):
                return type(x)(*[super(Ordinary, self).forward(y) for y in x])

        model = self.model()
        model.maxpool = Ordinary(3, 2, 1)
        self.assert_broken(model)

    def test_statistics_per_level(self):
        class PerLevel(nn.Module):
            def __init__(self):
                super().__init__()
                self.norms = nn.ModuleList(
                    as_if_trained(nn.BatchNorm2d(8), seed) for seed in range(4)
                )

            def forward(self, x):
                return type(x)(*[norm(y) for norm, y in zip(self.norms, x)])

        model = self.model()
        model.bn1 = PerLevel()
        self.assert_broken(model)

    def test_statistics_of_the_batch(self):
        """In train mode the shifted signal has other statistics; not a fault, but visible."""
        self.assert_broken(self.model().train(), by=1e-3)

    def test_an_undilated_convolution(self):
        model = self.model()
        model.conv1.grid = ScaleGrid(2, 4, first_level=-3, truncate_dilation=True)
        model.conv1.grid = ScaleGrid(1.2, 4, truncate_dilation=True)
        assert model.conv1.grid.dilations == (1, 1, 1, 1)
        self.assert_broken(model)


@pytest.mark.parametrize('lift_pair', [(gaussian_lift, gaussian_pyramid_lift)])
@pytest.mark.parametrize('grid', [BASE2, BASE3])
@pytest.mark.parametrize(
    'network',
    [
        lambda **kw: ScaleResNet(18, **SMALL, **kw),
        lambda **kw: ScaleResNet(50, **SMALL, **kw),
        lambda **kw: ScaleResNet(50, deep_stem=True, avg_down=True, **SMALL, **kw),
        lambda **kw: ScaleResNet_CIFAR(18, **SMALL, **kw),
        lambda **kw: ScaleConvNet(in_channels=3, channels=(4, 5, 6), out_indices=(0, 1, 2), **kw),
    ],
    ids=['resnet18', 'resnet50', 'resnet50d', 'cifar', 'convnet'],
)
def test_a_pyramid_is_the_dense_network_sampled(network, grid, lift_pair):
    """Statement 2: K = 1 and an integer base, every stage, from the same image."""
    dense = as_if_trained(network(scale_space=grid, lift=dict(type='mmscale.GaussianLift')))
    pyramid = as_if_trained(network(scale_space=grid, lift=PYRAMID))
    pyramid.load_state_dict(dense.state_dict())
    image = randn(2, 3, 53, 66)
    for full, sampled in zip(dense(image), pyramid(image), strict=True):
        assert isinstance(sampled, tuple) and len(sampled) == full.shape[2]
        expected = tuple(
            full[:, :, k, :: grid['base'] ** k, :: grid['base'] ** k]
            for k in range(grid['num_scales'])
        )
        largest = full.abs().max().item()
        assert largest_difference(sampled, expected) < 1e-12 * largest


def test_with_interaction_a_pyramid_is_not_the_dense_network():
    """Statement 2 needs K = 1: coarser levels are interpolated to the grid of finer ones."""
    dense = as_if_trained(ScaleResNet(18, BASE2, DENSE, interaction=2, **SMALL))
    pyramid = as_if_trained(ScaleResNet(18, BASE2, PYRAMID, interaction=2, **SMALL))
    pyramid.load_state_dict(dense.state_dict())
    image = randn(1, 3, 64, 64)
    full, sampled = dense(image)[0], pyramid(image)[0]
    assert largest_difference(sampled[0], full[:, :, 0]) > 1e-2 * full.abs().max()
    # The coarsest level sees no other and is exact still.
    assert largest_difference(sampled[3], full[:, :, 3, ::8, ::8]) < 1e-12 * full.abs().max()
