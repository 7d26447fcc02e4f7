# Copyright (c) mmscale contributors.
"""Small networks with every kind of layer; networks as they are after training."""

from functools import partial

import torch
from mmengine.model import PretrainedInit
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmscale.models import (
    ScaleConvNet,
    ScaleResNet,
    ScaleResNet_CIFAR,
    SO2ConvNet,
    SO2ResNet,
    SO2ResNet_CIFAR,
)
from mmscale.scale_space import ScaleGrid, split_levels
from mmscale.testing import assert_scale_equivariant

# The ways to write the type of an init_cfg that loads a checkpoint.
PRETRAINED = ('Pretrained', 'mmengine.Pretrained', 'mmengine.model.PretrainedInit', PretrainedInit)


def as_if_trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every norm statistics and an affine map of its own; eval mode, float64."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    model.eval()  # MMPretrain's ResNet returns nothing here
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            shape = module.weight.shape
            with torch.no_grad():
                module.running_mean.copy_(torch.randn(shape, generator=generator) * 0.1)
                module.running_var.copy_(torch.rand(shape, generator=generator) + 0.5)
                module.weight.copy_(torch.rand(shape, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
    return model


def loss_of(outputs) -> torch.Tensor:
    return sum(x.square().mean() for x in torch.utils._pytree.tree_leaves(outputs))


def assert_checkpointing_changes_no_gradient(plain, saving, x) -> None:
    """``saving``, with checkpoints, has the gradients of ``plain``, and stores less."""
    saving.load_state_dict(plain.state_dict())
    results, stored = [], []
    for model in (plain.train(), saving.train()):
        count = 0

        def pack(saved):
            nonlocal count
            count += saved.numel()
            return saved

        torch.manual_seed(0)
        images = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            loss = loss_of(model(images))
        loss.backward()
        stored.append(count)
        results.append([loss, images.grad, *(p.grad for p in model.parameters())])
    for expected, found in zip(*results, strict=True):
        assert (found - expected).abs().max() < 1e-12 * max(1, expected.abs().max())
    assert stored[1] < 0.6 * stored[0]


def small_classifier(lift: str, pool: str | None = None, **backbone) -> nn.Module:
    """MMPretrain's classifier in training, the same at each call; its norms stay as they are."""
    torch.manual_seed(0)
    neck, head = dict(type='mmscale.ScaleGlobalPooling'), dict(num_classes=5, in_channels=32)
    if pool is None:
        head |= dict(type='LinearClsHead')
    else:
        neck |= dict(scale='none')
        head |= dict(type='mmscale.ScaleClsHead', pool=pool)
    config = dict(
        type='ImageClassifier',
        backbone=dict(type='mmscale.ScaleResNet_CIFAR', depth=18, stem_channels=4, base_channels=4,
                      scale_space=dict(base=2, num_scales=2), lift=dict(type=f'mmscale.{lift}'),
                      norm_eval=True, **backbone),
        neck=neck,
        head=head,
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return as_if_trained(MODELS.build(config)).train()


def with_offsets(conv: nn.Module, std: float = 0.2) -> nn.Module:
    """Gives the offset branch of a deformable layer weights, which starts at 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in conv.conv_offset.parameters():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return conv


def small_backbones() -> dict[str, nn.Module]:
    """Every backbone, dense and pyramid, with every kind of layer; for images of 3 channels."""
    torch.manual_seed(0)
    slim = dict(base_channels=4, stem_channels=4)
    stages = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    second = dict(type='mmscale.DeformScaleConv', stages=(False, True))
    modulated = dict(second, type='mmscale.ModulatedDeformScaleConv')
    hermite = dict(type='mmscale.HermiteBasis', size=9, effective_size=3)
    discrete = dict(type='mmscale.DiscreteBasis', effective_size=3)
    backbones = {}
    for form in ('GaussianLift', 'GaussianPyramidLift'):
        options = dict(scale_space=dict(base=2, num_scales=3), lift=dict(type=f'mmscale.{form}'))
        convnet = partial(ScaleConvNet, in_channels=3, channels=(4, 6), interaction=2, **options)
        options |= dict(depth=18, interaction=2, **slim, **stages)
        resnet = partial(ScaleResNet, **options)
        kinds = {
            'ScaleConvNet': convnet(),
            'ScaleConvNet Hermite': convnet(kernel=hermite),
            'ScaleConvNet deformable': convnet(deform=modulated),
            'ScaleResNet': resnet(),
            'ScaleResNet deformable': resnet(deform=second),
            'ScaleResNet deep stem, bottlenecks': resnet(
                depth=50, interaction=1, deep_stem=True, avg_down=True
            ),
            'ScaleResNet of one level': resnet(scale_space=dict(num_scales=1), interaction=1),
            'ScaleResNet discrete': resnet(kernel=discrete),
            'ScaleResNet base sqrt 2': resnet(scale_space=dict(base=2**0.5, num_scales=3)),
            'ScaleResNet_CIFAR': ScaleResNet_CIFAR(**options),
        }
        backbones |= {f'{kind} {form}': backbone for kind, backbone in kinds.items()}
    del stages['dilations']
    return backbones | {
        'SO2ConvNet': SO2ConvNet(in_channels=3, channels=(4, 6)),
        'SO2ResNet': SO2ResNet(18, **slim, **stages),
        'SO2ResNet_CIFAR': SO2ResNet_CIFAR(18, **slim, **stages, with_cp=True),
    }


def assert_every_stage_is_equivariant(model, signal, grid):
    """By every power of the base that leaves a level."""
    grid = ScaleGrid.build(grid)
    count = len(signal) if isinstance(signal, tuple) else signal.shape[2]
    known = {}

    def body(x):  # once for all stages; the number of its levels tells a signal from the others
        levels = len(split_levels(x))
        if levels not in known:
            known[levels] = model.body(x)
        return known[levels]

    for shift in range(1, count):
        for stage in range(len(model.out_indices)):
            assert_scale_equivariant(
                lambda x, stage=stage: body(x)[stage], signal, grid.base**shift, grid
            )
