# Copyright (c) mmscale contributors.
"""Networks as they are after training, as far as their layers can tell."""

import torch
from mmengine.model import PretrainedInit
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

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
                module.bias.copy_(torch.randn(shape, generator=generator) * 0.1)
    return model


def with_offsets(conv: nn.Module, std: float = 0.2) -> nn.Module:
    """Gives the offset branch of a deformable layer weights, which starts at 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in conv.conv_offset.parameters():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return conv
