# Copyright (c) mmscale contributors.
"""The blocks of ResNet on scale spaces, with MMPretrain's names of the parameters."""

import torch
import torch.utils.checkpoint as cp
from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import nn

from mmscale.scale_space import Levels, Signal

from .scale_sequential import run


def no_gradient(layer: nn.Module) -> RuntimeError:
    """Return the error of a layer under MMEngine's activation checkpointing.

    It supports tensors only: it runs the layer without gradients and passes an empty tuple on.
    """
    return RuntimeError(
        f'no gradient comes through {type(layer).__name__}: activation_checkpointing of MMEngine '
        'does not support scale spaces; give the backbone with_cp=True in its place'
    )


class ResidualBlock(BaseModule):
    """A residual block, ``relu(branch(x) + shortcut(x))``; subclasses define the branch.

    ``expansion`` is the ratio of output to middle channels. ``conv_cfg`` has ``scale_space`` and
    ``interaction``; 1x1 convolutions have interaction 1. ``deform_cfg`` updates it for ``conv2``.
    ``aa`` takes over the stride after norm and activation. The rest is as in ScaleResNet.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: int,
        stride: int,
        dilation: int,
        style: str,
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
        self.caffe, self.norm_names = style == 'caffe', []
        channels = in_channels, out_channels // expansion, out_channels
        layers = self._layers(*channels, 1 if aa else stride, dilation)
        for i, (before, after, size, step, distance) in enumerate(layers, start=1):
            cfg = dict(conv_cfg, **deform_cfg) if deform_cfg and i == 2 else conv_cfg
            cfg = cfg if size > 1 else dict(cfg, interaction=1)
            padding = distance * (size // 2)
            conv = build_conv_layer(cfg, before, after, size, stride=step, padding=padding,
                                    dilation=distance, bias=False)  # fmt: skip
            norm_name, norm = build_norm_layer(norm_cfg, after, postfix=i)
            self.add_module(f'conv{i}', conv)
            self.add_module(norm_name, norm)
            self.norm_names.append(norm_name)
        self.relu, self.downsample, self.aa = build_activation_layer(act_cfg), downsample, aa
        self.with_cp = with_cp
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    @property
    def norm1(self) -> nn.Module:
        return getattr(self, self.norm_names[0])

    @property
    def norm2(self) -> nn.Module:
        return getattr(self, self.norm_names[1])

    @property
    def last_norm(self) -> nn.Module:
        """The norm before the sum, which ``zero_init_residual`` starts at 0."""
        return getattr(self, self.norm_names[-1])

    def _sum(self, y: Levels, x: Levels) -> Levels:
        """Add branch and shortcut, with stochastic depth of the branch."""
        if self.training and not isinstance(self.drop_path, nn.Identity):
            factors = y.per_sample(self.drop_path(y.rows.new_ones(y.batch_size, 1)))
            y = y.map(lambda pixels: pixels * factors)
        y += x if self.downsample is None else self.downsample(x)
        return y

    def forward(self, x: Signal) -> Signal:
        if not isinstance(x, Levels):
            if isinstance(x, tuple) and not x:
                raise no_gradient(self)
            return self.forward(Levels.of(x)).to_signal()
        if self.with_cp and torch.is_grad_enabled():
            # PyTorch restores the random state of the devices of the tensors among the arguments.
            args = lambda _, levels: self._inner_forward(levels), x.rows, x  # noqa: E731
            return self.relu(cp.checkpoint(*args, use_reentrant=False))
        return self.relu(self._inner_forward(x))


class BasicBlock(ResidualBlock):
    """A block of two 3x3 convolutions; the first has the stride."""

    def _layers(self, in_channels, middle, out_channels, stride, dilation) -> list[tuple]:
        """List in and out channels, kernel size, stride and dilation of each convolution."""
        return [(in_channels, middle, 3, stride, dilation), (middle, out_channels, 3, 1, 1)]

    def _inner_forward(self, x: Levels) -> Levels:
        y = self.relu(run(self.norm1, self.conv1(x)))
        y = self.aa(y) if self.aa else y
        return self._sum(run(self.norm2, self.conv2(y)), x)


class Bottleneck(ResidualBlock):
    """A block of a 1x1, a 3x3 and a 1x1 convolution.

    The second convolution has the stride; in the style of Caffe the first has it.
    Source: He et al., Deep Residual Learning, CVPR 2016.
    """

    def _layers(self, in_channels, middle, out_channels, stride, dilation) -> list[tuple]:
        first, second = (stride, 1) if self.caffe else (1, stride)
        return [
            (in_channels, middle, 1, first, 1),
            (middle, middle, 3, second, dilation),
            (middle, out_channels, 1, 1, 1),
        ]

    def _inner_forward(self, x: Levels) -> Levels:
        y = self.relu(run(self.norm1, self.conv1(x)))
        y = self.aa(y) if self.aa and self.caffe else y
        y = self.relu(run(self.norm2, self.conv2(y)))
        y = self.aa(y) if self.aa and not self.caffe else y
        return self._sum(run(self.last_norm, self.conv3(y)), x)
