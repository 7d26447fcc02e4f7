# Copyright (c) mmscale contributors.
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import read

from mmscale.scale_space import resample
from mmscale.scale_space.resample import keep_constants, resampling_matrix

X = torch.randn(2, 3, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
positions = st.lists(st.floats(-3, 12), min_size=1, max_size=5).map(tuple)


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


@given(rows=positions, columns=positions)
@settings(deadline=None, max_examples=40)
def test_bilinear_reads(rows, columns):
    found = resample(X, rows, columns)
    assert found.shape == (2, 3, len(rows), len(columns))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            np.testing.assert_allclose(
                found[..., i, j], read(X.numpy(), row, column), rtol=0, atol=1e-12
            )


@given(rows=positions, columns=positions, variance=st.sampled_from([0.0, 1.5]))
@settings(deadline=None, max_examples=40)
def test_channels_last_in_memory_stay_last_and_change_no_value(rows, columns, variance):
    last = X.contiguous(memory_format=torch.channels_last).requires_grad_()
    plain = X.clone().requires_grad_()
    found, expected = (resample(x, rows, columns, variance) for x in (last, plain))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert found.stride(1) == 1
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(last.grad, plain.grad, rtol=0, atol=1e-12)


def test_bicubic_reads_quadratics_exactly():
    n = torch.arange(9, dtype=torch.float64)
    polynomial = 2 - 3 * n + 0.5 * n**2
    at = (1.0, 1.3, 4.75, 6.5)
    found = resample(polynomial.expand(9, 9), (0.0,), at, interpolation='bicubic')[0]
    expected = torch.tensor([2 - 3 * p + 0.5 * p**2 for p in at], dtype=torch.float64)
    # The row at 0 is read as it is.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@given(step=st.integers(1, 4), height=st.integers(1, 12), width=st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_decimation_is_slicing_without_a_copy(step, height, width):
    x = torch.randn(1, 1, height, width)
    rows, columns = (tuple(map(float, range(0, n, step))) for n in (height, width))
    found = resample(x, rows, columns)
    assert torch.equal(found, x[..., ::step, ::step])
    assert found.data_ptr() == x.data_ptr()


def test_fewer_rows_than_the_image_has():
    assert torch.equal(resample(X, (0.0, 2.0), (0.0, 1.0, 2.0)), X[..., :3:2, :3])


@pytest.mark.parametrize(
    'padding, outside', [('zeros', 0.0), ('replicate', 1.0), ('reflect', 3.0), ('circular', 3.0)]
)
def test_what_lies_outside(padding, outside):
    row = torch.tensor([[1.0, 2.0, 3.0, 3.0]])
    expected = {'zeros': 0.0, 'replicate': 1.0, 'reflect': 3.0, 'circular': 3.0}[padding]
    assert resample(row, (0.0,), (-2.0, 0.0), padding=padding).tolist() == [[expected, 1.0]]


def test_reflection_goes_back_and_forth():
    row = torch.tensor([[0.0, 1.0, 2.0]])
    columns = tuple(float(i) for i in range(-4, 7))
    found = resample(row, (0.0,), columns, padding='reflect')
    assert found.tolist() == [[0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]]
    assert resample(row[:, :1] + 5, (0.0,), (-2.0, 1.0), padding='reflect').tolist() == [[5, 5]]


def test_blur_comes_before_reading():
    """Reading a blurred ramp at a border: zeros come in by the blur, not by interpolation."""
    x = torch.ones(1, 8).double()
    blurred = resample(x, (0.0,), tuple(map(float, range(8))), variance=0.0)
    assert torch.equal(blurred, x)
    matrix = resampling_matrix(8, (0.0, 3.5), 1.0, dtype=torch.float64)
    whole = resampling_matrix(8, tuple(map(float, range(8))), 1.0, dtype=torch.float64)
    torch.testing.assert_close(matrix[0], whole[0], rtol=0, atol=0)
    torch.testing.assert_close(matrix[1], (whole[3] + whole[4]) / 2, rtol=0, atol=1e-16)
    assert matrix[0].sum() < 0.8 and matrix[1].sum() > 0.95


def test_wrong_arguments():
    with pytest.raises(ValueError, match="padding must be one of .*'circular', got 'valid'"):
        resample(X, (0.5,), (0.0,), padding='valid')
    with pytest.raises(ValueError, match="interpolation must be one of .*, got 'area'"):
        resample(X, (0.5,), (0.0,), interpolation='area')


def test_a_cached_matrix_is_a_real_tensor_after_tracing_with_fake_ones():
    """torch.export and shape propagation run with fake tensors: none may stay in the cache."""
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    rows = (0.123, 1.456)
    with FakeTensorMode(allow_non_fake_inputs=True):  # as torch.export sets it
        resample(torch.empty(1, 1, 5, 5), rows, rows)
    found = resample(torch.ones(1, 1, 5, 5), rows, rows)
    assert not isinstance(found, FakeTensor)
    torch.testing.assert_close(found, torch.ones(1, 1, 2, 2))
