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
GRIDS = [
    ('GaussianLift', 2), ('GaussianLift', 2**0.5), ('GaussianPyramidLift', 2**0.5),
    ('BilinearPyramidLift', 2),
]  # fmt: skip
BLUR = dict(type='mmscale.ScaleBlurPool2d', kernel_size=5)


def network(lift, base, size, **kwargs):
    """Make a network with every kind of layer, on a new grid and size, so that no cache is warm."""
    lift = dict(type=f'mmscale.{lift}')
    backbone = ScaleResNet(18, dict(base=base, num_scales=3), lift, **{**SMALL, **kwargs})
    return nn.Sequential(backbone, ScalePooling()).eval(), torch.randn(1, 3, *size)


@pytest.mark.parametrize('lift, base', GRIDS)
@pytest.mark.parametrize(
    'options', [{}, dict(interaction=1), dict(interaction=1, aa_layer=BLUR, aa_stem=True)], ids=str
)
def test_compiles_exports_and_traces(lift, base, options, nothing_kept):
    """PyTorch traces a second time, and compares the graphs."""
    torch._dynamo.reset()
    model, image = network(lift, base, (34, 41), **options)
    images = [image.repeat(2, 1, 1, 1), torch.randn(3, *image.shape[1:])]
    any_batch = dict(dynamic_shapes=({0: torch.export.Dim('batch', min=2, max=64)},))
    if not options:
        images, any_batch = [image, torch.randn_like(image)], {}
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    program = torch.export.export(model, (images[0],), **any_batch)
    traced = torch.jit.trace(model, image)
    expected = model(images[1])
    for run in (compiled, program.module(), traced):
        assert largest_difference(run(images[1]), expected) < 1e-5
    # Eager training must be able to use tensors that tracing cached.
    sum(y.sum() for y in model.train()(image)).backward()


@pytest.mark.parametrize('lift', ['GaussianLift', 'GaussianPyramidLift'])
def test_a_compiled_resnet_trains_as_the_eager_one_and_compiles_once(lift):
    torch._dynamo.reset()
    args = dict(depth=18, scale_space=dict(num_scales=3), lift=dict(type=f'mmscale.{lift}'))
    models = [ScaleResNet(**args, base_channels=4, stem_channels=4) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        model.double()
    compiled = torch.compile(models[0], fullgraph=True, backend='aot_eager')
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in models]
    for step in range(3):
        image, losses = torch.randn(2, 3, 40, 33, dtype=torch.float64), []
        stance = 'fail_on_recompile' if step else 'default'
        with torch.compiler.set_stance(stance):
            for model, optimizer in zip((compiled, models[1]), optimizers, strict=True):
                loss = sum(level.square().mean() for level in split_levels(model(image)[0]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    state = models[1].state_dict()
    for name, value in models[0].state_dict().items():
        assert largest_difference(value, state[name]) < 1e-8 * (1 + state[name].abs().max()), name


def test_is_compiled_ahead_of_time_for_any_batch(tmp_path):
    backbone = ScaleConvNet(
        dict(num_scales=2), dict(type='mmscale.GaussianPyramidLift'), channels=(4,)
    )
    model, images = nn.Sequential(backbone, ScalePooling()).eval(), torch.randn(5, 1, 21, 18)
    batch = torch.export.Dim('batch', min=2, max=64)
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: batch},))
    path = str(tmp_path / 'network.pt2')
    package = torch._inductor.aoti_compile_and_package(program, package_path=path)
    found = torch._inductor.aoti_load_package(package)(images)
    assert largest_difference(found, model(images)) < 1e-5


def test_is_compiled_for_as_many_sizes_as_the_limit_allows():
    backbone = ScaleConvNet(dict(base=2, num_scales=2), channels=(4,), kernel_size=3)
    model = nn.Sequential(backbone, ScalePooling()).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    with torch._dynamo.config.patch(recompile_limit=10):
        for side in range(10, 20):
            image = torch.randn(1, 1, side, 40 - side)
            assert largest_difference(compiled(image), model(image)) < 1e-5
