# Copyright (c) mmscale contributors.
"""The networks that are compared, and what is done with them: training steps and inference."""

from collections.abc import Callable

import mmpretrain.models  # noqa: F401  (registers ResNet)
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mmscale.models  # noqa: F401  (registers ScaleResNet)
from mmscale.registry import MODELS

LIFTS = {
    'dense': 'mmscale.GaussianLift',
    'pyramid': 'mmscale.GaussianPyramidLift',
    'bilinear pyramid': 'mmscale.BilinearPyramidLift',
}
NUM_CLASSES = 1000
LEARNING_RATE = 1e-3


def resnet(depth: int) -> dict:
    """Config of MMPretrain's ResNet."""
    return dict(type='mmpretrain.ResNet', depth=depth)


def scale_resnet(
    depth: int, form: str, num_scales: int, interaction: int = 1, base: float = 2.0
) -> dict:
    """Config of a ScaleResNet; ``form`` is one of ``LIFTS``."""
    return dict(
        type='mmscale.ScaleResNet',
        depth=depth,
        scale_space=dict(base=base, num_scales=num_scales),
        lift=dict(type=LIFTS[form]),
        interaction=interaction,
    )


def blurred(depth: int, num_scales: int, base: float = 2.0, **low_pass) -> dict:
    """Config of a ScaleResNet on a pyramid with a low-pass before each stride.

    One level is the ordinary network.
    """
    return dict(
        scale_resnet(depth, 'pyramid', num_scales, base=base),
        aa_layer=dict(type='mmscale.ScaleBlurPool2d', **low_pass),
    )


def build(config: dict, device: str = 'cpu', channels_last: bool = False) -> nn.ModuleDict:
    """A backbone with its initial weights, and a linear classifier."""
    torch.manual_seed(0)
    backbone = MODELS.build(config)
    backbone.init_weights()
    model = nn.ModuleDict(dict(backbone=backbone, head=nn.Linear(backbone.feat_dim, NUM_CLASSES)))
    if channels_last:
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return model.to(device)


def random_images(batch: int, side: int, device: str, channels_last: bool = False) -> Tensor:
    images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(device, memory_format=layout)


def pooled(features: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Mean over positions and levels: ``(N, C)``."""
    if isinstance(features, Tensor):
        return features.mean(tuple(range(2, features.ndim)))
    return torch.stack([level.mean((2, 3)) for level in features]).mean(0)


def steps(
    config: dict,
    batch: int,
    side: int,
    device: str = 'cpu',
    channels_last: bool = False,
    amp: bool = False,
    compiled: bool = False,
) -> list[Callable[[], None]]:
    """Inference in eval mode and, second, a whole training step of one and the same network.

    Args:
        config (dict): Of the backbone.
        batch (int): Images.
        side (int): Their side in pixels.
        device (str): Where it runs.
        channels_last (bool): Memory format of images and of 4-dimensional weights.
        amp (bool): Autocast to bfloat16.
        compiled (bool): ``torch.compile`` the network.
    """
    model = build(config, device, channels_last)
    images = random_images(batch, side, device, channels_last)
    labels = torch.arange(batch, device=device) % NUM_CLASSES
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)

    def logits(images: Tensor) -> Tensor:
        return model['head'](pooled(model['backbone'](images)[-1]))

    network = torch.compile(logits) if compiled else logits

    def infer():
        model.eval()
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=amp):
            network(images)

    def train():
        model.train()
        with torch.autocast(device, torch.bfloat16, enabled=amp):
            loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return [infer, train]


def training_steps(**arguments) -> list[Callable[[], None]]:
    """The training step of :func:`steps` alone."""
    return steps(**arguments)[1:]


def flops(config: dict, side: int) -> int:
    """Of one image, forward: what PyTorch counts of convolutions and matrix products."""
    model = build(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model['backbone'](random_images(1, side, 'cpu'))
    return counter.get_total_flops()
