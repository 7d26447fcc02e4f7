# Copyright (c) mmscale contributors.
"""Compiling, exporting and tracing: one graph each, and the numbers of the eager network."""

import pytest
import torch
from naive import largest_difference
from torch import nn

from mmscale.models import ScaleConvNet, ScalePooling, ScaleResNet
from mmscale.scale_space import split_levels

SMALL = dict(
    base_channels=4, stem_channels=4, interaction=2, deep_stem=True, avg_down=True, num_stages=1,
    strides=(2,), dilations=(1,), out_indices=(0,),
)  # fmt: skip
LIFTS = ['GaussianLift', 'GaussianPyramidLift', 'BilinearPyramidLift']
GRIDS = [('GaussianLift', 2), ('GaussianLift', 2**0.5), ('GaussianPyramidLift', 2**0.5)]


def network(lift, base, size):
    """A network with every kind of layer, on a grid and size of its own: no cache is warm."""
    lift = dict(type=f'mmscale.{lift}')
    backbone = ScaleResNet(18, dict(base=base, num_scales=3), lift, **SMALL)
    return nn.Sequential(backbone, ScalePooling()).eval(), torch.randn(1, 3, *size)


@pytest.mark.parametrize('lift, base', GRIDS)
def test_compiles_to_one_graph(lift, base):
    torch._dynamo.reset()
    model, image = network(lift, base, (33, 38))
    found = torch.compile(model, fullgraph=True, backend='aot_eager')(image)
    assert largest_difference(found, model(image)) < 1e-5


@pytest.mark.parametrize('lift', LIFTS)
def test_a_compiled_network_trains(lift):
    torch._dynamo.reset()
    model = ScaleConvNet(dict(num_scales=2), dict(type=f'mmscale.{lift}'), channels=(4, 4, 4))
    compiled = torch.compile(model.train(), fullgraph=True, backend='aot_eager')
    outputs = compiled(torch.randn(2, 1, 19, 17))
    sum(level.square().mean() for level in split_levels(outputs[0])).backward()
    grads = [p.grad for p in model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in grads)
    assert all(g.abs().sum() > 0 for g in grads[:2])


@pytest.mark.parametrize('lift, base', GRIDS)
def test_exports(lift, base):
    model, image = network(lift, base, (35, 31))
    program = torch.export.export(model, (image,))
    expected = model(image)
    assert not isinstance(expected[0], torch._subclasses.FakeTensor)
    assert largest_difference(program.module()(image), expected) < 1e-5


@pytest.mark.parametrize('lift', LIFTS)
def test_traces(lift):
    model, image = network(lift, 2, (37, 34))
    traced = torch.jit.trace(model, image, check_trace=False)
    other = torch.randn_like(image)
    assert largest_difference(traced(other), model(other)) < 1e-5
    # What tracing left in a cache must serve eager training afterwards.
    sum(y.sum() for y in model.train()(image)).backward()
