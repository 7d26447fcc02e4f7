# Copyright (c) mmscale contributors.
"""Packed levels: the same signal, in another order in memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import largest_difference

from mmscale.scale_space import (
    PackedLevels,
    ScaleGrid,
    apply_jointly,
    check_signal,
    is_pyramid,
    map_levels,
    split_levels,
)

DENSE = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
PYRAMID = tuple(torch.randn(2, 3, n, n + 1, dtype=torch.float64) for n in (8, 4, 1, 1, 1))
both = pytest.mark.parametrize('x', [DENSE, PYRAMID], ids=['dense', 'pyramid'])


@both
def test_packing_and_unpacking_are_inverse(x):
    packed = PackedLevels.pack(x)
    assert is_pyramid(packed) == is_pyramid(x) == (not packed.dense)
    assert type(packed.unpack()) is type(x) and largest_difference(packed.unpack(), x) == 0
    assert largest_difference(split_levels(packed), split_levels(x)) == 0
    assert not packed.joined and packed.pixels.shape[0] == 1 and packed.joined
    assert type(packed.unpack()) is type(x) and largest_difference(packed.unpack(), x) == 0
    assert PackedLevels.pack(packed) is packed


@both
def test_pixels_are_level_after_level_and_levels_are_views(x):
    packed, levels = PackedLevels.pack(x), split_levels(x)
    assert [y.data_ptr() for y in packed] == [y.data_ptr() for y in levels]
    assert packed.pixels.is_contiguous(memory_format=torch.channels_last)
    rows = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, 3) for level in levels])
    assert torch.equal(packed.pixels, rows.T[None, :, :, None])
    assert len(packed) == len(levels) and packed.sizes == tuple(y.shape[-2:] for y in levels)
    for level in packed:
        assert level.untyped_storage().data_ptr() == packed.pixels.untyped_storage().data_ptr()
        assert level.is_contiguous(memory_format=torch.channels_last)


@both
def test_functions_of_signals_see_no_difference(x):
    packed = PackedLevels.pack(x)
    check_signal(packed, ScaleGrid(2, 5), channels=3)
    with pytest.raises(ValueError, match='3 channels, expected 4'):
        check_signal(packed, ScaleGrid(2, 5), channels=4)
    with pytest.raises(ValueError, match='levels, but'):
        check_signal(packed, ScaleGrid(2, 2))
    doubled = map_levels(torch.add, packed, packed)
    assert largest_difference(doubled.unpack(), map_levels(torch.add, x, x)) == 0

    def per_sample(y):
        return y / y.flatten(1).norm(dim=1).view(-1, *[1] * (y.ndim - 1))

    found = apply_jointly(per_sample, packed)
    assert isinstance(found, PackedLevels) and found.dense == packed.dense
    assert largest_difference(found.unpack(), apply_jointly(per_sample, x)) < 1e-15


def test_neighbours_of_equal_size_and_factor_are_one_batch():
    seen = []

    def record(maps, factor):
        seen.append((tuple(maps.shape), factor))
        return factor * maps[..., ::2, ::2]

    found = PackedLevels.pack(PYRAMID).map_images(record, (1, 1, 1, 1, 3))
    sides = [((2, 3, 8, 9), 1), ((2, 3, 4, 5), 1), ((4, 3, 1, 2), 1), ((2, 3, 1, 2), 3)]
    assert seen == sides
    expected = tuple(f * y[..., ::2, ::2] for f, y in zip((1, 1, 1, 1, 3), PYRAMID))
    assert largest_difference(found.unpack(), expected) == 0


@given(num_coarse=st.integers(0, 5), scale=st.floats(-2, 2))
@settings(deadline=None, max_examples=20)
def test_coarse_levels_go_to_their_own_function(num_coarse, scale):
    def coarse(levels):
        assert len(levels) == num_coarse and not levels.dense
        return PackedLevels.pack(tuple(scale * level[..., :1, :] for level in levels))

    packed = PackedLevels.pack(PYRAMID)
    found = packed.map_images(lambda maps, _: maps[..., :1, :], (1,) * 5, num_coarse, coarse)
    factors = [1] * (5 - num_coarse) + [scale] * num_coarse
    expected = tuple(f * level[..., :1, :] for f, level in zip(factors, PYRAMID))
    assert largest_difference(found.unpack(), expected) == 0


@both
@pytest.mark.parametrize('count', [0, 1, 3])
def test_dropping_the_finest_levels_leaves_a_view_of_the_others(x, count):
    packed = PackedLevels.pack(x)
    assert largest_difference(tuple(packed.drop_finest(count)), split_levels(x)[count:]) == 0
    assert not packed.joined and packed.pixels.shape[0] == 1 and packed.joined
    rest = packed.drop_finest(count)
    assert largest_difference(tuple(rest), split_levels(x)[count:]) == 0
    assert rest.dense == packed.dense and rest.sizes == packed.sizes[count:]
    assert rest.pixels.untyped_storage().data_ptr() == packed.pixels.untyped_storage().data_ptr()


@both
def test_gradients_pass(x):
    levels = [level.clone().requires_grad_() for level in split_levels(x)]
    signal = tuple(levels) if is_pyramid(x) else torch.stack(levels, 2)
    packed = PackedLevels.pack(signal).map_images(
        lambda maps, factor: factor * maps**2, range(1, len(levels) + 1)
    )
    sum(y.sum() for y in packed).backward()
    for k, level in enumerate(levels, start=1):
        assert largest_difference(level.grad, 2 * k * level.detach()) < 1e-14
