# Copyright (c) mmscale contributors.
"""Hooks of layers receive levels and do not change the result."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchinfo
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from naive import largest_difference
from networks import as_if_trained
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import nn

from mmscale.models import (
    ScaleBN,
    ScaleConv,
    ScalePooling,
    ScaleResNet_CIFAR,
    ScaleSequential,
)
from mmscale.registry import MODELS
from mmscale.scale_space import Levels, is_pyramid, map_levels, split_levels
from mmscale.visualization import levels_as_channels

LIFTS = ('GaussianLift', 'GaussianPyramidLift')


def cifar_resnet(lift, **kwargs):
    torch.manual_seed(0)
    args = dict(scale_space=dict(base=2, num_scales=3), base_channels=4, stem_channels=4)
    args |= dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
    return as_if_trained(
        ScaleResNet_CIFAR(18, lift=dict(type=f'mmscale.{lift}'), **{**args, **kwargs})
    )


class Classifier(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.neck, self.head = backbone, ScalePooling(), nn.Linear(8, 5).double()

    def forward(self, image):
        return self.head(self.neck(self.backbone(image))[-1].mean((2, 3)))


def images(count=4, side=16):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, side, side, generator=generator, dtype=torch.float64)


def levels_of(outputs):
    return [level for output in outputs for level in split_levels(output)]


def equal(found, expected):
    pairs = zip(levels_of(found), levels_of(expected), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize('lift', LIFTS)
def test_threads_with_a_hook_do_not_disturb_one_another(lift):
    net, x, seen = cifar_resnet(lift), images(2), []
    expected = net(x)
    net.relu.register_forward_hook(lambda _, args, output: seen.append(output.sizes))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: net(x), range(60)))
    assert len(seen) == 60 and all(equal(outputs, expected) for outputs in found)
    net.relu._forward_hooks.clear()
    assert equal(pickle.loads(pickle.dumps(net))(x), expected)


@pytest.mark.parametrize('lift', LIFTS)
def test_a_copy_made_in_a_hook_is_a_network_of_its_own(lift):
    net, x, copies = cifar_resnet(lift), images(1), []
    handle = net.relu.register_forward_hook(lambda *_: copies.append(copy.deepcopy(net)))
    expected = net(x)
    handle.remove()
    other = copies[0]
    other.relu._forward_hooks.clear()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert equal(other(x), expected) and not equal(net(x), expected)


@torch.no_grad()
def test_what_a_hook_has_seen_can_be_saved():
    seen, net = [], cifar_resnet('GaussianPyramidLift')
    net.relu.register_forward_hook(lambda _, args, output: seen.append(output))
    net(images(1))
    again = pickle.loads(pickle.dumps(seen[0]))
    assert type(again) is Levels and equal([again], [seen[0]])


class Squeeze(nn.Module):
    """A user's own layer, which returns a plain signal or levels."""

    def __init__(self, plain):
        super().__init__()
        self.plain = plain

    def forward(self, x):
        levels = [level - level.mean((-2, -1), keepdim=True) for level in split_levels(x)]
        y = type(Levels.of(x))(*levels)
        return y.to_signal() if self.plain else y


@pytest.mark.parametrize('plain', [False, True])
@pytest.mark.parametrize('lift', LIFTS)
def test_a_layer_of_the_users_own_between_ours(lift, plain):
    grid = dict(base=2, num_scales=3)
    layers = [
        ScaleConv(3, 4, 3, padding=1, scale_space=grid),
        ScaleBN(4),
        Squeeze(plain),
        nn.ReLU(inplace=True),
        ScaleConv(4, 2, 3, padding=1, scale_space=grid),
    ]
    body = ScaleSequential(*layers).double().eval()
    signal = MODELS.build(dict(type=f'mmscale.{lift}', scale_space=grid))(images(2))
    expected = body[1](body[0](signal))
    expected = map_levels(torch.relu, body[2](expected))
    assert equal([body(signal)], [body[4](expected)])
    assert equal([body(Levels.of(signal))], [body[4](expected)])


@pytest.mark.parametrize('module', ['layer1', 'layer2', 'layer1.0'])
@pytest.mark.parametrize('lift', LIFTS)
def test_checkpointing_that_would_cut_off_the_gradient_is_refused(lift, module):
    net, x = cifar_resnet(lift), images(2)
    turn_on_activation_checkpointing(net, module)
    with pytest.raises(RuntimeError, match='no gradient comes through .*with_cp=True in its place'):
        net(x)
    with torch.no_grad(), pytest.raises((RuntimeError, ValueError), match='with_cp=True'):
        net(x)


