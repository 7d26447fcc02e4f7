# Copyright (c) mmscale contributors.
"""Backbones with a low-pass filter before each stride, ``aa_layer``."""

import math

import mmpretrain.models  # noqa: F401  registers ResNet
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from naive import largest_difference, randn
from networks import as_if_trained

from mmscale.models import ScaleConv, ScaleConvNet, ScaleMaxPool2d, ScaleResNet, ScaleResNet_CIFAR
from mmscale.ops import binomial

BASE2 = dict(base=2, num_scales=4)
SMALL = dict(base_channels=8, stem_channels=8, out_indices=(0, 1, 2, 3))
BLUR = dict(type='mmscale.ScaleBlurPool2d', kernel_size=5)


def blurred(x, stride=2):
    """Blur an ordinary feature map with 5 binomial taps and a stride."""
    kernel = torch.outer(binomial(5), binomial(5)).expand(x.shape[1], 1, 5, 5)
    return F.conv2d(x, kernel, None, stride, 2, 1, x.shape[1])


def resnet_with_blurs(model, x, style, avg_down):
    """Run MMPretrain's ResNet, written out, with a blur in place of each stride."""
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
    plain = ScaleResNet(50, BASE2, **SMALL, **variant)
    blurred = ScaleResNet(50, BASE2, aa_layer=BLUR, aa_stem=aa_stem, **SMALL, **variant)
    blurred.load_state_dict(plain.state_dict(), strict=True)
    assert list(blurred.state_dict()) == list(plain.state_dict())
    convnet = ScaleConvNet(BASE2).state_dict()
    assert list(ScaleConvNet(BASE2, aa_layer=BLUR).state_dict()) == list(convnet)


@pytest.mark.parametrize('aa_stem', [False, True])
@pytest.mark.parametrize(
    'options', [dict(), dict(avg_down=True), dict(style='caffe'), dict(deep_stem=True)], ids=str
)
def test_every_stride_is_taken_over_and_shapes_stay(options, aa_stem):
    plain = ScaleResNet(50, BASE2, **SMALL, **options)
    model = ScaleResNet(50, BASE2, aa_layer=BLUR, aa_stem=aa_stem, **SMALL, **options)
    image = torch.randn(1, 3, 75, 66)
    for expected, found in zip(plain(image), model(image), strict=True):
        assert [level.shape for level in found] == [level.shape for level in expected]
    strided = [
        name
        for name, module in model.named_modules()
        if isinstance(module, ScaleConv | ScaleMaxPool2d) and module.stride != (1, 1)
    ]
    stem = 'stem.0.conv' if model.deep_stem else 'conv1'
    assert strided == ([] if aa_stem else [stem])


def band_limited(size, highest, channels=3):
    """Make a periodic image of waves of up to ``highest`` periods."""
    waves = torch.fft.rfft2(randn(1, channels, size, size))
    frequencies = torch.fft.fftfreq(size, 1 / size).abs()
    keep = (frequencies[:, None] <= highest) & (frequencies[None, : size // 2 + 1] <= highest)
    return torch.fft.irfft2(waves * keep, s=(size, size))


def half_sample_shift(x):
    """Shift by half a sample along the last axis, by the Fourier series."""
    count = x.shape[-1]
    waves = torch.fft.rfft(x)
    phase = torch.exp(-1j * math.pi * torch.arange(waves.shape[-1]) / count)
    return torch.fft.irfft(waves * phase, count)


@pytest.mark.parametrize('depth', [18, 50])
def test_odd_translations_move_the_features_of_blurred_networks(depth):
    """A shift by 1 pixel shifts features of stride 2 by half a sample, off the border.

    Without a blur the error exceeds 2 % of their energy; with 5 taps it is below 0.1 %.
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

    assert error(None) > 0.02
    assert error(BLUR) < 0.001


def test_wrong_arguments():
    with pytest.raises(ValueError, match='aa_stem=True needs an aa_layer, got None'):
        ScaleResNet(18, BASE2, aa_stem=True)
    with pytest.raises(ValueError, match='aa_stem must be False'):
        ScaleResNet_CIFAR(18, BASE2, aa_layer=BLUR, aa_stem=True)
    with pytest.raises(ValueError, match='kernel_size must be an odd integer'):
        ScaleResNet(18, BASE2, aa_layer=dict(BLUR, kernel_size=4))
    with pytest.raises(ValueError, match='kernel_size or variance, not both'):
        ScaleConvNet(BASE2, aa_layer=dict(BLUR, variance=1.0))
