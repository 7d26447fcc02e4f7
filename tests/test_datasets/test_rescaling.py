# Copyright (c) mmscale contributors.
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmscale.datasets import rescale
from mmscale.datasets.rescaling import PADDINGS, check_scale_range, draw_factors

paddings = st.sampled_from(PADDINGS)
factors = st.floats(0.25, 4.0)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12)) | st.tuples(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 4)
)
images = shapes.flatmap(lambda shape: arrays(np.uint8, shape))


def blob(size, x, y, width):
    """A smooth object centred at (x, y), in pixels from the upper left corner."""
    along = np.arange(size) + 0.5
    return np.exp(-((along[None] - x) ** 2 + (along[:, None] - y) ** 2) / (2 * width**2)).astype(
        np.float32
    )


def extended(image, row, col, padding):
    """The value at any integer position of an image continued beyond its edges."""
    size = (image.shape[0], image.shape[1])
    position = [row, col]
    for axis in range(2):
        last = size[axis] - 1
        if padding == 'replicate':
            position[axis] = min(max(position[axis], 0), last)
        while padding == 'reflect' and not 0 <= position[axis] <= last:
            position[axis] = -position[axis] if position[axis] < 0 else 2 * last - position[axis]
        if not 0 <= position[axis] <= last:
            return 0.0
    return float(image[position[0], position[1]])


def bicubic(x, a):
    x = abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    if x < 2:
        return ((x - 5) * x + 8) * x * a - 4 * a
    return 0.0


def naive_antialiased(image, factor, center, padding):
    """One output pixel at a time, one tap at a time."""
    stretch = max(1.0, 1.0 / factor)
    result = np.zeros_like(image)
    for row, col in np.ndindex(*image.shape):
        y = (row + 0.5 - center[1]) / factor + center[1]
        x = (col + 0.5 - center[0]) / factor + center[0]
        total = weights = 0.0
        for i in range(math.floor(y - 2 * stretch) - 1, math.ceil(y + 2 * stretch) + 1):
            for j in range(math.floor(x - 2 * stretch) - 1, math.ceil(x + 2 * stretch) + 1):
                weight = bicubic((i + 0.5 - y) / stretch, -0.5) * bicubic(
                    (j + 0.5 - x) / stretch, -0.5
                )
                weights += weight
                total += weight * extended(image, i, j, padding)
        result[row, col] = total / weights
    return result


def naive_sampled(image, factor, center):
    """Pillow's affine map: a = -1, the border replicated within the image and black off it."""
    height, width = image.shape
    result = np.zeros(image.shape)
    for row, col in np.ndindex(*image.shape):
        y = (row + 0.5 - center[1]) / factor + center[1]
        x = (col + 0.5 - center[0]) / factor + center[0]
        if not (0 <= y < height and 0 <= x < width):
            continue
        top, left = math.floor(y - 0.5) - 1, math.floor(x - 0.5) - 1
        for i in range(top, top + 4):
            for j in range(left, left + 4):
                weight = bicubic(i + 0.5 - y, -1) * bicubic(j + 0.5 - x, -1)
                result[row, col] += weight * extended(image, i, j, 'replicate')
    return result


@settings(max_examples=100, deadline=None)
@given(images, paddings, st.booleans())
def test_factor_one_is_the_identity(image, padding, antialias):
    result = rescale(image, 1.0, padding=padding, antialias=antialias)
    assert result.dtype == image.dtype
    np.testing.assert_array_equal(result, image)


@settings(max_examples=100, deadline=None)
@given(
    shapes, st.integers(0, 255), factors, st.sampled_from(('reflect', 'replicate')), st.booleans()
)
def test_constant_stays_constant_where_the_image_is_continued(
    shape, value, factor, padding, antialias
):
    image = np.full(shape, value, np.uint8)
    result = rescale(image, factor, padding=padding, antialias=antialias)
    np.testing.assert_array_equal(result, image)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.3, 1.2), st.floats(-4, 4), st.floats(-4, 4), st.booleans())
def test_object_moves_towards_the_centre_and_its_area_scales(factor, dx, dy, antialias):
    size = 48
    # Without anti-aliasing only a wide object is sampled well, and Pillow's affine map has a
    # sharper kernel, which does not reproduce linear functions.
    width, rel, abs_ = (2.5, 0.02, 0.02) if antialias else (4.5, 0.05, 0.1)
    image = blob(size, size / 2 + dx, size / 2 + dy, width)
    result = rescale(image, factor, antialias=antialias)
    along = np.arange(size) + 0.5
    mass = result.sum()
    assert mass == pytest.approx(factor**2 * image.sum(), rel=rel)
    assert (result.sum(0) @ along) / mass == pytest.approx(size / 2 + factor * dx, abs=abs_)
    assert (result.sum(1) @ along) / mass == pytest.approx(size / 2 + factor * dy, abs=abs_)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 1.0), st.integers(20, 40), st.integers(20, 40))
def test_bounding_box_scales(factor, height, width):
    result = rescale(np.ones((height, width), np.float32), factor)
    # half a pixel at either side, and what the kernel spreads
    assert abs((result > 0.5).any(1).sum() - factor * height) <= 1.2
    assert abs((result > 0.5).any(0).sum() - factor * width) <= 1.2
    # centred: as much background on one side as on the other. Not of the thresholded image: an
    # edge can fall on the threshold.
    np.testing.assert_allclose(result, result[::-1, ::-1], atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, (9, 13), elements=st.floats(0, 1, width=32)), factors, paddings)
