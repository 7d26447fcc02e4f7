# Copyright (c) mmscale contributors.
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import largest_difference, randn, read, scaled, signal_of

from mmscale.scale_space import (
    ScaleGrid,
    check_signal,
    gaussian_lift,
    gaussian_pyramid_lift,
    resample,
    scale_image,
    scale_scale_space,
    split_levels,
)
from mmscale.scale_space.action import level_weights


def read_between(values, position):
    """Interpolate by cubic Hermite splines with central differences, at the ends by polynomials."""
    lower, count = math.floor(position), len(values)
    t = position - lower
    if lower == 0 or lower == count - 2:
        start = 0 if lower == 0 else max(0, count - 3)
        nodes = np.arange(start, min(start + 3, count))
        return np.polyval(np.polyfit(nodes, np.take(values, nodes), len(nodes) - 1), position)
    p0, p1 = values[lower : lower + 2]
    m0, m1 = ((values[j + 1] - values[j - 1]) / 2 for j in (lower, lower + 1))
    return (
        (2 * t**3 - 3 * t**2 + 1) * p0
        + (t**3 - 2 * t**2 + t) * m0
        + (3 * t**2 - 2 * t**3) * p1
        + (t**3 - t**2) * m1
    )


class TestScaleImage:
    @pytest.mark.parametrize('padding', ['zeros', 'replicate', 'reflect', 'circular'])
    @pytest.mark.parametrize('base, shift', [(2, 1), (2, 2), (3, 1)])
    def test_is_a_level_of_the_lift_sampled(self, base, shift, padding):
        image, factor = randn(1, 2, 17, 22), base**shift
        level = gaussian_lift(image, ScaleGrid(base, shift + 1, 0.7), padding)[:, :, -1]
        found = scale_image(image, factor, 0.7, padding=padding)
        assert largest_difference(found, level[..., ::factor, ::factor]) < 1e-14

    @pytest.mark.parametrize('factor', [1.2, 2.7])
    def test_fractional_factors_read_the_blurred_image_between_pixels(self, factor):
        image = randn(1, 1, 17, 22)
        blurred = gaussian_lift(image, ScaleGrid(factor, 2, 0.7))[0, 0, 1].numpy()
        found = scale_image(image, factor, 0.7, interpolation='bilinear')
        assert found.shape == (1, 1, math.ceil(17 / factor), math.ceil(22 / factor))
        for i, j in itertools.product(*map(range, found.shape[2:])):
            expected = read(blurred, factor * i, factor * j)
            np.testing.assert_allclose(found[0, 0, i, j], expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize('canvas', ['shrink', 'keep'])
    def test_factor_1_is_the_identity(self, canvas):
        image = randn(1, 1, 8, 9)
        assert torch.equal(scale_image(image, 1, canvas=canvas), image)

    @pytest.mark.parametrize('padding', ['zeros', 'replicate', 'reflect', 'circular'])
    @pytest.mark.parametrize('factor, centre', [(2, None), (1.5, (4, 6)), (3, None)])
    def test_keep_reads_about_the_centre_and_fills_with_zeros(self, factor, centre, padding):
        """Only the blur uses the padding; the canvas outside the image stays zero."""
        image = randn(1, 1, 15, 18)
        at = [tuple(map(float, range(size))) for size in (15, 18)]
        blurred = resample(image, *at, 0.49 * (factor**2 - 1), padding=padding)[0, 0].numpy()
        found = scale_image(image, factor, 0.7, 'keep', padding, 'bilinear', centre)
        assert found.shape == image.shape
        y, x = centre or (7, 8.5)
        for i, j in itertools.product(range(15), range(18)):
            expected = read(blurred, factor * (i - y) + y, factor * (j - x) + x)
            np.testing.assert_allclose(found[0, 0, i, j], expected, rtol=0, atol=1e-10)

    @pytest.mark.parametrize(
        'arguments, message',
        [
            (dict(factor=0.5), 'factor must be a finite number of at least 1, got 0.5'),
            (dict(factor=math.inf), 'factor must be .* got inf'),
            (dict(factor=math.nan), 'factor must be .* got nan'),
            (dict(factor=2, canvas='same'), "canvas must be one of 'shrink', 'keep', got 'same'"),
            (dict(factor=2, padding='same'), "padding must be one of .*, got 'same'"),
            (dict(factor=2, interpolation='area'), "interpolation must be .*, got 'area'"),
            (dict(factor=2, zero_scale=-1), 'zero_scale must be .* greater than 0, got -1'),
        ],
    )
    def test_wrong_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            scale_image(randn(1, 1, 8, 8), **arguments)


class TestScaleScaleSpace:
    @given(
        size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
        base=st.sampled_from([2, 3]),
        shift=st.integers(0, 2),
        first_level=st.integers(0, 1),
        pyramid=st.booleans(),
    )
    @settings(deadline=None, max_examples=60)
    def test_is_slicing_for_powers_of_an_integer_base(
        self, size, base, shift, first_level, pyramid
    ):
        grid = ScaleGrid(base, 3, first_level=first_level)
        signal = signal_of(grid, 2, size, pyramid)
        found = scale_scale_space(signal, base**shift, grid)
        assert largest_difference(found, scaled(signal, base, shift)) == 0

    @given(
        size=st.tuples(st.integers(2, 40), st.integers(2, 40)),
        base=st.sampled_from([2, 2**0.5]),
        first_level=st.integers(-2, 0),
        octaves=st.integers(0, 1),
    )
    @settings(deadline=None, max_examples=60)
    def test_a_power_of_a_base_drops_pyramid_levels(self, size, base, first_level, octaves):
        grid = ScaleGrid(base, 4, first_level=first_level)
        pyramid = signal_of(grid, 2, size, True)
        found = scale_scale_space(pyramid, 2**octaves, grid)
        for a, b in zip(found, pyramid[grid.shift(2**octaves) :], strict=True):
            rows, columns = (min(m, n) for m, n in zip(a.shape[2:], b.shape[2:]))
            assert largest_difference(a[..., :rows, :columns], b[..., :rows, :columns]) < 1e-12
            # ceil(ceil(H / 2) / f) exceeds ceil(H / 2f) by at most one.
            assert max(abs(m - n) for m, n in zip(a.shape, b.shape)) <= octaves

    @settings(max_examples=60, deadline=None)
    @given(
        size=st.tuples(st.integers(16, 200), st.integers(16, 200)),
        base=st.sampled_from([2, 2**0.5, 1.3]),
        first_level=st.sampled_from([-1, 0]),
        factor=st.floats(1, 2.6),
        interpolation=st.sampled_from(['bilinear', 'bicubic']),
    )
    def test_the_levels_of_a_scaled_pyramid_are_those_of_one_image(
        self, size, base, first_level, factor, interpolation
    ):
        grid = ScaleGrid(base, 5, first_level=first_level)
        image = torch.zeros(1, 1, *size)
        scaled = scale_scale_space(
            gaussian_pyramid_lift(image, grid), factor, grid, interpolation=interpolation
        )
        check_signal(scaled, grid)
        finest = [math.ceil(side / (factor * grid.factors[0]) - 1e-9) for side in size]
        assert all(0 <= a - b <= 1 for a, b in zip(finest, scaled[0].shape[-2:]))

    @pytest.mark.parametrize('between_levels', ['linear', 'cubic'])
    @pytest.mark.parametrize('num_scales', [2, 3, 4, 5])
    def test_levels_between_are_interpolated(self, num_scales, between_levels):
        """Compare with linear, Hermite and parabolic interpolation."""
        grid, factor = ScaleGrid(2, num_scales), 2**0.3
        dense = randn(1, 1, num_scales, 12, 13)
        found = scale_scale_space(
            dense, factor, grid, interpolation='bilinear', between_levels=between_levels
        )
        assert found.shape[2:] == (num_scales - 1, *(math.ceil(n / factor) for n in (12, 13)))
        for k, i, j in itertools.product(*map(range, found.shape[2:])):
            values = [read(level.numpy(), factor * i, factor * j) for level in dense[0, 0]]
            expected = 0.7 * values[k] + 0.3 * values[k + 1]
            if between_levels == 'cubic':
                expected = read_between(values, k + 0.3)
            np.testing.assert_allclose(found[0, 0, k, i, j], expected, rtol=0, atol=1e-12)

    def test_a_pyramid_is_read_where_its_samples_lie(self):
        """A dense linear ramp and its pyramid agree wherever both have samples."""
        grid = ScaleGrid(2, 3)
        rows = torch.arange(24.0).double()[:, None].expand(24, 20)
        dense = rows.expand(1, 1, 3, 24, 20)
        pyramid = tuple(dense[:, :, k, :: 2**k, :: 2**k] for k in range(3))
        found = scale_scale_space(pyramid, 1.5, grid, interpolation='bilinear')
        expected = scale_scale_space(dense, 1.5, grid, interpolation='bilinear')
        assert [level.shape[2:] for level in found] == [(16, 14), (8, 7)]
        for k, level in enumerate(found):
            reference = expected[:, :, k, :: 2**k, :: 2**k]
            inside = ..., slice(None, -3), slice(None, -3)
            assert largest_difference(level[inside], reference[inside]) < 1e-12

    @given(
        coefficients=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
        num_scales=st.integers(3, 6),
        sixteenths=st.integers(1, 31),
        pyramid=st.booleans(),
    )
    @settings(deadline=None, max_examples=40)
    def test_polynomials_along_the_levels_are_reproduced(
        self, coefficients, num_scales, sixteenths, pyramid
    ):
        """Cubic interpolation is exact for degree 2, linear interpolation for degree 1."""
        grid, shift = ScaleGrid(2**0.5, num_scales), sixteenths / 16
        for between_levels, degree in (('cubic', 2), ('linear', 1)):
            polynomial = np.polynomial.Polynomial(coefficients[: degree + 1])
            signal = signal_of(grid, 1, (32, 32), pyramid)
            for k, level in enumerate(split_levels(signal)):
                level[:] = polynomial(k)
            found = scale_scale_space(
                signal, grid.base**shift, grid, interpolation='ideal', between_levels=between_levels
            )
            for k, level in enumerate(split_levels(found)):
                assert (level[..., :3, :3] - polynomial(k + shift)).abs().max() < 1e-12

    @given(num_scales=st.integers(2, 7), position=st.floats(0, 1))
    @settings(deadline=None, max_examples=60)
    def test_no_other_levels_are_read(self, num_scales, position):
        position = position * (num_scales - 1)
        for between_levels, reach in (('linear', 1), ('cubic', 2)):
            weights = level_weights(position, num_scales, between_levels)
            assert set(weights) <= set(range(num_scales))
            assert max(abs(j - position) for j in weights) <= reach
            assert abs(sum(weights.values()) - 1) < 1e-14

    @pytest.mark.parametrize('base', [2, 2**0.5, 2 ** (1 / 3)])
    @pytest.mark.parametrize('between_levels', ['linear', 'cubic'])
    def test_a_power_of_the_base_reads_no_neighbours(self, base, between_levels):
        grid, dense = ScaleGrid(base, 5), randn(1, 1, 5, 9, 9)
        for shift in range(5):
            lone = torch.full_like(dense, torch.nan)
            lone[:, :, shift] = dense[:, :, shift]
            found = scale_scale_space(
                lone, base**shift, grid, interpolation='ideal', between_levels=between_levels
            )
            assert found[:, :, 0].isfinite().all() and found[:, :, 1:].isnan().all()

    @pytest.mark.parametrize('pyramid', [False, True])
    def test_levels_that_lie_between_those_of_the_grid(self, pyramid):
        """Levels half a level above the grid need no interpolation for a shift by half a level."""
        grid, fine = ScaleGrid(2, 3), ScaleGrid(2**0.5, 6)
        signal = signal_of(fine, 2, (32, 32), True)[1::2] if pyramid else randn(1, 2, 3, 32, 32)
        found = scale_scale_space(signal, 2**0.5, grid, offset=0.5)
        if not pyramid:  # levels that are one shift of this base above
            dense = torch.cat([signal[:, :, :1], signal], 2)
            signal = scale_scale_space(dense, 2**0.5, ScaleGrid(2**0.5, 4))
        assert largest_difference(found, signal) < 1e-12

    @pytest.mark.parametrize('factor', [2, 4])
    def test_keep_reads_about_the_centre(self, factor):
        grid, shift = ScaleGrid(2, 3), int(math.log2(factor))
        dense = randn(1, 1, 3, 13, 16)
        found = scale_scale_space(dense, factor, grid, 'keep', 'bilinear')
        assert found.shape == (1, 1, 3 - shift, 13, 16)
        for k, i, j in itertools.product(*map(range, found.shape[2:])):
            at = factor * (i - 6) + 6, factor * (j - 7.5) + 7.5
            expected = read(dense[0, 0, k + shift].numpy(), *at)
            np.testing.assert_allclose(found[0, 0, k, i, j], expected, rtol=0, atol=1e-12)

    def test_keep_agrees_with_the_lift_of_a_kept_canvas(self):
        """L_s commutes with the lift away from the border, also about the centre."""
        image = torch.nn.functional.pad(randn(1, 1, 17, 17), (24, 24, 24, 24))
        grid = ScaleGrid(2, 2, zero_scale=2.0)
        expected = scale_scale_space(gaussian_lift(image, grid), 2, grid, 'keep')
        found = gaussian_lift(scale_image(image, 2, 2.0, 'keep'), ScaleGrid(2, 1, 2.0))
        assert largest_difference(found, expected) < 1e-11

    def test_keep_of_a_pyramid_reads_about_the_same_point(self):
        grid = ScaleGrid(2, 3)
        image = torch.nn.functional.pad(randn(1, 1, 33, 33), (32, 32, 32, 32))
        smooth = scale_image(image, 1.001, zero_scale=60.0, canvas='keep')
        dense = scale_scale_space(gaussian_lift(smooth, grid), 2, grid, 'keep')
        pyramid = scale_scale_space(gaussian_pyramid_lift(smooth, grid), 2, grid, 'keep')
        for k, level in enumerate(pyramid):
            reference = dense[:, :, k, :: 2**k, :: 2**k]
            error = largest_difference(level, reference) / reference.abs().max()
            assert error < 1e-2, (k, error)

    @pytest.mark.parametrize(
        'arguments, message',
        [
            (dict(factor=0.5), 'factor must be a finite number of at least 1, got 0.5'),
            (dict(factor=8), 'factor 8 shifts by 3 levels and leaves none of the 3'),
            (dict(factor=5), r'factor 5 shifts by 2.32 levels and leaves none of the 3'),
            (dict(factor=2, canvas='crop'), "canvas must be one of 'shrink', 'keep', got 'crop'"),
            (dict(factor=2, offset=1.5), r'offset must be at most log_base\(factor\)=1, got 1.5'),
            (dict(factor=2, between_levels='nearest'), "must be one of 'linear', .*got 'nearest'"),
            (dict(factor=2, scale_space=ScaleGrid(2, 2)), 'has 3 levels, but .* num_scales=2'),
        ],
    )
    def test_wrong_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            scale_scale_space(randn(1, 1, 3, 8, 8), **{'scale_space': ScaleGrid(2, 3), **arguments})
