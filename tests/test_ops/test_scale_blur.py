# Copyright (c) mmscale contributors.
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import largest_difference, scale_blur, to_levels
from torch.autograd import gradcheck, gradgradcheck

from mmscale.ops import binomial, check_blur, scale_blur_pool2d
from mmscale.scale_space import Levels, ScaleGrid, discrete_gaussian
from mmscale.testing import assert_scale_equivariant

FILTERS = [dict(kernel_size=3), dict(kernel_size=5), dict(kernel_size=7), dict(variance=0.7)]


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def pyramid_of(height, width, grid):
    return tuple(
        randn(2, 3, grid.level_size(height, k), grid.level_size(width, k), seed=k + 9)
        for k in grid.levels
    )


def taps_of(low_pass):
    written_out = {3: [1, 2, 1], 5: [1, 4, 6, 4, 1], 7: [1, 6, 15, 20, 15, 6, 1]}
    if 'variance' in low_pass:
        return discrete_gaussian(low_pass['variance']).tolist()
    taps = written_out[low_pass['kernel_size']]
    return [tap / sum(taps) for tap in taps]


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
    x = pyramid_of(height, width, grid) if pyramid else randn(2, 3, 3, height, width)
    if pyramid and channels_last:
        x = tuple(level.contiguous(memory_format=torch.channels_last) for level in x)
    found = scale_blur_pool2d(x, **low_pass, stride=stride, scale_space=grid)
    assert isinstance(found, tuple) == pyramid
    factors = [1, 1, 1] if pyramid else [base**k for k in grid.levels]
    factors = [round(f) if abs(f - round(f)) < 1e-9 else f for f in factors]
    expected = scale_blur(to_levels(x), taps_of(low_pass), stride, factors=factors)
    assert largest_difference(to_levels(found), expected) < 1e-12
    packed = scale_blur_pool2d(Levels.of(x), **low_pass, stride=stride, scale_space=grid)
    assert isinstance(packed, Levels)
    assert largest_difference(packed.to_signal(), found) < 1e-12


@pytest.mark.parametrize('base', [2, 1.3])
@pytest.mark.parametrize('low_pass', FILTERS, ids=str)
def test_a_compiler_gets_the_same_values_from_convolutions(base, low_pass, monkeypatch):
    """Matrices of constants serve the CPU alone; elsewhere dilated filters are convolutions."""
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
    assert (taps * offsets).sum().abs() < 1e-15
    assert (taps * offsets**2).sum() == pytest.approx((count - 1) / 4, abs=1e-14)
    # The highest frequency vanishes: what a stride of 2 would fold onto the mean.
    assert count == 1 or (taps * (-1.0) ** torch.arange(count)).sum().abs() < 1e-15


@pytest.mark.parametrize('low_pass', FILTERS, ids=str)
@pytest.mark.parametrize('stride', [1, 2, 3, (2, 1)])
@pytest.mark.parametrize('base, num_scales', [(2, 4), (3, 3)])
@pytest.mark.parametrize('pyramid', [False, True])
def test_commutes_with_scaling(low_pass, stride, base, num_scales, pyramid):
    grid = ScaleGrid(base, num_scales)
    x = pyramid_of(31, 38, grid) if pyramid else randn(1, 2, num_scales, 31, 38)

    def fn(signal):
        return scale_blur_pool2d(signal, **low_pass, stride=stride, scale_space=grid)

    for shift in range(1, num_scales):
        assert_scale_equivariant(fn, x, base**shift, grid)


@pytest.mark.parametrize('base', [2**0.5, 2 ** (1 / 3), 1.3])
def test_pyramids_commute_with_scaling_by_powers_of_a_fractional_base(base):
    grid = ScaleGrid(base, 5)
    x = pyramid_of(41, 38, grid)
    y = scale_blur_pool2d(x, 5, scale_space=grid)
    for shift in range(1, 5):
        found = scale_blur_pool2d(x[shift:], 5, scale_space=grid)
        assert largest_difference(found, y[shift:]) == 0


