# Copyright (c) mmscale contributors.
"""Maps of every (stage, level) pair, concatenated if their strides are equal."""

import pytest
import torch
from naive import largest_difference
from networks import as_if_trained

from mmscale.models import ScaleLevels, ScaleResNet, ScaleResNet_CIFAR

PYRAMID = dict(type='mmscale.GaussianPyramidLift')
LEVELS = dict(type='mmscale.ScaleLevels')
SMALL = dict(lift=PYRAMID, base_channels=4, stem_channels=4)


def pyramid(channels, height, width, num_levels):
    sizes = [(-(-height // 2**k), -(-width // 2**k)) for k in range(num_levels)]
    return tuple(torch.randn(2, channels, *size, dtype=torch.float64) for size in sizes)


def test_maps_of_equal_stride_lie_side_by_side():
    first, second = pyramid(3, 17, 20, 3), pyramid(5, 9, 10, 3)
    maps = ScaleLevels((8, 16), dict(base=2, num_scales=3))((first, second))
    expected = [
        first[0],
        torch.cat([second[0], first[1]], 1),
        torch.cat([second[1], first[2]], 1),
        second[2],
    ]
    assert len(maps) == 4
    assert all(torch.equal(x, y) for x, y in zip(maps, expected, strict=True))


def test_strides_of_a_finer_first_level_and_of_another_ratio_of_stages():
    neck = ScaleLevels((8, 32), dict(base=2, num_scales=2, first_level=-1))
    maps = neck((pyramid(1, 32, 35, 2), pyramid(2, 8, 9, 2)))
    assert [y.shape[1] for y in maps] == [1, 1, 2, 2]  # strides 4, 8, 16, 32


def test_in_a_backbone():
    side = 150
    args = dict(depth=18, scale_space=dict(base=2, num_scales=3), out_indices=(1, 2, 3), **SMALL)
    net = as_if_trained(ScaleResNet(**args, scale_pooling=LEVELS))
    scale_spaces = as_if_trained(ScaleResNet(**args))
    scale_spaces.load_state_dict(net.state_dict())
    image = torch.rand(2, 3, side, side + 7, dtype=torch.float64)
    maps, (c3, c4, c5) = net(image), scale_spaces(image)
    assert [y.shape[1] for y in maps] == [8, 24, 56, 48, 32]
    sizes = [(-(-side // stride), -(-(side + 7) // stride)) for stride in (8, 16, 32, 64, 128)]
    assert [tuple(y.shape[-2:]) for y in maps] == sizes
    assert largest_difference(maps[2], torch.cat([c5[0], c4[1], c3[2]], 1)) == 0


def test_the_maps_of_one_stage_move_by_a_place_when_the_image_is_halved():
    """An FPN's level sees an object as the next finer level sees an object of half the size."""
    grid = dict(base=2, num_scales=3)
    net = ScaleResNet(18, grid, out_indices=(2,), scale_pooling=LEVELS, **SMALL)
    net = as_if_trained(net)
    scale_space = net.lift(torch.rand(1, 3, 96, 96, dtype=torch.float64))
    coarser = tuple(scale_space[1:])
    pooled = net.scale_pooling
    large, small = pooled(net.body(scale_space)), pooled(net.body(coarser))
    assert len(large) == 3 and len(small) == 2
    for found, expected in zip(small, large[1:], strict=True):
        assert largest_difference(found, expected) < 1e-12


def test_images_of_cifar_have_other_strides():
    net = ScaleResNet_CIFAR(18, dict(base=2, num_scales=2), out_indices=(0, 1, 2, 3),
                            scale_pooling=LEVELS, **SMALL)  # fmt: skip
    assert net.scale_pooling.strides == (1, 2, 4, 8)


def test_dense_levels_have_one_stride():
    net = ScaleResNet(18, dict(base=2, num_scales=2), base_channels=4, stem_channels=4,
                      lift=dict(type='mmscale.GaussianLift'), scale_pooling=LEVELS)  # fmt: skip
    with pytest.raises(ValueError, match='one pyramid for each'):
        net(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    ('strides', 'base', 'message'),
    [((8, 16), 2**0.5, 'base must be an integer'), ((16, 8), 2, 'must grow'), ((), 2, 'must grow')],
)
def test_what_cannot_be_is_refused(strides, base, message):
    with pytest.raises(ValueError, match=message):
        ScaleLevels(strides, dict(base=base, num_scales=2))
    with pytest.raises(ValueError, match='mode and scale_dropout, or type'):
        ScaleResNet(18, dict(base=2, num_scales=2), scale_pooling=dict(align='largest'))
