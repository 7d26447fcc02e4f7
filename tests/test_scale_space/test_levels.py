# Copyright (c) mmscale contributors.
"""The forms of a signal, and the one that layers hand on."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import build_activation_layer
from naive import largest_difference, read
from torch import nn

from mmscale.scale_space import (
    DenseLevels,
    Levels,
    ScaleGrid,
    check_signal,
    is_pyramid,
    map_levels,
    resample_level,
    split_levels,
    stack_levels,
)
from mmscale.scale_space.levels import Pyramid

DENSE = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
PYRAMID = tuple(torch.randn(2, 3, n, n + 1, dtype=torch.float64) for n in (8, 4, 1, 1, 1))
ONE = torch.randn(2, 3, 1, 5, 6, dtype=torch.float64)
SIGNALS = {'dense': DENSE, 'pyramid': PYRAMID, 'one level': ONE, 'pyramid of one': PYRAMID[:1]}
every = pytest.mark.parametrize('x', SIGNALS.values(), ids=SIGNALS)


def test_splitting_and_stacking_are_inverse():
    levels = split_levels(DENSE)
    assert len(levels) == 4
    for k, level in enumerate(levels):
        assert torch.equal(level, DENSE[:, :, k])
    stacked = stack_levels(levels)
    assert torch.equal(stacked, DENSE) and stacked[:, :, 1].is_contiguous()
    assert split_levels(PYRAMID) == PYRAMID
    assert is_pyramid(PYRAMID) and is_pyramid(list(PYRAMID)) and not is_pyramid(DENSE)


class TestLevels:
    @every
    def test_hold_the_signal_they_are_made_of(self, x):
        levels = Levels.of(x)
        for _ in range(2):  # as the signal came, and then as rows
            assert isinstance(levels.to_signal(), type(x))
            assert largest_difference(levels.to_signal(), x) == 0
            assert largest_difference(tuple(levels), split_levels(x)) == 0
            assert len(levels) == len(split_levels(x)) and torch.equal(levels[-1], levels[:][-1])
            assert is_pyramid(levels) == is_pyramid(x) == (not levels.dense)
            assert levels.sizes == tuple(tuple(y.shape[-2:]) for y in split_levels(x))
            assert (levels.batch_size, levels.channels) == (2, 3)
            assert (levels.dtype, levels.device) == (torch.float64, torch.device('cpu'))
            assert levels.rows.shape == levels.size() and levels.dim() == 2
        assert Levels.of(levels) is levels

    @every
    def test_rows_are_level_after_level_and_maps_are_views(self, x):
        levels = Levels.of(x)
        expected = [level.permute(0, 2, 3, 1).reshape(-1, 3) for level in split_levels(x)]
        assert torch.equal(levels.rows, torch.cat(expected))
        if len(levels) > 1:
            for level in levels:
                storage = level.untyped_storage().data_ptr()
                assert storage == levels.rows.untyped_storage().data_ptr()
                assert level.is_contiguous(memory_format=torch.channels_last)

    @every
    def test_map_is_the_function_on_every_map(self, x):
        levels = Levels.of(x)
        found = levels.map(lambda a, b: 2 * a + b, levels.map(torch.exp))
        expected = tuple(2 * level + level.exp() for level in split_levels(x))
        assert type(found) is type(levels)
        assert largest_difference(tuple(found), expected) < 1e-14
        assert largest_difference(tuple(levels + levels), tuple(levels * 2)) == 0
        assert largest_difference(tuple(1 + levels), tuple(y + 1 for y in split_levels(x))) == 0

    @pytest.mark.parametrize(
        'name', 'ReLU LeakyReLU PReLU RReLU ReLU6 ELU SELU CELU GELU SiLU Mish Sigmoid Tanh '
        'Softplus Hardswish Hardsigmoid Hardtanh Threshold LogSigmoid Clamp Swish HSigmoid '
        'HSwish'.split(),
    )  # fmt: skip
    @every
    def test_activations_take_them(self, name, x):
        if hasattr(nn, name):
            act = getattr(nn, name)(*((0.1, 0.2) if name == 'Threshold' else ()))
        else:
            act = build_activation_layer(dict(type=name))
        act = act.double().eval()
        expected = tuple(act(level.clone()) for level in split_levels(x))
        assert largest_difference(tuple(act(Levels.of(x) * 1)), expected) < 1e-14

    @every
    def test_group_norm_takes_all_pixels_of_a_sample(self, x):
        norm = nn.GroupNorm(3, 3).double()
        pixels = torch.cat([level.flatten(2) for level in split_levels(x)], 2)
        found = torch.cat([level.flatten(2) for level in norm(Levels.of(x))], 2)
        assert largest_difference([found], [norm(pixels)]) < 1e-14

    @every
    def test_a_synchronised_norm_in_eval_takes_them(self, x):
        norm = nn.SyncBatchNorm(3).double().eval()
        norm.running_mean.fill_(0.5)
        expected = tuple((level - 0.5) / (1 + norm.eps) ** 0.5 for level in split_levels(x))
        assert largest_difference(tuple(norm(Levels.of(x))), expected) < 1e-12

    def test_functions_of_neighbourhoods_are_refused(self):
        for layer in (nn.AvgPool2d(2), nn.Conv2d(3, 3, 1).double(), nn.Softmax(1)):
            with pytest.raises((TypeError, ValueError), match='Levels|levels|expected'):
                layer(Levels.of(PYRAMID))

    @every
    def test_values_of_samples_reach_their_pixels(self, x):
        values = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
        levels = Levels.of(x)
        found = levels.map(lambda pixels: pixels * levels.per_sample(values))
        expected = tuple(level * values[:, :, None, None] for level in split_levels(x))
        assert largest_difference(tuple(found), expected) == 0

    def test_neighbours_of_equal_size_and_factor_are_one_batch(self):
        seen = []

        def record(maps, factor):
            seen.append((tuple(maps.shape), factor))
            return factor * maps[..., ::2, ::2]

        levels = Levels.of(PYRAMID)
        found = levels.map_maps(record, (1, 1, 1, 1, 3))
        sides = [((2, 3, 8, 9), 1), ((2, 3, 4, 5), 1), ((4, 3, 1, 2), 1), ((2, 3, 1, 2), 3)]
        assert seen == sides
        expected = tuple(f * y[..., ::2, ::2] for f, y in zip((1, 1, 1, 1, 3), PYRAMID))
        assert largest_difference(tuple(found), expected) == 0
        with pytest.raises(ValueError, match='5 levels need as many factors'):
            levels.map_maps(record, (1, 1))

    @given(num_coarse=st.integers(0, 5), scale=st.floats(-2, 2))
    @settings(deadline=None, max_examples=20)
    def test_coarse_levels_go_to_their_own_function(self, num_coarse, scale):
        def coarse(rows, sizes):
            assert len(sizes) == num_coarse and len(rows) == 2 * sum(h * w for h, w in sizes)
            return scale * rows, sizes

        found = Levels.of(PYRAMID).map_maps(lambda maps, _: maps, (1,) * 5, num_coarse, coarse)
        factors = [1] * (5 - num_coarse) + [scale] * num_coarse
        expected = tuple(f * level for f, level in zip(factors, PYRAMID))
        assert largest_difference(tuple(found), expected) == 0

    @pytest.mark.parametrize('joined', [False, True])
    @pytest.mark.parametrize('count', [0, 1, 3])
    @pytest.mark.parametrize('x', [DENSE, PYRAMID], ids=['dense', 'pyramid'])
    def test_the_coarse_levels_and_sums_of_the_fine_ones(self, x, count, joined):
        levels, maps = Levels.of(x), split_levels(x)
        if joined:
            levels.rows  # noqa: B018
        rest = levels.drop_finest(count)
        assert type(rest) is type(levels)
        assert largest_difference(tuple(rest), maps[count:]) == 0
        fine = type(levels)(*[level.clone() for level in maps[: len(maps) - count]])
        summed = (levels * 2).add_finest(fine)
        expected = [(3 if k < len(fine) else 2) * level for k, level in enumerate(maps)]
        assert largest_difference(tuple(summed), expected) < 1e-14

    def test_dense_levels_are_one_batch(self):
        levels = Levels.of(DENSE)
        for _ in range(2):
            batch = levels.as_batch()
            assert torch.equal(batch[2:4], DENSE[:, :, 1])
            again = DenseLevels.of_batch(batch, 4)
            assert largest_difference(again.to_signal(), DENSE) == 0
            levels.rows  # noqa: B018
        assert torch.equal(Levels.of(ONE).as_batch(), ONE[:, :, 0])
        assert torch.equal(DenseLevels.of_batch(ONE[:, :, 0], 1).to_signal(), ONE)

    @every
    def test_gradients_pass(self, x):
        maps = [level.clone().requires_grad_() for level in split_levels(x)]
        levels = Levels.of(tuple(maps) if is_pyramid(x) else torch.stack(maps, 2))
        assert levels.requires_grad
        found = levels.map_maps(lambda y, factor: factor * y**2, range(1, len(maps) + 1))
        sum(y.sum() for y in found).backward()
        for k, level in enumerate(maps, start=1):
            assert largest_difference(level.grad, 2 * k * level.detach()) < 1e-14

    @every
    def test_layers_behind_the_signal_may_work_in_place(self, x):
        maps = [level.clone().requires_grad_() for level in split_levels(x)]
        signal = tuple(maps) if is_pyramid(x) else torch.stack(maps, 2)
        y = map_levels(torch.relu_, map_levels(lambda z: z * 2, signal))
        sum(level.sum() for level in split_levels(y)).backward()
        for level in maps:
            assert torch.equal(level.grad, 2.0 * (level > 0))

    @every
    def test_hooks_see_and_change_the_gradient(self, x):
        maps = [level.clone().requires_grad_() for level in split_levels(x)]
        levels, seen = Levels.of(tuple(maps) if is_pyramid(x) else torch.stack(maps, 2)), []

        def hook(grad):
            seen.append(grad)
            return grad * 3

        levels.register_hook(hook)
        sum((k + 1) * level.square().sum() for k, level in enumerate(levels)).backward()
        for k, level in enumerate(maps):
            assert type(seen[0]) is type(levels)
            assert largest_difference([seen[0][k]], [2 * (k + 1) * level.detach()]) < 1e-14
            assert largest_difference([level.grad], [6 * (k + 1) * level.detach()]) < 1e-14

    @every
    def test_can_be_copied_and_saved(self, x):
        levels = Levels.of(x)
        for again in (pickle.loads(pickle.dumps(levels)), copy.deepcopy(levels)):
            assert type(again) is type(levels) and again.sizes == levels.sizes
            assert largest_difference(tuple(again), tuple(levels)) == 0
        assert levels != again and 'sizes=' in repr(levels)


def test_map_levels():
    assert torch.equal(map_levels(torch.add, DENSE, DENSE), 2 * DENSE)
    doubled = map_levels(torch.add, PYRAMID, PYRAMID)
    assert type(doubled) is Pyramid
    assert largest_difference(doubled, tuple(2 * level for level in PYRAMID)) == 0
    assert isinstance(map_levels(torch.exp, Levels.of(PYRAMID)), Levels)
    # Turned by a quarter, the levels have as many pixels; one pixel would fit anything.
    turned, one = tuple(level.mT for level in PYRAMID), (PYRAMID[0][..., :1, :1],)
    for other in (PYRAMID[:2], turned, one, DENSE):
        with pytest.raises(ValueError, match='levels of the same sizes'):
            map_levels(torch.add, PYRAMID, other)


@pytest.mark.parametrize('factor', [0.5, 2, 2**-0.5, 1.3])
def test_resample_level_is_a_bilinear_read_that_repeats_the_border(factor):
    level, size = PYRAMID[0], (7, 9)
    found = resample_level(level, factor, size)
    for i, j in itertools.product(range(7), range(9)):
        last = (level.shape[2] - 1, level.shape[3] - 1)
        at = min(factor * i, last[0]), min(factor * j, last[1])
        np.testing.assert_allclose(found[..., i, j], read(level.numpy(), *at), atol=1e-13)


class TestCheckSignal:
    grid, pyramid = ScaleGrid(2, 4), tuple(torch.zeros(2, 3, n, n + 1) for n in (8, 4, 2))

    def test_accepts_signals_on_the_start_of_the_grid(self):
        check_signal(DENSE, self.grid, 3)
        check_signal(DENSE[:, :, :1], self.grid)
        check_signal(self.pyramid, self.grid, 3)
        check_signal(list(self.pyramid[:1]), self.grid, 3)
        check_signal(Levels.of(self.pyramid), self.grid, 3)

    @given(
        side=st.integers(1, 500),
        stride=st.integers(1, 7),
        base=st.floats(1.01, 4),
        first_level=st.integers(-2, 1),
    )
    @settings(deadline=None, max_examples=100)
    def test_accepts_what_lifts_and_strides_give(self, side, stride, base, first_level):
        grid = ScaleGrid(base, 4, first_level=first_level)
        sides = [-(-grid.level_size(side, k) // stride) for k in grid.levels]
        check_signal(tuple(torch.zeros(1, 1, n, n) for n in sides), grid)

    @pytest.mark.parametrize(
        'signal, message',
        [
            (DENSE[0], r'dense tensor \(N, C, S, H, W\), got the shape \(3, 4, 5, 6\)'),
            ((pyramid[0], pyramid[1][0]), r'pyramid of .*, got the shape \(3, 4, 5\)'),
            ((DENSE,), r'pyramid of .*, got the shape \(2, 3, 4, 5, 6\)'),
            ((), 'has 0 levels, but .* num_scales=4'),
            (DENSE.repeat(1, 1, 2, 1, 1), 'has 8 levels, but .* num_scales=4'),
            (pyramid * 2, 'has 6 levels, but .* num_scales=4'),
            (pyramid[:1] * 2, r'base 2 cannot have the heights \[8, 8\]'),
            ((pyramid[0], pyramid[1][..., :4]), r'base 2 cannot have the widths \[9, 4\]'),
        ],
    )
    def test_refuses_what_is_no_signal(self, signal, message):
        with pytest.raises(ValueError, match=message):
            check_signal(signal, self.grid)

    @pytest.mark.parametrize('signal', [DENSE, pyramid, Levels.of(pyramid)], ids=type)
    def test_refuses_other_channels(self, signal):
        with pytest.raises(ValueError, match='has 3 channels, expected 5'):
            check_signal(signal, self.grid, 5)
