# Copyright (c) mmscale contributors.
"""Properties of every backbone, with every kind of layer, dense and on pyramids."""

import copy
import pickle

import pytest
import torch
from naive import largest_difference
from networks import small_backbones, with_offsets
from torch import nn

from mmscale.models import DeformScaleConv
from mmscale.scale_space import Levels
from mmscale.scale_space.levels import Pyramid

every_backbone = pytest.mark.parametrize('name', small_backbones())


def image(*shape, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def leaves(outputs):
    """Return the maps in the outputs of a network."""
    return torch.utils._pytree.tree_leaves(outputs)


@every_backbone
def test_built_on_meta_it_becomes_the_same_network(name, nothing_kept):
    """The meta device gives shapes without memory, and accepts weights later."""
    net, x = small_backbones()[name].eval(), image(2, 3, 64, 64)
    with torch.device('meta'):
        empty, assigned = (small_backbones()[name].eval() for _ in range(2))
    shapes = [level.shape for level in leaves(empty(x.to('meta')))]
    expected = leaves(net(x))
    assert shapes == [level.shape for level in expected]
    empty.to_empty(device='cpu')
    empty.load_state_dict(net.state_dict())
    assigned.load_state_dict(net.state_dict(), assign=True)
    for other in (empty, assigned):
        assert all(map(torch.equal, leaves(other(x)), expected))


@every_backbone
def test_channels_last_changes_no_result(name):
    model = small_backbones()[name].double()
    for module in model.modules():
        if isinstance(module, DeformScaleConv):
            with_offsets(module)
    moved = copy.deepcopy(model)
    assert moved.to(memory_format=torch.channels_last) is moved
    for key, value in model.state_dict().items():
        assert torch.equal(moved.state_dict()[key], value)

    def run(network, x):
        maps = leaves(network(x))
        loss = sum((y * torch.linspace(-1, 2, y.numel()).view(y.shape)).sum() for y in maps)
        return maps, torch.autograd.grad(loss, list(network.parameters()))

    x = image(2, 3, 21, 26, dtype=torch.float64)
    expected, expected_grads = run(model, x)
    for given in (x, x.to(memory_format=torch.channels_last)):
        found, grads = run(copy.deepcopy(moved), given)
        assert largest_difference(found, expected) < 1e-9
        for grad, other in zip(grads, expected_grads, strict=True):
            assert largest_difference(grad, other) < 1e-9 * (1 + other.abs().max())


@pytest.mark.parametrize('mode', [True, False])
@every_backbone
def test_no_image_gives_empty_maps_and_no_gradient(name, mode):
    """As of PyTorch's own layers."""
    net = small_backbones()[name].train(mode)
    shapes = [(0, *y.shape[1:]) for y in leaves(net(image(2, 3, 40, 40)))]
    before = {key: value.clone() for key, value in net.named_buffers()}
    found = leaves(net(image(0, 3, 40, 40)))
    assert [tuple(y.shape) for y in found] == shapes
    sum(y.sum() for y in found).backward()
    assert all(p.grad is None or not p.grad.any() for p in net.parameters())
    for key, value in net.named_buffers():
        assert torch.equal(value, before[key]) or key.endswith('num_batches_tracked'), key


@every_backbone
def test_the_state_depends_on_no_mode_and_evaluation_changes_none(name):
    net = small_backbones()[name].train()
    names = list(net.state_dict())
    net(image(2, 3, 32, 32))
    before = copy.deepcopy(net.eval().state_dict())
    net(image(2, 3, 32, 32))
    assert names == list(before) == list(net.state_dict())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@every_backbone
def test_trains_in_mixed_precision(name, dtype):
    # Maps of two pixels and more: PyTorch 2.11's bfloat16 gradient of a 3x3 convolution of stride 2
    # is undefined on the CPU where the input is one pixel wide.
    net = small_backbones()[name].train()
    with torch.autocast('cpu', dtype=dtype):
        outputs = leaves(net(image(2, 3, 96, 80)))
        loss = sum(y.float().square().mean() for y in outputs)
    loss.backward()
    assert all(y.isfinite().all() for y in outputs)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize('name', [name for name in small_backbones() if 'SO2' not in name])
def test_every_layer_takes_and_gives_levels_and_a_hook_changes_nothing(name):
    net, x, seen = small_backbones()[name].double().eval(), image(3, 3, 20, 20).double(), {}
    outputs = net(x)
    assert all(type(y) is Pyramid or isinstance(y, torch.Tensor) for y in outputs)
    pyramid, expected = type(outputs[-1]) is Pyramid, leaves(outputs)
    layers = {
        key: module
        for key, module in net.named_modules()
        if key and not key.startswith('lift') and not isinstance(module, nn.Identity)
    }
    handles = [
        module.register_forward_hook(
            lambda _, args, output, key=key: seen.setdefault(key, []).append((args[0], output))
        )
        for key, module in layers.items()
    ]
    assert all(map(torch.equal, leaves(net(x)), expected))
    for handle in handles:
        handle.remove()
    unseen = set(layers) - set(seen)
    assert all(isinstance(layers[key], nn.ModuleList) for key in unseen), unseen
    for key, calls in seen.items():
        for levels in (part for call in calls for part in call):
            assert isinstance(levels, Levels) and levels.dense == (not pyramid), key
            assert all(level.ndim == 4 and len(level) == 3 for level in levels), key
    again = pickle.loads(pickle.dumps(net))
    assert all(map(torch.equal, leaves(again(x)), expected))
