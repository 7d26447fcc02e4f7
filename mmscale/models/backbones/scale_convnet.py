# Copyright (c) mmscale contributors.
"""The three-layer network of the MNIST-Scale literature on scale spaces."""

from collections.abc import Sequence

from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from torch import Tensor, nn

from mmscale.models.layers import ScaleMaxPool2d
from mmscale.models.layers.scale_sequential import run
from mmscale.registry import MODELS
from mmscale.scale_space import Levels, ScaleGrid, Signal, check_signal

from .arguments import (
    check_channels,
    check_norms,
    check_out_indices,
    deform_per_stage,
    norm_of_all_levels,
    per_stage,
)
from .base import Backbone


@MODELS.register_module()
class ScaleConvNet(Backbone):
    """A network of stages of scale convolution, ReLU, 2x2 max pooling and batch norm.

    The last stage does not pool. In a stage of several convolutions each convolution has its own
    ReLU and norm, and pooling follows only the last convolution.

    With ``num_scales=1`` the network is the ordinary CNN of the MNIST-Scale literature. With
    ``ScaleGlobalPooling(output_size=2)`` and a head of one hidden layer of 256 units it has about
    494,000 parameters.
    Source: Sosnovik et al., Scale-Equivariant Steerable Networks, ICLR 2020 (the architecture);
    Worrall & Welling, Deep Scale-Spaces, NeurIPS 2019 (the layers).

    All arguments without a description are those of :class:`ScaleResNet`. Without ``init_cfg``
    PyTorch initialises.

    Args:
        in_channels (int): Channels of the image.
        channels (Sequence[int]): Output channels of the stages.
        num_convs (int | Sequence[int]): Convolutions of every stage, or a number per stage.
        kernel_size (int): Taps of every convolution, odd.
        pool_size (int): Taps of the pooling windows.
        pool_stride (int, optional): Stride of the pooling. Defaults to ``pool_size``.
        aa_layer (dict, optional): The low-pass filter that takes over the stride; max pooling then
            has stride 1. With ``pool_size=1`` and ``pool_stride=2`` it replaces max pooling.
        out_indices (Sequence[int], optional): The stages whose outputs are returned. Defaults to
            the last.

    Shape:
        - Input: ``(N, in_channels, H, W)``.
        - Output: a tuple, one dense scale space or pyramid for each of ``out_indices``.
    """

    def __init__(
        self,
        scale_space: dict | ScaleGrid,
        lift: dict = dict(type='mmscale.GaussianPyramidLift'),
        interaction: int | Sequence[int] = 1,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 63, 95),
        num_convs: int | Sequence[int] = 1,
        kernel_size: int = 7,
        pool_size: int = 2,
        pool_stride: int | None = None,
        aa_layer: dict | None = None,
        deform: dict | None = None,
        out_indices: Sequence[int] | None = None,
        norm_cfg: dict = dict(type='mmscale.ScaleBN'),
        act_cfg: dict = dict(type='ReLU'),
        init_cfg: dict | list[dict] | None = None,
        partial_pretrained: bool = False,
        kernel: dict | None = None,
    ):
        super().__init__(init_cfg, partial_pretrained)
        check_channels(channels)
        num_stages = len(channels)
        interactions = per_stage('interaction', interaction, num_stages)
        self.num_convs = per_stage('num_convs', num_convs, num_stages)
        deform = deform_per_stage(deform, num_stages, kernel)
        self.norm_cfg = norm_of_all_levels(norm_cfg)
        self.grid = ScaleGrid.build(scale_space)
        self.out_indices = check_out_indices(
            (num_stages - 1,) if out_indices is None else out_indices, num_stages
        )
        self.in_channels = in_channels
        self.lift: nn.Module = MODELS.build(dict(lift, scale_space=self.grid))
        self.relu: nn.Module = build_activation_layer(act_cfg)
        pool_stride = pool_size if pool_stride is None else pool_stride
        self.aa: nn.Module | None = None
        if aa_layer is not None and pool_stride != 1:
            self.aa = MODELS.build(dict(aa_layer, stride=pool_stride, scale_space=self.grid))
        pool_stride = 1 if self.aa else pool_stride
        self.pool = ScaleMaxPool2d(pool_size, pool_stride, scale_space=self.grid)
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        stages = zip(channels, self.num_convs, interactions, deform, strict=True)
        for out_channels, count, levels, layer in stages:
            conv_cfg = dict(type='mmscale.ScaleConv', scale_space=self.grid, interaction=levels)
            conv_cfg |= layer or ({} if kernel is None else dict(kernel=kernel))
            window = dict(kernel_size=kernel_size, padding=kernel_size // 2)
            for _ in range(count):
                self.convs.append(build_conv_layer(conv_cfg, in_channels, out_channels, **window))
                self.norms.append(build_norm_layer(self.norm_cfg, out_channels)[1])
                in_channels = out_channels
        self.feat_dim = in_channels
        check_norms(self)

    def body(self, x: Signal) -> tuple[Signal, ...]:
        """Run the network without its lift, see :class:`ScaleResNet`."""
        check_signal(x, self.grid, self.in_channels)
        x, outputs, layers = Levels.of(x), [], zip(self.convs, self.norms, strict=True)
        last_stage = len(self.num_convs) - 1
        for i, count in enumerate(self.num_convs):
            for j in range(1, count + 1):
                conv, norm = next(layers)
                x = self.relu(conv(x))
                if j == count and i < last_stage:
                    x = self.pool(x)
                    x = self.aa(x) if self.aa else x
                x = run(norm, x)
            if i in self.out_indices:
                outputs.append(x.to_signal())
        return tuple(outputs)

    def forward(self, image: Tensor) -> tuple[Signal, ...]:
        return self.body(self.lift(image))
