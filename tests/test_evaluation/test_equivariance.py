# Copyright (c) mmscale contributors.
import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmpretrain.models import ResNet
from torch import nn

from mmscale.evaluation import equivariance_error, scale_signal
from mmscale.evaluation.scaling import Scaling, find_stride
from mmscale.models import (
    GaussianLift,
    GaussianPyramidLift,
    ScaleConv,
    ScaleConvNet,
    ScaleGlobalPooling,
    ScaleResNet,
)
from mmscale.scale_space import ScaleGrid, gaussian_lift, gaussian_pyramid_lift

GRID = ScaleGrid(base=2, num_scales=4, zero_scale=1.0)


def smooth_images(count=3, size=48):
    """Random images whose spectrum falls off, so that scaling them loses little."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 1, size, size, dtype=torch.double, generator=generator)
    return gaussian_lift(noise, ScaleGrid(base=2, num_scales=2, zero_scale=1.2))[:, :, 1] * 8


@pytest.mark.parametrize('resampling, bound', [('bilinear', 1e-24), ('matched', 0.05)])
@pytest.mark.parametrize('factor', [1.1, 3.0])
def test_on_the_kept_canvas_what_a_network_makes_of_the_zeros_around_is_no_error(
    factor, resampling, bound
):
    """A bias commutes with scaling wherever there is a signal.

    Blur and bicubic reading take the zeros outside for signal, near the edge.
    """
    options = dict(canvas='keep', resampling=resampling)
    found = equivariance_error(lambda x: x + 5, smooth_images(), [factor], border=1, **options)
    assert found.per_sample.max() < bound
    with pytest.warns(UserWarning, match='its error is nan'):  # no sample of 48 is left
        found = equivariance_error(lambda x: x + 5, smooth_images(), [60], **options)
    assert found.per_sample.isnan().all()


@pytest.mark.parametrize('lift', [gaussian_lift, gaussian_pyramid_lift])
def test_on_the_kept_canvas_levels_are_compared_where_they_are(lift):
    """A constant added to the levels changes the reference alone, in the rows that are read."""
    images = smooth_images(1, 32)
    pyramid = lift is gaussian_pyramid_lift
    options = dict(canvas='keep', resampling='bilinear')
    errors, norms = [], []
    for constant in (0, 5):

        def phi(x):
            y = lift(x, GRID)
            return tuple(part + constant for part in y) if pyramid else y + constant  # noqa: B023

        found = equivariance_error(phi, images, [2], scale_space=GRID, **options)
        errors.append(found.per_sample.item())
        levels = scale_signal(phi(images), 2, GRID, **options)
        norms.append(0.0)
        for k, level in enumerate(levels if pyramid else levels.unbind(2)):
            step = 2**k if pyramid else 1
            last = (math.ceil(32 / 2 ** (k + 1)) - 1) * 2 * step if pyramid else 31
            places = [2 * (i * step - 15.5) + 15.5 for i in range(level.shape[-1])]
            rows = [i for i, place in enumerate(places) if 0 <= place <= last]
            norms[-1] += level[..., rows, :][..., rows].square().sum().item()
    assert errors[1] == pytest.approx(errors[0] * norms[0] / norms[1], rel=1e-9)


@pytest.mark.parametrize('canvas', ['shrink', 'keep'])
@pytest.mark.parametrize('side', [1, 7])
def test_maps_whose_size_does_not_follow_the_image_are_compared_as_vectors(side, canvas):
    images, factors = smooth_images(), (1.1, 2, 3)
    pool = nn.AdaptiveAvgPool2d(side)
    found = equivariance_error(pool, images, factors, canvas=canvas)
    vectors = equivariance_error(lambda x: pool(x).flatten(1), images, factors, canvas=canvas)
    assert torch.equal(found.per_sample, vectors.per_sample)
    assert found.per_sample.isfinite().all()


def test_a_network_that_does_not_take_half_the_image_is_asked_at_the_factors():
    """VGG's: 48 pixels end as one sample, which it repeats to 7x7."""
    layers = [nn.Conv2d(1, 2, 8, stride=8), nn.MaxPool2d(5), nn.AdaptiveAvgPool2d(7)]
    found = equivariance_error(nn.Sequential(*layers).double(), smooth_images(), [1.2])
    layers.append(nn.Flatten())
    expected = equivariance_error(nn.Sequential(*layers), smooth_images(), [1.2])
    assert torch.equal(found.per_sample, expected.per_sample)


