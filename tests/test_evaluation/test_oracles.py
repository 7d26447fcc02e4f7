# Copyright (c) mmscale contributors.
"""Networks whose equivariance is known beforehand."""

import pytest
import torch
from naive import scaled
from networks import as_if_trained
from torch import nn

from mmscale.evaluation import equivariance_error
from mmscale.evaluation.equivariance import FACTORS
from mmscale.models import ScaleConvNet, ScaleResNet, ScaleResNet_CIFAR
from mmscale.scale_space import ScaleGrid, scale_scale_space

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
        lambda x: x.mean((2, 3)),
        nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double(),
        lambda x: (x, x.mean((2, 3))),
    ],
    ids=['identity', 'pointwise', 'global average', 'pointwise and average', 'tuple'],
)  # fmt: skip
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


@pytest.mark.parametrize('zero_scale', [0.5, 1.0])
@pytest.mark.parametrize(
    'base, num_scales, gain', [(2, 4, 1.5), (2**0.5, 7, 3), (2 ** (1 / 3), 10, 9), (2**0.25, 13, 9)]
)
def test_waves_between_levels(base, num_scales, gain, zero_scale):
    """The discrete Gaussian of variance t multiplies a wave by exp(t (cos(omega) - 1)).

    So the level of any scale is known, and positions between the samples of a periodic image are
    read exactly: what is left is how scales between levels are read. Of squared errors the cubic
    has at most one ``gain``-th of the linear one's.
    """
    grid, size = ScaleGrid(base, num_scales, zero_scale), 64
    omega = 2 * torch.pi * torch.tensor([0, 1, 2, 4, 7, 12, 19], dtype=torch.float64) / size
    amplitude = 1 / (1 + torch.arange(7.0).double())

    def level(scale, positions):
        decay = (zero_scale**2 * (scale**2 - 1) * (omega.cos() - 1)).exp()
        return (torch.outer(positions, omega).cos() * (amplitude * decay)).sum(1)

    at = torch.arange(size).double()
    signal = torch.stack([level(scale, at).expand(1, 1, size, size) for scale in grid.factors], 2)
    for factor in (1.1, 1.25 * 2**0.01, 1.5, 2.6, 3.0):
        errors = {}
        for between_levels in ('linear', 'cubic'):
            found = scale_scale_space(
                signal, factor, grid, interpolation='ideal', between_levels=between_levels
            ).unbind(2)
            where = factor * torch.arange(found[0].shape[-1]).double()
            exact = [level(factor * scale, where) for scale in grid.factors[: len(found)]]
            errors[between_levels] = sum((a[0, 0] - b).square().sum() for a, b in zip(found, exact))
        assert errors['linear'] > gain * errors['cubic'] > 0, factor


@pytest.mark.parametrize('resampling', ['matched', 'gaussian', 'bilinear', 'bicubic'])
def test_other_resamplings_have_errors_of_their_own(resampling):
    """A square whose band fits has no error with ideal resampling; with these it has."""
    images = band_limited(highest=1 / 12)
    found = equivariance_error(lambda x: x**2, images, [1, 1.5, 3], resampling=resampling)
    assert found.per_sample[0].max() == 0
    # At whole factors plain interpolation reads the samples that there are.
    shown = found.per_sample[1 : 2 if resampling in ('bilinear', 'bicubic') else 3]
    assert 1e-9 < shown.min() and shown.max() < 0.1


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


class NormPerLevel(nn.Module):
    def forward(self, x):
        return type(x)(*[level / d for level, d in zip(x, [1.0, 0.8, 0.6, 0.5])])


class UndilatedPool(nn.Module):
    def forward(self, x):
        return type(x)(*[nn.functional.max_pool2d(level, 3, 1, 1) for level in x])


class TruncatedDilation(nn.Module):
    """Of 1.5**k: 1, 1, 2, 3 pixels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False).double()

    def forward(self, x):
        levels = [
            nn.functional.conv2d(level, self.conv.weight, padding=int(1.5**k), dilation=int(1.5**k))
            for k, level in enumerate(x)
        ]
        return type(x)(*levels)


class LiftedBody(nn.Module):
    """A network on scale spaces, so that its layers can be named."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.body(x)


@pytest.mark.parametrize('broken', [NormPerLevel, UndilatedPool, TruncatedDilation])
@pytest.mark.parametrize('stage', [1, 2, 3])
def test_the_layer_that_breaks_it_is_found(broken, stage):
    """All layers before it have no error at all, it has one."""
    torch.manual_seed(0)
    model = as_if_trained(ScaleResNet_CIFAR(18, GRID, strides=(1, 1, 1, 1), num_stages=4, **SMALL))
    block = getattr(model, f'layer{stage}')[1]
    channels = 8 * 2 ** (stage - 1)
    layer = broken()
    if isinstance(layer, TruncatedDilation):
        layer.conv = nn.Conv2d(channels, channels, 3, bias=False).double()
    block.conv2 = nn.Sequential(block.conv2, layer)
    signal = torch.randn(1, 3, 4, 33, 40, generator=torch.Generator().manual_seed(0)).double()
    names = [f'model.layer{i}.{j}' for i in (1, 2, 3, 4) for j in (0, 1)]
    results = equivariance_error(LiftedBody(model), signal, [2], layers=names, scale_space=GRID)
    errors = {name: result.mean.item() for name, result in results.items()}
    first = names.index(f'model.layer{stage}.1')
    assert all(errors[name] < 1e-24 for name in names[:first])
    assert all(errors[name] > 1e-6 for name in names[first:])


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
