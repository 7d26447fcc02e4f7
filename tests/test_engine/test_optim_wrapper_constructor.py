# Copyright (c) mmscale contributors.
"""What MMEngine's options do to our layers is what they do to their counterparts."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import mmscale  # noqa: F401  (registers the constructor)
from mmscale.models import DeformScaleConv, ModulatedDeformScaleConv, ScaleBN, ScaleConv
from mmscale.models.layers.so2 import SO2BatchNorm, SO2Conv, SO2NormReLU

pytest.importorskip('mmcv._ext', reason='MMCV without compiled ops')
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack  # noqa: E402

pytestmark = pytest.mark.ops

GRID = dict(num_scales=1)
OPTIONS = [
    dict(dcn_offset_lr_mult=0.1),
    dict(dcn_offset_lr_mult=0.1, bias_lr_mult=3.0),
    dict(bias_decay_mult=0.5),
    dict(norm_decay_mult=0.0, bias_decay_mult=0.5, flat_decay_mult=0.7, dwconv_decay_mult=0.25),
    dict(custom_keys=dict(conv_offset=dict(lr_mult=0.2)), dcn_offset_lr_mult=0.1),
]


class Bias(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(8))


def so2() -> nn.ModuleDict:
    return nn.ModuleDict(dict(
        first=SO2Conv(1, 4, 5, in_order=0), conv=SO2Conv(4, 4, 5), act=SO2NormReLU(4),
        bn=SO2BatchNorm(4),
    ))  # fmt: skip


def pairs() -> dict[str, tuple[nn.Module, nn.Module]]:
    """Layers of ours and ordinary ones, by name."""
    ours, twins = dict(padding=1, scale_space=GRID), dict(padding=1)
    v1, v2 = DeformScaleConv, ModulatedDeformScaleConv
    layers = dict(
        plain=(ScaleConv(4, 8, 3, **ours), nn.Conv2d(4, 8, 3)),
        depthwise=(ScaleConv(4, 8, 3, groups=4, **ours), nn.Conv2d(4, 8, 3, groups=4)),
        one_channel=(ScaleConv(1, 8, 3, **ours), nn.Conv2d(1, 8, 3)),
        v1=(v1(4, 8, 3, bias=False, **ours), DeformConv2dPack(4, 8, 3, **twins)),
        v2=(v2(4, 8, 3, **ours), ModulatedDeformConv2dPack(4, 8, 3, **twins)),
        depthwise_v2=(v2(4, 4, 3, groups=4, **ours),
                      ModulatedDeformConv2dPack(4, 4, 3, groups=4, **twins)),
        bn=(ScaleBN(8), nn.BatchNorm2d(8)),
    )  # fmt: skip
    ordinary = nn.Conv2d(1, 4, 5), nn.Conv2d(20, 20, 5), Bias(), nn.BatchNorm2d(4)
    return layers | {f'so2_{n}': pair for n, *pair in zip(so2(), so2().values(), ordinary)}


def settings(
    model: nn.Module, options: dict, constructor: str = 'DefaultOptimWrapperConstructor'
) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter."""
    optimizer = dict(type='SGD', lr=1.0, weight_decay=1.0)
    config = dict(optimizer=optimizer, paramwise_cfg=options, constructor=constructor)
    groups = build_optim_wrapper(model, config).optimizer.param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert sum(len(group['params']) for group in groups) == len(names)
    return {names[p]: (g['lr'], g['weight_decay']) for g in groups for p in g['params']}


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_each_parameter_is_treated_as_its_counterpart(options):
    ours, ordinary = (
        nn.ModuleDict({name: pair[i] for name, pair in pairs().items()}) for i in (0, 1)
    )
    state = torch.get_rng_state()
    found = settings(ours, options)
    assert found == settings(ordinary, options)
    assert set(found.values()) != {(1.0, 1.0)}  # the option does something
    assert torch.equal(state, torch.get_rng_state())  # the numbers of a run are not drawn


def test_layer_wise_decay_is_that_of_an_ordinary_resnet():
    found = []
    for backbone in (
        dict(type='ResNet'),
        dict(type='mmscale.ScaleResNet', scale_space=dict(num_scales=2)),
    ):
        config = dict(
            type='ImageClassifier',
            backbone=dict(backbone, depth=50, stem_channels=4, base_channels=4),
            neck=dict(type='mmscale.ScaleGlobalPooling'),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=8),
        )
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(config)
        constructor = 'mmpretrain.LearningRateDecayOptimWrapperConstructor'
        options = dict(layer_decay_rate=0.5, norm_decay_mult=0.0)
        found.append(settings(model, options, constructor))
    ordinary, ours = found
    assert ours == ordinary
    assert ours['head.fc.weight'] == (1.0, 1.0) and ours['backbone.bn1.weight'][1] == 0.0
    assert ours['backbone.conv1.weight'][0] == min(rate for rate, _ in ours.values()) < 0.1
