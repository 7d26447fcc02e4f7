# Copyright (c) mmscale contributors.
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import largest_difference, scale_pool, to_levels
from torch.autograd import gradcheck

from mmscale.ops import check_pool, scale_avg_pool2d, scale_max_pool2d
from mmscale.scale_space import Levels, ScaleGrid
from mmscale.testing import assert_scale_equivariant

POOLS = [(scale_max_pool2d, np.max), (scale_avg_pool2d, np.mean)]
WINDOWS = [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 1, 0), (3, 3, 0), (1, 2, 0), (3, 2, 2), (5, 2, 2)]


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def pyramid_of(height, width, grid):
    return tuple(
        randn(1, 2, grid.level_size(height, k), grid.level_size(width, k), seed=k + 9)
        for k in grid.levels
    )


@pytest.mark.parametrize('pool, reduce', POOLS)
@given(
    window=st.sampled_from(WINDOWS),
    across=st.sampled_from(WINDOWS),
    base=st.sampled_from([2, 3, 1.3, 2**0.5]),
    first_level=st.integers(-1, 0),
    pyramid=st.booleans(),
    height=st.integers(1, 9),
    width=st.integers(3, 8),
)
@settings(deadline=None, max_examples=40)
def test_is_the_reduction_of_the_taps_inside(
    pool, reduce, window, across, base, first_level, pyramid, height, width
):
    grid = ScaleGrid(base, 3, first_level=first_level)
    x = pyramid_of(height, width, grid) if pyramid else randn(1, 2, 3, height, width)
    kernel, stride, padding = zip(window, across)
    found = pool(x, kernel, stride, padding, scale_space=grid)
    assert isinstance(found, tuple) == pyramid
    factors = [1, 1, 1] if pyramid else [base**k for k in grid.levels]
    factors = [round(f) if abs(f - round(f)) < 1e-9 else f for f in factors]
    expected = scale_pool(to_levels(x), kernel, stride, padding, factors=factors, reduce=reduce)
    assert largest_difference(to_levels(found), expected) < 1e-12
    packed = pool(Levels.of(x), kernel, stride, padding, scale_space=grid)
    assert isinstance(packed, Levels)
    assert largest_difference(packed.to_signal(), found) < 1e-12


@pytest.mark.parametrize('kernel, stride, padding', [(2, 2, 0), (3, 3, 0), (2, 1, 0), (1, 1, 0)])
@pytest.mark.parametrize('height, width', [(7, 8), (9, 6), (3, 3)])
def test_one_level_is_ordinary_pooling(kernel, stride, padding, height, width):
    x, grid = randn(2, 3, height, width), ScaleGrid(2, 1)
    window = (kernel,) * 2, (stride,) * 2, (padding,) * 2
    # Every output holds a pixel: where torch makes fewer, ours ends with partial windows.
    wide = F.pad(x, (0, kernel - 1) * 2, value=-torch.inf) if stride < kernel else x
    expected = F.max_pool2d(wide, kernel, stride, padding, ceil_mode=True)
    assert torch.equal(
        scale_max_pool2d(x[:, :, None], *window, scale_space=grid)[:, :, 0], expected
    )
    assert torch.equal(scale_max_pool2d((x,), *window, scale_space=grid)[0], expected)
    if stride == kernel:
        expected = F.avg_pool2d(x, kernel, stride, padding, ceil_mode=True, count_include_pad=False)
        found = scale_avg_pool2d(x[:, :, None], *window, scale_space=grid)[:, :, 0]
        assert largest_difference(found, expected) < 1e-14


@pytest.mark.parametrize('size', range(1, 10))
def test_the_pooling_of_resnet_stems_is_torchs(size):
    x, grid = randn(1, 2, size, size + 1), ScaleGrid(2, 1)
    found = scale_max_pool2d((x,), (3, 3), (2, 2), (1, 1), scale_space=grid)[0]
    assert torch.equal(found, F.max_pool2d(x, 3, 2, 1))


@pytest.mark.parametrize('pool, reduce', POOLS)
@pytest.mark.parametrize('window', WINDOWS)
@pytest.mark.parametrize('base, num_scales', [(2, 4), (3, 3)])
@pytest.mark.parametrize('pyramid', [False, True])
def test_commutes_with_scaling(pool, reduce, window, base, num_scales, pyramid):
    grid = ScaleGrid(base, num_scales)
    x = pyramid_of(31, 38, grid) if pyramid else randn(1, 2, num_scales, 31, 38)

    def fn(signal):
        return pool(signal, *((n, n) for n in window), scale_space=grid)

    for shift in range(1, num_scales):
        assert_scale_equivariant(fn, x, base**shift, grid)


