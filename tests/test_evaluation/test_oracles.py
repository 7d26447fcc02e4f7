# Copyright (c) mmscale contributors.
"""Networks whose equivariance is known beforehand."""

import pytest
import torch
from naive import scaled
from networks import as_if_trained
from torch import nn

from mmscale.evaluation import equivariance_error, scale_signal
from mmscale.evaluation.equivariance import FACTORS
from mmscale.models import ScaleConvNet, ScaleResNet, ScaleResNet_CIFAR
from mmscale.scale_space import ScaleGrid, scale_image

# 330 pixels: every scaled image has a whole number of them (300, 220, 165, 132, 110).
SIZE = 330
GRID = dict(base=2, num_scales=4)
SMALL = dict(base_channels=8, stem_channels=8)


def band_limited(count=2, channels=2, size=SIZE, highest=1 / 6):
    """Periodic images without frequencies that a third of the pixels could not hold."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, channels, size, size, generator=generator, dtype=torch.float64)
    spectrum = torch.fft.fft2(noise)
    frequency = torch.fft.fftfreq(size, dtype=torch.float64).abs()
    keep = (frequency < highest - 1e-9).double()
    return torch.fft.ifft2(spectrum * keep[:, None] * keep).real + 1


@pytest.mark.parametrize(
    'phi',
    [
        nn.Identity(),
        nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 5, 1)).double(),
        nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double(),
        lambda x: (x, x.mean((2, 3))),
    ],
)
def test_no_error_with_ideal_resampling(phi):
    results = equivariance_error(phi, band_limited(), resampling='ideal')
    for result in results if isinstance(results, tuple) else (results,):
        assert result.per_sample.shape == (len(FACTORS), 2)
        assert result.per_sample.max() < 1e-24  # squares of rounding errors


def test_a_pointwise_square_has_none_while_its_band_fits():
    """Squaring doubles the highest frequency: to 1/6 it fits at factor 3, further it does not."""
    fits, overflows = (
        equivariance_error(lambda x: x**2, band_limited(highest=highest), [3], resampling='ideal')
        for highest in (1 / 12, 1 / 7)
    )
    assert fits.per_sample.max() < 1e-24
    assert overflows.per_sample.min() > 1e-3


@pytest.mark.parametrize(
    'resampling, variance, interpolation',
    [
        ('matched', 0.09 * 1.25, 'bicubic'),
        ('gaussian', 0.0625, 'bicubic'),
        ('bilinear', 0.0, 'bilinear'),
        ('bicubic', 0.0, 'bicubic'),
        ('ideal', 0.0, 'ideal'),
    ],
)
def test_resamplings_are_a_blur_and_a_reading(resampling, variance, interpolation):
    image = band_limited(1, 1, 48)
    found = scale_signal(image, 1.5, zero_scale=0.3, resampling=resampling)
    expected = scale_image(image, 1.5, interpolation=interpolation, variance=variance)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('interaction', [1, 2])
def test_a_scale_space_by_construction(pyramid, interaction):
    lift = 'GaussianPyramidLift' if pyramid else 'GaussianLift'
    model = as_if_trained(ScaleResNet(18, GRID, dict(type=f'mmscale.{lift}'), interaction, **SMALL))
    generator = torch.Generator().manual_seed(0)
    sizes = [(61, 44)] * 4 if not pyramid else [(96, 64), (48, 32), (24, 16), (12, 8)]
    levels = [torch.randn(2, 3, *size, generator=generator).double() for size in sizes]
    signal = tuple(levels) if pyramid else torch.stack(levels, 2)
    result = equivariance_error(model.body, signal, [2, 4, 8], scale_space=GRID)
    assert result.per_sample.max() < 1e-24
    # The same with L_s written as a slice.
    after, before = model.body(scaled(signal, 2, 1))[0], scaled(model.body(signal)[0], 2, 1)
    pairs = zip(after, before) if pyramid else [(after, before)]
    assert all((a - b).norm() < 1e-12 * b.norm() for a, b in pairs)


def norm_per_level(x):
    return type(x)(*[level / d for level, d in zip(x, [1.0, 0.8, 0.6, 0.5])])


def undilated_pool(x):
    return type(x)(*[nn.functional.max_pool2d(level, 3, 1, 1) for level in x])


def truncated_dilation(x):
    """Of 1.5**k: 1, 1, 2, 3 pixels."""
    channels = x[0].shape[1]
    weight = torch.randn(channels, channels, 3, 3, generator=torch.Generator().manual_seed(0))
    pixels = [int(1.5**k) for k in range(len(x))]
    pairs = zip(x, pixels)
    return type(x)(*[nn.functional.conv2d(y, weight.double(), None, 1, d, d) for y, d in pairs])


@pytest.mark.parametrize('broken', [norm_per_level, undilated_pool, truncated_dilation])
@pytest.mark.parametrize('stage', [1, 3])
def test_the_layer_that_breaks_it_is_found(broken, stage):
    """All layers before it have no error at all, it has one."""
    torch.manual_seed(0)
    model = as_if_trained(ScaleResNet_CIFAR(18, GRID, strides=(1, 1, 1, 1), num_stages=4, **SMALL))
    block = getattr(model, f'layer{stage}')[1]
    block.conv2.register_forward_hook(lambda module, args, output: broken(output))
    model.forward = model.body
    signal = torch.randn(1, 3, 4, 33, 40, generator=torch.Generator().manual_seed(0)).double()
    names = [f'layer{i}.{j}' for i in (1, 2, 3, 4) for j in (0, 1)]
    results = equivariance_error(model, signal, [2], layers=names)
    errors = [result.mean.item() for result in results.values()]
    first = names.index(f'layer{stage}.1')
    assert max(errors[:first]) < 1e-24 and min(errors[first:]) > 1e-6


def test_layers_are_valid_as_far_as_interactions_reached():
    grid = ScaleGrid(2, 4, zero_scale=1.0)
    model = as_if_trained(ScaleConvNet(grid, interaction=(1, 2, 3), channels=(4, 4, 4)))
    images = band_limited(1, 1, 96, 0.1)
    layers = ['lift', 'convs.0', 'norms.0', 'convs.1', 'norms.1', 'convs.2']
    with pytest.warns(UserWarning, match='no level is valid at factor 2: 3 remain, .* spoil 3'):
        results = equivariance_error(model, images, [2], layers=layers)
    for name in layers[:3]:  # all three levels that remain are valid
        assert results[name].per_sample.isfinite().all() and results[name].truncated.isnan().all()
    for name in layers[3:5]:  # one of them is not
        assert results[name].per_sample.isfinite().all()
        assert results[name].truncated.isfinite().all()
    assert results['convs.2'].per_sample.isnan().all()
    assert results['convs.2'].truncated.isfinite().all()
