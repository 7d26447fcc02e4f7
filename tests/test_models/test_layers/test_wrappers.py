# Copyright (c) mmscale contributors.
"""Layers without parameters: functions of ``scale_space`` and ``ops`` that configs can name."""

import pytest
import torch
from mmengine.registry import MODELS
from naive import largest_difference

from mmscale.models import (
    GaussianLift,
    GaussianPyramidLift,
    ScaleAvgPool2d,
    ScaleBlurPool2d,
    ScaleMaxPool2d,
)
from mmscale.ops import scale_avg_pool2d, scale_blur_pool2d, scale_max_pool2d
from mmscale.scale_space import (
    ScaleGrid,
    bilinear_pyramid_lift,
    gaussian_lift,
    gaussian_pyramid_lift,
    repeat_lift,
)

GRID = ScaleGrid(base=2, num_scales=3, zero_scale=0.7, first_level=-1)
IMAGE = torch.randn(2, 3, 17, 14, generator=torch.Generator().manual_seed(0)).double()
DENSE = gaussian_lift(IMAGE, GRID)
WINDOW = dict(kernel_size=3, stride=(2, 1), padding=1)


def of_signals(function, **kwargs):
    return lambda x: function(x, **kwargs, scale_space=GRID)


@pytest.mark.parametrize(
    'layer, function',
    [
        (dict(type='GaussianLift', padding='reflect'), lambda x: gaussian_lift(x, GRID, 'reflect')),
        (dict(type='BilinearPyramidLift'), lambda x: bilinear_pyramid_lift(x, GRID)),
        (dict(type='BilinearPyramidLift', padding='reflect'),
         lambda x: bilinear_pyramid_lift(x, GRID, 'reflect')),
        (dict(type='GaussianPyramidLift', padding='replicate', interpolation='bilinear'),
         lambda x: gaussian_pyramid_lift(x, GRID, 'replicate', 'bilinear')),
        (dict(type='GaussianPyramidLift'), lambda x: gaussian_pyramid_lift(x, GRID)),
        (dict(type='RepeatLift'), lambda x: repeat_lift(x, GRID)),
        (dict(type='ScaleMaxPool2d', **WINDOW), of_signals(scale_max_pool2d, **WINDOW)),
        (dict(type='ScaleMaxPool2d', kernel_size=2),
         of_signals(scale_max_pool2d, kernel_size=2, stride=2)),
        (dict(type='ScaleAvgPool2d', **WINDOW), of_signals(scale_avg_pool2d, **WINDOW)),
        (dict(type='ScaleBlurPool2d', kernel_size=5),
         of_signals(scale_blur_pool2d, kernel_size=5, stride=2)),
        (dict(type='ScaleBlurPool2d', variance=3.0, stride=(1, 2)),
         of_signals(scale_blur_pool2d, variance=3.0, stride=(1, 2))),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)  # fmt: skip
def test_is_the_function_of_the_same_name(layer, function):
    built = MODELS.build(dict(layer, type=f'mmscale.{layer["type"]}', scale_space=GRID))
    for x in (IMAGE,) if 'Lift' in layer['type'] else (DENSE, gaussian_pyramid_lift(IMAGE, GRID)):
        assert largest_difference(built(x), function(x)) == 0
    assert not list(built.parameters()) and not built.state_dict()
    text = repr(built)
    assert 'first_level=-1' in text and all(
        str(layer[key]) in text for key in set(layer) - {'type'}
    )


@pytest.mark.parametrize(
    'layer, arguments, message',
    [
        (GaussianLift, dict(padding='same'), "padding must be one of .*, got 'same'"),
        (
            GaussianPyramidLift,
            dict(interpolation='nearest'),
            "interpolation must .*, got 'nearest'",
        ),
        (ScaleMaxPool2d, dict(kernel_size=0), 'kernel_size must be at least 1, got 0'),
        (ScaleMaxPool2d, dict(kernel_size=2, stride=0), 'stride must be at least 1, got 0'),
        (ScaleAvgPool2d, dict(kernel_size=2, padding=2), 'padding must be from 0 to .* 1, got 2'),
        (ScaleBlurPool2d, dict(kernel_size=2), 'kernel_size must be an odd integer of at least 3'),
        (ScaleBlurPool2d, dict(variance=-1.0), 'variance must be a finite number greater than 0'),
        (ScaleBlurPool2d, dict(kernel_size=3, variance=1.0), 'kernel_size or variance, not both'),
        (ScaleBlurPool2d, dict(kernel_size=3, stride=0), 'stride must be at least 1, got 0'),
    ],
)
def test_wrong_arguments_raise_when_the_layer_is_made(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        layer(**arguments, scale_space=GRID)
