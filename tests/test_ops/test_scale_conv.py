# Copyright (c) mmscale contributors.
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from naive import largest_difference, scale_conv, to_levels
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.flop_counter import FlopCounterMode

from mmscale.ops import check_window, scale_conv2d
from mmscale.ops.processor import _conv_between_pixels, splat_kernel
from mmscale.scale_space import (
    Levels,
    ScaleGrid,
    resample,
    scale_scale_space,
    split_levels,
)
from mmscale.scale_space.resample import grid_positions
from mmscale.testing import assert_scale_equivariant


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def pyramid_of(height, width, grid, channels, batch=1, dtype=torch.float64):
    return tuple(
        randn(batch, channels, grid.level_size(height, k), grid.level_size(width, k),
              seed=k + 9, dtype=dtype)
        for k in grid.levels
    )  # fmt: skip


odd = st.sampled_from([1, 3, 5])


@given(
    pyramid=st.booleans(),
    base=st.sampled_from([2, 3, 1.3, 1.5, 2**0.5]),
    first_level=st.integers(-2, 1),
    num_scales=st.integers(1, 3),
    interaction=st.integers(1, 3),
    kernel=st.tuples(odd, odd),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    height=st.integers(3, 6),
    width=st.integers(3, 6),
)
@settings(deadline=None, max_examples=150)
def test_is_the_sum_that_defines_it(
    pyramid, base, first_level, num_scales, interaction, kernel, stride, dilation, groups, bias,
    height, width,
):  # fmt: skip
    interaction = min(interaction, num_scales)
    grid = ScaleGrid(base, num_scales, first_level=first_level)
    if pyramid:
        x = pyramid_of(height, width, grid, 2)
    else:
        x = randn(1, 2, num_scales, height, width)
    weight = randn(4, 2 // groups, interaction, *kernel, seed=1)
    bias = randn(4, seed=2) if bias else None
    found = scale_conv2d(x, weight, bias, stride, dilation, groups, scale_space=grid)
    assert isinstance(found, tuple) == pyramid
    expected = scale_conv(
        to_levels(x), weight.numpy(), None if bias is None else bias.numpy(), stride, dilation,
        groups, base=base, first_level=first_level, pyramid=pyramid,
    )  # fmt: skip
    for level, source in zip(to_levels(found), to_levels(x), strict=True):
        assert level.shape[2:] == tuple(math.ceil(n / s) for n, s in zip(source.shape[2:], stride))
    assert largest_difference(to_levels(found), expected) < 1e-12


@given(
    pyramid=st.booleans(),
    base=st.sampled_from([2, 3, 1.3]),
    num_scales=st.integers(1, 5),
    interaction=st.sampled_from([1, 1, 1, 2, 3]),
    kernel=st.tuples(odd, odd),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 1, 2]),
    bias=st.booleans(),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    batch=st.integers(1, 3),
    channels=st.sampled_from([2, 30]),
)
@settings(deadline=None, max_examples=150)
def test_packed_levels_give_the_same_values_and_gradients(
    pyramid, base, num_scales, interaction, kernel, stride, dilation, groups, bias, size, batch,
    channels,
):  # fmt: skip
    """Many channels on few pixels take a path of their own, and few channels do not."""
    interaction, grid = min(interaction, num_scales), ScaleGrid(base, num_scales)
    x = randn(batch, channels, num_scales, *size)
    if pyramid:
        x = pyramid_of(*size, grid, channels, batch)
    levels = [level.clone().requires_grad_() for level in split_levels(x)]
    weight = randn(4, channels // groups, interaction, *kernel, seed=1).requires_grad_()
    bias = randn(4, seed=2).requires_grad_() if bias else None
    signal = tuple(levels) if pyramid else torch.stack(levels, 2)
    inputs = [*levels, weight] + ([] if bias is None else [bias])
    results = []
    for given_as in (signal, Levels.of(signal)):
        y = scale_conv2d(given_as, weight, bias, stride, dilation, groups, scale_space=grid)
        assert isinstance(y, Levels) == isinstance(given_as, Levels)
        outputs = split_levels(y)
        ahead = [randn(*level.shape, seed=k) for k, level in enumerate(outputs)]
        results.append([*outputs, *torch.autograd.grad(outputs, inputs, ahead)])
    for expected, found in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert largest_difference(found, expected) < 1e-11


@given(
    pyramid=st.booleans(),
    num_scales=st.integers(1, 3),
    kernel=st.sampled_from([1, 3, 7]),
    stride=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 8, 16]),
    out_channels=st.sampled_from([4, 8, 16]),
    size=st.tuples(st.integers(4, 24), st.integers(4, 24)),
)
@example(False, 1, 1, 2, 8, 16, (64, 64))  # memory corruption in oneDNN, were it called so
@settings(deadline=None, max_examples=25)
def test_packed_levels_in_single_precision(
    pyramid, num_scales, kernel, stride, channels, out_channels, size
):
    """Other kernels than in double precision, and chosen by size, stride and channels."""
    grid = ScaleGrid(2, num_scales)
    x = randn(2, channels, num_scales, *size)
    if pyramid:
        x = pyramid_of(*size, grid, channels, batch=2)
    weight = randn(out_channels, channels, 1, kernel, kernel, seed=1)
    results = []
    for dtype in (torch.float32, torch.float64):
        pixels = Levels.of(x).pixels.to(dtype).requires_grad_()
        packed = Levels.of(x).map(lambda _, pixels=pixels: pixels)
        kernels = weight.to(dtype).requires_grad_()
        y = scale_conv2d(packed, kernels, stride=stride, scale_space=grid).pixels
        ahead = torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)
        results.append([y, *torch.autograd.grad(y, [pixels, kernels], ahead)])
    for found, expected in zip(*results, strict=True):
        assert largest_difference(found, expected) < 1e-4 * expected.abs().max()


