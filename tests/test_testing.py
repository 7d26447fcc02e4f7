# Copyright (c) mmscale contributors.
import pytest
import torch
from torch.nn.functional import conv2d

from mmscale.models import ScaleConv
from mmscale.scale_space import ScaleGrid, split_levels, stack_levels
from mmscale.testing import assert_scale_equivariant

GRID = ScaleGrid(base=2, num_scales=4)
SIGNAL = torch.randn(2, 3, 4, 21, 30, dtype=torch.double)
PYRAMID = tuple(torch.randn(1, 3, n, n, dtype=torch.double) for n in (29, 15, 8, 4))


@pytest.mark.parametrize('factor', [2, 4, 8])
@pytest.mark.parametrize('signal', [SIGNAL, PYRAMID], ids=['dense', 'pyramid'])
def test_passes_what_is_equivariant(signal, factor):
    conv = ScaleConv(3, 5, 3, 2, 1, interaction=3, scale_space=GRID).double()
    assert_scale_equivariant(conv, signal, factor, GRID)


def coarse_levels_differ(x):
    return torch.cat([x[:, :, :2], 1.001 * x[:, :, 2:]], dim=2)


def undilated(x):
    kernel = torch.ones(3, 3, 3, 3).double()
    return stack_levels([conv2d(level, kernel, padding=1) for level in split_levels(x)])


def nan_in_one_level(x):
    last = torch.arange(x.shape[2])[:, None, None] == 1
    return x if x.shape[2] == 4 else torch.where(last, float('nan'), x)


@pytest.mark.parametrize(
    'fn, message',
    [
        (coarse_levels_differ, r'level 1 differs by 0\.00\d+ of the largest'),
        (undilated, 'not scale-equivariant'),
        (torch.zeros_like, 'zero or not finite'),
        (lambda x: x * float('nan'), 'zero or not finite'),
        (nan_in_one_level, 'level 1 differs by nan'),
        (lambda x: x[..., 1:], 'levels of shape'),
    ],
)
def test_rejects_what_is_not(fn, message):
    with pytest.raises(AssertionError, match=message):
        assert_scale_equivariant(fn, SIGNAL, 2, GRID)


def test_tolerance_is_relative_to_the_largest_value():
    assert_scale_equivariant(lambda x: 1e6 * coarse_levels_differ(x), SIGNAL, 2, GRID, atol=1e-2)


@pytest.mark.parametrize('factor', [1, 3, 0.5])
def test_takes_powers_of_the_base_only(factor):
    with pytest.raises(ValueError, match='factor must be a power of the base 2 greater than 1'):
        assert_scale_equivariant(lambda x: x, SIGNAL, factor, GRID)
