# Copyright (c) mmscale contributors.
"""The parts of the error of networks whose errors are known, and of our own."""

import math

import pytest
import torch
from networks import as_if_trained
from torch import nn

from mmscale.evaluation import equivariance_error, error_breakdown
from mmscale.evaluation.breakdown import PARTS
from mmscale.models import GaussianLift, ScaleConvNet, ScaleResNet_CIFAR
from mmscale.scale_space import ScaleGrid, gaussian_lift, scale_image, scale_scale_space

GRID = ScaleGrid(2, 4, zero_scale=1.0)


def images(count=2, channels=1, size=48):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, channels, size, size, dtype=torch.float64, generator=generator)
    return gaussian_lift(noise, ScaleGrid(2, 2, zero_scale=1.0))[:, :, 1] * 8


class Network(nn.Module):
    """The Gaussian lift and one layer."""

    def __init__(self, layer, padding='zeros'):
        super().__init__()
        self.lift, self.layer = GaussianLift(GRID, padding), layer

    def body(self, x):
        return (self.layer(x),)


class TimesItsLevel(nn.Module):
    """Multiplies each level by a polynomial of its number: on constants nothing else happens."""

    def __init__(self, *coefficients):
        super().__init__()
        self.grid, self.coefficients = GRID, coefficients

    def value(self, level):
        return sum(c * level**n for n, c in enumerate(self.coefficients))

    def forward(self, x):
        factors = [self.value(level) for level in self.grid.levels[: x.shape[2]]]
        return x * x.new_tensor(factors)[:, None, None]


class PlusOneInTheLastRow(nn.Module):
    def forward(self, x):
        x = x.clone()
        x[..., -1, :] += 1
        return x


def test_a_factor_that_leaves_no_level_is_nan_and_moves_no_other():
    network = Network(nn.Identity())
    with pytest.warns(UserWarning, match='no level is left at factor 17, which shifts by 4.09'):
        found = error_breakdown(network, images(size=96), [1.5, 17.0])
    assert found.whole[1].isnan().all() and all(p[1].isnan().all() for p in found.parts.values())
    alone = error_breakdown(network, images(size=96), [1.5])
    assert torch.equal(found.whole[:1], alone.whole)


def test_kernels_of_a_basis():
    """A pyramid has the kernels of level 0 at all levels, a dense scale space those of each."""
    torch.manual_seed(0)
    kernel = dict(type='mmscale.DiscreteBasis', effective_size=3)
    dense = as_if_trained(ScaleConvNet(GRID, DENSE, kernel=kernel, **CONVNET))
    found = error_breakdown(dense, images(), [2.0])
    assert found.parts['body'].abs().max() < 1e-12 < found.whole.min()
    with pytest.raises(ValueError, match=r'powers of base=2 .* kernel, as convs?\..* has'):
        error_breakdown(dense, images(), [2.0, 3.0])
    pyramid = as_if_trained(ScaleConvNet(GRID, PYRAMID, kernel=kernel, **CONVNET))
    assert error_breakdown(pyramid, images(), [1.5]).parts['body'].abs().max() < 1e-12


def parts_of(found):
    return {name: part[:, 0].tolist() for name, part in found.parts.items()}


@pytest.mark.parametrize(
    'between_levels, coefficients', [('cubic', (1.0, 0.3, 0.2, -0.05)), ('linear', (1.0, 0.3, 0.2))]
)
@pytest.mark.parametrize('factor', [2.0, 2**0.25, 2**1.5])
def test_body_and_reading_of_known_errors(between_levels, coefficients, factor):
    """On constant images the lift has no error, and F(k) is the polynomial p(k).

    A body that is not equivariant gives p(k) for p(k + shift); of the reading the test computes
    what interpolation makes of p between its nodes.
    """
    layer = TimesItsLevel(*coefficients)
    found = error_breakdown(
        Network(layer, 'circular'), torch.ones(2, 1, 32, 32, dtype=torch.float64), [factor],
        resampling='ideal', between_levels=between_levels,
    )  # fmt: skip
    shift = math.log2(factor)
    part, p = shift % 1, layer.value
    terms = []
    for k in range(4 - math.ceil(shift)):
        position = k + shift
        lower = math.floor(position)
        # Newton's form of the error of a line, or of the two parabolas that Keys' cubic averages.
        if part == 0:
            reading = 0.0
        elif between_levels == 'linear':
            reading = coefficients[2] * part * (1 - part)
        else:
            below = -(part + 1) * part * (part - 1) * coefficients[3]
            above = -part * (part - 1) * (part - 2) * coefficients[3]
            weight = {0: 1, 2: 0}.get(lower, part)  # one parabola at either end
            reading = (1 - weight) * below + weight * above
        terms.append((reading, p(position) - p(k), p(position) + reading))
    whole = [reading + body for reading, body, _ in terms]
    norm = sum(reference**2 for *_, reference in terms)
    expected = dict.fromkeys(PARTS, 0.0)
    expected['between levels'] = sum(w * t[0] for w, t in zip(whole, terms)) / norm
    expected['body'] = sum(w * t[1] for w, t in zip(whole, terms)) / norm
    for name, (value,) in parts_of(found).items():
        assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-13), name
    assert expected['body'] > 1e-3 and (part == 0 or abs(expected['between levels']) > 1e-5)


