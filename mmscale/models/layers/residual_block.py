# Copyright (c) mmscale contributors.
"""The blocks of ResNet on scale spaces."""

import torch
import torch.utils.checkpoint as cp
from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmscale.scale_space import PackedLevels, Signal, on_packed

from .run_layers import activate, run_layers


def block_layout(kind, out_channels, expansion, stride, dilation, style) -> list[tuple]:
    """The convolutions of a block, each as ``(kernel_size, out_channels, stride, dilation)``.

    Args:
        kind (str): ``'basic'`` or ``'bottleneck'``.
        out_channels (int): Output channels of the block.
        expansion (int): Output over middle channels.
        stride (int): Stride of the block.
        dilation (int): Dilation of its strided 3x3 convolution, in taps.
        style (str): ``'pytorch'`` or ``'caffe'``: which convolution of a bottleneck is strided.
    """
    mid_channels = out_channels // expansion
    if kind == 'basic':
        return [(3, mid_channels, stride, dilation), (3, out_channels, 1, 1)]
    first, second = (1, stride) if style == 'pytorch' else (stride, 1)
    return [
        (1, mid_channels, first, 1),
        (3, mid_channels, second, dilation),
        (1, out_channels, 1, 1),
    ]


class ConvNormAct(nn.Module):
    """A convolution, its norm and activation; parameters are named as in MMCV's ``ConvModule``.

    Args:
        conv (nn.Module): The convolution.
        norm (tuple[str, nn.Module]): The norm and its name, from ``build_norm_layer``.
        act_cfg (dict): The activation.
        aa (nn.Module, optional): What takes over a stride, behind the activation.
    """

    knows_levels = True

    def __init__(
        self,
        conv: nn.Module,
        norm: tuple[str, nn.Module],
        act_cfg: dict,
        aa: nn.Module | None = None,
    ):
        super().__init__()
        self.conv = conv
        self.norm_name, norm = norm
        self.add_module(self.norm_name, norm)
        self.activate, self.aa = build_activation_layer(act_cfg), aa

    def _forward(self, x: PackedLevels) -> PackedLevels:
        x = activate(self.activate, run_layers([self.conv, getattr(self, self.norm_name)], x))
        return run_layers([self.aa], x) if self.aa else x

    def forward(self, x: Signal) -> Signal:
        return on_packed(self._forward, x)


class ResidualBlock(BaseModule):
    """``relu(branch(x) + shortcut(x))``, the block of ResNet on scale spaces.

    Args:
        in_channels (int): Channels of the input.
        layout (list[tuple]): The convolutions of the branch, each as ``(kernel_size,
            out_channels, stride, dilation)``. 1x1 convolutions are pointwise (interaction 1).
        conv_cfg (dict): The convolution, with its ``scale_space`` and ``interaction``.
        norm_cfg (dict): The norm after each convolution.
        act_cfg (dict): The activation.
        downsample (nn.Module, optional): The shortcut, the identity if None.
        with_cp (bool): Compute the block again in the backward pass instead of storing it.
        drop_path_rate (float): Stochastic depth, one draw a sample for all of its levels.
        deform_cfg (dict, optional): What ``conv2`` has instead of ``conv_cfg``, and in addition to
            it: a deformable convolution.
        aa (nn.Module, optional): What takes over the stride of the branch: the strided
            convolution has stride 1, and this follows its norm and activation.
    """

    knows_levels = True

    def __init__(
        self,
        in_channels: int,
        layout: list[tuple],
        conv_cfg: dict,
        norm_cfg: dict,
        act_cfg: dict,
        downsample: nn.Module | None = None,
        with_cp: bool = False,
        drop_path_rate: float = 0.0,
        deform_cfg: dict | None = None,
        aa: nn.Module | None = None,
    ):
        super().__init__()
        self.with_cp = with_cp
        self.aa = aa
        self.layer_names, self.strided = [], []
        for i, (size, channels, stride, dilation) in enumerate(layout, start=1):
            layer_cfg = conv_cfg if size > 1 else dict(conv_cfg, interaction=1)
            conv = build_conv_layer(
                dict(layer_cfg, **deform_cfg) if deform_cfg and i == 2 else layer_cfg,
                in_channels,
                channels,
                size,
                stride=1 if aa else stride,
                padding=dilation * (size // 2),
                dilation=dilation,
                bias=False,
            )
            norm_name, norm = build_norm_layer(norm_cfg, channels, postfix=i)
            self.add_module(f'conv{i}', conv)
            self.add_module(norm_name, norm)
            self.layer_names.append((f'conv{i}', norm_name))
            self.strided.append(stride != 1)
            in_channels = channels
        self.out_channels = in_channels
        self.relu = build_activation_layer(act_cfg)
        self.downsample = downsample
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    @property
    def last_norm(self) -> nn.Module:
        """The norm before the sum, which ``zero_init_residual`` starts at 0."""
        return getattr(self, self.layer_names[-1][1])

    def _branch_plus_shortcut(self, x: PackedLevels) -> PackedLevels:
        y = x
        last = len(self.layer_names) - 1
        for i, names in enumerate(self.layer_names):
            y = run_layers([getattr(self, name) for name in names], y)
            y = activate(self.relu, y) if i < last else y
            y = run_layers([self.aa], y) if self.aa and self.strided[i] else y
        if not isinstance(self.drop_path, nn.Identity):
            y = run_layers([self.drop_path], y)
        shortcut = x if self.downsample is None else run_layers([self.downsample], x)
        return y.map(Tensor.add_, shortcut)

    def _forward(self, x: PackedLevels) -> PackedLevels:
        if self.with_cp and torch.is_grad_enabled():
            # A tensor among the arguments tells whose random numbers are to be repeated: the GPU's.
            y = cp.checkpoint(
                lambda _, levels: self._branch_plus_shortcut(levels),
                next(iter(x)),
                x,
                use_reentrant=False,
            )
        else:
            y = self._branch_plus_shortcut(x)
        return activate(self.relu, y)

    def forward(self, x: Signal) -> Signal:
        return on_packed(self._forward, x)
