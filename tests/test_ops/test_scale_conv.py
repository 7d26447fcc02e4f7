# Copyright (c) mmscale contributors.
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from naive import largest_difference, randn, scale_conv, signal_of, to_levels
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.flop_counter import FlopCounterMode

from mmscale.ops import check_window, scale_conv2d
from mmscale.scale_space import Levels, ScaleGrid, resample, scale_scale_space
from mmscale.scale_space.resample import grid_positions
from mmscale.testing import assert_scale_equivariant

odd = st.sampled_from([1, 3, 5])
both_forms = pytest.mark.parametrize('pyramid', [False, True])


@given(
    pyramid=st.booleans(),
    base=st.sampled_from([2, 3, 1.3, 1.5, 2**0.5, 3.5]),
    first_level=st.integers(-2, 1),
    num_scales=st.integers(1, 3),
    missing=st.integers(0, 2),
    interaction=st.integers(1, 3),
    kernel=st.tuples(odd, odd),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    batch=st.integers(1, 2),
    channels=st.sampled_from([2, 12]),
)
@example(True, 2, 0, 3, 0, 2, (3, 5), (2, 1), (1, 2), 1, True, (6, 5), 1, 12)  # few pixels
@example(False, 3.5, 0, 2, 0, 2, (5, 3), (2, 1), (1, 2), 2, True, (6, 5), 2, 12)  # far taps
@settings(deadline=None, max_examples=150)
def test_is_the_sum_that_defines_it(
    pyramid, base, first_level, num_scales, missing, interaction, kernel, stride, dilation, groups,
    bias, size, batch, channels,
):  # fmt: skip
    """Tensors and levels give the same results.

    Many channels on few pixels have a separate path, and so do distant taps between pixels: the
    examples cover both.
    """
    x = signal_of(ScaleGrid(base, num_scales, first_level=first_level), channels, size, pyramid,
                  batch)  # fmt: skip
    grid = ScaleGrid(base, num_scales + missing, first_level=first_level)
    weight = randn(4, channels // groups, min(interaction, len(grid.levels)), *kernel, seed=1)
    bias = randn(4, seed=2) if bias else None
    expected = scale_conv(
        to_levels(x), weight.numpy(), None if bias is None else bias.numpy(), stride, dilation,
        groups, base=base, first_level=first_level, pyramid=pyramid,
    )  # fmt: skip
    found = scale_conv2d(x, weight, bias, stride, dilation, groups, scale_space=grid)
    assert isinstance(found, tuple) == pyramid
    assert largest_difference(to_levels(found), expected) < 1e-12
    joined = Levels.of(x).map(torch.clone)
    found = scale_conv2d(joined, weight, bias, stride, dilation, groups, scale_space=grid)
    assert isinstance(found, Levels)
    assert largest_difference(list(found), expected) < 1e-12


@given(
    pyramid=st.booleans(),
    num_scales=st.integers(1, 3),
    kernel=st.sampled_from([1, 3, 7]),
    stride=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 8, 16]),
    out_channels=st.sampled_from([4, 8, 16]),
    size=st.tuples(st.integers(4, 24), st.integers(4, 24)),
)
@example(False, 1, 1, 2, 8, 16, (64, 64))  # corrupts memory in oneDNN if called directly
@settings(deadline=None, max_examples=25)
def test_single_precision(pyramid, num_scales, kernel, stride, channels, out_channels, size):
    """float32 uses other kernels than float64, chosen by size, stride and channels."""
    grid = ScaleGrid(2, num_scales)
    x = Levels.of(signal_of(grid, channels, size, pyramid, batch=2))
    weight = randn(out_channels, channels, 1, kernel, kernel, seed=1)
    results = []
    for dtype in (torch.float32, torch.float64):
        pixels, kernels = (v.to(dtype).requires_grad_() for v in (x.pixels, weight))
        joined = x.map(lambda _, pixels=pixels: pixels)
        y = scale_conv2d(joined, kernels, stride=stride, scale_space=grid).pixels
        ahead = torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)
        results.append([y, *torch.autograd.grad(y, [pixels, kernels], ahead)])
    for found, expected in zip(*results, strict=True):
        assert largest_difference(found, expected) < 1e-4 * expected.abs().max()


