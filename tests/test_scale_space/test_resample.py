# Copyright (c) mmscale contributors.
"""Blur and sampling as matrices, by interpolation and by Fourier series."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import randn, read
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mmscale.scale_space import ScaleGrid, resample, scale_image, scale_scale_space
from mmscale.scale_space.resample import fourier_matrix, keep_constants, resampling_matrix

X = randn(2, 3, 7, 9)
positions = st.lists(st.floats(-3, 12), min_size=1, max_size=5).map(tuple)


def equal(found, expected, atol=1e-12):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_constants_are_kept_by_threads_at_once_and_the_first_are_forgotten(
    nothing_kept, monkeypatch
):
    made = []
    monkeypatch.setattr(nothing_kept, 'KEPT_BYTES', 3 * 8)

    @keep_constants
    def constant(value):
        made.append(value)
        return torch.tensor(value)

    with ThreadPoolExecutor(8) as pool:
        values = [i % 5 for i in range(4000)]
        assert [int(found) for found in pool.map(constant, values)] == values
    made.clear()
    for value in (7, 8, 9, 7, 6, 9, 7):
        constant(value)
    assert made == [7, 8, 9, 6, 7]
    monkeypatch.setattr(nothing_kept, 'KEPT_BYTES', 7)
    before = dict(nothing_kept._kept)
    assert constant(3) is not constant(3) and nothing_kept._kept == before


def test_a_kept_matrix_is_a_real_tensor_after_tracing_with_fake_ones():
    """torch.export and shape propagation use fake tensors, which no cache may keep."""
    rows = (0.123, 1.456)
    with FakeTensorMode(allow_non_fake_inputs=True):  # as torch.export sets it
        resample(torch.empty(1, 1, 5, 5), rows, rows)
    found = resample(torch.ones(1, 1, 5, 5), rows, rows)
    assert not isinstance(found, FakeTensor)
    equal(found, torch.ones(1, 1, 2, 2), 1e-6)


@given(rows=positions, columns=positions)
@settings(deadline=None, max_examples=40)
def test_bilinear_reads(rows, columns):
    found = resample(X, rows, columns)
    assert found.shape == (2, 3, len(rows), len(columns))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            expected = read(X.numpy(), row, column)
            np.testing.assert_allclose(found[..., i, j], expected, rtol=0, atol=1e-12)


@given(rows=positions, columns=positions, variance=st.sampled_from([0.0, 1.5]))
@settings(deadline=None, max_examples=40)
def test_channels_last_in_memory_stay_last_and_change_no_value(rows, columns, variance):
    last = X.contiguous(memory_format=torch.channels_last).requires_grad_()
    plain = X.clone().requires_grad_()
    found, expected = (resample(x, rows, columns, variance) for x in (last, plain))
    equal(found, expected, 1e-14)
    assert found.stride(1) == 1
    found.square().sum().backward()
    expected.square().sum().backward()
    equal(last.grad, plain.grad)


def test_bicubic_reads_quadratics_exactly():
    n = torch.arange(9, dtype=torch.float64)
    at = (1.0, 1.3, 4.75, 6.5)
    line = (2 - 3 * n + 0.5 * n**2).expand(9, 9)
    found = resample(line, (0.0,), at, interpolation='bicubic')[0]
    expected = torch.tensor([2 - 3 * p + 0.5 * p**2 for p in at], dtype=torch.float64)
    equal(found, expected, 1e-13)


@given(step=st.integers(1, 4), height=st.integers(1, 12), width=st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_decimation_is_slicing_without_a_copy(step, height, width):
    x = torch.randn(1, 1, height, width)
    rows, columns = (tuple(map(float, range(0, n, step))) for n in (height, width))
    found = resample(x, rows, columns)
    assert torch.equal(found, x[..., ::step, ::step])
    assert found.data_ptr() == x.data_ptr()
    assert torch.equal(resample(x, rows[:1], columns), x[..., :1, ::step])


@pytest.mark.parametrize(
    'padding, outside', [('zeros', 0), ('replicate', 1), ('reflect', 4), ('circular', 2)]
)
def test_what_lies_outside(padding, outside):
    row = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert resample(row, (0.0,), (-3.0, 0.0), padding=padding).tolist() == [[outside, 1]]


def test_reflection_goes_back_and_forth():
    row = torch.tensor([[0.0, 1.0, 2.0]])
    columns = tuple(float(i) for i in range(-4, 7))
    found = resample(row, (0.0,), columns, padding='reflect')
    assert found.tolist() == [[0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]]
    assert resample(row[:, :1] + 5, (0.0,), (-2.0, 1.0), padding='reflect').tolist() == [[5, 5]]


def test_blur_comes_before_reading():
    """At the border of a blurred ramp the blur pads with zeros, the interpolation does not."""
    matrix = resampling_matrix(8, (0.0, 3.5), 1.0, dtype=torch.float64)
    whole = resampling_matrix(8, tuple(map(float, range(8))), 1.0, dtype=torch.float64)
    equal(matrix, torch.stack([whole[0], (whole[3] + whole[4]) / 2]), 1e-16)
    assert matrix[0].sum() < 0.8 and matrix[1].sum() > 0.95


def test_wrong_arguments():
    with pytest.raises(ValueError, match="padding must be one of .*'circular', got 'valid'"):
        resample(X, (0.5,), (0.0,), padding='valid')
    with pytest.raises(ValueError, match="interpolation must be one of .*, got 'area'"):
        resample(X, (0.5,), (0.0,), interpolation='area')
    with pytest.raises(TypeError, match='floating dtype, got torch.uint8'):
        resample(X.byte(), (0.5,), (0.0,))


# ---- Ideal resampling: all frequencies below the limit stay, none above it


def waves(size, top, at, seed=0):
    """Return a random function of period ``size`` with frequencies up to ``top``."""
    draw = np.random.default_rng(seed)
    amplitudes, phases = draw.normal(size=top + 1), draw.uniform(0, 2 * np.pi, top + 1)
    angles = 2 * np.pi * np.outer(at, np.arange(top + 1)) / size + phases
    return torch.from_numpy(np.cos(angles) @ amplitudes)


@given(
    size=st.integers(1, 60), factor=st.floats(1, 4), shift=st.floats(-1, 1), seed=st.integers(0, 9)
)
@settings(deadline=None, max_examples=60)
def test_what_the_new_sampling_holds_is_read_exactly(size, factor, shift, seed):
    top = max(0, int(np.ceil(size / (2 * factor) - 1e-6)) - 1)  # below the highest, not just it
    at = np.array([factor * i + shift for i in range(int(size / factor))])
    matrix = fourier_matrix(size, tuple(at), factor, torch.float64)
    found = matrix @ waves(size, top, np.arange(size), seed)
    equal(found, waves(size, top, at, seed), 1e-10)


@pytest.mark.parametrize('size, factor', [(30, 1.5), (33, 3), (40, 2), (21, 1.3), (12, 1)])
def test_what_it_cannot_hold_is_gone(size, factor):
    """Compare with NumPy's FFT: cut the spectrum off, then evaluate it at the samples."""
    x = randn(size)
    spectrum = np.fft.fft(x.numpy())
    frequency = np.abs(np.fft.fftfreq(size))
    spectrum[frequency > 0.5 / factor + 1e-12] = 0
    if factor > 1:
        spectrum[np.isclose(frequency, 0.5 / factor)] /= 2  # both signs hold the half of samples
    at = np.arange(int(np.ceil(size / factor))) * factor
    basis = np.exp(2j * np.pi * np.outer(at, np.fft.fftfreq(size)))
    expected = torch.from_numpy((basis @ spectrum / size).real)
    equal(fourier_matrix(size, tuple(at), factor, torch.float64) @ x, expected)


def test_images_and_both_canvases():
    rows = waves(24, 4, np.arange(24), 1)[:, None]
    columns = waves(30, 4, np.arange(30), 2)
    image = (rows * columns)[None, None]
    equal(scale_image(image, 2, interpolation='ideal'), image[..., ::2, ::2])
    found = scale_image(image, 2, canvas='keep', interpolation='ideal')[0, 0]
    at = [2 * (np.arange(size) - centre) + centre for size, centre in ((24, 11.5), (30, 14.5))]
    expected = waves(24, 4, at[0], 1)[:, None] * waves(30, 4, at[1], 2)
    outside = [torch.from_numpy((a < -0.5) | (a >= size)) for a, size in zip(at, (24, 30))]
    expected[outside[0]], expected[:, outside[1]] = 0, 0
    assert (expected == 0).any()
    equal(found, expected)


def test_scale_spaces_are_sliced_for_powers_of_the_base():
    x = randn(1, 2, 3, 12, 16)
    found = scale_scale_space(x, 2, ScaleGrid(2, 3), interpolation='ideal')
    equal(found, x[:, :, 1:, ::2, ::2])
