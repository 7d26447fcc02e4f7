# Copyright (c) mmscale contributors.
"""The blocks of ResNet on scale spaces, with the parameters of MMPretrain's."""

import torch
import torch.utils.checkpoint as cp
from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import nn

from mmscale.scale_space import Levels, Signal

from .scale_sequential import run


class ConvNormAct(nn.Module):
    """A convolution, its norm and activation; parameters are named as in MMCV's ``ConvModule``.

    Args:
        conv (nn.Module): The convolution.
        norm (tuple[str, nn.Module]): The norm and its name, from ``build_norm_layer``.
        act_cfg (dict): The activation.
        aa (nn.Module, optional): The low-pass that takes over a stride, behind the activation.
    """

    def __init__(self, conv: nn.Module, norm: tuple, act_cfg: dict, aa: nn.Module | None = None):
        super().__init__()
        self.conv = conv
        self.norm_name, norm = norm
        self.add_module(self.norm_name, norm)
        self.activate, self.aa = build_activation_layer(act_cfg), aa

    def forward(self, x: Levels) -> Levels:
        x = self.activate(run(getattr(self, self.norm_name), self.conv(x)))
        return self.aa(x) if self.aa else x


def no_gradient(layer: nn.Module) -> RuntimeError:
    """The error of a layer under checkpointing that knows tensors alone.

    Such runs the layer without gradients behind layers with gradients, and gives an empty tuple.
    """
    return RuntimeError(
        f'no gradient comes through {type(layer).__name__}: activation_checkpointing of MMEngine '
        'knows no scale spaces; give the backbone with_cp=True in its place'
    )


class ResidualBlock(BaseModule):
    """``relu(branch(x) + shortcut(x))``; the subclasses have the branch.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        expansion (int): Output over middle channels.
        stride (int): Stride of the block, in samples.
        dilation (int): Dilation of the convolution that has the stride, in taps.
        style (str): ``'pytorch'`` or ``'caffe'``: which convolution of a bottleneck is strided.
        conv_cfg (dict): The convolution, with its ``scale_space`` and ``interaction``. 1x1
            convolutions are pointwise (interaction 1).
        norm_cfg (dict): The norm after each convolution.
        act_cfg (dict): The activation.
        downsample (nn.Module, optional): The shortcut, the identity if None.
        with_cp (bool): Compute the block again in the backward pass instead of storing it.
        drop_path_rate (float): Stochastic depth, one draw a sample for all of its levels.
        deform_cfg (dict, optional): Arguments of ``conv2`` in place of those of ``conv_cfg``: a
            deformable convolution.
        aa (nn.Module, optional): The low-pass that takes over the stride: the strided convolution
            has stride 1, and ``aa`` follows its norm and activation.

    Shape:
        - Input: :class:`mmscale.scale_space.Levels`, or a signal in another form.
        - Output: the same form, ``out_channels`` channels, each side ``ceil(size / stride)``.

    Raises:
        RuntimeError: If the block is to run without gradients behind layers with gradients.
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
        self.norm_names = []
        stride = 1 if aa else stride
        middle = out_channels // expansion
        self._make_branch(in_channels, middle, out_channels, stride, dilation, style, conv_cfg,
                          dict(conv_cfg, **deform_cfg or {}), norm_cfg)  # fmt: skip
        self.relu, self.downsample, self.aa = build_activation_layer(act_cfg), downsample, aa
        self.with_cp = with_cp
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def _add(self, i, conv_cfg, norm_cfg, in_channels, channels, size, stride=1, dilation=1):
        """Adds ``conv{i}`` and its norm."""
        conv_cfg = conv_cfg if size > 1 else dict(conv_cfg, interaction=1)
        conv = build_conv_layer(
            conv_cfg, in_channels, channels, size, stride=stride,
            padding=dilation * (size // 2), dilation=dilation, bias=False,
        )  # fmt: skip
        norm_name, norm = build_norm_layer(norm_cfg, channels, postfix=i)
        self.add_module(f'conv{i}', conv)
        self.add_module(norm_name, norm)
        self.norm_names.append(norm_name)

    @property
    def norm1(self) -> nn.Module:
        """The norm behind ``conv1``."""
        return getattr(self, self.norm_names[0])

    @property
    def norm2(self) -> nn.Module:
        """The norm behind ``conv2``."""
        return getattr(self, self.norm_names[1])

    @property
    def last_norm(self) -> nn.Module:
        """The norm before the sum, which ``zero_init_residual`` starts at 0."""
        return getattr(self, self.norm_names[-1])

    def _sum(self, y: Levels, x: Levels) -> Levels:
        """The branch, with stochastic depth, and the shortcut."""
        if self.training and not isinstance(self.drop_path, nn.Identity):
            factors = y.per_sample(self.drop_path(y.rows.new_ones(y.batch_size, 1)))
            y = y.map(lambda pixels: pixels * factors)
        y += x if self.downsample is None else self.downsample(x)
        return y

    def forward(self, x: Signal) -> Signal:
        gradients = torch.is_grad_enabled()
        if not isinstance(x, Levels):
            if isinstance(x, tuple) and not x:
                raise no_gradient(self)
            return self.forward(Levels.of(x)).to_signal()
        if not gradients and x.requires_grad:
            raise no_gradient(self)
        if self.with_cp and gradients:
            # A tensor among the arguments tells whose random numbers are to be repeated: the GPU's.
            args = lambda _, levels: self._inner_forward(levels), x.rows, x  # noqa: E731
            return self.relu(cp.checkpoint(*args, use_reentrant=False))
        return self.relu(self._inner_forward(x))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, the first of them strided."""

    def _make_branch(
        self, in_channels, middle, out_channels, stride, dilation, style, conv_cfg, conv2_cfg, norm
    ) -> None:
        self._add(1, conv_cfg, norm, in_channels, middle, 3, stride, dilation)
        self._add(2, conv2_cfg, norm, middle, out_channels, 3)

    def _inner_forward(self, x: Levels) -> Levels:
        y = self.relu(run(self.norm1, self.conv1(x)))
        y = self.aa(y) if self.aa else y
        return self._sum(run(self.norm2, self.conv2(y)), x)


class Bottleneck(ResidualBlock):
    """A 1x1, a 3x3 and a 1x1 convolution; the second or, in the style of Caffe, the first strided.

    Source: He et al., Deep Residual Learning, CVPR 2016.
    """

    def _make_branch(
        self, in_channels, middle, out_channels, stride, dilation, style, conv_cfg, conv2_cfg, norm
    ) -> None:
        self.caffe = style == 'caffe'
        first, second = (stride, 1) if self.caffe else (1, stride)
        self._add(1, conv_cfg, norm, in_channels, middle, 1, first)
        self._add(2, conv2_cfg, norm, middle, middle, 3, second, dilation)
        self._add(3, conv_cfg, norm, middle, out_channels, 1)

    def _inner_forward(self, x: Levels) -> Levels:
        y = self.relu(run(self.norm1, self.conv1(x)))
        y = self.aa(y) if self.aa and self.caffe else y
        y = self.relu(run(self.norm2, self.conv2(y)))
        y = self.aa(y) if self.aa and not self.caffe else y
        return self._sum(run(self.last_norm, self.conv3(y)), x)