@pytest.mark.parametrize('size', [(1, None), (None, 3)])
def test_a_size_that_follows_the_image_in_part_is_refused(size):
    with pytest.raises(ValueError, match="size of output does not follow the image's"):
        equivariance_error(nn.AdaptiveAvgPool2d(size), smooth_images(), (1, 3))


@pytest.mark.parametrize('transposed', [False, True])
def test_a_coarse_map_has_one_sample_along_the_shorter_side(transposed):
    images = smooth_images(2, 48)[..., :30]
    images = images.mT.contiguous() if transposed else images
    found = equivariance_error(nn.Conv2d(1, 2, 1, stride=30).double(), images, [1.5])
    assert found.per_sample.isfinite().all()


def test_levels_that_interaction_cut_off_are_reported_apart():
    layer = ScaleConv(1, 2, 3, padding=1, interaction=2, scale_space=GRID).double()
    net = nn.Sequential(GaussianLift(GRID), layer)
    result = equivariance_error(net, smooth_images(), [2.0])
    # Of the three levels left, the coarsest lacks its term in L_s Phi(f) but not in Phi(L_s f).
    assert result.mean < 1e-2
    assert result.truncated.min() > 10 * result.mean
    without = equivariance_error(net, smooth_images(), [2.0], truncation=0)
    assert without.mean > result.mean
    assert without.truncated.isnan().all()


@pytest.mark.parametrize('between_levels', ['linear', 'cubic'])
def test_valid_levels_are_read_from_valid_ones_alone(between_levels):
    """What stands in the spoiled level makes no difference to them."""
    grid, errors = ScaleGrid(2**0.5, 5), []
    options = dict(scale_space=grid, between_levels=between_levels, truncation=1)
    for spoiled in (0.0, 100.0):

        def phi(x):
            x = gaussian_lift(x, grid).clone()
            x[:, :, 4] = spoiled  # noqa: B023
            return x

        errors.append(equivariance_error(phi, smooth_images(), [1.1, 1.5], **options))
    assert torch.equal(errors[0].per_sample, errors[1].per_sample)
    assert errors[0].per_sample.min() > 0
    assert not torch.equal(errors[0].truncated, errors[1].truncated)


def test_between_powers_a_scale_space_as_input_is_cut_at_other_levels():
    """A constant one, and a layer that adds up two levels: only the cut makes a difference."""
    layer = ScaleConv(1, 1, 1, interaction=2, bias=False, scale_space=GRID).double()
    nn.init.ones_(layer.weight)
    ones = torch.ones(1, 1, 4, 24, 24).double()
    result = equivariance_error(layer, ones, [1.5, 2.0], scale_space=GRID, resampling='ideal')
    assert result.per_sample.max() < 1e-24
    assert result.truncated[0] > 1e-3 and result.truncated[1].isnan()


@pytest.mark.parametrize('lift', ['GaussianLift', 'GaussianPyramidLift'])
@pytest.mark.parametrize('canvas', ['shrink', 'keep'])
def test_one_level_is_measured_as_an_ordinary_network(lift, canvas):
    # On the kept canvas a map of 3x3 has one sample that reads within it.
    images = smooth_images(size=96).repeat(1, 3, 1, 1).float()
    ordinary = ResNet(18, base_channels=4, stem_channels=4)
    grid = dict(num_scales=1)
    model = ScaleResNet(18, grid, dict(type=f'mmscale.{lift}'), base_channels=4, stem_channels=4)
    model.load_state_dict(ordinary.state_dict())
    a, b = (equivariance_error(net, images, [1.5, 2], canvas=canvas) for net in (ordinary, model))
    torch.testing.assert_close(a.per_sample, b.per_sample, rtol=1e-4, atol=1e-6)
    body = equivariance_error(model.body, model.lift(images), [2], scale_space=grid, canvas=canvas)
    torch.testing.assert_close(body.per_sample[0], b.per_sample[1], rtol=1e-4, atol=1e-6)


