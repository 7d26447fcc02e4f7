# Copyright (c) mmscale contributors.
"""A batch of no image gives empty results and no gradient, as PyTorch's own layers do."""

import pytest
import torch
from networks import small_backbones

from mmscale.models import (
    BilinearPyramidLift,
    DeformScaleConv,
    GaussianLift,
    GaussianPyramidLift,
    ModulatedDeformScaleConv,
    ScaleAvgPool2d,
    ScaleBlurPool2d,
    ScaleBN,
    ScaleConv,
    ScaleGlobalPooling,
    ScaleMaxPool2d,
    ScalePooling,
)
from mmscale.scale_space import Levels, ScaleGrid

GRIDS = [dict(base=2, num_scales=3), dict(base=2**0.5, num_scales=3)]
LAYERS = {
    'ScaleConv': lambda grid: ScaleConv(4, 6, 3, padding=1, scale_space=grid),
    'ScaleConv, strided': lambda grid: ScaleConv(
        4, 6, 3, stride=2, padding=1, interaction=2, scale_space=grid
    ),
    'ScaleConv, 1x1': lambda grid: ScaleConv(4, 6, 1, interaction=2, scale_space=grid),
    'ScaleConv, grouped': lambda grid: ScaleConv(4, 6, 1, groups=2, scale_space=grid),
    'DeformScaleConv': lambda grid: DeformScaleConv(4, 6, 3, padding=1, scale_space=grid),
    'ModulatedDeformScaleConv': lambda grid: ModulatedDeformScaleConv(
        4, 6, 3, padding=1, interaction=2, scale_space=grid
    ),
    'DeformScaleConv, native': lambda grid: DeformScaleConv(
        4, 6, 3, padding=1, backend='native', scale_space=grid
    ),
    'ScaleMaxPool2d': lambda grid: ScaleMaxPool2d(3, 2, 1, scale_space=grid),
    'ScaleMaxPool2d, window before': lambda grid: ScaleMaxPool2d(2, scale_space=grid),
    'ScaleAvgPool2d': lambda grid: ScaleAvgPool2d(2, scale_space=grid),
    'ScaleBlurPool2d': lambda grid: ScaleBlurPool2d(5, stride=2, scale_space=grid),
    'ScaleBlurPool2d, variance': lambda grid: ScaleBlurPool2d(
        variance=1.5, stride=2, scale_space=grid
    ),
    'ScaleBN': lambda grid: ScaleBN(4),
}
LIFTS = [GaussianLift, BilinearPyramidLift, GaussianPyramidLift]
NECKS = {
    'ScalePooling': lambda grid: ScalePooling(scale_space=grid),
    'ScalePooling, largest': lambda grid: ScalePooling(align='largest', scale_space=grid),
    'ScaleGlobalPooling': lambda grid: ScaleGlobalPooling(),
    'ScaleGlobalPooling, quarters': lambda grid: ScaleGlobalPooling(output_size=2),
    'ScaleGlobalPooling, levels': lambda grid: ScaleGlobalPooling('none'),
    'ScaleGlobalPooling, dropout': lambda grid: ScaleGlobalPooling(scale_dropout=0.5),
}
BACKBONES = small_backbones()


def tensors_in(x):
    return [x] if isinstance(x, torch.Tensor) else [t for part in x for t in tensors_in(part)]


def signal(form, count, grid=GRIDS[0]):
    if form == 'dense':
        return torch.rand(count, 4, 3, 12, 11, requires_grad=True)
    grid = ScaleGrid.build(grid)
    sizes = [(grid.level_size(12, k), grid.level_size(11, k)) for k in grid.levels]
    levels = tuple(torch.rand(count, 4, *size, requires_grad=True) for size in sizes)
    return levels if form == 'pyramid' else Levels.of(levels)


def check(module, few, none):
    """Shapes of two images, but for their number; parameters get gradients of 0."""
    expected, found = (tensors_in(module(x)) for x in (few, none))
    assert [(0, *y.shape[1:]) for y in expected] == [tuple(y.shape) for y in found]
    if any(y.requires_grad for y in found):
        sum(y.sum() for y in found).backward()
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        assert all(not grad.any() for grad in grads)


@pytest.mark.parametrize('grid', GRIDS, ids=str)
@pytest.mark.parametrize('form', ['dense', 'pyramid', 'packed'])
@pytest.mark.parametrize('name', LAYERS)
def test_layers(name, form, grid):
    layer = LAYERS[name](grid).eval()
    check(layer, signal(form, 2, grid), signal(form, 0, grid))


@pytest.mark.parametrize('form', ['dense', 'pyramid', 'packed'])
def test_a_training_norm_of_no_pixel_is_that_of_pytorch(form):
    ours, theirs = ScaleBN(4).train(), torch.nn.BatchNorm2d(4).train()
    theirs(torch.rand(0, 4, 12, 11))
    assert all(len(level) == 0 for level in tensors_in(ours(signal(form, 0))))
    for name, buffer in theirs.named_buffers():
        assert torch.equal(ours.get_buffer(name), buffer), name


@pytest.mark.parametrize('grid', GRIDS, ids=str)
@pytest.mark.parametrize('lift', LIFTS)
def test_lifts(lift, grid):
    module = lift(scale_space=grid)
    check(module, *(torch.rand(count, 3, 24, 21, requires_grad=True) for count in (2, 0)))


@pytest.mark.parametrize('mode', [True, False])
@pytest.mark.parametrize('form', ['dense', 'pyramid'])
@pytest.mark.parametrize('name', NECKS)
def test_necks(name, form, mode):
    check(NECKS[name](GRIDS[0]).train(mode), (signal(form, 2),), (signal(form, 0),))


@pytest.mark.parametrize('mode', [True, False])
@pytest.mark.parametrize('name', BACKBONES)
def test_backbones(name, mode):
    backbone = BACKBONES[name].float().train(mode)
    backbone.zero_grad()
    shapes = [(0, *y.shape[1:]) for y in tensors_in(backbone(torch.rand(2, 3, 40, 40)))]
    before = {key: value.clone() for key, value in backbone.named_buffers()}
    found = tensors_in(backbone(torch.rand(0, 3, 40, 40)))
    assert [tuple(y.shape) for y in found] == shapes
    sum(y.sum() for y in found).backward()
    assert all(p.grad is None or not p.grad.any() for p in backbone.parameters())
    for key, value in backbone.named_buffers():
        assert torch.equal(value, before[key]) or key.endswith('num_batches_tracked'), key
