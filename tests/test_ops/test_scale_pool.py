# Copyright (c) mmscale contributors.
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import largest_difference, randn, scale_pool, signal_of, to_levels
from torch.autograd import gradcheck

from mmscale.ops import check_pool, scale_avg_pool2d, scale_max_pool2d
from mmscale.scale_space import Levels, ScaleGrid
from mmscale.testing import assert_scale_equivariant

POOLS = [(scale_max_pool2d, np.max), (scale_avg_pool2d, np.mean)]
WINDOWS = [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 1, 0), (3, 3, 0), (1, 2, 0), (3, 2, 2), (5, 2, 2)]
both_pools = pytest.mark.parametrize('pool', [scale_max_pool2d, scale_avg_pool2d])


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
    x = signal_of(grid, 2, (height, width), pyramid)
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


@pytest.mark.parametrize('window', [(2, 2, 0), (3, 3, 0), (3, 2, 1), (1, 1, 0)])
@pytest.mark.parametrize('size', [(7, 8), (9, 6), (3, 3), (1, 2)])
def test_one_level_is_ordinary_pooling(window, size):
    x, grid = randn(2, 3, *size), ScaleGrid(2, 1)
    ceil = not window[2]  # the pooling of stems has as many outputs as torch's without it
    expected = F.max_pool2d(x, *window, ceil_mode=ceil)
    assert torch.equal(scale_max_pool2d((x,), *window, scale_space=grid)[0], expected)
    assert torch.equal(
        scale_max_pool2d(x[:, :, None], *window, scale_space=grid)[:, :, 0], expected
    )
    expected = F.avg_pool2d(x, *window, ceil_mode=ceil, count_include_pad=False)
    found = scale_avg_pool2d((x,), *window, scale_space=grid)[0]
    assert largest_difference(found, expected) < 1e-14


@both_pools
@pytest.mark.parametrize('window', WINDOWS)
@pytest.mark.parametrize('pyramid', [False, True])
def test_commutes_with_scaling(pool, window, pyramid):
    for base, num_scales in ((2, 4), (3, 3)):
        grid = ScaleGrid(base, num_scales)
        x = signal_of(grid, 2, (31, 38), pyramid)
        for shift in range(1, num_scales):
            assert_scale_equivariant(
                lambda signal, grid=grid: pool(signal, *window, scale_space=grid),
                x,
                base**shift,
                grid,
            )


@both_pools
@pytest.mark.parametrize('base', [2, 1.4])
@pytest.mark.parametrize('window', [(2, 2, 0), (3, 2, 1)])
def test_derivatives(pool, base, window):
    grid, x = ScaleGrid(base, 2), randn(1, 1, 2, 5, 4).requires_grad_()
    assert gradcheck(lambda x: pool(x, *window, scale_space=grid), (x,))


@both_pools
@pytest.mark.parametrize('base', [2, 1.4])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_and_negative_values(pool, base, dtype):
    """No tap outside the image may leak as -inf or as a zero above the values."""
    x, grid = -1 - torch.rand(1, 1, 3, 7, 6), ScaleGrid(base, 3)
    exact = pool(x, 3, 2, 1, scale_space=grid)
    found = pool(x.to(dtype), 3, 2, 1, scale_space=grid)
    assert found.dtype == dtype
    assert (found < -0.99).all() and (found > -2.01).all()
    assert largest_difference(found.float(), exact) < 0.05
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = pool(x, 3, 2, 1, scale_space=grid)
    assert torch.equal(found, exact)  # as PyTorch's pooling, which autocast leaves alone


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(kernel_size=(0, 2)), r'kernel_size must be at least 1, got 0 \(height\)'),
        (dict(stride=(2, 0)), r'stride must be at least 1, got 0 \(width\)'),
        (dict(padding=(0, 2)), r'padding must be from 0 to .* = 1, got 2 \(width\)'),
        (dict(padding=(-1, 0)), r'padding must be from 0 to .* = 1, got -1 \(height\)'),
    ],
)
def test_wrong_windows(change, message):
    window = dict(kernel_size=(2, 2), stride=(2, 2), padding=(1, 0))
    check_pool(**window)
    with pytest.raises(ValueError, match=message):
        check_pool(**{**window, **change})


@both_pools
def test_wrong_arguments(pool):
    grid = ScaleGrid(2, 3)
    with pytest.raises(ValueError, match='has 4 levels, but .* num_scales=3'):
        pool(randn(1, 2, 4, 8, 8), 2, 2, scale_space=grid)
    with pytest.raises(ValueError, match='padding must be from 0 to kernel_size - 1 = 1, got 2'):
        pool(randn(1, 2, 3, 8, 8), 2, 2, 2, scale_space=grid)