@given(st.integers(1, 300), st.integers(0, 6))
def test_the_stride_of_a_map_is_found_from_its_size(size, exponent):
    samples = math.ceil(size / 2**exponent)
    assert find_stride(size, samples) == (2**exponent if samples > 1 else find_stride(size, 1))
    assert math.ceil(size / find_stride(size, samples)) == samples


def test_other_strides_are_found_where_sides_fit():
    assert find_stride(30, 10) == 3 and find_stride(60, 5) == 12
    assert find_stride(10, 20) == 0.5 and find_stride(7, 28) == 0.25
    assert find_stride(10, 14) == 10 / 14  # of a level half an octave finer


@pytest.mark.parametrize('first_level', [-1, 0, 1])
@pytest.mark.parametrize('side', [28, 33])
def test_the_kept_canvas_shrinks_about_the_centre_of_the_image(side, first_level):
    """Of a pyramid in pixels of level 0, whatever its finest level and its stride."""
    grid = ScaleGrid(2**0.5, 3, first_level=first_level)
    images, options = torch.rand(1, 1, side, side), (grid, 0.5, 'keep', 'matched', 'cubic')
    for stride in (1, 2, 4):
        sizes = [math.ceil(math.ceil(side / f - 1e-9) / stride) for f in grid.factors]
        levels = tuple(torch.rand(1, 1, size, size) for size in sizes)
        centre = ((side - 1) / 2 / stride,) * 2
        expected = scale_signal(levels, 2, grid, canvas='keep', centre=centre)
        assert torch.equal(Scaling(*options, images)(levels, 2)[0], expected[0])
    # Of the body alone: its input is the pyramid.
    lifted = GaussianPyramidLift(grid)(images)
    centre = (math.floor(lifted[0].shape[-1] * grid.factors[0] + 1e-9) - 1) / 2
    expected = scale_signal(lifted, 2, grid, canvas='keep', centre=(centre, centre))
    assert all(map(torch.equal, Scaling(*options, lifted)(lifted, 2), expected))


def test_a_factor_at_which_images_are_too_small_is_nan_and_all_are_an_error():
    class Large(nn.Module):
        def forward(self, x):
            if x.shape[-1] < 16:
                raise ValueError('less than 16 pixels')
            return x[..., ::2, ::2]

    images = smooth_images()
    message = 'at factor 4 the network does not take the scaled images of 12x12 pixels: .*less than'
    with pytest.warns(UserWarning, match=f'{message}.*: the error there is nan'):
        found = equivariance_error(Large(), images, [1, 1.5, 4])
    few = equivariance_error(Large(), images, [1, 1.5])
    assert torch.equal(found.per_sample[:2], few.per_sample)
    assert found.per_sample[2].isnan().all()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=message):
        equivariance_error(Large(), images, [1, 4])


@pytest.mark.parametrize('lift', ['GaussianLift', 'GaussianPyramidLift'])
def test_a_factor_that_leaves_no_level_is_nan_and_the_others_are_measured(lift):
    grid = dict(base=1.2, num_scales=4)  # 1.73 from the finest level to the coarsest
    images = torch.rand(2, 1, 24, 24)
    net = ScaleConvNet(grid, dict(type=f'mmscale.{lift}'), channels=(4,)).eval()
    with pytest.warns(UserWarning, match='no level is left of output at factor 2, .* 3.8 levels'):
        error = equivariance_error(net, images, [1, 1.5, 2])
    few = equivariance_error(net, images, [1, 1.5])
    assert torch.equal(error.per_sample[:2], few.per_sample)
    assert error.per_sample[2].isnan().all() and error.truncated.shape == (3, 2)
    # The body alone, on the scale space itself; and a vector, which has no levels to lose.
    with pytest.warns(UserWarning, match='no level is left'):
        body = equivariance_error(net.body, net.lift(images), [2])
    assert body.per_sample.isnan().all()
    pooled = nn.Sequential(net, ScaleGlobalPooling())
    assert equivariance_error(pooled, images, [2]).per_sample.isfinite().all()


