# Copyright (c) mmscale contributors.
import pytest
import torch
from mmengine.registry import MODELS
from naive import largest_difference

from mmscale.models import BilinearPyramidLift, GaussianLift, GaussianPyramidLift
from mmscale.scale_space import (
    ScaleGrid,
    bilinear_pyramid_lift,
    gaussian_lift,
    gaussian_pyramid_lift,
)

LIFTS = [
    (GaussianLift, gaussian_lift),
    (GaussianPyramidLift, gaussian_pyramid_lift),
    (BilinearPyramidLift, bilinear_pyramid_lift),
]
GRID = dict(base=1.5, num_scales=3, zero_scale=0.7, first_level=-1)


@pytest.mark.parametrize('module, function', LIFTS)
@pytest.mark.parametrize('padding', ['zeros', 'reflect'])
def test_is_the_function_of_the_same_name(module, function, padding):
    image = torch.randn(2, 3, 13, 9)
    cfg = dict(type=f'mmscale.{module.__name__}', scale_space=GRID, padding=padding)
    built = MODELS.build(cfg)
    assert isinstance(built, module) and built.grid == ScaleGrid(**GRID)
    assert largest_difference(built(image), function(image, built.grid, padding)) == 0
    assert not list(built.state_dict())
    assert 'first_level=-1' in repr(built) and padding in repr(built)


def test_interpolation_is_handed_on():
    image = torch.randn(1, 1, 9, 9)
    lift = GaussianPyramidLift(GRID, interpolation='bilinear')
    expected = gaussian_pyramid_lift(image, lift.grid, interpolation='bilinear')
    assert largest_difference(lift(image), expected) == 0
    assert largest_difference(GaussianPyramidLift(GRID)(image), expected) > 0.01


def test_wrong_arguments_raise_when_the_lift_is_made():
    with pytest.raises(ValueError, match="padding must be one of .*, got 'same'"):
        GaussianLift(GRID, padding='same')
    with pytest.raises(ValueError, match="interpolation must be one of .*, got 'nearest'"):
        GaussianPyramidLift(GRID, interpolation='nearest')
