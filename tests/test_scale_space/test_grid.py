# Copyright (c) mmscale contributors.
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine import ConfigDict

from mmscale.scale_space import ScaleGrid


def test_values_of_the_default_grid():
    grid = ScaleGrid()
    assert (grid.base, grid.num_scales, grid.zero_scale, grid.first_level) == (2.0, 4, 0.5, 0)
    assert grid.levels == (0, 1, 2, 3)
    assert grid.factors == grid.dilations == (1, 2, 4, 8)
    assert grid.variances == (0.0, 0.75, 3.75, 15.75)


def test_powers_of_a_root_are_integers():
    grid = ScaleGrid(base=2**0.5, num_scales=7, first_level=-2)
    assert grid.factors[2::2] == (1, 2, 4)
    assert [type(factor) for factor in grid.factors[2::2]] == [int, int, int]
    assert grid.shift(2) == 2 and isinstance(grid.shift(2), int)
    assert ScaleGrid(base=10 ** (1 / 3), num_scales=4).factors[3] == 10


@given(
    base=st.floats(1.05, 4),
    num_scales=st.integers(1, 6),
    zero_scale=st.floats(0.1, 2),
    first_level=st.integers(-3, 3),
)
@settings(deadline=None, max_examples=50)
def test_factors_and_variances_follow_their_formulas(base, num_scales, zero_scale, first_level):
    """Levels finer than the image are not blurred."""
    grid = ScaleGrid(base, num_scales, zero_scale, first_level)
    assert len(grid.factors) == len(grid.variances) == len(grid.dilations) == num_scales
    for i, k in enumerate(range(first_level, first_level + num_scales)):
        assert grid.factors[i] == pytest.approx(base**k, rel=2e-9)
        blur = zero_scale**2 * (base ** (2 * k) - 1) if k > 0 else 0
        assert grid.variances[i] == pytest.approx(blur, rel=1e-7, abs=1e-12)
        assert grid.shift(base**k) == pytest.approx(k, abs=1e-9)


def test_truncated_dilations_are_those_of_the_published_code():
    grid = ScaleGrid(base=1.3, num_scales=4, truncate_dilation=True)
    assert grid.dilations == (1, 1, 1, 2)
    assert grid.factors == pytest.approx((1, 1.3, 1.69, 2.197))
    assert ScaleGrid(base=1.3, num_scales=4).dilations == pytest.approx((1, 1.3, 1.69, 2.197))
    # Truncation to 0 would collapse a kernel: levels finer than the image keep their factor.
    assert ScaleGrid(2, 3, first_level=-1, truncate_dilation=True).dilations == (0.5, 1, 2)


@given(size=st.integers(1, 500), level=st.integers(-3, 6))
@settings(deadline=None)
def test_level_size_is_the_quotient_rounded_up(size, level):
    for base in (2, 3, 5):
        assert ScaleGrid(base).level_size(size, abs(level)) == -(-size // base ** abs(level))
    # Exact in integers: ceil(size / sqrt(2)**level) = ceil(sqrt(size**2 / 2**level)).
    square = size**2 * 2.0**-level
    expected = math.isqrt(math.ceil(square))
    expected += expected**2 < square
    assert ScaleGrid(base=2**0.5).level_size(size, level) == expected


@pytest.mark.parametrize(
    'argument, error, message',
    [
        (dict(base=1), ValueError, 'base must be a finite number greater than 1, got 1'),
        (dict(base=math.inf), ValueError, 'base must be .* got inf'),
        (dict(base=math.nan), ValueError, 'base must be .* got nan'),
        (dict(base='2'), TypeError, "base must be a number, got '2'"),
        (dict(base=True), TypeError, 'base must be a number, got True'),
        (dict(num_scales=0), ValueError, 'num_scales must be at least 1, got 0'),
        (dict(num_scales=2.0), TypeError, 'num_scales must be an integer, got 2.0'),
        (dict(zero_scale=0), ValueError, 'zero_scale must be .* greater than 0, got 0'),
        (dict(zero_scale=math.nan), ValueError, 'zero_scale must be .* got nan'),
        (dict(first_level=0.5), TypeError, 'first_level must be an integer, got 0.5'),
        (dict(truncate_dilation=1), TypeError, 'truncate_dilation must be a bool, got 1'),
    ],
)
def test_wrong_arguments_are_named_with_their_value(argument, error, message):
    with pytest.raises(error, match=message):
        ScaleGrid(**argument)


def test_build_takes_what_configs_write():
    grid = ScaleGrid(base=3, num_scales=2)
    assert ScaleGrid.build(grid) is grid
    assert ScaleGrid.build(ConfigDict(base=3, num_scales=2)) == grid
    assert ScaleGrid.build(dict(base=np.float64(3), num_scales=np.int64(2))).factors == (1, 3)
    with pytest.raises(ValueError, match="scale_space has no 'scales'; its keys are base, num_sc"):
        ScaleGrid.build(dict(scales=3))
    with pytest.raises(TypeError, match='scale_space must be a dict or a ScaleGrid, got int'):
        ScaleGrid.build(4)


def test_a_grid_cannot_be_changed_and_can_be_a_key():
    grid = ScaleGrid()
    with pytest.raises(dataclasses.FrozenInstanceError):
        grid.base = 3
    assert {grid: 1}[ScaleGrid()] == 1


def test_wrong_factors_of_a_shift():
    with pytest.raises(ValueError, match='factor must be greater than 0, got 0'):
        ScaleGrid().shift(0)


@pytest.mark.parametrize(
    'grid, smallest',
    [(ScaleGrid(2, 4), 8), (ScaleGrid(2**0.5, 4), 3), (ScaleGrid(2, 3, first_level=-2), 1)],
)
def test_the_smallest_image_is_one_sample_of_the_coarsest_level(grid, smallest):
    grid.check_image_size(smallest, 100)
    for height, width in ((smallest - 1, 100), (100, smallest - 1)):
        with pytest.raises(ValueError, match=f'{height}x{width} pixels.*at least {smallest} pixe'):
            grid.check_image_size(height, width)
