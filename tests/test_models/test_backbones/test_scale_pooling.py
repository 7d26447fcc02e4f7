# Copyright (c) mmscale contributors.
"""Backbones that pool over scale for detectors and segmentors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpretrain.models import ResNet
from naive import largest_difference
from networks import as_if_trained

from mmscale.models import ScalePooling, ScaleResNet
from mmscale.scale_space import resample_level

LIFTS = ('mmscale.GaussianLift', 'mmscale.GaussianPyramidLift', 'mmscale.BilinearPyramidLift')
SMALL = dict(base_channels=4, stem_channels=4, out_indices=(0, 1, 2, 3))
GRIDS = (
    dict(base=2, num_scales=3),
    dict(base=2**0.5, num_scales=4),
    dict(base=2, num_scales=3, first_level=-1),
)


def images(height=64, width=64):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)


def ordinary_network():
    net = ResNet(18, **SMALL).double()
    net.eval()  # MMPretrain's ResNet returns nothing here
    return net


def pooled(grid=GRIDS[0], lift=LIFTS[1], network=ScaleResNet, **kwargs):
    torch.manual_seed(0)
    args = dict(SMALL, scale_pooling=dict()) | kwargs
    return as_if_trained(network(18, grid, lift=dict(type=lift), **args))


@settings(max_examples=25, deadline=None)
@given(
    grid=st.sampled_from(GRIDS),
    lift=st.sampled_from(LIFTS),
    blur=st.booleans(),
    sides=st.tuples(st.integers(33, 90), st.integers(33, 90)),
)
def test_maps_have_the_sizes_of_the_ordinary_network(grid, lift, blur, sides):
    aa_layer = dict(type='mmscale.ScaleBlurPool2d', kernel_size=3) if blur else None
    image = images(*sides)
    ordinary = ordinary_network()(image)
    found = pooled(grid, lift, aa_layer=aa_layer)(image)
    assert [y.shape for y in found] == [y.shape for y in ordinary]


@pytest.mark.parametrize('lift', LIFTS)
def test_one_level_is_the_ordinary_network(lift):
    net = pooled(dict(base=2, num_scales=1), lift)
    ordinary = ordinary_network()
    ordinary.load_state_dict(
        {name: value.squeeze(2) if value.ndim == 5 else value
         for name, value in net.state_dict().items() if name in ordinary.state_dict()},
        strict=True,
    )  # fmt: skip
    lifted = net.lift(images())  # the lift smooths to zero_scale
    image = lifted[0] if isinstance(lifted, tuple) else lifted.squeeze(2)
    assert largest_difference(net(images()), ordinary(image)) <= 1e-12


@pytest.mark.parametrize('lift', LIFTS)
@pytest.mark.parametrize('grid', GRIDS)
def test_it_is_the_neck_behind_the_scale_spaces(grid, lift):
    net = pooled(grid, lift, scale_pooling=dict(mode='avg'))
    neck = ScalePooling('avg', align='image', scale_space=grid)
    found, expected = net(images()), neck(net.body(net.lift(images())))
    assert largest_difference(found, expected) == 0


def test_levels_are_brought_to_that_of_the_image():
    grid = dict(base=2, num_scales=3, first_level=-1)
    levels = tuple(torch.rand(1, 2, n, n, dtype=torch.float64) for n in (16, 8, 4))
    (found,) = ScalePooling(align='image', scale_space=grid)((levels,))
    finer = levels[0].unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    coarser = resample_level(levels[2], 0.5, (8, 8))
    assert torch.equal(found, torch.stack([finer, levels[1], coarser]).amax(0))


def test_a_grid_without_the_level_of_the_image_has_no_such_maps():
    grid = dict(base=2, num_scales=2, first_level=1)
    with pytest.raises(ValueError, match="align='image' needs level 0"):
        pooled(grid)
    with pytest.raises(ValueError, match="align='image' needs scale_space"):
        ScalePooling(align='image')


def test_strides_cannot_be_made_others_than_the_ordinary_ones():
    for unknown in (dict(align='smallest'), dict(scale_space=GRIDS[1])):
        with pytest.raises(ValueError, match=f'scale_pooling takes .* got {next(iter(unknown))}'):
            pooled(scale_pooling=unknown)