def test_undilated_windows_do_not_commute():
    grid, x = ScaleGrid(2, 3), randn(1, 2, 3, 31, 38)

    def ordinary(signal):
        return torch.stack([F.max_pool2d(level, 3, 2, 1) for level in signal.unbind(2)], 2)

    with pytest.raises(AssertionError, match='not scale-equivariant at factor 2'):
        assert_scale_equivariant(ordinary, x, 2, grid, atol=0.1)


@pytest.mark.parametrize('pool, reduce', POOLS)
@pytest.mark.parametrize('base', [2, 1.4])
@pytest.mark.parametrize('window', [(2, 2, 0), (3, 2, 1)])
def test_derivatives(pool, reduce, base, window):
    grid, x = ScaleGrid(base, 2), randn(1, 1, 2, 5, 4).requires_grad_()
    assert gradcheck(lambda x: pool(x, *((n, n) for n in window), scale_space=grid), (x,))


@pytest.mark.parametrize('pool, reduce', POOLS)
@pytest.mark.parametrize('base', [2, 1.4])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_and_negative_values(pool, reduce, base, dtype):
    """No tap outside the image may leak as -inf or as a zero above the values."""
    x = -1 - torch.rand(1, 1, 3, 7, 6)
    grid = ScaleGrid(base, 3)
    exact = pool(x, (3, 3), (2, 2), (1, 1), scale_space=grid)
    found = pool(x.to(dtype), (3, 3), (2, 2), (1, 1), scale_space=grid)
    assert found.dtype == dtype
    assert (found < -0.99).all() and (found > -2.01).all()
    assert largest_difference(found.float(), exact) < 0.05
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = pool(x, (3, 3), (2, 2), (1, 1), scale_space=grid)
    assert largest_difference(found.float(), exact) < 0.05


@pytest.mark.parametrize('pool, reduce', POOLS)
def test_average_of_a_constant_is_the_constant(pool, reduce):
    x = torch.ones(1, 1, 4, 9, 7).double()
    for base, window in itertools.product((2, 1.3, 3), WINDOWS):
        y = pool(x, *((n, n) for n in window), scale_space=ScaleGrid(base, 4))
        assert largest_difference(y, torch.ones_like(y)) < 1e-14


@pytest.mark.parametrize('pool, reduce', POOLS)
class TestWrongArguments:
    def test_signals(self, pool, reduce):
        with pytest.raises(ValueError, match='has 4 levels, but .* num_scales=3'):
            pool(randn(1, 2, 4, 8, 8), (2, 2), (2, 2), scale_space=ScaleGrid(2, 3))
        with pytest.raises(ValueError, match='dense tensor'):
            pool(randn(1, 2, 8, 8), (2, 2), (2, 2), scale_space=ScaleGrid(2, 3))

    def test_windows_without_their_origin(self, pool, reduce):
        with pytest.raises(
            ValueError, match='padding must be from 0 to kernel_size - 1 = 1, got 2'
        ):
            pool(randn(1, 2, 3, 8, 8), (2, 2), (2, 2), (2, 2), scale_space=ScaleGrid(2, 3))

    def test_takes_single_numbers_like_torch(self, pool, reduce):
        x, grid = randn(1, 2, 3, 8, 8), ScaleGrid(2, 3)
        expected = pool(x, (3, 3), (2, 2), (1, 1), scale_space=grid)
        assert torch.equal(pool(x, 3, 2, 1, scale_space=grid), expected)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(kernel_size=(0, 2)), r'kernel_size must be at least 1, got 0 \(height\)'),
        (dict(stride=(2, 0)), r'stride must be at least 1, got 0 \(width\)'),
        (dict(padding=(0, 2)), r'padding must be from 0 to .* = 1, got 2 \(width\)'),
        (dict(padding=(-1, 0)), r'padding must be from 0 to .* = 1, got -1 \(height\)'),
    ],
)
def test_check_pool(change, message):
    window = dict(kernel_size=(2, 2), stride=(2, 2), padding=(1, 0))
    check_pool(**window)
    with pytest.raises(ValueError, match=message):
        check_pool(**{**window, **change})
