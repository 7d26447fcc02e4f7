# Copyright (c) mmscale contributors.
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from naive import largest_difference, randn, to_levels
from scipy.special import ive

from mmscale.scale_space import (
    ScaleGrid,
    bilinear_pyramid_lift,
    gaussian_lift,
    gaussian_pyramid_lift,
    repeat_lift,
    scale_image,
)

NUMPY_PADDING = dict(zeros='constant', replicate='edge', reflect='reflect', circular='wrap')
LIFTS = [gaussian_lift, gaussian_pyramid_lift, bilinear_pyramid_lift, repeat_lift]
every_lift = pytest.mark.parametrize('lift', LIFTS)


def padded(image, width, padding):
    return np.pad(image, [(0, 0), (0, 0), (width,) * 2, (width,) * 2], mode=NUMPY_PADDING[padding])


def naive_blur(image, variance, padding):
    """Compute the published formula: sum a square of taps around each pixel of a padded image."""
    if variance < 1e-9:
        return image
    radius = 4 * math.ceil(math.sqrt(variance))
    taps = ive(np.abs(np.arange(-radius, radius + 1)), variance)
    window = np.outer(taps, taps) / taps.sum() ** 2
    around, blurred = padded(image, radius, padding), np.empty_like(image)
    for i, j in itertools.product(range(image.shape[2]), range(image.shape[3])):
        region = around[:, :, i : i + 2 * radius + 1, j : j + 2 * radius + 1]
        blurred[:, :, i, j] = (region * window).sum((2, 3))
    return blurred


def hat(distance):
    return max(0.0, 1 - abs(distance))


def keys(distance):
    d = abs(distance)
    if d <= 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0


def naive_sample(image, factor, padding, kernel):
    """Sample at ``factor z`` by interpolation with two pixels on each side."""
    size = [math.ceil(n / factor - 1e-9) for n in image.shape[2:]]
    around, sampled = padded(image, 3, padding), np.zeros((*image.shape[:2], *size))
    for i, j in itertools.product(*map(range, size)):
        y, x = factor * i, factor * j
        for n, m in itertools.product(range(-1, 3), repeat=2):
            row, column = math.floor(y) + n, math.floor(x) + m
            weight = kernel(y - row) * kernel(x - column)
            sampled[:, :, i, j] += weight * around[:, :, row + 3, column + 3]
    return sampled


@given(
    size=st.tuples(st.integers(4, 10), st.integers(4, 10)),
    base=st.sampled_from([2, 3, 1.3, 2**0.5]),
    num_scales=st.integers(1, 3),
    first_level=st.integers(-2, 1),
    padding=st.sampled_from(list(NUMPY_PADDING)),
    lift=st.sampled_from(LIFTS[:3]),
    interpolation=st.sampled_from(['bilinear', 'bicubic']),
)
@settings(deadline=None, max_examples=60)
def test_lifts_are_the_published_formulas(
    size, base, num_scales, first_level, padding, lift, interpolation
):
    grid, image = ScaleGrid(base, num_scales, 0.5, first_level), randn(1, 2, *size)
    assume(min(size) >= grid.factors[-1])
    kernel = hat if interpolation == 'bilinear' or lift is bilinear_pyramid_lift else keys
    options = dict(interpolation=interpolation) if lift is gaussian_pyramid_lift else {}
    levels = to_levels(lift(image, grid, padding, **options))
    expected = []
    for k, level in zip(grid.levels, levels, strict=True):
        source = image.numpy()
        if lift is not bilinear_pyramid_lift:
            source = naive_blur(source, max(0.25 * (base ** (2 * k) - 1), 0), padding)
        if lift is not gaussian_lift:
            source = naive_sample(source, base**k, padding, kernel)
        expected.append(source)
        assert k or np.array_equal(level, image)
    assert largest_difference(levels, expected) < 1e-9


@given(
    size=st.tuples(st.integers(9, 30), st.integers(9, 30)),
    base=st.sampled_from([2, 3]),
    padding=st.sampled_from(list(NUMPY_PADDING)),
    interpolation=st.sampled_from(['bilinear', 'bicubic']),
)
@settings(deadline=None, max_examples=25)
def test_gaussian_pyramid_of_integer_base_is_the_dense_lift_sliced(
    size, base, padding, interpolation
):
    image, grid = randn(1, 1, *size), ScaleGrid(base, 3)
    dense = gaussian_lift(image, grid, padding)
    pyramid = gaussian_pyramid_lift(image, grid, padding, interpolation)
    expected = tuple(dense[:, :, k, :: base**k, :: base**k] for k in range(3))
    assert largest_difference(pyramid, expected) < 1e-13


