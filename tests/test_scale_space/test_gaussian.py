# Copyright (c) mmscale contributors.
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import iv

from mmscale.scale_space import discrete_gaussian


def ample(variance):
    return discrete_gaussian(variance, radius=math.ceil(12 * math.sqrt(variance)) + 20)


@given(variance=st.floats(0.01, 80))
@settings(deadline=None, max_examples=40)
def test_taps_are_the_bessel_kernel(variance):
    taps = discrete_gaussian(variance)
    radius = 4 * math.ceil(math.sqrt(variance))
    assert taps.dtype == torch.float64 and taps.shape == (2 * radius + 1,)
    bessel = np.exp(-variance) * iv(np.arange(-radius, radius + 1), variance)
    np.testing.assert_allclose(taps, bessel / bessel.sum(), rtol=0, atol=1e-13)
    # e^-t I_n(t) as the mean of exp(t (cos x - 1)) cos(n x) over a period.
    x, n = np.arange(4096) * 2 * np.pi / 4096, np.arange(-radius, radius + 1)
    mean = (np.exp(variance * (np.cos(x) - 1)) * np.cos(n[:, None] * x)).mean(1)
    np.testing.assert_allclose(taps, mean / mean.sum(), rtol=0, atol=1e-13)


@given(variance=st.floats(0, 80))
@settings(deadline=None, max_examples=40)
def test_moments(variance):
    taps = ample(variance)
    n = torch.arange(len(taps)) - len(taps) // 2
    assert taps.sum().item() == pytest.approx(1, abs=1e-14)
    assert torch.equal(taps, taps.flip(0)) and (taps >= 0).all()
    assert (taps * n**2).sum().item() == pytest.approx(variance, rel=1e-12, abs=1e-14)


@given(first=st.floats(0.01, 20), second=st.floats(0.01, 20))
@settings(deadline=None, max_examples=40)
def test_semigroup(first, second):
    both = np.convolve(ample(first), ample(second))
    once = discrete_gaussian(first + second, radius=len(both) // 2)
    np.testing.assert_allclose(both, once, rtol=0, atol=1e-15)


@pytest.mark.parametrize('variance, radius', [(0, 0), (0.1, 4), (1, 4), (1.01, 8), (4, 8)])
def test_truncation(variance, radius):
    assert len(discrete_gaussian(variance)) == 2 * radius + 1


@pytest.mark.parametrize('variance', [-0.1, math.inf, math.nan])
def test_wrong_variance(variance):
    with pytest.raises(ValueError, match=f'variance must be .* at least 0, got {variance}'):
        discrete_gaussian(variance)
