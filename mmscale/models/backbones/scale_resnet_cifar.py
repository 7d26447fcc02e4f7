# Copyright (c) mmscale contributors.
"""ResNet on scale spaces for small images."""

from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer

from mmscale.models.layers.scale_sequential import run
from mmscale.registry import MODELS
from mmscale.scale_space import Levels

from .scale_resnet import ScaleResNet


@MODELS.register_module()
class ScaleResNet_CIFAR(ScaleResNet):
    """ScaleResNet for small images, with a 3x3 stem of stride 1 and no max pooling.

    It corresponds to MMPretrain's ``ResNet_CIFAR``. Arguments are those of :class:`ScaleResNet`;
    ``deep_stem`` and ``aa_stem`` must stay False.
    """

    stem_stride = 1

    def _make_stem(self, in_channels: int, stem_channels: int, conv_cfg: dict) -> None:
        if self.deep_stem:
            raise ValueError('deep_stem must be False: ScaleResNet_CIFAR has a 3x3 stem')
        if self.aa_stem:
            raise ValueError('aa_stem must be False: the stem of ScaleResNet_CIFAR has no stride')
        self.conv1 = build_conv_layer(
            conv_cfg, in_channels, stem_channels, 3, stride=1, padding=1, bias=False
        )
        self.norm1_name, norm1 = build_norm_layer(self.norm_cfg, stem_channels, postfix=1)
        self.add_module(self.norm1_name, norm1)
        self.relu = build_activation_layer(self.act_cfg)

    def stem_forward(self, x: Levels) -> Levels:
        return self.relu(run(self.norm1, self.conv1(x)))