def test_the_repeated_image_is_the_image_at_every_level():
    image, grid = randn(2, 1, 9, 8), ScaleGrid(2, 3, first_level=-1)
    lifted = repeat_lift(image, grid)
    assert torch.equal(lifted, torch.stack([image] * 3, 2))
    lifted[:, :, 0].add_(1)  # levels share no memory
    assert torch.equal(lifted[:, :, 1], image) and torch.equal(image, randn(2, 1, 9, 8))


@every_lift
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_keep_dtype_and_are_not_weakened_by_autocast(lift, dtype):
    image, grid = randn(1, 1, 16, 16).to(dtype), ScaleGrid(2**0.5, 3)
    lifted = lift(image, grid)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        again = lift(image, grid)
    for a, b in zip(lifted, again, strict=True):
        assert a.dtype == dtype and a.isfinite().all() and torch.equal(a, b)


@every_lift
def test_first_lift_under_inference_mode_can_be_trained_later(lift):
    """Matrices are cached: training must be able to use a matrix made under inference_mode."""
    image, grid = randn(1, 1, 11, 14), ScaleGrid(1.37, 3, 0.47)
    with torch.inference_mode():
        lift(image, grid)
    image.requires_grad_()
    sum(level.square().sum() for level in lift(image, grid)).backward()
    assert image.grad.abs().sum() > 0


@every_lift
@pytest.mark.parametrize(
    'image, error, message',
    [
        (randn(1, 1, 7, 9), ValueError, 'an image of 7x9 pixels is smaller.*at least 8 pixels'),
        (randn(1, 9, 9), ValueError, r'image must be \(N, C, H, W\), got the shape \(1, 9, 9'),
        # Interpolation weights cannot be held in uint8: the levels would silently be wrong.
        (torch.ones(1, 1, 8, 8, dtype=torch.uint8), TypeError, 'image .*uint8'),
    ],
)
def test_wrong_images(lift, image, error, message):
    with pytest.raises(error, match=message):
        lift(image, ScaleGrid(2, 4))


def test_wrong_choices():
    image, grid = randn(1, 1, 9, 9), ScaleGrid(2, 2)
    for lift in LIFTS[:3]:
        with pytest.raises(ValueError, match="padding must be one of 'zeros', .*, got 'same'"):
            lift(image, grid, 'same')
    with pytest.raises(ValueError, match="interpolation must be one of .*, got 'nearest'"):
        gaussian_pyramid_lift(image, grid, interpolation='nearest')


@pytest.mark.parametrize('base, shift', [(2, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize('zero_scale, bound', [(1.0, 0.03), (3.0, 0.01)])
def test_lift_of_a_scaled_image_is_the_shifted_lift(base, shift, zero_scale, bound):
    """Level k of lift(L_s f) is level k + m of lift(f) at s z: exact at k = 0, else aliasing.

    Blurring the samples of a blurred image is blurring the image only as far as the first blur
    band-limits it. Measured on white noise, relative error in norm: 0.11 to 0.43 for zero_scale
    0.5, 0.014 to 0.028 for 1, 0.004 to 0.008 for 3.
    """
    image = torch.nn.functional.pad(randn(1, 1, 48, 48), (40, 40, 40, 40))
    factor = base**shift
    grid = ScaleGrid(base, shift + 2, zero_scale)
    expected = gaussian_lift(image, grid)[:, :, shift:, ::factor, ::factor]
    small = ScaleGrid(base, 2, zero_scale)
    found = gaussian_lift(scale_image(image, factor, zero_scale), small)
    assert largest_difference(found[:, :, 0], expected[:, :, 0]) < 1e-13
    norm = expected[:, :, 1].norm()
    assert (found - expected)[:, :, 1].norm() < bound * norm
    # Smoothness alone does not explain the match: without the anti-aliasing blur they differ.
    aliased = gaussian_lift(image[..., ::factor, ::factor], small)
    assert (aliased - expected)[:, :, 1].norm() > norm