@both_forms
@pytest.mark.parametrize(
    'base, kernel, stride, channels, groups',
    [
        (2, (3, 3), (2, 1), 2, 2),
        (1.4, (3, 1), (1, 2), 2, 2),
        (2, (1, 1), (1, 1), 2, 2),
        (3.5, (3, 3), (2, 1), 2, 2),
        (2, (3, 3), (1, 1), 13, 1),  # of more channels than a level has pixels
    ],
)
def test_first_and_second_derivatives(pyramid, base, kernel, stride, channels, groups):
    grid, mode = ScaleGrid(base, 2), dict(fast_mode=channels > 2)
    x = signal_of(grid, channels, (4, 3), pyramid)
    weight, bias = randn(2, channels // groups, 2, *kernel, seed=1), randn(2)

    def fn(weight, bias, *x):
        y = scale_conv2d(x if pyramid else x[0], weight, bias, stride, 1, groups, scale_space=grid)
        return y if pyramid else (y,)

    inputs = [v.requires_grad_() for v in (weight, bias, *(x if pyramid else (x,)))]
    assert gradcheck(fn, inputs, **mode)
    assert gradgradcheck(fn, inputs, **mode)


@pytest.mark.parametrize('trained', ['all', 'weight', 'x'])
def test_wide_kernels_have_the_derivatives_of_torch(trained, stride=(2, 1), groups=2):
    """From 15 taps a side the gradient of the weight is taken separately."""
    x, weight, bias, grad = randn(2, 4, 16, 17), randn(6, 2, 15, 17), randn(6), randn(2, 6, 8, 17)
    inputs = dict(all=(x, weight, bias), weight=(weight,), x=(x,))[trained]
    for value in inputs:
        value.requires_grad_()

    def convolve(weight, x, bias=None, stride=1):
        signal, grid = x[:, :, None], ScaleGrid(num_scales=1)
        y = scale_conv2d(signal, weight[:, :, None], bias, stride, 1, groups, scale_space=grid)
        return y[:, :, 0]

    expected = F.conv2d(x, weight, bias, stride, (7, 8), 1, groups)
    results = []
    for y in (convolve(weight, x, bias, stride), expected):
        first = torch.autograd.grad(y, inputs, grad, create_graph=True)
        again = sum(part.sin().sum() for part in first)
        second = torch.autograd.grad(again, inputs, allow_unused=True)
        results.append([y, *first, *(part for part in second if part is not None)])
    assert len(results[0]) == len(results[1]) > 1
    assert all(largest_difference(a, b) < 1e-12 for a, b in zip(*results))
    if trained == 'weight':
        one = torch.func.grad(lambda w, image: convolve(w, image[None]).square().sum())
        per_image = torch.func.vmap(one, (None, 0))(weight, x)
        assert largest_difference(per_image[1], one(weight, x[1])) < 1e-12


def test_a_trace_of_wide_kernels_holds_their_convolutions():
    """Counters of operations see traces."""
    weight, grid = randn(2, 3, 1, 15, 15).requires_grad_(), ScaleGrid(num_scales=1)
    inputs = randn(1, 3, 1, 20, 20), weight
    trace = torch.jit.trace(lambda x, weight: scale_conv2d(x, weight, scale_space=grid), inputs)
    assert 'aten::_convolution' in str(trace.graph) and 'PythonOp' not in str(trace.graph)


@both_forms
def test_no_tap_is_computed_that_no_output_can_see(pyramid):
    """A 7x7 kernel on maps of 1 to 8 pixels; the counter ignores borders.

    One channel, because pyramid levels with fewer pixels than channels are one matrix product,
    which also multiplies the zeros outside.
    """
    grid = ScaleGrid(2, 4)
    with FlopCounterMode(display=False) as counter:
        scale_conv2d(signal_of(grid, 1, (8, 8), pyramid), randn(3, 1, 1, 7, 7), scale_space=grid)
    # Number of taps that reach across the map, and the side of the map.
    seen = [(7, 8), (7, 4), (3, 2), (1, 1)] if pyramid else [(7, 8), (7, 8), (3, 8), (1, 8)]
    assert counter.get_total_flops() == sum(2 * 3 * (taps * side) ** 2 for taps, side in seen)


def test_far_taps_cost_what_near_ones_do():
    """Splatted onto integers, a 7x7 kernel with taps 6.75 pixels apart has 43x43 taps."""
    grid, x, weight = ScaleGrid(1.5, 3), randn(1, 4, 1, 60, 60), randn(4, 4, 1, 7, 7)
    with FlopCounterMode(display=False) as counter:
        scale_conv2d(x.expand(-1, -1, 3, -1, -1), weight, dilation=3, scale_space=grid)
    found = counter.get_flop_counts()['Global'][torch.ops.aten.convolution]
    assert found == 3 * 2 * 49 * 4 * 4 * 60 * 60


@both_forms
@pytest.mark.parametrize('interaction, kernel, stride', [(1, 3, 1), (2, 3, 2), (2, 1, 1)])
def test_levels_are_returned_channels_last(interaction, kernel, stride, pyramid):
    """For any input: then the next layer needs no copy."""
    grid, weight = ScaleGrid(2, 3), randn(4, 2, interaction, kernel, kernel)
    y = scale_conv2d(signal_of(grid, 2, (12, 12), pyramid, batch=2), weight, stride=stride,
                     scale_space=grid)  # fmt: skip
    for maps in y if pyramid else y.unbind(2):
        assert maps.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('base, dilations', [(1.3, (1, 1, 1, 2)), (2, (1, 2, 4, 8))])
def test_parity_with_the_published_formula(base, dilations):
    """The result sums ordinary convolutions with the truncated dilation of the output level."""
    grid = ScaleGrid(base, 4, truncate_dilation=True)
    x, weight, bias = randn(2, 3, 4, 17, 16), randn(5, 3, 2, 3, 3, seed=1), randn(5)
    found = scale_conv2d(x, weight, bias, scale_space=grid)
    for k, d in enumerate(dilations):
        expected = bias[:, None, None] + sum(
            F.conv2d(x[:, :, k + shift], weight[:, :, shift], padding=d, dilation=d)
            for shift in range(min(2, 4 - k))
        )
        assert largest_difference(found[:, :, k], expected) < 1e-12


def test_one_level_is_an_ordinary_convolution():
    x, weight, bias = randn(2, 4, 9, 10), randn(6, 2, 1, 5, 3), randn(6)
    expected = F.conv2d(x, weight[:, :, 0], bias, (2, 2), (4, 2), (2, 2), 2)
    args, grid = (weight, bias, 2, (2, 2), 2), ScaleGrid(2, 1)
    assert torch.equal(scale_conv2d(x[:, :, None], *args, scale_space=grid)[:, :, 0], expected)
    assert torch.equal(scale_conv2d((x,), *args, scale_space=grid)[0], expected)


@both_forms
@pytest.mark.parametrize('base, num_scales', [(2, 4), (3, 3)])
@pytest.mark.parametrize(
    'interaction, kernel, stride', [(1, (1, 1), 2), (2, (3, 3), 1), (3, (5, 3), (2, 3))]
)
def test_commutes_with_scaling(base, num_scales, interaction, kernel, stride, pyramid):
    grid = ScaleGrid(base, num_scales)
    weight, bias = randn(3, 2, interaction, *kernel, seed=1), randn(3)

    def fn(signal):
        return scale_conv2d(signal, weight, bias, stride, scale_space=grid)

    for shift in range(1, num_scales):
        assert_scale_equivariant(fn, signal_of(grid, 2, (37, 29), pyramid), base**shift, grid)


@pytest.mark.parametrize('shift', [1, 2])
def test_fractional_bases_are_equivariant_where_truncated_ones_are_not(shift):
    """On smooth levels interpolation has errors of 1.2 and 1.8 %, truncation of 11 and 18 %."""
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


@both_forms
@pytest.mark.parametrize('base', [2, 1.4, 3.5])
def test_half_precision_and_autocast(pyramid, base):
    grid = ScaleGrid(base, 3)
    x = signal_of(grid, 2, (9, 9), pyramid, dtype=torch.float32)
    weight = randn(4, 2, 2, 3, 3, dtype=torch.float32).requires_grad_()
    exact = to_levels(scale_conv2d(x, weight, scale_space=grid))
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast('cpu', dtype=dtype):
            y = scale_conv2d(x, weight, scale_space=grid)
        assert all(level.dtype == dtype for level in (y if pyramid else (y,)))
        assert largest_difference(to_levels(y), exact) < 0.3
        sum(level.float().square().sum() for level in y).backward()
        assert weight.grad.dtype == torch.float32 and weight.grad.isfinite().all()
    half = tuple(v.bfloat16() for v in x) if pyramid else x.bfloat16()
    y = scale_conv2d(half, weight.bfloat16(), scale_space=grid)
    assert all(level.dtype == torch.bfloat16 for level in (y if pyramid else (y,)))


@pytest.mark.parametrize(
    'shape, weight, message',
    [
        ((1, 3, 3, 9, 9), (4, 2, 1, 3, 3), 'has 3 channels, expected 2'),
        ((1, 2, 6, 9, 9), (4, 2, 1, 3, 3), 'has 6 levels, but .* num_scales=3'),
        ((1, 2, 9, 9), (4, 2, 1, 3, 3), r'dense tensor .*, got the shape \(1, 2, 9, 9\)'),
        ((1, 2, 3, 9, 9), (4, 2, 3, 3), r'weight must be .*got the shape \(4, 2, 3, 3\)'),
        ((1, 2, 1, 9, 9), (4, 2, 1, 2, 2), 'kernel_size must be odd, got 2'),
    ],
)
def test_wrong_signals_and_weights(shape, weight, message):
    with pytest.raises(ValueError, match=message):
        scale_conv2d(randn(*shape), randn(*weight), scale_space=ScaleGrid(2, 3))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(kernel_size=(2, 3), padding=(1, 1)), r'kernel_size must be odd, got 2 \(height\)'),
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
