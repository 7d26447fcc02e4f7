# Copyright (c) mmscale contributors.
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmscale.evaluation import equivariance_error, scale_signal
from mmscale.evaluation.scaling import Scaling, find_stride
from mmscale.models import (
    GaussianPyramidLift,
    ScaleConv,
    ScaleConvNet,
    ScaleGlobalPooling,
    ScaleMaxPool2d,
)
from mmscale.scale_space import ScaleGrid, gaussian_lift, gaussian_pyramid_lift

GRID = ScaleGrid(base=2, num_scales=4, zero_scale=1.0)


def smooth_images(count=3, size=48):
    """Random images whose spectrum falls off, so that scaling them loses little."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 1, size, size, dtype=torch.double, generator=generator)
    return gaussian_lift(noise, ScaleGrid(base=2, num_scales=2, zero_scale=1.2))[:, :, 1] * 8


def dense(size=33):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 4, size, size + 4, dtype=torch.double, generator=generator)


@pytest.mark.parametrize('canvas', ['shrink', 'keep'])
def test_identity_has_no_error(canvas):
    images = smooth_images()
    result = equivariance_error(lambda x: x, images, canvas=canvas)
    assert result.per_sample.shape == (6, 3)
    assert torch.equal(result.per_sample, torch.zeros_like(result.per_sample))


@pytest.mark.parametrize('resampling', ['bilinear', 'matched'])
@pytest.mark.parametrize('factor', [1.1, 2.0, 2.5, 3.0, 60.0])
def test_on_the_kept_canvas_what_a_network_makes_of_the_zeros_around_is_no_error(
    factor, resampling
):
    """A bias commutes with scaling wherever there is a signal."""
    images = smooth_images()
    error = equivariance_error(
        lambda x: x + 5, images, [factor], canvas='keep', resampling=resampling,
        border=int(factor < 60),
    )  # fmt: skip
    # Blur and bicubic reading take the zeros outside for signal, within a sample of the edge and
    # some standard deviations of the blur.
    bound = 1e-24 if resampling == 'bilinear' else 0.05
    assert error.per_sample.max() < bound or factor == 60
    # Of 48 samples, 60 times smaller, not one is left.
    assert bool(error.per_sample.isnan().all()) == (factor == 60)


@pytest.mark.parametrize('lift', [gaussian_lift, gaussian_pyramid_lift])
def test_on_the_kept_canvas_levels_are_compared_where_they_are(lift):
    """By hand: the error of one level plus a constant, within the rows that read it."""

    def plus(x):
        y = lift(x, GRID)
        return tuple(level + 5 for level in y) if isinstance(y, tuple) else y + 5

    images = smooth_images(1, 32)
    arguments = dict(factors=[2], canvas='keep', scale_space=GRID, resampling='bilinear')
    found = equivariance_error(plus, images, **arguments)
    alone = equivariance_error(lambda x: lift(x, GRID), images, **arguments)
    plain, shifted = lift(images, GRID), plus(images)
    sums = torch.zeros(2, dtype=torch.float64)
    for space, constant in ((plain, 0.0), (shifted, 5.0)):
        scaled = scale_signal(space, 2, GRID, canvas='keep', resampling='bilinear')
        levels = scaled if isinstance(scaled, tuple) else scaled.unbind(2)
        for k, level in enumerate(levels):
            step = GRID.base**k if isinstance(scaled, tuple) else 1
            rows = [
                i
                for i in range(level.shape[-1])
                if 0 <= 2 * (i * step - 15.5) + 15.5 <= last(space, k + 1)
            ]
            inner = level[..., rows, :][..., rows]
            sums[int(constant > 0)] += inner.square().sum()
    # The bias changes the reference alone: the difference is that of the lift.
    expected = alone.per_sample[0] * sums[0] / sums[1]
    torch.testing.assert_close(found.per_sample[0], expected, rtol=1e-9, atol=0)


def last(space, k) -> float:
    """Where the last sample of a level lies, in pixels of the finest."""
    if isinstance(space, tuple):
        return (space[k].shape[-1] - 1) * GRID.base**k
    return space.shape[-1] - 1


def test_vectors_are_compared_as_they_are():
    """The error of a mean is its own definition, computed here by hand."""
    images = smooth_images()
    result = equivariance_error(lambda x: x.mean((2, 3)), images, [2], zero_scale=0.5)
    before = images.mean((2, 3))
    after = scale_signal(images, 2, zero_scale=0.5).mean((2, 3))
    expected = (before - after).square().sum(1) / before.square().sum(1)
    torch.testing.assert_close(result.per_sample[0], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize('canvas', ['shrink', 'keep'])
@pytest.mark.parametrize('side', [1, 2, 7])
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


@pytest.mark.parametrize('interaction', [1, 2, 3])
@pytest.mark.parametrize('factor', [2, 4])
def test_scale_convolution_of_a_scale_space_has_no_error(interaction, factor):
    layers = nn.Sequential(
        ScaleConv(3, 4, 3, 2, 1, interaction=interaction, scale_space=GRID),
        nn.ReLU(),
        ScaleMaxPool2d(3, 2, 1, scale_space=GRID),
    ).double()
    result = equivariance_error(layers, dense(), [factor], scale_space=GRID)
    assert result.per_sample.max() < 1e-24  # squares of rounding errors


class NormPerLevel(nn.Module):
    """What a norm in eval mode does that kept its statistics per level."""

    def forward(self, x):
        deviations = torch.tensor([1.0, 0.8, 0.6, 0.5], dtype=x.dtype)
        return x / deviations[: x.shape[2], None, None]


@pytest.mark.parametrize(
    'broken',
    [
        NormPerLevel(),
        nn.MaxPool3d((1, 3, 3), (1, 1, 1), (0, 1, 1)),
        nn.Conv3d(3, 3, (1, 3, 3), padding=(0, 1, 1)).double(),
        ScaleConv(
            3, 3, 3, 1, 1, scale_space=ScaleGrid(1.5, 4, 1.0, truncate_dilation=True)
        ).double(),
    ],
    ids=['norm per level', 'undilated pooling', 'undilated convolution', 'truncated dilation'],
)
def test_broken_layers_are_caught(broken):
    torch.manual_seed(0)
    for module in broken.modules():  # whose weights were drawn when the tests were collected
        getattr(module, 'reset_parameters', lambda: None)()
    grid = broken.grid if isinstance(broken, ScaleConv) else GRID
    signal = gaussian_lift(smooth_images(2).repeat(1, 3, 1, 1), grid)
    sound = ScaleConv(3, 3, 3, 1, 1, scale_space=ScaleGrid(grid.base, 4, 1.0)).double()
    factor = grid.base
    error = equivariance_error(broken, signal, [factor], scale_space=grid, border=4).mean
    reference = equivariance_error(sound, signal, [factor], scale_space=grid, border=4).mean
    assert error > 5e-3
    assert error > 5 * reference


def test_levels_that_interaction_cut_off_are_reported_apart():
    layer = ScaleConv(1, 2, 3, padding=1, interaction=2, scale_space=GRID).double()
    net = nn.Sequential(LiftOnly(), layer)
    result = equivariance_error(net, smooth_images(), [2.0], scale_space=GRID)
    # Of the three levels left, the coarsest lacks its term in L_s Phi(f) but not in Phi(L_s f).
    assert result.mean < 1e-2
    assert result.truncated.min() > 10 * result.mean
    without = equivariance_error(net, smooth_images(), [2.0], scale_space=GRID, truncation=0)
    assert without.mean > result.mean
    assert without.truncated.isnan().all()


@pytest.mark.parametrize('between_levels', ['linear', 'cubic'])
@pytest.mark.parametrize('factor', [1.1, 1.5])
def test_valid_levels_are_read_from_valid_ones_alone(between_levels, factor):
    """What stands in the spoiled level makes no difference to them."""
    grid = ScaleGrid(2**0.5, 5)
    errors = []
    for spoiled in (0.0, 100.0):

        def phi(x):
            x = gaussian_lift(x, grid).clone()
            x[:, :, 4] = spoiled  # noqa: B023
            return x

        errors.append(
            equivariance_error(
                phi, smooth_images(), [factor], scale_space=grid, between_levels=between_levels,
                truncation=1,
            )
        )  # fmt: skip
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


class LiftOnly(nn.Module):
    def forward(self, x):
        return gaussian_lift(x, GRID)


def test_backbones_are_measured_as_they_are():
    from mmpretrain.models import ResNet

    images = smooth_images().repeat(1, 3, 1, 1)
    ordinary = ResNet(18, base_channels=4, stem_channels=4).double()
    pyramid = ScaleConvNet(GRID, dict(type='mmscale.GaussianPyramidLift'), in_channels=3).double()
    for backbone, grid in ((ordinary, None), (pyramid, GRID)):
        backbone.eval()
        found = equivariance_error(backbone, images, [2.0], scale_space=grid)
        expected = equivariance_error(lambda x: backbone(x)[0], images, [2.0], scale_space=grid)  # noqa: B023
        assert torch.equal(found.per_sample, expected.per_sample)
        assert found.per_sample.min() > 0


@pytest.mark.parametrize('lift', ['GaussianLift', 'GaussianPyramidLift'])
@pytest.mark.parametrize('canvas', ['shrink', 'keep'])
def test_one_level_is_measured_as_an_ordinary_network(lift, canvas):
    from mmpretrain.models import ResNet

    from mmscale.models import ScaleResNet

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
@pytest.mark.parametrize('base', [2, 2**0.5])
def test_the_kept_canvas_shrinks_about_the_centre_of_the_image(base, side, first_level):
    """Of a pyramid in pixels of level 0, whatever its finest level and its stride."""
    grid = ScaleGrid(base, 3, first_level=first_level)
    images = torch.rand(1, 1, side, side)
    scale = Scaling(grid, 0.5, 'keep', 'matched', 'cubic', images)
    for stride in (1, 2, 4):
        levels = [
            torch.rand(1, 1, *[math.ceil(math.ceil(side / factor - 1e-9) / stride)] * 2)
            for factor in grid.factors
        ]
        centre = ((side - 1) / 2 / stride,) * 2
        assert torch.equal(
            scale(tuple(levels), 2)[0],
            scale_signal(tuple(levels), 2, grid, canvas='keep', centre=centre)[0],
        )
    # Of the body alone: its input is the pyramid.
    lifted = GaussianPyramidLift(grid)(images)
    body = Scaling(grid, 0.5, 'keep', 'matched', 'cubic', lifted)
    centre = (math.floor(lifted[0].shape[-1] * grid.factors[0] + 1e-9) - 1) / 2
    expected = scale_signal(lifted, 2, grid, canvas='keep', centre=(centre, centre))
    assert all(map(torch.equal, body(lifted, 2), expected))
    assert all(map(torch.equal, body(lifted, 2), scale_signal(lifted, 2, grid, canvas='keep')))


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


def test_a_factor_that_leaves_no_level_is_nan_and_the_others_are_measured():
    grid = dict(base=1.2, num_scales=4)  # 1.73 from the finest level to the coarsest
    images = torch.rand(2, 1, 24, 24)
    for lift in ('GaussianLift', 'GaussianPyramidLift'):
        net = ScaleConvNet(grid, dict(type=f'mmscale.{lift}'), channels=(4,)).eval()
        few = equivariance_error(net, images, [1, 1.5])
        with pytest.warns(
            UserWarning, match='no level is left of output at factor 2, .* 3.8 levels'
        ):
            error = equivariance_error(net, images, [1, 1.5, 2])
        assert torch.equal(error.per_sample[:2], few.per_sample)
        assert error.per_sample[2].isnan().all() and error.truncated.shape == (3, 2)
        # The body alone, on the scale space itself; and a vector, which has no levels to lose.
        with pytest.warns(UserWarning, match='no level is left'):
            body = equivariance_error(
                lambda x, net=net: net.body(x)[-1], net.lift(images), [2], scale_space=grid
            )
        assert body.per_sample.isnan().all()
        pooled = nn.Sequential(net, ScaleGlobalPooling())
        assert equivariance_error(pooled, images, [2]).per_sample.isfinite().all()


def test_says_when_no_level_is_valid():
    net = ScaleConvNet(GRID, channels=(3, 4), kernel_size=3, interaction=3).double()
    with pytest.warns(UserWarning, match='no level is valid at factor 2: 3 remain, .* spoil 4'):
        result = equivariance_error(net, smooth_images(), [2.0], scale_space=GRID)
    assert result.per_sample.isnan().all() and result.truncated.isfinite().all()


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


@given(batch_size=st.integers(1, 4))
@settings(max_examples=4, deadline=None)
def test_batch_size_changes_nothing(batch_size):
    net = ScaleConvNet(GRID, channels=(3, 4), kernel_size=3, out_indices=(1,)).double().eval()

    def phi(x):
        return net(x)[0]

    images = smooth_images()
    one = equivariance_error(phi, images, [1.5, 2], scale_space=GRID, batch_size=batch_size)
    all_at_once = equivariance_error(phi, images, [1.5, 2], scale_space=GRID)
    torch.testing.assert_close(one.per_sample, all_at_once.per_sample, rtol=1e-9, atol=1e-20)


def test_pyramids_equal_dense_on_the_same_samples():
    """At a power of the base both forms hold the same numbers up to where they sample."""
    images = smooth_images()
    pyramid = equivariance_error(
        lambda x: gaussian_pyramid_lift(x, GRID), images, [2], scale_space=GRID
    )
    expected = []
    lifted, scaled = (
        gaussian_pyramid_lift(x, GRID) for x in (images, scale_signal(images, 2, GRID, 1.0))
    )
    difference = sum((a - b).square().sum((1, 2, 3)) for a, b in zip(lifted[1:], scaled))
    reference = sum(a.square().sum((1, 2, 3)) for a in lifted[1:])
    expected = difference / reference
    torch.testing.assert_close(pyramid.per_sample[0], expected, rtol=1e-9, atol=1e-20)


def test_mean_standard_error_and_root():
    images = smooth_images()
    result = equivariance_error(lambda x: x.relu(), images, [2.0], zero_scale=0.5)
    sample = result.per_sample[0]
    assert result.mean[0] == pytest.approx(sample.mean().item())
    assert result.standard_error[0] == pytest.approx((sample.var() / 3).sqrt().item())
    root = equivariance_error(lambda x: x.relu(), images, [2.0], zero_scale=0.5, squared=False)
    torch.testing.assert_close(root.per_sample, result.per_sample.sqrt())


def test_zero_feature_is_nan_and_warned_of():
    with pytest.warns(UserWarning, match='nan'):
        result = equivariance_error(torch.zeros_like, smooth_images(), [2.0])
    assert result.per_sample.isnan().all()


def test_mode_of_the_module_is_restored():
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).double()
    before = net[1].running_mean.clone()
    equivariance_error(net, smooth_images(), [2.0])
    assert net.training and net[1].training
    assert torch.equal(net[1].running_mean, before)
    net.eval()
    equivariance_error(net, smooth_images(), [2.0])
    assert not net.training
    net.train()[1].eval()  # a frozen norm
    equivariance_error(net, smooth_images(), [2.0])
    assert net.training and net[0].training and not net[1].training


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(factors=[0.5]), r'factors must be at least 1 and finite, got 0\.5'),
        (dict(factors=[]), 'factors must name at least one'),
        (dict(batch_size=0), 'batch_size must be at least 1, got 0'),
        (dict(canvas='crop'), r"canvas must be one of 'shrink', 'keep', got 'crop'"),
        (dict(border=30), 'border=30 leaves nothing'),
        (dict(scale_space=dict(base=1)), 'base must be'),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        equivariance_error(lambda x: x, smooth_images(), **arguments)


def test_scale_space_is_asked_for():
    with pytest.raises(ValueError, match='scale_space must be given'):
        equivariance_error(lambda x: gaussian_lift(x, GRID), smooth_images(), [2.0])


def test_a_list_of_levels_is_no_list_of_batches():
    images = torch.randn(2, 3, 16, 16).double()
    expected = equivariance_error(nn.Identity(), images, (1, 2)).mean
    found = equivariance_error(nn.Identity(), [images[:1], images[1:]], (1, 2)).mean
    assert torch.equal(found, expected)
    with pytest.raises(
        ValueError, match=r'sizes \[\(16, 16\), \(8, 8\)\]: give a pyramid as a tup'
    ):
        equivariance_error(nn.Identity(), [images, images[..., :8, :8]], (1, 2))