@pytest.mark.parametrize('pyramid', [False, True])
def test_few_pixels_of_many_channels_have_derivatives(pyramid):
    grid, channels = ScaleGrid(2, 3), 13
    x = tuple(y.requires_grad_() for y in pyramid_of(3, 4, grid, channels))
    weight = randn(1, channels, 1, 3, 3, seed=1).requires_grad_()

    def fn(weight, *levels):
        signal = levels if pyramid else torch.stack([levels[0]] * 3, 2)
        return tuple(scale_conv2d(Levels.of(signal), weight, scale_space=grid))

    assert gradcheck(fn, (weight, *x), fast_mode=True)
    assert gradgradcheck(fn, (weight, *x), fast_mode=True)


@pytest.mark.parametrize('pyramid', [False, True])
def test_no_tap_is_computed_that_no_output_can_see(pyramid):
    """A 7x7 kernel on maps of 1 to 8 pixels; the counter does not know of borders.

    Of one channel: levels of a pyramid with fewer pixels than channels are one matrix product,
    which multiplies what is outside, too.
    """
    grid = ScaleGrid(2, 4)
    x = pyramid_of(8, 8, grid, 1) if pyramid else randn(1, 1, 4, 8, 8)
    with FlopCounterMode(display=False) as counter:
        scale_conv2d(x, randn(3, 1, 1, 7, 7), scale_space=grid)
    # Taps that reach from one side of the map to the other, and the side of the map.
    seen = [(7, 8), (7, 4), (3, 2), (1, 1)] if pyramid else [(7, 8), (7, 8), (3, 8), (1, 8)]
    assert counter.get_total_flops() == sum(2 * 3 * (taps * side) ** 2 for taps, side in seen)


@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('kernel', [(3, 3), (1, 1)])
def test_a_signal_with_fewer_levels_ends_where_the_grid_would_go_on(pyramid, kernel):
    grid = ScaleGrid(2, 4)
    x = pyramid_of(9, 8, grid, 2)[:2] if pyramid else randn(1, 2, 2, 9, 8)
    weight = randn(3, 2, 3, *kernel, seed=1)
    expected = scale_conv(to_levels(x), weight.numpy(), base=2, pyramid=pyramid)
    found = scale_conv2d(x, weight, scale_space=grid)
    assert largest_difference(to_levels(found), expected) < 1e-12


def test_more_samples_than_one():
    grid = ScaleGrid(1.5, 3)
    x, weight = randn(3, 2, 3, 6, 5), randn(2, 2, 2, 3, 3, seed=1)
    expected = scale_conv(to_levels(x), weight.numpy(), base=1.5)
    assert (
        largest_difference(to_levels(scale_conv2d(x, weight, scale_space=grid)), expected) < 1e-12
    )


