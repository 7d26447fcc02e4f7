# Copyright (c) mmscale contributors.
"""The positions that are drawn are those at which the layers read."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from mmscale.models import ScaleConv, ScaleConvNet, ScaleResNet, ScaleResNet_CIFAR
from mmscale.ops import deform_scale_conv2d
from mmscale.scale_space import (
    gaussian_lift,
    gaussian_pyramid_lift,
    is_pyramid,
    split_levels,
    stack_levels,
)
from mmscale.visualization.network import Network
from mmscale.visualization.sampling import find_layer, read_layer, stride_before

V1 = dict(type='mmscale.DeformScaleConv', stages=(False, True, True, True))
V2 = dict(V1, type='mmscale.ModulatedDeformScaleConv')
PYRAMID = dict(type='mmscale.GaussianPyramidLift')
BASE2 = dict(base=2, num_scales=3)
FINER = dict(BASE2, first_level=-1)


def resnet(cls=ScaleResNet_CIFAR, **kwargs) -> Network:
    """An untrained ResNet-18 of four channels with random offset branches."""
    torch.manual_seed(0)
    slim = dict(depth=18, in_channels=1, stem_channels=4, base_channels=4)
    form = dict(lift=dict(type='mmscale.GaussianLift'), scale_space=BASE2)
    backbone = cls(**{**slim, **form, **kwargs})
    for name, parameter in backbone.named_parameters():
        if 'conv_offset' in name:
            nn.init.normal_(parameter, std=0.3)
    return Network(backbone.double().eval(), nn.Identity(), 1, True, None)


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    'cls, strides',
    [
        (ScaleResNet_CIFAR, {'conv1': 1, 'layer1.1.conv2': 1, 'layer2.0.conv1': 1,
                             'layer2.0.conv2': 2, 'layer4.0.conv1': 4, 'layer4.1.conv2': 8}),
        (ScaleResNet, {'conv1': 1, 'layer1.0.conv1': 4, 'layer2.0.conv1': 4,
                       'layer2.0.downsample.0': 4, 'layer4.1.conv2': 32}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    'lift, scale_space',
    [
        (dict(type='mmscale.GaussianLift'), FINER),
        (PYRAMID, dict(base=1.3, num_scales=3, first_level=-2)),
        (PYRAMID, dict(base=1.3, num_scales=2, first_level=1)),
        (PYRAMID, FINER),
    ],
)
def test_strides_are_those_of_the_architecture(cls, strides, lift, scale_space):
    net = resnet(cls, lift=lift, scale_space=scale_space)
    modules = dict(net.backbone.named_modules())
    assert {name: stride_before(net, modules[name]) for name in strides} == strides
    assert stride_before(net) == max(strides.values())


def test_stride_of_a_network_with_levels_larger_than_the_probe():
    net = resnet(scale_space=dict(base=200, num_scales=2), num_stages=1, strides=(2,),
                 dilations=(1,), out_indices=(0,))  # fmt: skip
    assert stride_before(net) == 2


def splat(positions: np.ndarray, weights: np.ndarray, shape) -> np.ndarray:
    """What bilinear reading at positions touches, one tap after the other."""
    touched = np.zeros(shape)
    for (row, column), weight in zip(positions, weights, strict=True):
        for y, x in itertools.product(*((math.floor(p), math.floor(p) + 1) for p in (row, column))):
            if 0 <= y < shape[0] and 0 <= x < shape[1]:
                touched[y, x] += weight * (1 - abs(row - y)) * (1 - abs(column - x))
    return touched


def touched_by_output(net, layer, image, k, at) -> np.ndarray:
    """Where one output at level k depends on the input of the layer at that level.

    All weights are 1, and the offsets are held: the gradient is the sum of what the taps read.
    """
    seen = {}
    hook = layer.register_forward_hook(lambda m, inputs, _: seen.update(x=inputs[0].to_signal()))
    net.backbone(image)
    hook.remove()
    pyramid = is_pyramid(seen['x'])
    x = [part.requires_grad_() for part in split_levels(seen['x'])]
    join = tuple if pyramid else stack_levels
    signal, ones = join(x), torch.ones_like(layer.weight)
    if hasattr(layer, 'conv_offset'):
        predicted = [part.detach() for part in split_levels(layer.conv_offset(signal))]
        count = 2 * layer.num_offsets
        offsets = join([part[:, :count] for part in predicted])
        modulation = join([part[:, count:].sigmoid() for part in predicted])
        y = deform_scale_conv2d(signal, offsets, ones, None, layer.stride, layer.dilation, 1,
                                modulation if layer.outputs_per_tap == 3 else None,
                                scale_space=layer.grid)  # fmt: skip
    else:
        layer.weight.data.copy_(ones)
        y = layer(signal)
    output = split_levels(y)[k][0, 0, at[0], at[1]]
    return torch.autograd.grad(output, x, allow_unused=True)[k][0, 0].numpy()


@pytest.mark.parametrize('point', [(13, 22), (36, 30)])
@pytest.mark.parametrize(
    'name, stride, kwargs',
    [
        ('conv1', 1, dict(scale_space=dict(base=1.5, num_scales=3))),
        ('conv1', 1, dict(scale_space=dict(base=1.5, num_scales=4, truncate_dilation=True))),
        ('conv1', 1, dict(lift=PYRAMID, scale_space=FINER)),
        ('layer1.0.conv1', 1, dict(interaction=2)),
        ('layer2.0.conv1', 1, dict(dilations=(1, 2, 1, 1))),
        ('layer2.0.conv2', 2, dict(deform=V1)),
        ('layer2.1.conv2', 2, dict(deform=dict(V1, deform_groups=1), interaction=2)),
        ('layer3.1.conv2', 4, dict(deform=V1, lift=PYRAMID)),
        ('layer2.0.conv2', 2, dict(deform=V2, scale_space=dict(base=1.5, num_scales=3))),
        ('layer3.0.conv2', 4, dict(deform=V2, lift=PYRAMID, scale_space=FINER)),
    ],
)  # fmt: skip
def test_positions_are_where_the_layer_reads(name, stride, kwargs, point):
    net = resnet(**kwargs)
    grid, image = net.backbone.grid, torch.rand(1, 1, 37, 31)
    layer = net.backbone.get_submodule(name)
    readings = read_layer(net.backbone, layer, stride_before(net, layer), image, point)
    assert len(readings) == grid.num_scales
    for k, reading in enumerate(readings):
        sample = stride * (grid.factors[k] if 'lift' in kwargs else 1)
        step = sample * layer.stride[0]
        at = (reading.origin / step).round().astype(int)
        np.testing.assert_allclose(reading.origin, at * step, atol=1e-12)
        last = [math.ceil(size / step) - 1 for size in (37, 31)]
        for p, index, largest in zip(point, at, last):
            assert abs(p - index * step) <= step / 2 or (index == largest and p > index * step)
        positions = reading.taps if reading.moved is None else reading.moved[0]
        assert reading.moved is None or not np.allclose(positions, reading.taps)
        ones = np.ones(len(positions))
        weights = ones if reading.modulation is None else reading.modulation[0]
        touched = touched_by_output(net, layer, image, k, at)
        expected = splat(positions / sample, weights, touched.shape)
        np.testing.assert_allclose(touched, expected, atol=1e-9)


@pytest.mark.parametrize('lift', [dict(type='mmscale.GaussianLift'), PYRAMID])
@pytest.mark.parametrize('deform', [V1, V2])
def test_a_constant_offset_moves_taps_by_base_to_the_k_times_the_stride(lift, deform):
    net = resnet(lift=lift, deform=dict(deform, deform_groups=2))
    layer = net.backbone.layer3[1].conv2
    nn.init.zeros_(layer.conv_offset.weight)
    bias = layer.conv_offset.bias.data.zero_()
    bias[18:36:2], bias[19:36:2] = 0.5, -0.25  # dy and dx of the second group
    stride, image = stride_before(net, layer), torch.rand(1, 1, 48, 48)
    readings = read_layer(net.backbone, layer, stride, image, (20, 20))
    for k, reading in enumerate(readings):
        moved = reading.moved - reading.taps
        np.testing.assert_allclose(moved[0], 0, atol=1e-12)
        shift = 2**k * 4 * np.array([0.5, -0.25])
        np.testing.assert_allclose(moved[1], np.tile(shift, (9, 1)), atol=1e-12)
        if deform is V2:
            np.testing.assert_allclose(reading.modulation, 0.5)
        else:
            assert reading.modulation is None


@pytest.mark.parametrize(
    'scale_space, lift, distances',
    [
        (FINER, gaussian_lift, (0.5, 1, 2)),
        (dict(base=1.3, num_scales=4, truncate_dilation=True), gaussian_lift, (1, 1, 1, 2)),
        (FINER, gaussian_pyramid_lift, (0.5, 1, 2)),
        (dict(base=1.5, num_scales=3), gaussian_pyramid_lift, (1, 1.5, 2.25)),
    ],
)
def test_taps_on_the_lifted_image(scale_space, lift, distances):
    levels = lift(torch.rand(1, 1, 20, 24), scale_space)
    layer = ScaleConv(1, 1, 3, padding=1, scale_space=scale_space)
    readings = read_layer(layer, layer, 1, levels, (10, 7))
    for reading, distance in zip(readings, distances, strict=True):
        spacing = distance if lift is gaussian_pyramid_lift else 1
        np.testing.assert_allclose(reading.origin / spacing, np.round([10 / spacing, 7 / spacing]))
        offsets = [(u * distance, v * distance) for u in (-1, 0, 1) for v in (-1, 0, 1)]
        np.testing.assert_allclose(reading.taps - reading.origin, offsets)


def test_layers_by_default_and_by_name():
    assert find_layer(resnet(), None)[0] == 'backbone.conv1'
    assert find_layer(resnet(deform=V2), None)[0] == 'backbone.layer4.1.conv2'
    some = dict(V1, stages=(False, True, False, False))
    name, layer = find_layer(resnet(deform=some), None)
    assert name == 'backbone.layer2.1.conv2' and layer.outputs_per_tap == 2
    for name, message in (
        ('layer2.0.conv2', 'does not exist; .*backbone.layer2.0.conv2'),
        ('backbone.layer2.0.relu', 'is a ReLU; .*backbone.layer2.0'),
        ('?', 'does not exist; .*backbone'),
    ):
        with pytest.raises(ValueError, match=message):
            find_layer(resnet(), name)
    convnet = ScaleConvNet(BASE2, channels=(2, 2), kernel_size=1)
    with pytest.raises(ValueError, match='no scale convolution of several taps'):
        find_layer(Network(convnet, nn.Identity(), 1, True, None), None)


def test_what_has_no_stride_is_said():
    net = resnet()
    net.backbone.idle = ScaleConv(4, 4, 3, padding=1, scale_space=BASE2)
    with pytest.raises(ValueError, match='does not run'):
        stride_before(net, net.backbone.idle)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(128 * 128, 3), nn.Unflatten(0, (1, 1)))
    with pytest.raises(ValueError, match='has no feature map there'):
        stride_before(Network(backbone, nn.Identity(), 1, True, None))
