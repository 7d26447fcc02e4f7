# Copyright (c) mmscale contributors.
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import convolve, largest_difference, randn, signal_of, to_levels
from torch.autograd import gradcheck, gradgradcheck

from mmscale.ops import binomial, check_blur, scale_blur_pool2d
from mmscale.scale_space import Levels, ScaleGrid, discrete_gaussian
from mmscale.testing import assert_scale_equivariant

TAPS = {3: [1, 2, 1], 5: [1, 4, 6, 4, 1], 7: [1, 6, 15, 20, 15, 6, 1]}
FILTERS = [*(dict(kernel_size=count) for count in TAPS), dict(variance=0.7)]


def kernel_of(low_pass):
    """Return the filter along both axes, ``(n, n)``."""
    if 'variance' in low_pass:
        taps = discrete_gaussian(low_pass['variance']).numpy()
    else:
        taps = np.array(TAPS[low_pass['kernel_size']])
    return np.outer(taps, taps) / taps.sum() ** 2


@given(
    low_pass=st.sampled_from(FILTERS),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    base=st.sampled_from([2, 3, 1.3, 2**0.5]),
    first_level=st.integers(-1, 0),
    pyramid=st.booleans(),
    channels_last=st.booleans(),
    height=st.integers(1, 9),
    width=st.integers(3, 8),
)
@settings(deadline=None, max_examples=60)
def test_is_the_sum_that_defines_it(
    low_pass, stride, base, first_level, pyramid, channels_last, height, width
):
    grid = ScaleGrid(base, 3, first_level=first_level)
    x = signal_of(grid, 3, (height, width), pyramid)
    if pyramid and channels_last:
        x = tuple(level.contiguous(memory_format=torch.channels_last) for level in x)
    found = scale_blur_pool2d(x, **low_pass, stride=stride, scale_space=grid)
    assert isinstance(found, tuple) == pyramid
    kernel = np.broadcast_to(kernel_of(low_pass), (3, 1, 1, *kernel_of(low_pass).shape))
    expected = [
        convolve([level], kernel, 1 if pyramid else base**k, stride, groups=3)
        for k, level in zip(grid.levels, to_levels(x), strict=True)
    ]
    assert largest_difference(to_levels(found), expected) < 1e-12
    packed = scale_blur_pool2d(Levels.of(x), **low_pass, stride=stride, scale_space=grid)
    assert isinstance(packed, Levels)
    assert largest_difference(packed.to_signal(), found) < 1e-12


@pytest.mark.parametrize('base', [2, 1.3])
@pytest.mark.parametrize('low_pass', FILTERS, ids=str)
def test_a_compiler_gets_the_same_values_from_convolutions(base, low_pass, monkeypatch):
    """Only the CPU uses matrices; on other devices dilated filters are convolutions."""
    grid, x = ScaleGrid(base, 4, first_level=-1), randn(2, 3, 4, 17, 12)
    expected = scale_blur_pool2d(x, **low_pass, scale_space=grid)
    monkeypatch.setattr(torch.jit, 'is_tracing', lambda: True)
    found = scale_blur_pool2d(x, **low_pass, scale_space=grid)
    assert largest_difference(found, expected) < 1e-13


@pytest.mark.parametrize('count', range(1, 10))
def test_binomial_filters(count):
    taps = binomial(count)
    offsets = torch.arange(count) - (count - 1) / 2
    assert taps.sum() == 1
    assert (taps * offsets**2).sum() == pytest.approx((count - 1) / 4, abs=1e-14)
    # The highest frequency, which a stride of 2 would alias to the mean, vanishes.
    assert count == 1 or (taps * (-1.0) ** torch.arange(count)).sum().abs() < 1e-15


@pytest.mark.parametrize('low_pass', [dict(kernel_size=5), dict(variance=0.7)], ids=str)
@pytest.mark.parametrize('stride', [1, 2, (3, 1)])
@pytest.mark.parametrize('base, num_scales', [(2, 4), (3, 3)])
@pytest.mark.parametrize('pyramid', [False, True])
def test_commutes_with_scaling(low_pass, stride, base, num_scales, pyramid):
    grid = ScaleGrid(base, num_scales)

    def fn(signal):
        return scale_blur_pool2d(signal, **low_pass, stride=stride, scale_space=grid)

    for shift in range(1, num_scales):
        assert_scale_equivariant(fn, signal_of(grid, 2, (31, 38), pyramid), base**shift, grid)


@pytest.mark.parametrize('base', [2, 1.4])
@pytest.mark.parametrize('pyramid', [False, True])
def test_derivatives(base, pyramid):
    grid = ScaleGrid(base, 2)
    x = signal_of(grid, 2, (5, 4), pyramid)
    inputs = [level.requires_grad_() for level in (x if pyramid else (x,))]

    def fn(*x):
        y = scale_blur_pool2d(x if pyramid else x[0], 3, scale_space=grid)
        return y if pyramid else (y,)

    assert gradcheck(fn, inputs)
    assert gradgradcheck(fn, inputs)


@pytest.mark.parametrize('base', [2, 1.4])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision(base, dtype):
    x, grid = torch.rand(1, 2, 3, 9, 8), ScaleGrid(base, 3)
    exact = scale_blur_pool2d(x.double(), 5, scale_space=grid)
    found = scale_blur_pool2d(x.to(dtype), 5, scale_space=grid)
    assert found.dtype == dtype
    assert largest_difference(found.double(), exact) < (1e-6 if dtype == torch.float32 else 0.02)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = scale_blur_pool2d(x, 5, scale_space=grid)
    assert largest_difference(found.double(), exact) < 0.02


@pytest.mark.parametrize(
    'low_pass, message',
    [
        (dict(kernel_size=4), 'kernel_size must be an odd integer of at least 3 .*, got 4'),
        (dict(kernel_size=1), 'kernel_size must be an odd integer of at least 3 .*, got 1'),
        (dict(kernel_size=5.0), 'kernel_size must be an odd integer .*, got 5.0'),
        (dict(variance=0), 'variance must be a finite number greater than 0 .*, got 0'),
        (dict(variance=math.inf), 'variance must be a finite number .*, got inf'),
        (dict(variance='3'), "variance must be a finite number .*, got '3'"),
        (dict(kernel_size=5, variance=1.0), 'kernel_size or variance, not both'),
        (dict(kernel_size=None), 'kernel_size or variance, .* not neither, got None and None'),
    ],
)
def test_wrong_filters(low_pass, message):
    with pytest.raises(ValueError, match=message):
        check_blur(low_pass.get('kernel_size'), low_pass.get('variance'))
    with pytest.raises(ValueError, match=message):
        scale_blur_pool2d(randn(1, 2, 3, 8, 8), **low_pass, scale_space=ScaleGrid(2, 3))


def test_wrong_strides_and_signals():
    grid = ScaleGrid(2, 3)
    with pytest.raises(ValueError, match=r'stride must be at least 1, got 0 \(width\)'):
        scale_blur_pool2d(randn(1, 2, 3, 8, 8), 3, (2, 0), scale_space=grid)
    with pytest.raises(ValueError, match='has 4 levels, but .* num_scales=3'):
        scale_blur_pool2d(randn(1, 2, 4, 8, 8), 3, scale_space=grid)
