# Copyright (c) mmscale contributors.
"""Backbones with a low-pass before each stride, ``aa_layer``."""

import math

import mmpretrain.models  # noqa: F401  registers ResNet
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from naive import largest_difference, scaled
from networks import as_if_trained, assert_every_stage_is_equivariant

from mmscale.models import ScaleBlurPool2d, ScaleConvNet, ScaleResNet, ScaleResNet_CIFAR
from mmscale.ops import binomial
from mmscale.scale_space import ScaleGrid

BASE2 = dict(base=2, num_scales=4)
SMALL = dict(base_channels=8, stem_channels=8, out_indices=(0, 1, 2, 3))
DENSE, PYRAMID = dict(type='mmscale.GaussianLift'), dict(type='mmscale.GaussianPyramidLift')
BLUR = dict(type='mmscale.ScaleBlurPool2d', kernel_size=5)
GAUSSIAN = dict(type='mmscale.ScaleBlurPool2d', variance=3.0)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def pyramid_of(grid, height, width, channels=3):
    grid = ScaleGrid.build(grid)
    return tuple(
        randn(1, channels, grid.level_size(height, k), grid.level_size(width, k), seed=k + 9)
        for k in grid.levels
    )


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('interaction', [1, 2])
@pytest.mark.parametrize('aa_layer', [BLUR, GAUSSIAN], ids=['binomial', 'gaussian'])
@pytest.mark.parametrize('aa_stem', [False, True])
@pytest.mark.parametrize('pyramid', [False, True])
def test_body_commutes_with_scaling(depth, interaction, aa_layer, aa_stem, pyramid):
    lift = PYRAMID if pyramid else dict(type='mmscale.GaussianLift')
    options = dict(aa_layer=aa_layer, aa_stem=aa_stem, **SMALL)
    model = as_if_trained(ScaleResNet(depth, BASE2, lift, interaction, **options))
    signal = pyramid_of(BASE2, 117, 90) if pyramid else randn(1, 3, 4, 45, 58)
    assert_every_stage_is_equivariant(model, signal, BASE2)


@pytest.mark.parametrize(
    'variant',
    [
        dict(deep_stem=True, aa_stem=True),
        dict(avg_down=True),
        dict(deep_stem=True, avg_down=True, style='caffe'),
        dict(style='caffe'),
        dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        dict(strides=(1, 3, 2, 1)),
        dict(deform=dict(type='mmscale.DeformScaleConv', stages=(False, True, True, True))),
    ],
    ids=str,
)
def test_variants_commute_with_scaling(variant):
    pyramid = 'deform' in variant  # dense ones read between pixels
    lift = PYRAMID if pyramid else dict(type='mmscale.GaussianLift')
    model = ScaleResNet(50, BASE2, lift, aa_layer=BLUR, **{**SMALL, **variant})
    signal = pyramid_of(BASE2, 117, 90) if pyramid else randn(1, 3, 4, 45, 58)
    assert_every_stage_is_equivariant(as_if_trained(model), signal, BASE2)


@pytest.mark.parametrize('base', [2**0.5, 2 ** (1 / 3)])
@pytest.mark.parametrize('network', [ScaleResNet, ScaleResNet_CIFAR])
def test_pyramids_commute_at_powers_of_a_fractional_base(network, base):
    """K = 1: no level sees another one, so the shifted signal has the same values."""
    grid = dict(base=base, num_scales=5, zero_scale=1.0)
    model = as_if_trained(network(18, grid, PYRAMID, aa_layer=GAUSSIAN, **SMALL))
    signal = pyramid_of(grid, 75, 66)
    outputs = model.body(signal)
    for shift in range(1, 5):
        for whole, found in zip(outputs, model.body(signal[shift:]), strict=True):
            largest = max(level.abs().max() for level in whole)
            assert largest_difference(found, whole[shift:]) < 1e-12 * largest


@pytest.mark.parametrize('depth', [18, 50])
def test_cifar_body_commutes_with_scaling(depth):
    model = ScaleResNet_CIFAR(depth, BASE2, interaction=2, aa_layer=BLUR, **SMALL)
    assert_every_stage_is_equivariant(as_if_trained(model), randn(1, 3, 4, 33, 30), BASE2)


@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('pool', [dict(), dict(pool_size=1, pool_stride=2)], ids=['max', 'blur'])
def test_convnet_body_commutes_with_scaling(pyramid, pool):
    lift = PYRAMID if pyramid else dict(type='mmscale.GaussianLift')
    model = ScaleConvNet(
        BASE2, lift, 2, channels=(4, 5, 6), out_indices=(0, 1, 2), aa_layer=BLUR, **pool
    )
    signal = pyramid_of(BASE2, 67, 50, 1) if pyramid else randn(1, 1, 4, 43, 38)
    assert_every_stage_is_equivariant(as_if_trained(model), signal, BASE2)


