# Copyright (c) mmscale contributors.
"""ResNet on scale spaces.

All parameters have the names of MMPretrain's ResNet, so that checkpoints of MMPretrain load.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from torch import Tensor, nn

from mmscale.models.layers import ScaleAvgPool2d, ScaleMaxPool2d, ScaleSequential
from mmscale.models.layers.residual_block import BasicBlock, Bottleneck, no_gradient
from mmscale.models.layers.scale_sequential import run
from mmscale.models.necks import ScaleLevels
from mmscale.registry import MODELS, is_kind
from mmscale.scale_space import Levels, ScaleGrid, Signal, check_signal

from .arguments import check_norms, deform_per_stage, norm_of_all_levels, per_stage
from .base import StagedBackbone, is_pretrained
from .pretrained import rename_keys

# depth: (block, its expansion, blocks per stage)
ARCHITECTURES = {
    18: (BasicBlock, 1, (2, 2, 2, 2)),
    34: (BasicBlock, 1, (3, 4, 6, 3)),
    50: (Bottleneck, 4, (3, 4, 6, 3)),
    101: (Bottleneck, 4, (3, 4, 23, 3)),
    152: (Bottleneck, 4, (3, 8, 36, 3)),
}


@MODELS.register_module()
class ScaleResNet(StagedBackbone):
    """ResNet on a scale space, a lift followed by the layers of ResNet with scale convolutions.

    With ``num_scales=1`` it equals the ResNet of the same depth, weight for weight. Checkpoints of
    MMPretrain's ResNet load for any number of scales and any interaction.
    Sources: He et al., Deep Residual Learning, CVPR 2016; Worrall & Welling, Deep Scale-Spaces,
    NeurIPS 2019.

    Args:
        depth (int): 18, 34, 50, 101 or 152.
        scale_space (dict | ScaleGrid): The levels, as ``dict(base, num_scales, zero_scale,
            first_level)``, see :class:`mmscale.scale_space.ScaleGrid`.
        lift (dict): The lift. ``'mmscale.GaussianLift'`` gives the dense form;
            ``'mmscale.BilinearPyramidLift'`` and the default give pyramids, which cost less.
        interaction (int | Sequence[int]): K, the number of levels that a spatial convolution
            sees, per stage if it is a sequence. The stem uses the first. 1x1 convolutions have K=1.
        in_channels (int): Channels of the image.
        stem_channels (int): Output channels of the stem.
        base_channels (int): Middle channels of the first stage.
        expansion (int, optional): Output over middle channels of a block. Defaults to 1 for
            depths 18 and 34 and to 4 for larger depths.
        num_stages (int): 1 to 4.
        strides (Sequence[int]): Stride of each stage.
        dilations (Sequence[int]): Dilation of each stage, in taps.
        contract_dilation (bool): Whether to halve the dilation in the first block of a dilated
            stage, as MMSegmentation's ResNet does.
        deform (dict, optional): The deformable convolution that replaces ``conv2`` of each block
            in some stages, as ``dict(type='mmscale.DeformScaleConv', stages=(False, True, True,
            True))``. Other keys are arguments of the layer.
        kernel (dict, optional): The basis of the kernels larger than 1x1, see :class:`ScaleConv`.
            Only with ``'mmscale.DiscreteBasis'`` do checkpoints of ResNet load.
        out_indices (Sequence[int]): The stages whose outputs are returned.
        style (str): The strided convolution of a bottleneck: ``'pytorch'`` strides the 3x3
            convolution, ``'caffe'`` the first 1x1 convolution.
        deep_stem (bool): Whether three 3x3 convolutions replace the 7x7 convolution (ResNet-V1c).
        avg_down (bool): Whether average pooling replaces the stride of a shortcut (ResNet-V1d).
        aa_layer (dict, optional): The low-pass filter that takes over each stride, as
            ``dict(type='mmscale.ScaleBlurPool2d', kernel_size=5)``. A strided convolution then has
            stride 1; norm, activation and this layer follow it. Max pooling also gets stride 1.
            A shortcut filters before its 1x1 convolution. Names of parameters do not change.
            Source: Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019.
        aa_stem (bool): Whether ``aa_layer`` takes over the stride of the stem's convolution, too.
            The convolution, its norm and its activation then cost four times as much.
        scale_pooling (dict, optional): ``mode`` and ``scale_dropout`` of a :class:`ScalePooling`
            that pools each output over its levels, to a map of the ordinary network's size.
            ``dict(type='mmscale.ScaleLevels')`` returns the levels of a pyramid as maps of
            further strides. Defaults to None, which returns scale spaces.
        frozen_stages (int): Last stage that neither trains nor updates statistics; 0 is the stem,
            -1 freezes nothing.
        norm_cfg (dict): The norms: ``'mmscale.ScaleBN'``, for which ``'BN'`` is another name, or
            ``'SyncBN'``. Equivariance is not exact with ``'GN'``, whose statistics depend on the
            number of levels.
        act_cfg (dict): The activation.
        norm_eval (bool): Whether batch norms stay in eval mode while training.
        with_cp (bool): Whether blocks are computed again in the backward pass to save memory.
        zero_init_residual (bool): Whether the last norm of each block starts at 0.
        drop_path_rate (float): Stochastic depth of the last block, growing linearly from 0. One
            draw per sample holds for all of its levels.
        init_cfg (dict | list[dict], optional): Initialisation, or ``dict(type='Pretrained',
            checkpoint=...)``.
        pretrained (str, optional): A checkpoint, as shorthand for such an ``init_cfg``.
        partial_pretrained (bool): Whether a checkpoint may leave weights random. False allows
            only offset branches to be missing.

    Shape:
        - Input: ``(N, in_channels, H, W)``.
        - Output: a tuple, one entry for each of ``out_indices``: dense ``(N, C, S, H', W')`` or
          a pyramid, itself a tuple of S tensors ``(N, C, H'_k, W'_k)``; with ``scale_pooling``
          ``(N, C, H', W')``.

    Raises:
        ValueError: If an argument is out of range, or the image is too small for the coarsest
            level; in ``init_weights``, if a checkpoint lacks weights or has them in other shapes.

    Example:
        >>> import torch
        >>> from mmscale.models import ScaleResNet
        >>> model = ScaleResNet(depth=18, scale_space=dict(base=2, num_scales=3))
        >>> [tuple(level.shape) for level in model(torch.rand(1, 3, 64, 64))[0]]
        [(1, 512, 2, 2), (1, 512, 1, 1), (1, 512, 1, 1)]
    """

    stem_stride = 4

    def __init__(
        self,
        depth: int,
        scale_space: dict | ScaleGrid,
        lift: dict = dict(type='mmscale.GaussianPyramidLift'),
        interaction: int | Sequence[int] = 1,
        in_channels: int = 3,
        stem_channels: int = 64,
        base_channels: int = 64,
        expansion: int | None = None,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        contract_dilation: bool = False,
        deform: dict | None = None,
        out_indices: Sequence[int] = (3,),
        style: str = 'pytorch',
        deep_stem: bool = False,
        avg_down: bool = False,
        aa_layer: dict | None = None,
        aa_stem: bool = False,
        scale_pooling: dict | None = None,
        frozen_stages: int = -1,
        norm_cfg: dict = dict(type='mmscale.ScaleBN', requires_grad=True),
        act_cfg: dict = dict(type='ReLU', inplace=True),
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        drop_path_rate: float = 0.0,
        init_cfg: dict | Sequence[dict] | None = (
            # MMEngine compares the names of a class and of its direct bases.
            dict(type='Kaiming', layer=['ScaleConv', 'DeformScaleConv']),
            dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
        ),
        pretrained: str | None = None,
        partial_pretrained: bool = False,
        kernel: dict | None = None,
    ):
        if pretrained is not None:
            if is_pretrained(init_cfg):
                raise ValueError(
                    f'pretrained={pretrained!r} and init_cfg={init_cfg!r} each name a checkpoint: '
                    'give one of them'
                )
            init_cfg = dict(type='Pretrained', checkpoint=pretrained)
        init_cfg = list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg
        super().__init__(depth, ARCHITECTURES, num_stages, out_indices, frozen_stages, norm_eval,
                         zero_init_residual, init_cfg, partial_pretrained)  # fmt: skip
        if style not in ('pytorch', 'caffe'):
            raise ValueError(f"style must be 'pytorch' or 'caffe', got {style!r}")
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate must be from 0 to below 1, got {drop_path_rate}')
        if aa_stem and aa_layer is None:
            raise ValueError('aa_stem=True needs an aa_layer, got None')
        interactions = per_stage('interaction', interaction, num_stages)
        strides = per_stage('strides', strides, num_stages)
        dilations = per_stage('dilations', dilations, num_stages)
        deform = deform_per_stage(deform, num_stages, kernel)
        self.norm_cfg, self.act_cfg = norm_of_all_levels(norm_cfg), act_cfg
        self.grid = ScaleGrid.build(scale_space)
        self.in_channels, self.kernel, self.deep_stem = in_channels, kernel, deep_stem
        self.aa_layer, self.aa_stem = aa_layer, aa_stem

        self.lift: nn.Module = MODELS.build(dict(lift, scale_space=self.grid))
        self._make_stem(in_channels, stem_channels, self._conv_cfg(interactions[0]))

        block, usual, stage_blocks = ARCHITECTURES[depth]
        expansion = usual if expansion is None else expansion
        last = sum(stage_blocks) - 1
        drop_path_rates = [drop_path_rate * i / last for i in range(last + 1)]
        channels = stem_channels
        self.stage_blocks = stage_blocks  # MMPretrain reads it in get_layer_depth
        for i, num_blocks in enumerate(stage_blocks[:num_stages]):
            out_channels = base_channels * 2**i * expansion
            conv_cfg = self._conv_cfg(interactions[i])
            blocks = []
            for j in range(num_blocks):
                stride = strides[i] if j == 0 else 1
                shortcut = None
                if stride != 1 or channels != out_channels:
                    shortcut = self._make_shortcut(channels, out_channels, stride, avg_down)
                contracted = contract_dilation and j == 0 and dilations[i] > 1
                dilation = dilations[i] // 2 if contracted else dilations[i]
                aa = self._make_aa(stride)
                blocks.append(
                    block(channels, out_channels, expansion, stride, dilation, style, conv_cfg,
                          self.norm_cfg, act_cfg, shortcut, with_cp, drop_path_rates.pop(0),
                          deform[i], aa)
                )  # fmt: skip
                channels = out_channels
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self.feat_dim = channels
        self.scale_pooling: nn.Module | None = None
        if scale_pooling is not None:
            self.scale_pooling = self._make_scale_pooling(scale_pooling, strides)
        check_norms(self)
        self._freeze_stages()

    def _conv_cfg(self, interaction: int) -> dict:
        cfg = dict(type='mmscale.ScaleConv', scale_space=self.grid, interaction=interaction)
        return cfg if self.kernel is None else dict(cfg, kernel=self.kernel)

    def _make_scale_pooling(self, scale_pooling: dict, strides: Sequence[int]) -> nn.Module:
        if not isinstance(scale_pooling, dict):
            raise ValueError(
                f'scale_pooling must be a dict such as dict(mode="max"), got {scale_pooling!r}'
            )
        if is_kind(scale_pooling.get('type'), ScaleLevels, MODELS):
            strides = [self.stem_stride * math.prod(strides[: i + 1]) for i in self.out_indices]
            return MODELS.build(dict(scale_pooling, strides=strides, scale_space=self.grid))
        unknown = set(scale_pooling) - {'mode', 'scale_dropout'}
        if unknown:
            raise ValueError(
                f'scale_pooling takes mode and scale_dropout, or type=mmscale.ScaleLevels, got '
                f'{sorted(unknown)[0]}: the maps are always those of the ordinary network'
            )
        pooling = dict(type='mmscale.ScalePooling', align='image', scale_space=self.grid)
        return MODELS.build(pooling | scale_pooling)

    def _make_aa(self, stride: int) -> nn.Module | None:
        """Return the layer that takes over a stride, or None if the stride is 1."""
        if self.aa_layer is None or stride == 1:
            return None
        return MODELS.build(dict(self.aa_layer, stride=stride, scale_space=self.grid))

    def _make_stem(self, in_channels: int, stem_channels: int, conv_cfg: dict) -> None:
        stride = 1 if self.aa_stem else 2
        aa = self._make_aa(2) if self.aa_stem else None
        if self.deep_stem:
            self.stem, half = nn.Sequential(), stem_channels // 2
            for before, after in pairwise((in_channels, half, half, stem_channels)):
                conv = build_conv_layer(
                    conv_cfg, before, after, 3, stride=stride, padding=1, bias=False
                )
                # Checkpoints have the names of MMCV's ConvModule.
                layers = OrderedDict([('conv', conv), build_norm_layer(self.norm_cfg, after)])
                layers['activate'] = build_activation_layer(self.act_cfg)
                layers |= {'aa': aa} if aa else {}
                self.stem.append(ScaleSequential(layers))
                stride, aa = 1, None
        else:
            self.aa_conv = aa
            self.conv1: nn.Module = build_conv_layer(
                conv_cfg, in_channels, stem_channels, 7, stride=stride, padding=3, bias=False
            )
            self.norm1_name, norm1 = build_norm_layer(self.norm_cfg, stem_channels, postfix=1)
            self.add_module(self.norm1_name, norm1)
            self.relu: nn.Module = build_activation_layer(self.act_cfg)
        self.aa_pool = self._make_aa(2)
        stride = 1 if self.aa_pool else 2
        self.maxpool = ScaleMaxPool2d(3, stride=stride, padding=1, scale_space=self.grid)

    def _make_shortcut(self, in_channels, out_channels, stride, avg_down) -> ScaleSequential:
        layers = OrderedDict()
        aa = self._make_aa(stride)
        if avg_down and stride != 1:
            layers['0'] = aa or ScaleAvgPool2d(stride, scale_space=self.grid)
        elif aa:
            layers['aa'] = aa  # a name keeps the numbers that checkpoints give the other layers
        stride = 1 if layers else stride
        first = int('0' in layers)
        layers[f'{first}'] = build_conv_layer(
            self._conv_cfg(1), in_channels, out_channels, 1, stride=stride, bias=False
        )
        layers[f'{first + 1}'] = build_norm_layer(self.norm_cfg, out_channels)[1]
        return ScaleSequential(layers)

    @property
    def norm1(self) -> nn.Module:
        """The norm of the 7x7 stem."""
        return getattr(self, self.norm1_name)

    def _stem_layers(self) -> list[nn.Module]:
        return [self.stem] if self.deep_stem else [self.conv1, self.norm1]

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        rename_keys(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def stem_forward(self, x: Levels) -> Levels:
        """Run the stem, from a scale space to the input of the first stage."""
        if self.deep_stem:
            x = self.stem(x)
        else:
            x = self.relu(run(self.norm1, self.conv1(x)))
            x = self.aa_conv(x) if self.aa_conv else x
        x = self.maxpool(x)
        return self.aa_pool(x) if self.aa_pool else x

    def body(self, x: Signal) -> tuple[Signal, ...]:
        """Run the network without its lift, from a scale space to a tuple of scale spaces.

        In eval mode and with an integer base the body commutes with scaling up to rounding. Dense
        levels finer than the image are an exception, because they are interpolated.
        """
        check_signal(x, self.grid, self.in_channels)
        x, outputs = self.stem_forward(Levels.of(x)), []
        for i, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if not isinstance(x, Levels):
                raise no_gradient(self)
            if i in self.out_indices:
                outputs.append(x.to_signal())
        return tuple(outputs)

    def forward(self, image: Tensor) -> tuple[Signal, ...]:
        outputs = self.body(self.lift(image))
        return outputs if self.scale_pooling is None else self.scale_pooling(outputs)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the group of a parameter, for layer-wise learning rates, and the group count.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): Prefix of the backbone's parameters, such as ``'backbone.'``.

        Raises:
            NotImplementedError: For depth 18, as in MMPretrain's ResNet.
        """
        from mmpretrain.models import ResNet  # whose optimizer constructor asks

        return ResNet.get_layer_depth(self, param_name, prefix)


@MODELS.register_module()
class ScaleResNetV1c(ScaleResNet):
    """ScaleResNet with a stem of three 3x3 convolutions, MMSegmentation's usual backbone."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{'deep_stem': True, **kwargs})
