# Copyright (c) mmscale contributors.
"""``to(memory_format=torch.channels_last)``, as ordinary networks take it."""

import copy

import pytest
import torch
from naive import largest_difference
from networks import small_backbones, with_offsets

from mmscale.models import DeformScaleConv, ScaleConv
from mmscale.scale_space import split_levels

BACKBONES = small_backbones()


def maps_of(outputs):
    return [level for x in outputs for level in (split_levels(x) if _is_scale_space(x) else [x])]


def _is_scale_space(x):
    return isinstance(x, tuple) or x.ndim == 5


def run(model, image):
    maps = maps_of(model(image))
    loss = sum((x * torch.linspace(-1, 2, x.numel()).view(x.shape)).sum() for x in maps)
    names, parameters = zip(*model.named_parameters())
    return maps, dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize('name', BACKBONES)
def test_channels_last_changes_no_result(name):
    model = copy.deepcopy(BACKBONES[name]).double()
    for module in model.modules():
        if isinstance(module, DeformScaleConv):
            with_offsets(module)
    moved = copy.deepcopy(model)
    assert moved.to(memory_format=torch.channels_last) is moved
    for name, value in model.state_dict().items():
        assert torch.equal(moved.state_dict()[name], value)
    image = torch.randn(2, 3, 21, 26, dtype=torch.float64)
    expected, expected_grads = run(model, image)
    for given in (image, image.to(memory_format=torch.channels_last)):
        found, grads = run(copy.deepcopy(moved), given)
        assert largest_difference(found, expected) < 1e-9
        for parameter, grad in expected_grads.items():
            assert largest_difference(grads[parameter], grad) < 1e-9 * (1 + grad.abs().max())


@pytest.mark.parametrize('layer', [ScaleConv, DeformScaleConv])
@pytest.mark.parametrize('interaction', [1, 2])
def test_channels_lie_last(layer, interaction):
    conv = layer(16, 8, 3, padding=1, interaction=interaction, scale_space=dict(num_scales=2))
    weight, values = conv.weight, conv.weight.detach().clone()
    conv.to(torch.float64, memory_format=torch.channels_last)
    assert conv.weight is weight and weight.dtype == torch.float64
    assert torch.equal(weight, values.double())
    kernels = [m.weight for m in conv.modules() if isinstance(m, ScaleConv)]
    assert len(kernels) == 1 + (layer is DeformScaleConv)
    for kernel in kernels:
        assert kernel.is_contiguous(memory_format=torch.channels_last_3d)
        assert not kernel.is_contiguous()
    conv.to(memory_format=torch.channels_last)
    conv.to(memory_format=torch.contiguous_format)
    assert conv.weight.is_contiguous() and torch.equal(conv.weight, values.double())


def test_other_errors_are_raised():
    conv = ScaleConv(4, 4, 3, padding=1, scale_space=dict(num_scales=2))

    def fail(x):
        raise RuntimeError(f'out of memory for {x.ndim} dimensions')

    with pytest.raises(RuntimeError, match='out of memory'):
        conv._apply(fail)


def test_trains_and_loads_in_channels_last():
    layers = [
        ScaleConv(4, 4, 3, padding=1, interaction=2, scale_space=dict(num_scales=2))
        for _ in range(2)
    ]
    layers[0].load_state_dict(layers[1].state_dict())
    layers[0].to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 2, 9, 9)
    for layer in layers:
        optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
    assert largest_difference(layers[0].weight, layers[1].weight) < 1e-6
    layers[0].load_state_dict(layers[1].state_dict())
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert not layers[0].weight.is_contiguous()