@pytest.mark.parametrize('depth', [18, 50])
def test_a_pyramid_is_the_dense_network_sampled(depth):
    options = dict(aa_layer=BLUR, aa_stem=True, **SMALL)
    dense = as_if_trained(ScaleResNet(depth, BASE2, DENSE, **options))
    pyramid = as_if_trained(ScaleResNet(depth, BASE2, PYRAMID, **options))
    pyramid.load_state_dict(dense.state_dict())
    image = randn(1, 3, 53, 66)
    for full, sampled in zip(dense(image), pyramid(image), strict=True):
        expected = tuple(full[:, :, k, :: 2**k, :: 2**k] for k in range(4))
        assert largest_difference(sampled, expected) < 1e-12 * full.abs().max()


def blurred(x, stride=2):
    """A binomial blur of 5 taps and a stride, of an ordinary feature map."""
    kernel = torch.outer(binomial(5), binomial(5)).expand(x.shape[1], 1, 5, 5)
    return F.conv2d(x, kernel, None, stride, 2, 1, x.shape[1])


def resnet_with_blurs(model, x, style, avg_down):
    """The forward pass of MMPretrain's ResNet, written out, with a blur in place of each stride."""
    x = F.relu(model.norm1(F.conv2d(x, model.conv1.weight, None, 2, 3)))
    x = blurred(F.max_pool2d(x, 3, 1, 1))
    for stage in range(4):
        for index, block in enumerate(getattr(model, f'layer{stage + 1}')):
            strided = stage > 0 and index == 0
            convs = [block.conv1, block.conv2]
            norms = [block.norm1, block.norm2]
            at = 0
            if hasattr(block, 'conv3'):
                convs, norms = [*convs, block.conv3], [*norms, block.norm3]
                at = 1 if style == 'pytorch' else 0
            y = x
            for i, (conv, norm) in enumerate(zip(convs, norms)):
                y = norm(F.conv2d(y, conv.weight, None, 1, conv.padding))
                y = F.relu(y) if i < len(convs) - 1 else y
                y = blurred(y) if strided and i == at else y
            shortcut = blurred(x) if strided else x
            if block.downsample is not None:
                *_, conv, norm = block.downsample
                shortcut = norm(F.conv2d(shortcut, conv.weight))
            x = F.relu(y + shortcut)
    return x


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('variant', [{}, dict(style='caffe'), dict(avg_down=True)], ids=str)
def test_one_level_is_the_ordinary_resnet_with_blurs_and_loads_its_checkpoint(depth, variant):
    ordinary = as_if_trained(MODELS.build(dict(type='mmpretrain.ResNet', depth=depth, **variant)))
    ours = ScaleResNet(depth, dict(num_scales=1), aa_layer=BLUR, **variant).double().eval()
    ours.load_state_dict(ordinary.state_dict(), strict=True)
    image = randn(1, 3, 75, 64)
    style = variant.get('style', 'pytorch')
    expected = resnet_with_blurs(ordinary, image, style, 'avg_down' in variant)
    found = ours(image)[0][0]
    assert largest_difference(found, expected) < 1e-12 * expected.abs().max()


@pytest.mark.parametrize('aa_stem', [False, True])
@pytest.mark.parametrize(
    'variant', [{}, dict(avg_down=True, deep_stem=True), dict(style='caffe')], ids=str
)
def test_checkpoints_are_interchangeable(variant, aa_stem):
    plain = ScaleResNet(50, BASE2, **SMALL, **variant).state_dict()
    blurred = ScaleResNet(50, BASE2, aa_layer=BLUR, aa_stem=aa_stem, **SMALL, **variant)
    assert {k: v.shape for k, v in blurred.state_dict().items()} == {
        k: v.shape for k, v in plain.items()
    }
    names = [name for name, _ in blurred.named_parameters()]
    assert names == [
        name for name, _ in ScaleResNet(50, BASE2, **SMALL, **variant).named_parameters()
    ]
    convnet = ScaleConvNet(BASE2).state_dict()
    assert list(ScaleConvNet(BASE2, aa_layer=BLUR).state_dict()) == list(convnet)


