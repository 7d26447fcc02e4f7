# Copyright (c) mmscale contributors.
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import largest_difference, read, scaled

from mmscale.scale_space import (
    ScaleGrid,
    gaussian_lift,
    gaussian_pyramid_lift,
    resample,
    scale_image,
    scale_scale_space,
)
from mmscale.scale_space.action import level_weights


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pyramid_of(height, width, grid, channels=2):
    return tuple(
        randn(1, channels, grid.level_size(height, k), grid.level_size(width, k), seed=k + 9)
        for k in grid.levels
    )


def read_between(values, position):
    """By cubic Hermite interpolation with central differences; at the ends by polynomials."""
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

    @pytest.mark.parametrize('factor', [1.2, 1.5, 2.7])
    def test_fractional_factors_read_the_blurred_image_between_pixels(self, factor):
        image = randn(1, 1, 17, 22)
        grid = ScaleGrid(factor, 2, 0.7)
        blurred = gaussian_lift(image, grid)[0, 0, 1].numpy()
        found = scale_image(image, factor, 0.7, interpolation='bilinear')
        assert found.shape == (1, 1, math.ceil(17 / factor), math.ceil(22 / factor))
        for i, j in itertools.product(*(range(n) for n in found.shape[2:])):
            expected = read(blurred, factor * i, factor * j)
            np.testing.assert_allclose(found[0, 0, i, j], expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize('canvas', ['shrink', 'keep'])
    def test_factor_1_is_the_identity(self, canvas):
        image = randn(1, 1, 8, 9)
        assert torch.equal(scale_image(image, 1, canvas=canvas), image)

    @pytest.mark.parametrize('padding', ['zeros', 'replicate', 'reflect', 'circular'])
    @pytest.mark.parametrize('factor', [2, 1.5, 3])
    def test_keep_reads_about_the_centre_and_fills_with_zeros(self, factor, padding):
        image = randn(1, 1, 15, 18)
        at = [tuple(map(float, range(-60, 90)))] * 2
        blurred = resample(image, *at, 0.49 * (factor**2 - 1), padding=padding)[0, 0].numpy()
        if padding != 'zeros':
            # Only the blur sees the padding; what it makes of the outside is not drawn.
            inside = np.zeros_like(blurred)
            inside[60:75, 60:78] = blurred[60:75, 60:78]
            blurred = inside
        else:
            blurred[:60], blurred[75:], blurred[:, :60], blurred[:, 78:] = 0, 0, 0, 0
        found = scale_image(image, factor, 0.7, 'keep', padding, 'bilinear')
        assert found.shape == image.shape
        for i, j in itertools.product(range(15), range(18)):
            expected = read(blurred, 60 + factor * (i - 7) + 7, 60 + factor * (j - 8.5) + 8.5)
            np.testing.assert_allclose(found[0, 0, i, j], expected, rtol=0, atol=1e-10)

    def test_keep_about_a_centre_of_ones_own(self):
        image = torch.zeros(1, 1, 16, 16).double()
        image[..., 4, 6] = 1
        found = scale_image(image, 2, canvas='keep', centre=(4, 6))
        assert found.argmax() == image.argmax()
        assert scale_image(image, 2, canvas='keep').argmax() != image.argmax()

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
        height=st.integers(1, 30),
        width=st.integers(1, 30),
        base=st.sampled_from([2, 3]),
        shift=st.integers(0, 2),
        first_level=st.integers(0, 1),
    )
    @settings(deadline=None, max_examples=40)
    def test_is_slicing_for_powers_of_an_integer_base(
        self, height, width, base, shift, first_level
    ):
        grid = ScaleGrid(base, 3, first_level=first_level)
        dense = randn(1, 2, 3, height, width)
        pyramid = pyramid_of(height, width, grid)
        for signal in (dense, pyramid):
            found = scale_scale_space(signal, base**shift, grid)
            assert largest_difference(found, scaled(signal, base, shift)) == 0

    @given(height=st.integers(1, 8), width=st.integers(1, 8), shift=st.integers(0, 2))
    @settings(deadline=None, max_examples=20)
    def test_is_slicing_on_levels_finer_than_the_image(self, height, width, shift):
        grid = ScaleGrid(2, 4, first_level=-2)
        pyramid = pyramid_of(4 * height, 4 * width, grid)
        found = scale_scale_space(pyramid, 2**shift, grid)
        assert largest_difference(found, pyramid[shift:]) == 0

    @given(height=st.integers(2, 40), width=st.integers(2, 40), first_level=st.integers(-2, 0))
    @settings(deadline=None, max_examples=40)
    def test_factor_1_is_the_identity_on_pyramids_of_a_fractional_base(
        self, height, width, first_level
    ):
        grid = ScaleGrid(2**0.5, 3, first_level=first_level)
        pyramid = pyramid_of(height, width, grid)
        found = scale_scale_space(pyramid, 1, grid)
        assert [x.shape for x in found] == [x.shape for x in pyramid]
        assert largest_difference(found, pyramid) < 1e-12

    @pytest.mark.parametrize('first_level', [-2, 0])
    def test_a_power_of_a_fractional_base_drops_pyramid_levels(self, first_level):
        grid = ScaleGrid(2**0.5, 5, first_level=first_level)
        for height, width in itertools.product((24, 28, 32), (28, 33)):
            pyramid = pyramid_of(height, width, grid)
            found = scale_scale_space(pyramid, 2, grid)
            for a, b in zip(found, pyramid[2:], strict=True):
                rows, columns = (min(m, n) for m, n in zip(a.shape[2:], b.shape[2:]))
                assert largest_difference(a[..., :rows, :columns], b[..., :rows, :columns]) < 1e-12
                # ceil(ceil(H / 2) / f) may be one more than ceil(H / 2f), no more.
                assert max(abs(m - n) for m, n in zip(a.shape, b.shape)) <= 1

    def test_levels_between_are_interpolated(self):
        grid = ScaleGrid(2, 3)
        dense = randn(1, 1, 3, 12, 13)
        factor = 2**1.25
        found = scale_scale_space(
            dense, factor, grid, interpolation='bilinear', between_levels='linear'
        )
        assert found.shape == (1, 1, 1, math.ceil(12 / factor), math.ceil(13 / factor))
        for i, j in itertools.product(*(range(n) for n in found.shape[3:])):
            one, two = (read(dense[0, 0, k].numpy(), factor * i, factor * j) for k in (1, 2))
            np.testing.assert_allclose(found[0, 0, 0, i, j], 0.75 * one + 0.25 * two, atol=1e-12)

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
            inside = slice(None, -3), slice(None, -3)
            assert largest_difference(level[0, 0][inside], reference[0, 0][inside]) < 1e-12

    @pytest.mark.parametrize('num_scales', [2, 3, 4, 5])
    def test_cubic_reading_is_what_hermite_and_parabola_say(self, num_scales):
        grid = ScaleGrid(2, num_scales)
        dense = randn(1, 1, num_scales, 12, 13)
        factor = 2**0.3
        found = scale_scale_space(dense, factor, grid, interpolation='bilinear')
        assert found.shape[2] == num_scales - 1
        for k, i, j in itertools.product(*(range(n) for n in found.shape[2:])):
            values = [read(level.numpy(), factor * i, factor * j) for level in dense[0, 0]]
            expected = read_between(values, k + 0.3)
            np.testing.assert_allclose(found[0, 0, k, i, j], expected, rtol=0, atol=1e-12)

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
        """Of degree 2 by cubic reading, at both ends too, and of degree 1 by linear reading."""
        grid, shift = ScaleGrid(2**0.5, num_scales), sixteenths / 16
        for between_levels, degree in (('cubic', 2), ('linear', 1)):
            polynomial = np.polynomial.Polynomial(coefficients[: degree + 1])
            sides = [grid.level_size(32, k) if pyramid else 8 for k in grid.levels]
            levels = [
                torch.full((1, 1, side, side), polynomial(k), dtype=torch.float64)
                for k, side in enumerate(sides)
            ]
            signal = tuple(levels) if pyramid else torch.stack(levels, 2)
            found = scale_scale_space(
                signal, grid.base**shift, grid, interpolation='ideal', between_levels=between_levels
            )
            found = found if pyramid else found.unbind(2)
            for k, level in enumerate(found):
                inside = level[..., :3, :3]
                assert (inside - polynomial(k + shift)).abs().max() < 1e-12

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
        grid = ScaleGrid(base, 5)
        dense = randn(1, 1, 5, 9, 9)
        for shift in range(5):
            lone = torch.full_like(dense, torch.nan)
            lone[:, :, shift] = dense[:, :, shift]
            found = scale_scale_space(
                lone, base**shift, grid, interpolation='ideal', between_levels=between_levels
            )
            assert found[:, :, 0].isfinite().all() and found[:, :, 1:].isnan().all()

    @pytest.mark.parametrize('pyramid', [False, True])
    def test_levels_that_lie_between_those_of_the_grid(self, pyramid):
        """Half a level above the grid, a shift by half a level meets them exactly."""
        grid = ScaleGrid(2, 3)
        fine = ScaleGrid(2**0.5, 6)
        signal = pyramid_of(32, 32, fine)[1::2] if pyramid else randn(1, 2, 3, 32, 32)
        found = scale_scale_space(signal, 2**0.5, grid, offset=0.5)
        if not pyramid:  # levels that are one shift of this base above
            dense = torch.cat([signal[:, :, :1], signal], 2)
            signal = scale_scale_space(dense, 2**0.5, ScaleGrid(2**0.5, 4)).unbind(2)
            found = found.unbind(2)
        for a, b in zip(found, signal, strict=True):
            assert a.shape == b.shape and largest_difference(a, b) < 1e-12

    @pytest.mark.parametrize('factor', [2, 4])
    def test_keep_reads_about_the_centre(self, factor):
        grid = ScaleGrid(2, 3)
        shift = int(math.log2(factor))
        dense = randn(1, 1, 3, 13, 16)
        found = scale_scale_space(dense, factor, grid, 'keep', 'bilinear')
        assert found.shape == (1, 1, 3 - shift, 13, 16)
        for k, i, j in itertools.product(range(3 - shift), range(13), range(16)):
            at = factor * (i - 6) + 6, factor * (j - 7.5) + 7.5
            expected = read(dense[0, 0, k + shift].numpy(), *at)
            np.testing.assert_allclose(found[0, 0, k, i, j], expected, rtol=0, atol=1e-12)

    def test_keep_agrees_with_the_lift_of_a_kept_canvas(self):
        """Away from the border L_s commutes with the lift, also about the centre."""
        image = torch.nn.functional.pad(randn(1, 1, 17, 17), (24, 24, 24, 24))
        grid = ScaleGrid(2, 2, zero_scale=2.0)
        expected = scale_scale_space(gaussian_lift(image, grid), 2, grid, 'keep')
        found = gaussian_lift(scale_image(image, 2, 2.0, 'keep'), ScaleGrid(2, 1, 2.0))
        assert largest_difference(found, expected) < 1e-13 * 1e2

    def test_keep_of_a_pyramid_reads_about_the_same_point(self):
        grid = ScaleGrid(2, 3)
        image = torch.nn.functional.pad(randn(1, 1, 33, 33), (32, 32, 32, 32))
        smooth = scale_image(image, 1.001, zero_scale=60.0, canvas='keep')
        grid = ScaleGrid(2, 3, zero_scale=0.5)
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
            (
                dict(factor=2, between_levels='nearest'),
                "between_levels must be one of 'linear', 'cubic', got 'nearest'",
            ),
        ],
    )
    def test_wrong_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            scale_scale_space(randn(1, 1, 3, 8, 8), scale_space=ScaleGrid(2, 3), **arguments)

    def test_wrong_signals(self):
        with pytest.raises(ValueError, match='has 4 levels, but .* num_scales=3'):
            scale_scale_space(randn(1, 1, 4, 8, 8), 2, ScaleGrid(2, 3))
        with pytest.raises(ValueError, match='dense tensor'):
            scale_scale_space(randn(1, 1, 8, 8), 2, ScaleGrid(2, 3))
