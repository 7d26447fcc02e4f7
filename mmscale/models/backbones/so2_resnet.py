# Copyright (c) mmscale contributors.
"""ResNets that are equivariant to rotation."""

from collections.abc import Sequence

import torch.utils.checkpoint as cp
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmscale.checks import check_count
from mmscale.models.layers.so2 import SO2BatchNorm, SO2Conv, SO2NormReLU, blur_pool, so2_magnitudes
from mmscale.registry import MODELS

from .arguments import per_stage
from .base import StagedBackbone

# depth: (kernel size and relative width of each convolution of a block, blocks per stage)
ARCHITECTURES = {
    18: (((3, 1), (3, 1)), (2, 2, 2, 2)),
    34: (((3, 1), (3, 1)), (3, 4, 6, 3)),
    50: (((1, 1), (3, 1), (1, 4)), (3, 4, 6, 3)),
}


class SO2ResidualBlock(BaseModule):
    """A residual block on fields, ``act(branch(x) + shortcut(x))``.

    With a stride of 2 blur pooling precedes both branch and shortcut. All convolutions have
    stride 1; ``layout`` lists their ``(kernel_size, out_channels)``.
    """

    def __init__(
        self, in_channels: int, layout: list[tuple], max_order: int, stride: int, with_cp: bool
    ):
        super().__init__()
        self.stride, self.with_cp, self.depth = stride, with_cp, len(layout)
        channels = in_channels
        for i, (kernel_size, out_channels) in enumerate(layout, start=1):
            conv = SO2Conv(channels, out_channels, kernel_size, max_order, max_order, bias=False)
            self.add_module(f'conv{i}', conv)
            self.add_module(f'norm{i}', SO2BatchNorm(out_channels, max_order))
            self.add_module(f'act{i}', SO2NormReLU(out_channels, max_order))
            channels = out_channels
        self.downsample = None
        if stride != 1 or channels != in_channels:
            self.downsample = nn.Sequential(
                SO2Conv(in_channels, channels, 1, max_order, max_order, bias=False),
                SO2BatchNorm(channels, max_order),
            )

    @property
    def last_norm(self) -> SO2BatchNorm:
        """The norm before the sum, which ``zero_init_residual`` starts at 0."""
        return getattr(self, f'norm{self.depth}')

    def _block(self, x: Tensor) -> Tensor:
        x = blur_pool(x) if self.stride == 2 else x
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f'norm{i}')(getattr(self, f'conv{i}')(y))
            if i < self.depth:
                y = getattr(self, f'act{i}')(y)
        y = y + (x if self.downsample is None else self.downsample(x))
        return getattr(self, f'act{self.depth}')(y)

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return cp.checkpoint(self._block, x, use_reentrant=False)
        return self._block(x)


@MODELS.register_module()
class SO2ResNet(StagedBackbone):
    """ResNet that is equivariant to rotation.

    Its convolutions map between fields of orders 0 to ``max_order``; its nonlinearities and batch
    norms act on norms. Blur pooling replaces strides and max pooling: the stem convolves at full
    resolution and then pools twice, strided blocks pool first and then convolve. The outputs are
    ordinary feature maps, which rotation only moves: order 0 and the lengths of the pairs.
    Equivariance to quarter turns is exact for every size of image. The error at other angles
    decreases with the smoothness of the image on its pixels.
    Sources: He et al., Deep Residual Learning, CVPR 2016; Worrall et al., Harmonic Networks, CVPR
    2017; Weiler & Cesa, General E(2)-Equivariant Steerable CNNs, NeurIPS 2019.

    All arguments without a description are those of :class:`ScaleResNet`. Without ``init_cfg``
    the layers initialise themselves.

    Args:
        depth (int): 18, 34 or 50.
        in_channels (int): Channels of the image.
        stem_channels (int): Output channels of the stem, of each order.
        base_channels (int): Middle channels of the first stage, of each order. With
            ``max_order=2`` the number of parameters is about that of the ordinary ResNet for 39
            at depths 18 and 34, and for 32 at depth 50.
        max_order (int): The largest order of the fields.
        strides (Sequence[int]): Stride of each stage, 1 or 2.

    Shape:
        - Input: ``(N, in_channels, H, W)``.
        - Output: a tuple, for each of ``out_indices`` a map ``(N, C * (1 + max_order), H', W')``,
          C being the channels of the stage; sides are halved, rounded up, by each pooling.

    Raises:
        ValueError: If an argument is out of range.
    """

    stem_size = 7

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int = 39,
        base_channels: int = 39,
        max_order: int = 2,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        out_indices: Sequence[int] = (3,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        init_cfg: dict | list[dict] | None = None,
        partial_pretrained: bool = False,
    ):
        super().__init__(depth, ARCHITECTURES, num_stages, out_indices, frozen_stages, norm_eval,
                         zero_init_residual, init_cfg, partial_pretrained)  # fmt: skip
        strides = per_stage('strides', strides, num_stages)
        if not set(strides) <= {1, 2}:
            raise ValueError(f'strides must be 1 or 2, got {strides}')
        check_count('stem_channels', stem_channels, 1)
        check_count('base_channels', base_channels, 1)
        check_count('max_order', max_order, 0)
        self.max_order = max_order

        self.conv1 = SO2Conv(in_channels, stem_channels, self.stem_size, 0, max_order, bias=False)
        self.norm1 = SO2BatchNorm(stem_channels, max_order)
        self.act1 = SO2NormReLU(stem_channels, max_order)
        convs, stage_blocks = ARCHITECTURES[depth]
        channels = stem_channels
        for i, num_blocks in enumerate(stage_blocks[:num_stages]):
            layout = [(size, base_channels * 2**i * width) for size, width in convs]
            blocks = []
            for j in range(num_blocks):
                stride = strides[i] if j == 0 else 1
                blocks.append(SO2ResidualBlock(channels, layout, max_order, stride, with_cp))
                channels = layout[-1][1]
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self.feat_dim = channels * (1 + max_order)
        self._freeze_stages()

    def _stem_layers(self) -> list[nn.Module]:
        return [self.conv1, self.norm1, self.act1]

    def stem_forward(self, image: Tensor) -> Tensor:
        """Run the stem, from an image to the field that enters the first stage."""
        return blur_pool(self.act1(self.norm1(blur_pool(self.conv1(image)))))

    def fields(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the fields ``(N, C * (1 + 2 * max_order), H', W')`` of ``out_indices``."""
        x, outputs = self.stem_forward(image), []
        for i, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(so2_magnitudes(x, self.max_order) for x in self.fields(image))


@MODELS.register_module()
class SO2ResNet_CIFAR(SO2ResNet):
    """SO2ResNet for small images, with a 3x3 stem and no pooling before the first stage.

    It corresponds to MMPretrain's ``ResNet_CIFAR``. Arguments are those of :class:`SO2ResNet`;
    ``max_order`` is at most 2, since a 3x3 kernel makes no higher order from an image.
    """

    stem_size = 3

    def stem_forward(self, image: Tensor) -> Tensor:
        return self.act1(self.norm1(self.conv1(image)))