def test_every_stride_is_taken_over_and_shapes_stay():
    image = torch.randn(1, 3, 75, 66)

    def shapes(network):
        return [[level.shape for level in y] for y in network(image)]

    for options in (dict(), dict(avg_down=True), dict(style='caffe'), dict(deep_stem=True)):
        plain = ScaleResNet(50, BASE2, **SMALL, **options)
        for aa_stem in (False, True):
            model = ScaleResNet(50, BASE2, aa_layer=BLUR, aa_stem=aa_stem, **SMALL, **options)
            assert shapes(model) == shapes(plain)
            strided = {
                name
                for name, module in model.named_modules()
                if getattr(module, 'stride', 1) not in (1, (1, 1))
                and not isinstance(module, ScaleBlurPool2d)
                and 'aa' not in name
                and not name.startswith('layer')  # blocks keep their own
            }
            stem = 'stem.0.conv' if model.deep_stem else 'conv1'
            assert {s for s in strided if not s.startswith('stem.0')} | {stem} == {stem}
            assert any(s == stem or s.startswith('stem.0') for s in strided) == (not aa_stem)
            convs = [m for n, m in model.named_modules() if n.startswith('layer') and 'conv' in n]
            assert all(conv.stride == (1, 1) for conv in convs)


def test_training_reaches_every_parameter():
    options = dict(aa_layer=BLUR, aa_stem=True, zero_init_residual=False, **SMALL)
    for lift in (PYRAMID, dict(type='mmscale.GaussianLift')):
        for with_cp in (False, True):
            model = ScaleResNet(18, BASE2, lift, with_cp=with_cp, **options)
            out = model(torch.randn(2, 3, 64, 64))[-1]
            levels = out if isinstance(out, tuple) else [out]
            sum(level.square().sum() for level in levels).backward()
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def band_limited(size, highest, channels=3):
    """A circular image of waves of up to ``highest`` periods."""
    waves = torch.fft.rfft2(randn(1, channels, size, size))
    frequencies = torch.fft.fftfreq(size, 1 / size).abs()
    keep = (frequencies[:, None] <= highest) & (frequencies[None, : size // 2 + 1] <= highest)
    return torch.fft.irfft2(waves * keep, s=(size, size))


def half_sample_shift(x):
    """Moves by half a sample along the last axis, by the Fourier series."""
    count = x.shape[-1]
    waves = torch.fft.rfft(x)
    phase = torch.exp(-1j * math.pi * torch.arange(waves.shape[-1]) / count)
    return torch.fft.irfft(waves * phase, count)


@pytest.mark.parametrize('depth', [18, 50])
def test_odd_translations_move_the_features_of_blurred_networks(depth):
    """Moved by 1 pixel, features of stride 2 move by half a sample, off the border.

    By more than 3 % of their energy they do not without a blur; with 5 taps that is below 0.1 %.
    """
    image = band_limited(64, 20)
    image = image / image.std()

    def error(aa_layer):
        options = dict(strides=(1, 2), dilations=(1, 1), num_stages=2, aa_layer=aa_layer)
        model = ScaleResNet_CIFAR(
            depth, dict(num_scales=1), **{**SMALL, 'out_indices': (1,)}, **options
        )
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.kaiming_normal_(parameter, generator=generator)
        as_if_trained(model)
        still, moved = model(image)[0][0], model(image.roll(1, -1))[0][0]
        expected, found = (y[..., 8:-8, 8:-8] for y in (half_sample_shift(still), moved))
        return ((found - expected).square().sum() / expected.square().sum()).item()

    assert error(None) > 0.03
    assert error(BLUR) < 0.001


def test_slices_agree_with_the_assertion():
    model = as_if_trained(ScaleResNet(18, BASE2, aa_layer=BLUR, **SMALL))
    signal = randn(1, 3, 4, 61, 44)
    outputs = model.body(signal)
    for shift in (1, 2, 3):
        for f, g in zip(outputs, model.body(scaled(signal, 2, shift)), strict=True):
            expected = scaled(f, 2, shift)
            assert largest_difference(g, expected) < 1e-12 * expected.abs().max()


@pytest.mark.parametrize('network', [ScaleResNet, ScaleResNet_CIFAR])
def test_unset_nothing_changes(network):
    torch.manual_seed(0)
    model = network(18, BASE2, **SMALL)
    assert not any(isinstance(module, ScaleBlurPool2d) for module in model.modules())
    assert not any('aa' in name for name, _ in model.named_modules())


def test_wrong_arguments():
    with pytest.raises(ValueError, match='aa_stem=True needs an aa_layer, got None'):
        ScaleResNet(18, BASE2, aa_stem=True)
    with pytest.raises(ValueError, match='aa_stem must be False'):
        ScaleResNet_CIFAR(18, BASE2, aa_layer=BLUR, aa_stem=True)
    with pytest.raises(ValueError, match='kernel_size must be an odd integer'):
        ScaleResNet(18, BASE2, aa_layer=dict(BLUR, kernel_size=4))
    with pytest.raises(ValueError, match='kernel_size or variance, not both'):
        ScaleConvNet(BASE2, aa_layer=dict(BLUR, variance=1.0))
