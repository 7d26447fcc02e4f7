# Copyright (c) mmscale contributors.
"""Ideal resampling: Fourier series, nothing lost below the limit and nothing left above it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmscale.scale_space import ScaleGrid, scale_image, scale_scale_space
from mmscale.scale_space.resample import fourier_matrix, grid_positions


def waves(size, top, at, seed=0):
    """A random signal of period ``size`` with frequencies up to ``top``, read anywhere."""
    draw = np.random.default_rng(seed)
    amplitudes, phases = draw.normal(size=top + 1), draw.uniform(0, 2 * np.pi, top + 1)
    angles = 2 * np.pi * np.outer(at, np.arange(top + 1)) / size + phases
    return torch.from_numpy(np.cos(angles) @ amplitudes)


@given(size=st.integers(1, 40), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_factor_1_changes_nothing(size, seed):
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed)).double()
    matrix = fourier_matrix(size, grid_positions(size, 1), dtype=torch.float64)
    torch.testing.assert_close(matrix @ x, x, rtol=0, atol=1e-12)


@given(
    size=st.integers(8, 60), factor=st.floats(1, 4), shift=st.floats(-1, 1), seed=st.integers(0, 9)
)
@settings(deadline=None, max_examples=60)
def test_what_the_new_sampling_holds_is_read_exactly(size, factor, shift, seed):
    top = max(0, int(np.ceil(size / (2 * factor) - 1e-6)) - 1)  # below the highest, not just it
    at = np.array([factor * i + shift for i in range(int(size / factor))])
    expected = waves(size, top, at, seed)
    matrix = fourier_matrix(size, tuple(at), factor, torch.float64)
    found = matrix @ waves(size, top, np.arange(size), seed)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize('size, factor', [(30, 1.5), (33, 3), (40, 2), (21, 1.3)])
def test_what_it_cannot_hold_is_gone(size, factor):
    """Against NumPy's FFT: the spectrum cut off, then read at the samples."""
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).double()
    spectrum = np.fft.fft(x.numpy())
    frequency = np.abs(np.fft.fftfreq(size))
    spectrum[frequency > 0.5 / factor + 1e-12] = 0
    limit = np.isclose(frequency, 0.5 / factor)
    spectrum[limit] /= 2  # both signs hold the half that has samples
    at = np.arange(int(np.ceil(size / factor))) * factor
    basis = np.exp(2j * np.pi * np.outer(at, np.fft.fftfreq(size)))
    expected = torch.from_numpy((basis @ spectrum / size).real)
    found = fourier_matrix(size, tuple(at), factor, torch.float64) @ x
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_images_and_both_canvases():
    rows = waves(24, 4, np.arange(24), 1)[:, None]
    columns = waves(30, 4, np.arange(30), 2)
    image = (rows * columns)[None, None]
    found = scale_image(image, 2, interpolation='ideal')
    torch.testing.assert_close(found, image[..., ::2, ::2], rtol=0, atol=1e-12)

    found = scale_image(image, 2, canvas='keep', interpolation='ideal')[0, 0]
    centres = 11.5, 14.5
    at = [2 * (np.arange(size) - centre) + centre for size, centre in zip((24, 30), centres)]
    expected = waves(24, 4, at[0], 1)[:, None] * waves(30, 4, at[1], 2)
    outside = [(a < -0.5) | (a >= size) for a, size in zip(at, (24, 30))]
    expected[torch.from_numpy(outside[0])] = 0
    expected[:, torch.from_numpy(outside[1])] = 0
    assert (expected == 0).any()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_scale_spaces_are_sliced_for_powers_of_the_base():
    x = torch.randn(1, 2, 3, 12, 16, generator=torch.Generator().manual_seed(0)).double()
    found = scale_scale_space(x, 2, ScaleGrid(2, 3), interpolation='ideal')
    torch.testing.assert_close(found, x[:, :, 1:, ::2, ::2], rtol=0, atol=1e-12)