@pytest.mark.parametrize('border, part', [(0, 'body'), (1, 'border')])
def test_the_border_is_a_part_of_its_own(border, part):
    """At factor 2 the last of 32 rows is read on one side, and not on the other."""
    model = Network(PlusOneInTheLastRow(), 'circular')
    ones = torch.ones(1, 1, 32, 32, dtype=torch.float64)
    found = error_breakdown(model, ones, [2], resampling='ideal', border=border)
    expected = dict.fromkeys(PARTS, 0.0) | {part: 1 / 16}
    for name, (value,) in parts_of(found).items():
        assert value == pytest.approx(expected[name], abs=1e-14), name


@pytest.mark.parametrize('factor', [1.3, 2.0])
def test_an_identity_has_errors_of_lift_and_reading_alone(factor):
    """Against the level at the scale itself, which the Gaussian lift has."""
    x, inner = images(), (slice(None), slice(None), slice(3, -3), slice(3, -3))
    found = error_breakdown(Network(nn.Identity()), x, [factor], border=3)
    read = scale_scale_space(gaussian_lift(x, GRID), factor, GRID)
    lifted = gaussian_lift(scale_image(x, factor, GRID.zero_scale), GRID)
    expected = {name: torch.zeros(2, dtype=torch.float64) for name in PARTS}
    for k in range(4 - math.ceil(GRID.shift(factor))):
        # The level itself is level 1 of a grid whose base is its scale. As the coarser level of a
        # grid of this base it is read at factor z and no level else.
        exact = gaussian_lift(x, ScaleGrid(factor * 2**k, 2, GRID.zero_scale))
        exact = scale_scale_space(exact, factor, ScaleGrid(factor, 2))[:, :, 0]
        a, c = read[:, :, k], lifted[:, :, k]
        inside = (a - c)[inner]
        expected['between levels'] += ((a - exact)[inner] * inside).sum((1, 2, 3))
        expected['lift'] += ((exact - c)[inner] * inside).sum((1, 2, 3))
        expected['border'] += (a - c).square().sum((1, 2, 3)) - inside.square().sum((1, 2, 3))
    norm = read.square().sum((1, 2, 3, 4))
    for name, part in found.parts.items():
        torch.testing.assert_close(part[0], expected[name] / norm, rtol=1e-8, atol=1e-16)
    assert found.parts['lift'].abs().min() > 1e-9
    assert factor == 2 or found.parts['between levels'].min() > 1e-9


PYRAMID, DENSE = dict(type='mmscale.GaussianPyramidLift'), dict(type='mmscale.GaussianLift')
CONVNET = dict(in_channels=1, channels=(4, 4), kernel_size=3)
RESNET = dict(in_channels=1, base_channels=4, stem_channels=4, num_stages=2, strides=(1, 2),
              dilations=(1, 1), out_indices=(0, 1))  # fmt: skip
BLUR = dict(aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5))
FINE = ScaleGrid(2**0.5, 5, zero_scale=1.0)
NETWORKS = {
    'pyramid': lambda: ScaleConvNet(GRID, PYRAMID, **CONVNET),
    'dense, interaction': lambda: ScaleConvNet(GRID, DENSE, interaction=(1, 2), **CONVNET),
    'pyramid, interaction': lambda: ScaleConvNet(GRID, PYRAMID, interaction=(1, 2), **CONVNET),
    'dense, blur': lambda: ScaleResNet_CIFAR(18, GRID, DENSE, **RESNET, **BLUR),
    'pyramid, blur': lambda: ScaleResNet_CIFAR(18, GRID, PYRAMID, **RESNET, **BLUR),
    'pyramid, fine base': lambda: ScaleResNet_CIFAR(18, FINE, PYRAMID, **RESNET),
}


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.parametrize('between_levels', ['linear', 'cubic'])
def test_parts_add_up_to_the_error(name, between_levels):
    torch.manual_seed(0)
    model, factors = as_if_trained(NETWORKS[name]()), (1.0, 1.3, 2.0)
    grids = [module.grid for module in model.modules() if hasattr(module, 'grid')]
    found = error_breakdown(
        model, images(), factors, between_levels=between_levels, border=1, batch_size=1
    )
    assert list(found.parts) == list(PARTS)
    torch.testing.assert_close(sum(found.parts.values()), found.whole, rtol=1e-12, atol=0)
    last = equivariance_error(model, images(), factors, between_levels=between_levels)
    last = last[-1] if isinstance(last, tuple) else last
    torch.testing.assert_close(found.whole, last.per_sample, rtol=1e-10, atol=0)
    assert found.whole[1:].min() > 0
    # Powers of the base: nothing is read between levels, and bodies on integer bases are exact.
    assert found.parts['between levels'][[0, 2]].abs().max() < 1e-24
    body = found.parts['body'].abs()
    assert name == 'pyramid, fine base' or body[[0, 2]].max() < 1e-13
    if name in ('pyramid', 'pyramid, blur'):  # they know no scale: every level is as any other
        assert body.max() < 1e-13
    assert [module.grid for module in model.modules() if hasattr(module, 'grid')] == grids


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(backbone=nn.Conv2d(1, 1, 1)), 'must have a lift and a body .*, got Conv2d'),
        (dict(backbone=ScaleConvNet(dict(num_scales=1))), 'at least two levels .* num_scales=1'),
        (dict(factors=[0.5]), 'factors must be at least 1'),
        (dict(between_levels='none'), "between_levels must be one of 'linear', 'cubic'"),
        (dict(resampling='none'), 'resampling must be one of'),
        (dict(border=-1), 'border must be an integer of at least 0, got -1'),
        (dict(images=images()[:0]), 'images must hold at least one image'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        error_breakdown(**{'backbone': Network(nn.Identity()), 'images': images(), **arguments})