def test_a_feature_that_is_zero_has_no_error_and_says_so():
    with pytest.warns(UserWarning, match='output is zero for a sample: its error is nan'):
        # Not zero of the scaled image, whose border the blur darkens.
        found = equivariance_error(lambda x: torch.relu(1 - x), torch.ones(2, 1, 24, 24), [2.0])
    assert found.per_sample.isnan().all()

    def coarsest(x):  # what is not zero is in the level that is spoiled
        levels = gaussian_lift(x, GRID).clone()
        levels[:, :, :-1] = 0
        return levels

    with pytest.warns(UserWarning, match='output is zero for a sample'):
        found = equivariance_error(coarsest, smooth_images(), [1.0], scale_space=GRID, truncation=1)
    assert found.per_sample.isnan().all() and found.truncated.isfinite().all()


def test_a_pyramid_drops_its_finest_levels():
    """At a power of the base nothing is read between samples or levels."""
    images = smooth_images()
    found = equivariance_error(
        lambda x: gaussian_pyramid_lift(x, GRID), images, [2], scale_space=GRID
    )
    before = gaussian_pyramid_lift(images, GRID)[1:]
    after = gaussian_pyramid_lift(scale_signal(images, 2, GRID, 1.0), GRID)
    difference = sum((a - b).square().sum((1, 2, 3)) for a, b in zip(before, after))
    expected = difference / sum(a.square().sum((1, 2, 3)) for a in before)
    torch.testing.assert_close(found.per_sample[0], expected, rtol=1e-9, atol=1e-20)


def test_mean_standard_error_and_root():
    images = smooth_images()
    result = equivariance_error(lambda x: x.relu(), images, [2.0], zero_scale=0.5)
    sample = result.per_sample[0]
    assert result.mean[0] == pytest.approx(sample.mean().item())
    assert result.standard_error[0] == pytest.approx((sample.var() / 3).sqrt().item())
    root = equivariance_error(lambda x: x.relu(), images, [2.0], zero_scale=0.5, squared=False)
    torch.testing.assert_close(root.per_sample, result.per_sample.sqrt())


def test_modes_of_the_modules_are_restored():
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).double()
    before = net[1].running_mean.clone()
    for frozen in (False, True):
        net[1].train(not frozen)
        equivariance_error(net, smooth_images(), [2.0])
        assert net.training and net[0].training and net[1].training != frozen
    assert torch.equal(net[1].running_mean, before)


def test_a_network_in_training_is_measured_with_its_weights_of_now():
    """Layers store kernels in eval mode, and a write through ``data`` leaves no trace."""
    kernel = dict(type='mmscale.DiscreteBasis', effective_size=3)
    net = ScaleConvNet(GRID, in_channels=1, channels=(2,), kernel_size=3, kernel=kernel).double()
    equivariance_error(net, smooth_images(), [2.5])
    net.convs[0].weight.data.neg_()
    found = equivariance_error(net, smooth_images(), [2.5])
    expected = equivariance_error(copy.deepcopy(net), smooth_images(), [2.5])
    assert torch.equal(found.per_sample, expected.per_sample)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(factors=[0.5]), r'factors must be at least 1 and finite, got 0\.5'),
        (dict(factors=[]), 'factors must name at least one'),
        (dict(batch_size=0), 'batch_size must be at least 1, got 0'),
        (dict(canvas='crop'), r"canvas must be one of 'shrink', 'keep', got 'crop'"),
        (dict(border=30), 'border=30 leaves nothing'),
        (dict(scale_space=dict(base=1)), 'base must be'),
        (dict(phi=lambda x: gaussian_lift(x, GRID)), 'scale_space must be given'),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        equivariance_error(**{'phi': nn.Identity(), 'images': smooth_images(), **arguments})


def test_a_list_of_levels_is_no_list_of_batches():
    images = torch.randn(2, 3, 16, 16).double()
    message = r'sizes \[\(16, 16\), \(8, 8\)\]: give a pyramid as a tup'
    with pytest.raises(ValueError, match=message):
        equivariance_error(nn.Identity(), [images, images[..., :8, :8]], (1, 2))