def test_undilated_filters_do_not_commute():
    grid, x = ScaleGrid(2, 3), randn(1, 2, 3, 31, 38)
    kernel = torch.outer(binomial(5), binomial(5)).expand(2, 1, 5, 5)

    def ordinary(signal):
        return torch.stack(
            [F.conv2d(level, kernel, None, 2, 2, 1, 2) for level in signal.unbind(2)], 2
        )

    with pytest.raises(AssertionError, match='not scale-equivariant at factor 2'):
        assert_scale_equivariant(ordinary, x, 2, grid, atol=0.1)


@pytest.mark.parametrize('base', [2, 1.4])
@pytest.mark.parametrize('low_pass', [dict(kernel_size=3), dict(variance=0.4)], ids=str)
@pytest.mark.parametrize('form', ['dense', 'pyramid', 'packed'])
def test_derivatives(base, low_pass, form):
    grid = ScaleGrid(base, 2)
    x = randn(1, 2, 2, 5, 4).requires_grad_()

    def fn(x):
        signal = dict(
            dense=lambda: x,
            pyramid=lambda: (
                x[:, :, 0],
                x[:, :, 1, : grid.level_size(5, 1), : grid.level_size(4, 1)],
            ),
            packed=lambda: Levels.of(x),
        )[form]()
        y = scale_blur_pool2d(signal, **low_pass, scale_space=grid)
        y = y.to_signal() if form == 'packed' else y
        return y

    assert gradcheck(fn, (x,))
    assert gradgradcheck(fn, (x,))


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


def test_odd_translations_of_smooth_images_survive_the_stride():
    """Moved by one pixel, a signal of stride 2 moves by half a sample: readable where blurred.

    Waves up to 0.45 of the sampling frequency; half-sample positions are read by their Fourier
    series, on a circular image so that no border is in the way.
    """
    size = 64
    z = torch.arange(size).double()
    generator = torch.Generator().manual_seed(0)
    x = sum(
        torch.randn(1, generator=generator, dtype=torch.float64)
        * torch.cos(2 * math.pi * f * z / size + f**2)
        for f in range(1, 29)
    )
    grid, wide = ScaleGrid(2, 1), 16

    def moved_and_moved_back(fn):
        even, odd = fn(x), fn(x.roll(1))
        waves = torch.fft.rfft(odd)
        count = len(odd)
        phase = torch.exp(2j * math.pi * torch.arange(len(waves)) / count * 0.5)
        back = torch.fft.irfft(waves * phase, count)
        return ((even - back).square().sum() / even.square().sum()).item()

    def blurred(kernel_size):
        def fn(x):
            line = torch.cat([x[-wide:], x, x[:wide]]).expand(1, 1, 2 * wide + 1, -1)
            y = scale_blur_pool2d((line,), kernel_size, scale_space=grid)[0]
            return y[0, 0, wide // 2, wide // 2 : -wide // 2]

        return fn

    errors = [moved_and_moved_back(lambda x: x[::2])]
    errors += [moved_and_moved_back(blurred(kernel_size)) for kernel_size in (3, 5, 7)]
    assert errors[0] > 0.5
    for bound, error in zip((0.2, 0.05, 0.015), errors[1:]):
        assert error < bound


class TestWrongArguments:
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
            (dict(), 'kernel_size or variance, not both and not neither, got None and None'),
        ],
    )
    def test_filters(self, low_pass, message):
        with pytest.raises(ValueError, match=message):
            check_blur(low_pass.get('kernel_size'), low_pass.get('variance'))
        with pytest.raises(ValueError, match=message):
            scale_blur_pool2d(randn(1, 2, 3, 8, 8), **low_pass, scale_space=ScaleGrid(2, 3))

    def test_strides_and_signals(self):
        grid = ScaleGrid(2, 3)
        with pytest.raises(ValueError, match=r'stride must be at least 1, got 0 \(width\)'):
            scale_blur_pool2d(randn(1, 2, 3, 8, 8), 3, (2, 0), scale_space=grid)
        with pytest.raises(ValueError, match='has 4 levels, but .* num_scales=3'):
            scale_blur_pool2d(randn(1, 2, 4, 8, 8), 3, scale_space=grid)
        with pytest.raises(ValueError, match='dense tensor'):
            scale_blur_pool2d(randn(1, 2, 8, 8), 3, scale_space=grid)