def test_memory_order_of_the_input_does_not_matter():
    grid, weight = ScaleGrid(2, 3), randn(4, 2, 2, 3, 3, seed=1)
    x = randn(2, 2, 3, 8, 9)
    level_major = torch.stack(x.unbind(2)).permute(1, 2, 0, 3, 4)
    assert x.is_contiguous() and not level_major.is_contiguous()
    a, b = (scale_conv2d(signal, weight, scale_space=grid) for signal in (x, level_major))
    assert largest_difference(a, b) < 1e-14


@pytest.mark.parametrize('base, dilations', [(1.3, (1, 1, 1, 2)), (2, (1, 2, 4, 8))])
@pytest.mark.parametrize('interaction', [1, 2])
def test_parity_with_the_published_formula(base, dilations, interaction):
    """A sum of ordinary convolutions with the truncated dilation of the output's level."""
    grid = ScaleGrid(base, 4, truncate_dilation=True)
    x, weight, bias = randn(2, 3, 4, 17, 16), randn(5, 3, interaction, 3, 3, seed=1), randn(5)
    found = scale_conv2d(x, weight, bias, scale_space=grid)
    for k, d in enumerate(dilations):
        expected = bias[:, None, None] + sum(
            F.conv2d(x[:, :, k + shift], weight[:, :, shift], padding=d, dilation=d)
            for shift in range(min(interaction, 4 - k))
        )
        assert largest_difference(found[:, :, k], expected) < 1e-12


def test_one_level_is_an_ordinary_convolution():
    x, weight, bias = randn(2, 4, 9, 10), randn(6, 2, 1, 5, 3), randn(6)
    expected = F.conv2d(x, weight[:, :, 0], bias, (2, 1), (4, 1), (2, 1), 2)
    grid = ScaleGrid(2, 1)
    args = weight, bias, (2, 1), (2, 1), 2
    assert (
        largest_difference(scale_conv2d(x[:, :, None], *args, scale_space=grid)[:, :, 0], expected)
        == 0
    )
    assert largest_difference(scale_conv2d((x,), *args, scale_space=grid), (expected,)) == 0


@pytest.mark.parametrize('base, num_scales', [(2, 4), (3, 3)])
@pytest.mark.parametrize('interaction', [1, 2, 3])
@pytest.mark.parametrize('kernel, stride', [((3, 3), (1, 1)), ((5, 3), (2, 3)), ((1, 1), (2, 2))])
@pytest.mark.parametrize('pyramid', [False, True])
def test_commutes_with_scaling(base, num_scales, interaction, kernel, stride, pyramid):
    grid = ScaleGrid(base, num_scales)
    x = pyramid_of(37, 29, grid, 2) if pyramid else randn(1, 2, num_scales, 37, 29)
    weight, bias = randn(3, 2, interaction, *kernel, seed=1), randn(3)

    def fn(signal):
        return scale_conv2d(signal, weight, bias, stride, scale_space=grid)

    for shift in range(1, num_scales):
        assert_scale_equivariant(fn, x, base**shift, grid)


@pytest.mark.parametrize('shift', [1, 2])
def test_fractional_bases_are_equivariant_where_truncated_ones_are_not(shift):
    """On smooth levels only interpolation is lost: 1.2 and 1.8 %, truncated 11 and 18 %."""
    positions = grid_positions(60, 1)
    x, weight = randn(1, 2, 4, 60, 60), randn(3, 2, 2, 3, 3, seed=1)
    smooth = resample(x, positions, positions, variance=10.0)

    def error(truncate):
        grid = ScaleGrid(1.3, 4, truncate_dilation=truncate)
        expected = scale_scale_space(
            scale_conv2d(smooth, weight, scale_space=grid), 1.3**shift, grid
        )
        found = scale_conv2d(scale_scale_space(smooth, 1.3**shift, grid), weight, scale_space=grid)
        inside = ..., slice(6, -6), slice(6, -6)
        return ((found - expected)[inside].norm() / expected[inside].norm()).item()

    assert error(truncate=False) < 0.03
    assert error(truncate=True) > 5 * error(truncate=False)


def test_fractional_base_is_exact_where_its_powers_are_integers():
    x, weight = randn(1, 2, 4, 33, 35), randn(3, 2, 1, 3, 3, seed=1)
    grid = ScaleGrid(2**0.5, 4)
    expected = scale_conv2d(x, weight, scale_space=grid)[:, :, 2, ::2, ::2]
    found = scale_conv2d(x[:, :, 2:, ::2, ::2], weight, scale_space=grid)[:, :, 0]
    assert largest_difference(found, expected) < 1e-12