@pytest.mark.parametrize('layer', ['conv1', 'layer1', 'layer2.0.downsample'])
@pytest.mark.parametrize('lift', LIFTS)
def test_hooks_see_the_gradient_and_may_replace_what_passes(lift, layer):
    net, x, seen = cifar_resnet(lift), images(2), {}
    module = net.get_submodule(layer)

    def loss(outputs):
        return sum(level.square().mean() for level in levels_of(outputs))

    def keep(_, args, output):
        output.register_hook(lambda grad: seen.update(expected=grad))

    def keep_gradient(_, grad_input, grad_output):
        seen['grad'] = grad_output

    handles = [
        module.register_forward_hook(keep),
        module.register_full_backward_hook(keep_gradient),
    ]
    loss(net(x)).backward()
    assert isinstance(seen['expected'], Levels) and len(seen['grad']) == 3
    assert largest_difference(seen['grad'], tuple(seen['expected'])) < 1e-12
    for handle in handles:
        handle.remove()

    module.register_forward_hook(lambda _, args, y: y * 2)
    twice = net(x)
    module._forward_hooks.clear()
    module.register_forward_pre_hook(lambda _, args: (map_levels(torch.zeros_like, args[0]),))
    nothing = net(x)
    module._forward_pre_hooks.clear()
    assert not equal(twice, nothing) and not equal(twice, net(x)) and not equal(nothing, net(x))


@pytest.mark.parametrize('layer', ['relu', 'layer2'])
@pytest.mark.parametrize('lift', LIFTS)
def test_grad_cam(lift, layer):
    """Compare with the formula: activations times the mean gradient per channel and level."""
    model = Classifier(cifar_resnet(lift)).eval()
    target = model.backbone.get_submodule(layer)
    x, seen = images(2), []
    with GradCAM(
        model,
        [target],
        reshape_transform=lambda signal: levels_as_channels(signal, model.backbone.grid),
    ) as cam:
        found = cam(x, targets=None)

    handle = target.register_forward_hook(lambda _, args, output: seen.append(output))
    scores = model(x)
    handle.remove()
    (grads,) = torch.autograd.grad(scores.max(1).values.sum(), seen[0].rows)
    grads = seen[0].map(lambda _: grads)
    step = 0.5 if is_pyramid(seen[0]) else 1
    # Levels at the samples of the finest level: sample j reads 2**-k j, with a replicated border.
    maps, grads = (
        [naive_read(level, step**k, seen[0][0].shape[-1]) for k, level in enumerate(levels)]
        for levels in (seen[0], grads)
    )
    weights = [grad.mean((2, 3), keepdim=True) for grad in grads]
    parts = [weight * level for weight, level in zip(weights, maps, strict=True)]
    expected = sum(part.sum(1) for part in parts).relu().detach().numpy()
    assert all(other.max() > 0 for other in expected)  # otherwise there is nothing to compare
    # GradCAM normalises a map to 0..1 before and after it enlarges the map.
    expected = scale_cam_image(scale_cam_image(expected, (16, 16)))
    assert np.abs(found - expected).max() < 1e-5


def naive_read(level, factor, side):
    rows = []
    for i in range(side):
        position = min(i * factor, level.shape[-1] - 1)
        low = int(position)
        high, part = min(low + 1, level.shape[-1] - 1), position - low
        rows.append((low, high, part))
    across = torch.stack([(1 - p) * level[..., a] + p * level[..., b] for a, b, p in rows], dim=-1)
    return torch.stack(
        [(1 - p) * across[..., a, :] + p * across[..., b, :] for a, b, p in rows], dim=-2
    )


@pytest.mark.parametrize('lift', LIFTS)
def test_torchinfo_lists_every_layer(lift):
    model = Classifier(cifar_resnet(lift)).float().eval()
    info = torchinfo.summary(model, input_size=(2, 3, 16, 16), depth=9, verbose=0)
    expected = sum(p.numel() for p in model.parameters())
    assert info.total_params == expected
    listed = {entry.var_name for entry in info.summary_list if entry.executed}
    assert {'conv1', 'bn1', 'layer1', 'layer2', 'downsample'} <= listed
