# Copyright (c) mmscale contributors.
import itertools

import numpy as np
import pytest
import torch
from naive import largest_difference, read

from mmscale.scale_space import (
    ScaleGrid,
    apply_jointly,
    check_signal,
    fold_levels,
    is_pyramid,
    map_levels,
    resample_level,
    split_levels,
    stack_levels,
    unfold_levels,
)

DENSE = torch.arange(2 * 3 * 4 * 5 * 6, dtype=torch.float64).reshape(2, 3, 4, 5, 6)
PYRAMID = tuple(torch.randn(2, 3, n, n + 1, dtype=torch.float64) for n in (8, 4, 2))


def test_splitting_and_stacking_are_inverse():
    levels = split_levels(DENSE)
    assert len(levels) == 4
    for k, level in enumerate(levels):
        assert torch.equal(level, DENSE[:, :, k])
    assert torch.equal(stack_levels(levels), DENSE)
    assert split_levels(PYRAMID) == PYRAMID
    assert is_pyramid(PYRAMID) and is_pyramid(list(PYRAMID)) and not is_pyramid(DENSE)


def test_folding_orders_by_level_and_is_a_view_of_stacked_levels():
    folded = fold_levels(DENSE)
    assert folded.shape == (8, 3, 5, 6)
    assert torch.equal(folded[2:4], DENSE[:, :, 1])
    assert torch.equal(unfold_levels(folded, 4), DENSE)
    stacked = stack_levels(DENSE.unbind(2))
    assert fold_levels(stacked).data_ptr() == stacked.data_ptr()
    assert unfold_levels(folded, 4).data_ptr() == folded.data_ptr()


def test_map_levels():
    assert torch.equal(map_levels(torch.add, DENSE, DENSE), 2 * DENSE)
    doubled = map_levels(torch.add, PYRAMID, PYRAMID)
    assert isinstance(doubled, tuple)
    assert largest_difference(doubled, tuple(2 * level for level in PYRAMID)) == 0
    # Turned by a quarter, the levels have as many pixels; one pixel would fit anything.
    turned, one = tuple(level.mT for level in PYRAMID), (PYRAMID[0][..., :1, :1],)
    for other in (PYRAMID[:2], turned, one, DENSE):
        with pytest.raises(ValueError, match='levels of the same sizes'):
            map_levels(torch.add, PYRAMID, other)


def test_apply_jointly_shows_all_pixels_of_all_levels_at_once():
    seen = []

    def centre(x):
        seen.append(x.shape)
        return x - x.mean(dim=(0, 2), keepdim=True)

    centred = apply_jointly(centre, PYRAMID)
    assert seen == [(2, 3, 8 * 9 + 4 * 5 + 2 * 3)]
    mean = torch.cat([level.movedim(1, 0).flatten(1) for level in PYRAMID], 1).mean(1)
    expected = tuple(level - mean[:, None, None] for level in PYRAMID)
    assert largest_difference(centred, expected) < 1e-14
    assert all(level.is_contiguous() for level in centred)
    assert torch.equal(apply_jointly(lambda x: x, DENSE), DENSE)


def test_apply_jointly_allows_in_place_layers_behind_it():
    x = tuple(level.clone().requires_grad_() for level in PYRAMID)
    y = map_levels(torch.relu_, apply_jointly(lambda z: z * 2, x))
    sum(level.sum() for level in y).backward()
    for level in x:
        assert torch.equal(level.grad, 2.0 * (level > 0))


@pytest.mark.parametrize('factor', [0.5, 2, 2**-0.5, 1.3])
def test_resample_level_is_a_bilinear_read_that_repeats_the_border(factor):
    level, size = PYRAMID[0], (7, 9)
    found = resample_level(level, factor, size)
    for i, j in itertools.product(range(7), range(9)):
        last = (level.shape[2] - 1, level.shape[3] - 1)
        at = min(factor * i, last[0]), min(factor * j, last[1])
        np.testing.assert_allclose(found[..., i, j], read(level.numpy(), *at), atol=1e-13)


class TestCheckSignal:
    grid = ScaleGrid(2, 4)

    def test_accepts_signals_on_the_start_of_the_grid(self):
        check_signal(DENSE, self.grid, 3)
        check_signal(DENSE[:, :, :1], self.grid)
        check_signal(PYRAMID, self.grid, 3)
        check_signal(list(PYRAMID[:1]), self.grid, 3)

    @pytest.mark.parametrize(
        'signal, message',
        [
            (DENSE[0], r'dense tensor \(N, C, S, H, W\), got the shape \(3, 4, 5, 6\)'),
            ((PYRAMID[0], PYRAMID[1][0]), r'pyramid of .*, got the shape \(3, 4, 5\)'),
            ((DENSE,), r'pyramid of .*, got the shape \(2, 3, 4, 5, 6\)'),
            ((), 'has 0 levels, but .* num_scales=4'),
            (DENSE.repeat(1, 1, 2, 1, 1), 'has 8 levels, but .* num_scales=4'),
            (PYRAMID * 2, 'has 6 levels, but .* num_scales=4'),
        ],
    )
    def test_refuses_what_is_no_signal(self, signal, message):
        with pytest.raises(ValueError, match=message):
            check_signal(signal, self.grid)

    @pytest.mark.parametrize('signal', [DENSE, PYRAMID])
    def test_refuses_other_channels(self, signal):
        with pytest.raises(ValueError, match='has 3 channels, expected 5'):
            check_signal(signal, self.grid, 5)
