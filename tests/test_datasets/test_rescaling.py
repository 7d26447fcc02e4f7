# Copyright (c) mmscale contributors.
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmscale.datasets import rescale
from mmscale.datasets.rescaling import PADDINGS, draw_factors

MODES = {'zeros': 'constant', 'reflect': 'reflect', 'replicate': 'edge'}  # of numpy.pad
paddings = st.sampled_from(PADDINGS)
factors = st.floats(0.25, 4.0)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12)) | st.tuples(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 4)
)
images = shapes.flatmap(lambda shape: arrays(np.uint8, shape))


def bicubic(x, a):
    x = abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    if x < 2:
        return ((x - 5) * x + 8) * x * a - 4 * a
    return 0.0


def naive(image, factor, center, padding, antialias):
    """One output pixel at a time.

    Not anti-aliased it is Pillow's affine map: a = -1, the border replicated within the image and
    black off it.
    """
    stretch, a = (max(1.0, 1.0 / factor), -0.5) if antialias else (1.0, -1.0)
    margin, result = 40, np.zeros_like(image)
    padded = np.pad(image, margin, mode=MODES[padding if antialias else 'replicate'])
    for place in np.ndindex(*image.shape):
        at = [(i + 0.5 - c) / factor + c for i, c in zip(place, center[::-1])]
        if not antialias and not all(0 <= p < size for p, size in zip(at, image.shape)):
            continue
        reach = [(math.floor(p - 2 * stretch) - 1, math.ceil(p + 2 * stretch) + 1) for p in at]
        rows, cols = (
            np.array([bicubic((i + 0.5 - p) / stretch, a) for i in range(*ends)])
            for p, ends in zip(at, reach)
        )
        seen = padded[tuple(slice(margin + start, margin + stop) for start, stop in reach)]
        result[place] = rows @ seen @ cols / (rows.sum() * cols.sum())
    return result


@settings(max_examples=100, deadline=None)
@given(images, paddings, st.booleans())
def test_factor_one_is_the_identity(image, padding, antialias):
    result = rescale(image, 1.0, padding=padding, antialias=antialias)
    assert result.dtype == image.dtype and result.flags.writeable
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


@pytest.mark.parametrize('factor', [0.23, 1 / 3, 0.8, 1.7])
@pytest.mark.parametrize('padding, antialias', [*((p, True) for p in PADDINGS), ('zeros', False)])
def test_equals_naive_reference(padding, antialias, factor):
    image = np.random.default_rng(0).random((9, 11), dtype=np.float32)
    arguments = dict(factor=factor, center=(5.2, 4.0), padding=padding, antialias=antialias)
    np.testing.assert_allclose(rescale(image, **arguments), naive(image, **arguments), atol=1e-5)


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


@settings(max_examples=50, deadline=None)
@given(images, factors, paddings, st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_canvas_is_the_image_laid_in_its_middle(image, factor, padding, more, more2, antialias):
    if padding != 'zeros' or not antialias:
        factor = 1.0
    height, width = image.shape[:2]
    canvas = (height + 2 * more, width + 2 * more2)
    margins = [(more, more), (more2, more2)] + [(0, 0)] * (image.ndim - 2)
    laid = np.pad(image, margins, mode=MODES[padding])
    np.testing.assert_allclose(
        rescale(image, factor, canvas=canvas, padding=padding, antialias=antialias).astype(int),
        rescale(laid, factor, padding=padding, antialias=antialias).astype(int),
        atol=1,  # Pillow's arithmetic on bytes
    )


def test_factors():
    drawn = draw_factors(1000, (0.3, 1.0), None, np.random.default_rng(0))
    assert drawn.min() >= 0.3 and drawn.max() <= 1.0
    assert drawn.mean() == pytest.approx(0.65, abs=0.02)
    assert draw_factors(3, (0.3, 1.0), 0.5, np.random.default_rng(0)).tolist() == [0.5] * 3