@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize(
    'base, kernel, stride',
    [(2, (3, 3), (2, 1)), (1.4, (3, 1), (1, 2)), (2, (1, 1), (1, 1)), (3.5, (3, 3), (2, 1))],
)
def test_first_and_second_derivatives(pyramid, base, kernel, stride):
    grid = ScaleGrid(base, 2)
    x = pyramid_of(4, 3, grid, 2) if pyramid else (randn(1, 2, 2, 4, 3),)
    x = tuple(level.requires_grad_() for level in x)
    weight = randn(2, 1, 2, *kernel, seed=1).requires_grad_()
    bias = randn(2).requires_grad_()

    def fn(weight, bias, *x):
        y = scale_conv2d(x if pyramid else x[0], weight, bias, stride, groups=2, scale_space=grid)
        return y if pyramid else (y,)

    assert gradcheck(fn, (weight, bias, *x))
    assert gradgradcheck(fn, (weight, bias, *x))


@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('base', [2, 1.4, 3.5])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast(pyramid, base, dtype):
    grid = ScaleGrid(base, 3)
    dense = randn(1, 2, 3, 9, 9, dtype=torch.float32)
    x = pyramid_of(9, 9, grid, 2, dtype=torch.float32) if pyramid else dense
    weight = randn(4, 2, 2, 3, 3, dtype=torch.float32).requires_grad_()
    exact = to_levels(scale_conv2d(x, weight, scale_space=grid))
    with torch.autocast('cpu', dtype=dtype):
        y = scale_conv2d(x, weight, scale_space=grid)
    levels = y if pyramid else y.unbind(2)
    assert all(level.dtype == dtype for level in levels)
    assert largest_difference([level.detach().float() for level in levels], exact) < 0.3
    sum(level.float().square().sum() for level in levels).backward()
    assert weight.grad.dtype == torch.float32 and weight.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('pyramid', [False, True])
def test_keeps_dtype(dtype, pyramid):
    grid = ScaleGrid(1.5, 2)
    x = pyramid_of(6, 6, grid, 2, dtype=dtype) if pyramid else randn(1, 2, 2, 6, 6, dtype=dtype)
    y = scale_conv2d(x, randn(3, 2, 2, 3, 3, dtype=dtype), scale_space=grid)
    assert all(level.dtype == dtype for level in (y if pyramid else (y,)))


