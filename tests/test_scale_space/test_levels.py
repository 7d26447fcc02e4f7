# Copyright (c) mmscale contributors.
"""The forms of a signal at the edges of networks, and between layers."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import build_activation_layer
from naive import largest_difference, randn, seen_at
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

DENSE = randn(2, 3, 4, 5, 6)
PYRAMID = tuple(randn(2, 3, n, n + 1, seed=i) for i, n in enumerate((8, 4, 1, 1, 1)))
ONE = randn(2, 3, 1, 5, 6)
SIGNALS = {'dense': DENSE, 'pyramid': PYRAMID, 'one level': ONE, 'pyramid of one': PYRAMID[:1]}
every = pytest.mark.parametrize('x', SIGNALS.values(), ids=SIGNALS)


def with_gradients(x):
    """Return the maps of a signal, and a signal made of these maps."""
    maps = [level.clone().requires_grad_() for level in split_levels(x)]
    return maps, tuple(maps) if is_pyramid(x) else torch.stack(maps, 2)


@every
def test_levels_hold_the_signal_they_are_made_of(x):
    levels, maps = Levels.of(x), split_levels(x)
    for _ in range(2):  # as the signal came, and then as rows
        assert isinstance(levels.to_signal(), type(x))
        assert largest_difference(levels.to_signal(), x) == 0
        assert largest_difference(tuple(levels), maps) == 0
        assert len(levels) == len(maps) and torch.equal(levels[-1], levels[:][-1])
        assert is_pyramid(levels) == is_pyramid(x) == (not levels.dense)
        assert levels.sizes == tuple(tuple(y.shape[-2:]) for y in maps)
        assert (levels.batch_size, levels.channels) == (2, 3)
        assert (levels.dtype, levels.device) == (torch.float64, torch.device('cpu'))
        assert levels.rows.shape == levels.size() and levels.dim() == 2
        expected = [level.permute(0, 2, 3, 1).reshape(-1, 3) for level in maps]
        assert torch.equal(levels.rows, torch.cat(expected))
    assert Levels.of(levels) is levels
    for level in levels if len(maps) > 1 else ():
        assert level.untyped_storage().data_ptr() == levels.rows.untyped_storage().data_ptr()
        assert level.is_contiguous(memory_format=torch.channels_last)


def test_dense_levels_are_stacked_and_are_one_batch():
    maps = split_levels(DENSE)
    assert all(torch.equal(level, DENSE[:, :, k]) for k, level in enumerate(maps))
    stacked = stack_levels(maps)
    assert torch.equal(stacked, DENSE) and stacked[:, :, 1].is_contiguous()
    levels = Levels.of(DENSE)
    for _ in range(2):
        batch = levels.as_batch()
        assert torch.equal(batch[2:4], DENSE[:, :, 1])
        assert torch.equal(DenseLevels.of_batch(batch, 4).to_signal(), DENSE)
        levels.rows  # noqa: B018
    assert torch.equal(Levels.of(ONE).as_batch(), ONE[:, :, 0])
    assert torch.equal(DenseLevels.of_batch(ONE[:, :, 0], 1).to_signal(), ONE)


@every
def test_map_is_the_function_on_every_map(x):
    levels, maps = Levels.of(x), split_levels(x)
    found = levels.map(lambda a, b: 2 * a + b, levels.map(torch.exp))
    assert type(found) is type(levels)
    assert largest_difference(tuple(found), tuple(2 * y + y.exp() for y in maps)) < 1e-14
    assert largest_difference(tuple(levels + levels), tuple(levels * 2)) == 0
    assert largest_difference(tuple(1 + levels), tuple(y + 1 for y in maps)) == 0


def test_map_levels_takes_signals_of_one_form():
    assert torch.equal(map_levels(torch.add, DENSE, DENSE), 2 * DENSE)
    doubled = map_levels(torch.add, PYRAMID, PYRAMID)
    assert type(doubled) is Pyramid
    assert largest_difference(doubled, tuple(2 * level for level in PYRAMID)) == 0
    assert isinstance(map_levels(torch.exp, Levels.of(PYRAMID)), Levels)
    # Levels turned by a quarter have as many pixels; a single pixel would broadcast.
    turned, one = tuple(level.mT for level in PYRAMID), (PYRAMID[0][..., :1, :1],)
    for other in (PYRAMID[:2], turned, one, DENSE):
        with pytest.raises(ValueError, match='levels of the same sizes'):
            map_levels(torch.add, PYRAMID, other)


@pytest.mark.parametrize(
    'name', 'ReLU LeakyReLU PReLU RReLU ReLU6 ELU SELU CELU GELU SiLU Mish Sigmoid Tanh '
    'Softplus Hardswish Hardsigmoid Hardtanh Threshold LogSigmoid Clamp Swish HSigmoid '
    'HSwish'.split(),
)  # fmt: skip
def test_activations_take_levels(name):
    if hasattr(nn, name):
        act = getattr(nn, name)(*((0.1, 0.2) if name == 'Threshold' else ()))
    else:
        act = build_activation_layer(dict(type=name))
    act = act.double().eval()
    for x in SIGNALS.values():
        expected = tuple(act(level.clone()) for level in split_levels(x))
        assert largest_difference(tuple(act(Levels.of(x) * 1)), expected) < 1e-14


@every
def test_norms_take_levels(x):
    """GroupNorm normalises all pixels of a sample together; SyncBatchNorm works in eval mode."""
    norm = nn.GroupNorm(3, 3).double()
    pixels = torch.cat([level.flatten(2) for level in split_levels(x)], 2)
    found = torch.cat([level.flatten(2) for level in norm(Levels.of(x))], 2)
    assert largest_difference(found, norm(pixels)) < 1e-14
    norm = nn.SyncBatchNorm(3).double().eval()
    norm.running_mean.fill_(0.5)
    expected = tuple((level - 0.5) / (1 + norm.eps) ** 0.5 for level in split_levels(x))
    assert largest_difference(tuple(norm(Levels.of(x))), expected) < 1e-12


def test_functions_of_neighbourhoods_are_refused():
    for layer in (nn.AvgPool2d(2), nn.Conv2d(3, 3, 1).double(), nn.Softmax(1)):
        with pytest.raises((TypeError, ValueError), match='Levels|levels|expected'):
            layer(Levels.of(PYRAMID))


@every
def test_values_of_samples_reach_their_pixels(x):
    values, levels = randn(2, 1), Levels.of(x)
    found = levels.map(lambda pixels: pixels * levels.per_sample(values))
    expected = tuple(level * values[:, :, None, None] for level in split_levels(x))
    assert largest_difference(tuple(found), expected) == 0


def test_neighbours_of_equal_size_and_factor_are_one_batch():
    seen, factors = [], (1, 1, 1, 1, 3)

    def record(maps, factor):
        seen.append((tuple(maps.shape), factor))
        return factor * maps[..., ::2, ::2]

    found = Levels.of(PYRAMID).map_maps(record, factors)
    assert seen == [((2, 3, 8, 9), 1), ((2, 3, 4, 5), 1), ((4, 3, 1, 2), 1), ((2, 3, 1, 2), 3)]
    expected = tuple(factor * y[..., ::2, ::2] for factor, y in zip(factors, PYRAMID))
    assert largest_difference(tuple(found), expected) == 0
    with pytest.raises(ValueError, match='5 levels need as many factors'):
        Levels.of(PYRAMID).map_maps(record, (1, 1))


@pytest.mark.parametrize('num_coarse', [0, 2, 5])
def test_coarse_levels_go_to_their_own_function(num_coarse):
    def coarse(rows, sizes):
        assert len(sizes) == num_coarse and len(rows) == 2 * sum(h * w for h, w in sizes)
        return 3 * rows, sizes

    found = Levels.of(PYRAMID).map_maps(lambda maps, _: maps, (1,) * 5, num_coarse, coarse)
    factors = [1] * (5 - num_coarse) + [3] * num_coarse
    expected = tuple(factor * level for factor, level in zip(factors, PYRAMID))
    assert largest_difference(tuple(found), expected) == 0


@pytest.mark.parametrize('joined', [False, True])
@pytest.mark.parametrize('count', [0, 1, 3])
@pytest.mark.parametrize('x', [DENSE, PYRAMID], ids=['dense', 'pyramid'])
def test_the_coarse_levels_and_sums_of_the_fine_ones(x, count, joined):
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


@every
def test_gradients_pass_and_hooks_see_and_change_them(x):
    maps, signal = with_gradients(x)
    levels, seen = Levels.of(signal), []
    assert levels.requires_grad

    def hook(grad):
        seen.append(grad)
        return grad * 3

    squares = levels.map_maps(lambda y, factor: factor * y**2, range(1, len(maps) + 1))
    squares.register_hook(hook)
    sum((k + 1) * level.sum() for k, level in enumerate(squares)).backward()
    assert type(seen[0]) is type(levels)
    for k, level in enumerate(maps):
        assert torch.equal(seen[0][k], torch.full_like(level, k + 1))
        assert largest_difference(level.grad, 6 * (k + 1) ** 2 * level.detach()) < 1e-13


@every
def test_layers_behind_the_signal_may_work_in_place(x):
    maps, signal = with_gradients(x)
    y = map_levels(torch.relu_, map_levels(lambda z: z * 2, signal))
    sum(level.sum() for level in split_levels(y)).backward()
    for level in maps:
        assert torch.equal(level.grad, 2.0 * (level > 0))


@every
def test_levels_can_be_copied_and_saved(x):
    levels = Levels.of(x)
    for again in (pickle.loads(pickle.dumps(levels)), copy.deepcopy(levels)):
        assert type(again) is type(levels) and again.sizes == levels.sizes
        assert largest_difference(tuple(again), tuple(levels)) == 0
    assert levels != again and 'sizes=' in repr(levels)


@pytest.mark.parametrize('factor', [0.5, 2**-0.5, 1.3])
def test_resample_level_is_a_bilinear_read_that_repeats_the_border(factor):
    levels = [randn(1, 1, 9, 11), PYRAMID[0]]
    _, expected = seen_at(0, [level.numpy() for level in levels], 2, 1 / factor, True)
    assert largest_difference(resample_level(levels[1], factor, (9, 11)), expected) < 1e-13


class TestCheckSignal:
    grid, pyramid = ScaleGrid(2, 4), tuple(torch.zeros(2, 3, n, n + 1) for n in (8, 4, 2))

    @pytest.mark.parametrize('x', [DENSE, DENSE[:, :, :1], pyramid, list(pyramid[:1])])
    def test_accepts_signals_on_the_start_of_the_grid(self, x):
        check_signal(x, self.grid, 3)
        check_signal(Levels.of(x), self.grid, 3)
        for signal in (x, Levels.of(x)):
            with pytest.raises(ValueError, match='has 3 channels, expected 5'):
                check_signal(signal, self.grid, 5)

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
