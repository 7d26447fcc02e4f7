# Copyright (c) mmscale contributors.
import pytest
import torch
from torch import nn

from mmscale.models import ScaleConv
from mmscale.scale_space import ScaleGrid, split_levels, stack_levels
from mmscale.testing import assert_scale_equivariant

GRID = ScaleGrid(base=2, num_scales=4)


@pytest.fixture
def signal():
    return torch.randn(2, 3, 4, 21, 30, dtype=torch.double)


@pytest.mark.parametrize('factor', [2, 4, 8])
def test_passes_what_is_equivariant(signal, factor):
    conv = ScaleConv(3, 5, 3, 2, 1, interaction=3, scale_space=GRID).double()
    assert_scale_equivariant(conv, signal, factor, GRID)


def test_passes_pyramids():
    pyramid = tuple(torch.randn(1, 3, n, n, dtype=torch.double) for n in (29, 15, 8, 4))
    conv = ScaleConv(3, 5, 3, 2, 1, interaction=2, scale_space=GRID).double()
    assert_scale_equivariant(conv, pyramid, 2, GRID)


def test_names_the_level_that_differs(signal):
    def broken(x):
        return torch.cat([x[:, :, :2], 1.001 * x[:, :, 2:]], dim=2)

    with pytest.raises(AssertionError, match=r'level 1 differs by 0\.00\d+ of the largest'):
        assert_scale_equivariant(broken, signal, 2, GRID)
    assert_scale_equivariant(broken, signal, 2, GRID, atol=1e-2)


def test_rejects_undilated_convolution(signal):
    conv = nn.Conv2d(3, 3, 3, padding=1).double()

    def undilated(x):
        return stack_levels([conv(level) for level in split_levels(x)])

    with pytest.raises(AssertionError, match='not scale-equivariant'):
        assert_scale_equivariant(undilated, signal, 2, GRID)


def test_rejects_vacuous_outputs(signal):
    with pytest.raises(AssertionError, match='zero or not finite'):
        assert_scale_equivariant(torch.zeros_like, signal, 2, GRID)
    with pytest.raises(AssertionError, match='zero or not finite'):
        assert_scale_equivariant(lambda x: x * float('nan'), signal, 2, GRID)


def test_rejects_nan_in_any_level(signal):
    def broken(x):
        last = torch.arange(x.shape[2])[:, None, None] == 1
        return x if x.shape[2] == 4 else torch.where(last, float('nan'), x)

    with pytest.raises(AssertionError, match='level 1 differs by nan'):
        assert_scale_equivariant(broken, signal, 2, GRID)


@pytest.mark.parametrize('factor', [1, 3, 0.5])
def test_takes_powers_of_the_base_only(signal, factor):
    with pytest.raises(ValueError, match='factor must be a power of the base 2 greater than 1'):
        assert_scale_equivariant(lambda x: x, signal, factor, GRID)


def test_rejects_other_shapes(signal):
    with pytest.raises(AssertionError, match='levels of shape'):
        assert_scale_equivariant(lambda x: x[..., 1:], signal, 2, GRID)