def test_commutes_with_flips_and_transposition(image, factor, padding):
    result = rescale(image, factor, padding=padding)
    flipped = rescale(np.ascontiguousarray(image[::-1, ::-1]), factor, padding=padding)
    transposed = rescale(np.ascontiguousarray(image.T), factor, padding=padding)
    np.testing.assert_allclose(flipped[::-1, ::-1], result, atol=1e-5)
    np.testing.assert_allclose(transposed.T, result, atol=1e-5)


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('factor', [0.23, 1 / 3, 0.8, 1.7])
def test_equals_naive_antialiased_reference(padding, factor):
    image = np.random.default_rng(0).random((9, 11), dtype=np.float32)
    center = (5.2, 4.0)
    expected = naive_antialiased(image, factor, center, padding)
    result = rescale(image, factor, center=center, padding=padding)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize('factor', [0.3, 0.77, 1.6])
def test_equals_naive_sampled_reference(factor):
    image = np.random.default_rng(0).random((12, 10), dtype=np.float32)
    expected = naive_sampled(image, factor, (5.5, 6.5))
    result = rescale(image, factor, center=(5.5, 6.5), antialias=False)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize('antialias', [True, False])
@pytest.mark.parametrize('padding', PADDINGS)
def test_channels_are_rescaled_alike(padding, antialias):
    image = np.random.default_rng(0).integers(0, 256, (10, 12, 5), np.uint8)
    options = dict(factor=0.6, padding=padding, antialias=antialias)
    for channels in (1, 3, 4, 5):
        result = rescale(image[..., :channels], **options)
        assert result.shape == (10, 12, channels)
        for c in range(channels):
            plane = rescale(np.ascontiguousarray(image[..., c]), **options)
            np.testing.assert_array_equal(result[..., c], plane)


def test_a_fine_pattern_vanishes_only_with_antialiasing():
    stripes = np.zeros((32, 32), np.uint8)
    stripes[:, ::2] = 255
    inside = (slice(12, 20), slice(12, 20))
    assert np.ptp(rescale(stripes, 0.4)[inside].astype(int)) < 20
    assert np.ptp(rescale(stripes, 0.4, antialias=False)[inside].astype(int)) > 100


@settings(max_examples=50, deadline=None)
@given(images, factors, paddings, st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_canvas_is_the_image_laid_in_its_middle(image, factor, padding, more, more2, antialias):
    if padding != 'zeros' or not antialias:
        factor = 1.0
    height, width = image.shape[:2]
    canvas = (height + 2 * more, width + 2 * more2)
    mode = {'zeros': 'constant', 'reflect': 'reflect', 'replicate': 'edge'}[padding]
    margins = [(more, more), (more2, more2)] + [(0, 0)] * (image.ndim - 2)
    laid = np.pad(image, margins, mode=mode)
    np.testing.assert_allclose(
        rescale(image, factor, canvas=canvas, padding=padding, antialias=antialias).astype(int),
        rescale(laid, factor, padding=padding, antialias=antialias).astype(int),
        atol=1,  # Pillow's arithmetic on bytes
    )


def test_result_can_be_written():
    image = np.zeros((4, 4), np.uint8)
    for antialias in (True, False):
        assert rescale(image, 0.5, antialias=antialias).flags.writeable


@pytest.mark.parametrize(
    'arguments, error, message',
    [
        (dict(factor=0), ValueError, 'factor must be a number from 0.05 to 20.0, got 0'),
        (dict(factor=math.nan), ValueError, 'got nan'),
        (dict(factor='1'), ValueError, "got '1'"),
        (dict(padding='wrap'), ValueError, "padding must be one of .*got 'wrap'"),
        (dict(canvas=(7, 8)), ValueError, r'canvas must be at least .*\(8, 8\), got \(7, 8\)'),
        (dict(center=(9, 4)), ValueError, r'center must be .* within .*got \(9, 4\)'),
        (dict(center=4), ValueError, 'center must be two numbers .*got 4'),
        (dict(image=np.zeros((8, 8))), TypeError, 'uint8 or float32, got float64'),
        (dict(image=np.zeros(8, np.uint8)), ValueError, r'got \(8,\)'),
    ],
)
def test_wrong_arguments(arguments, error, message):
    arguments = {'image': np.zeros((8, 8), np.uint8), 'factor': 0.5, **arguments}
    with pytest.raises(error, match=message):
        rescale(**arguments)


def test_factors():
    def rng():
        return np.random.default_rng(0)

    drawn = draw_factors(1000, (0.3, 1.0), None, rng())
    assert drawn.min() >= 0.3 and drawn.max() <= 1.0
    assert drawn.mean() == pytest.approx(0.65, abs=0.02)
    np.testing.assert_array_equal(draw_factors(3, (0.3, 1.0), 0.5, rng()), [0.5, 0.5, 0.5])


@pytest.mark.parametrize('value', [0.5, (0.5,), (1.0, 0.5), (0, 1), '01', (0.3, 1.0, 2.0)])
def test_wrong_scale_range(value):
    with pytest.raises(ValueError, match='scale_range must be'):
        check_scale_range(value)