@given(
    step=st.floats(0.2, 4), taps=st.sampled_from([1, 3, 5, 7]), size=st.integers(20, 30)
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_a_splatted_kernel_reads_what_its_taps_read(step, taps, size):
    """On a linear signal bilinear reads are exact: sum of w(u) (step u) for any step."""
    weight = randn(1, 1, taps, 1, seed=size)
    kernel = splat_kernel(weight, (step, 1.0))
    radius = len(kernel[0, 0]) // 2
    assert radius == math.ceil(step * (taps // 2) - 1e-9)
    ramp = torch.arange(-radius, radius + 1).double()
    expected = sum(weight[0, 0, u, 0] * step * (u - taps // 2) for u in range(taps))
    assert (kernel[0, 0, :, 0] @ ramp - expected).abs() < 1e-10
    assert (kernel.sum() - weight.sum()).abs() < 1e-12


@given(
    distance=st.tuples(st.floats(0.3, 9), st.floats(0.3, 9)),
    kernel=st.tuples(odd, odd),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    last=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_an_image_read_between_its_pixels_is_one_under_a_spread_kernel(
    distance, kernel, stride, groups, bias, size, last
):
    x, weight = randn(2, 4, *size), randn(6, 4 // groups, *kernel, seed=1)
    x = x.to(memory_format=torch.channels_last) if last else x
    bias = randn(6, seed=2) if bias else None
    spread = splat_kernel(weight, distance)
    padding = [n // 2 for n in spread.shape[2:]]
    expected = F.conv2d(x, spread, bias, stride, padding, 1, groups)
    found = _conv_between_pixels(x, weight, bias, stride, distance, groups)
    assert found.shape == expected.shape
    assert largest_difference([found], [expected]) < 1e-12


def test_far_taps_cost_what_near_ones_do():
    """Spread over whole pixels, a 7x7 kernel of taps 6.75 pixels apart has 43x43."""
    grid, x, weight = ScaleGrid(1.5, 3), randn(1, 4, 1, 60, 60), randn(4, 4, 1, 7, 7)
    with FlopCounterMode(display=False) as counter:
        scale_conv2d(x.expand(-1, -1, 3, -1, -1), weight, dilation=3, scale_space=grid)
    found = counter.get_flop_counts()['Global'][torch.ops.aten.convolution]
    assert found == 3 * 2 * 49 * 4 * 4 * 60 * 60


@pytest.mark.parametrize('pyramid', [False, True])
def test_wrong_signals(pyramid):
    grid, weight = ScaleGrid(2, 3), randn(4, 2, 2, 3, 3)
    x = pyramid_of(9, 9, grid, 3) if pyramid else randn(1, 3, 3, 9, 9)
    with pytest.raises(ValueError, match='has 3 channels, expected 2'):
        scale_conv2d(x, weight, scale_space=grid)
    with pytest.raises(ValueError, match='has 3 channels, expected 4'):
        scale_conv2d(x, weight, groups=2, scale_space=grid)
    x = pyramid_of(9, 9, grid, 2) * 2 if pyramid else randn(1, 2, 6, 9, 9)
    with pytest.raises(ValueError, match='has 6 levels, but .* num_scales=3'):
        scale_conv2d(x, weight, scale_space=grid)


def test_an_image_is_no_scale_space():
    with pytest.raises(ValueError, match=r'dense tensor .*, got the shape \(1, 2, 9, 9\)'):
        scale_conv2d(randn(1, 2, 9, 9), randn(4, 2, 1, 3, 3), scale_space=ScaleGrid(2, 3))


@pytest.mark.parametrize('num_scales', [1, 3])
def test_even_kernels_are_refused(num_scales):
    x = randn(1, 2, num_scales, 9, 9)
    with pytest.raises(ValueError, match='kernel_size must be odd, got 2'):
        scale_conv2d(x, randn(4, 2, 1, 2, 2), scale_space=ScaleGrid(2, num_scales))


def test_an_ordinary_weight_is_refused():
    with pytest.raises(ValueError, match=r'weight must be .*got the shape \(4, 2, 3, 3\)'):
        scale_conv2d(randn(1, 2, 3, 9, 9), randn(4, 2, 3, 3), scale_space=ScaleGrid(2, 3))


def test_takes_single_numbers_like_torch():
    x, weight, grid = randn(1, 2, 3, 9, 9), randn(4, 2, 1, 3, 3), ScaleGrid(2, 3)
    expected = scale_conv2d(x, weight, None, (2, 2), (2, 2), scale_space=grid)
    found = scale_conv2d(x, weight, stride=2, dilation=2, scale_space=grid)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(kernel_size=(2, 3), padding=(1, 1)), r'kernel_size must be odd, got 2 \(height\)'),
        (dict(kernel_size=(3, 4)), r'kernel_size must be odd, got 4 \(width\)'),
        (dict(stride=(1, 0)), r'stride must be at least 1, got 0 \(width\)'),
        (dict(dilation=(0, 1)), r'dilation must be at least 1, got 0 \(height\)'),
        (dict(padding=(1, 0)), r'padding must be .* = 1, got 0 \(width\)'),
        (dict(dilation=(2, 2)), r'padding must be .* = 2, got 1 \(height\)'),
    ],
)
def test_windows_that_move_levels_against_each_other(change, message):
    window = dict(kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    check_window(**window)
    with pytest.raises(ValueError, match=message):
        check_window(**{**window, **change})


@pytest.mark.parametrize('interaction, kernel, stride', [(1, 3, 1), (2, 3, 2), (2, 1, 1)])
def test_levels_are_returned_channels_last(interaction, kernel, stride):
    """Whatever comes in: then the next layer copies nothing."""
    grid = ScaleGrid(2, 3)
    weight = randn(4, 2, interaction, kernel, kernel)
    dense = scale_conv2d(randn(2, 2, 3, 12, 12), weight, stride=stride, scale_space=grid)
    pyramid = scale_conv2d(pyramid_of(12, 12, grid, 2), weight, stride=stride, scale_space=grid)
    for maps in (*dense.unbind(2), *pyramid):
        assert maps.is_contiguous(memory_format=torch.channels_last)
