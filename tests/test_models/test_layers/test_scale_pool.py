# Copyright (c) mmscale contributors.
import pytest
import torch
from mmengine.registry import MODELS
from naive import largest_difference

from mmscale.models import ScaleAvgPool2d, ScaleBlurPool2d, ScaleMaxPool2d
from mmscale.ops import scale_avg_pool2d, scale_blur_pool2d, scale_max_pool2d
from mmscale.scale_space import ScaleGrid

GRID = dict(base=2, num_scales=3)
POOLS = [(ScaleMaxPool2d, scale_max_pool2d), (ScaleAvgPool2d, scale_avg_pool2d)]
X = torch.randn(2, 3, 3, 17, 14, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize('module, function', POOLS)
def test_is_the_function_of_the_same_name(module, function):
    cfg = dict(type=f'mmscale.{module.__name__}', kernel_size=3, stride=(2, 1), padding=1)
    pool = MODELS.build(dict(cfg, scale_space=GRID))
    assert isinstance(pool, module)
    grid = ScaleGrid.build(GRID)
    expected = function(X, (3, 3), (2, 1), (1, 1), scale_space=grid)
    assert largest_difference(pool(X), expected) == 0
    pyramid = tuple(X[:, :, k, :: 2**k, :: 2**k] for k in range(3))
    expected = function(pyramid, (3, 3), (2, 1), (1, 1), scale_space=grid)
    assert largest_difference(pool(pyramid), expected) == 0
    assert module(2, scale_space=GRID).stride == (2, 2) and not list(pool.state_dict())
    assert 'kernel_size=(3, 3), stride=(2, 1), padding=(1, 1)' in repr(pool)


@pytest.mark.parametrize('module, function', POOLS)
@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(kernel_size=0), 'kernel_size must be at least 1, got 0'),
        (dict(kernel_size=2, stride=0), 'stride must be at least 1, got 0'),
        (dict(kernel_size=2, padding=2), 'padding must be from 0 to kernel_size - 1 = 1, got 2'),
    ],
)
def test_wrong_arguments_raise_when_the_layer_is_made(module, function, arguments, message):
    with pytest.raises(ValueError, match=message):
        module(**{'scale_space': GRID, **arguments})


class TestScaleBlurPool2d:
    @pytest.mark.parametrize('low_pass', [dict(kernel_size=5), dict(variance=3.0)], ids=str)
    @pytest.mark.parametrize('stride', [2, 3, (1, 2)])
    def test_is_the_function_of_the_same_name(self, low_pass, stride):
        cfg = dict(type='mmscale.ScaleBlurPool2d', **low_pass, stride=stride, scale_space=GRID)
        pool = MODELS.build(cfg)
        assert isinstance(pool, ScaleBlurPool2d)
        for x in (X, tuple(X[:, :, k, :: 2**k, :: 2**k] for k in range(3))):
            expected = scale_blur_pool2d(x, **low_pass, stride=stride, scale_space=GRID)
            assert largest_difference(pool(x), expected) == 0
        ((name, value),) = low_pass.items()
        assert f'{name}={value}, stride=' in repr(pool)
        assert not list(pool.parameters()) and not pool.state_dict()

    @pytest.mark.parametrize(
        'arguments, message',
        [
            (dict(kernel_size=2), 'kernel_size must be an odd integer of at least 3'),
            (dict(variance=-1.0), 'variance must be a finite number greater than 0'),
            (dict(kernel_size=3, variance=1.0), 'kernel_size or variance, not both'),
            (dict(), 'kernel_size or variance, not both and not neither'),
            (dict(kernel_size=3, stride=0), 'stride must be at least 1, got 0'),
        ],
    )
    def test_wrong_arguments_raise_when_the_layer_is_made(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ScaleBlurPool2d(**{'scale_space': GRID, **arguments})
