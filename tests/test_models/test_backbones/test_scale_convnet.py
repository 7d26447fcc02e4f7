# Copyright (c) mmscale contributors.
import pytest
import torch
from mmengine.registry import MODELS
from naive import largest_difference
from torch import nn

from mmscale.models import ScaleConvNet
from mmscale.scale_space import split_levels

GRID = dict(base=2, num_scales=3)


def test_one_level_is_the_ordinary_network_of_the_literature():
    """Convolution, ReLU, pooling, norm, twice; then a stage without pooling."""
    model = ScaleConvNet(dict(num_scales=1)).train()
    layers, before = [], 1
    for i, width in enumerate((32, 63, 95)):
        layers += [nn.Conv2d(before, width, 7, padding=3), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i < 2 else []
        layers += [nn.BatchNorm2d(width)]
        before = width
    ordinary = nn.Sequential(*layers)
    for ours, kind in ((model.convs, nn.Conv2d), (model.norms, nn.BatchNorm2d)):
        theirs = nn.ModuleList(layer for layer in layers if isinstance(layer, kind))
        ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.rand(4, 1, 28, 28)
    ((found,),) = model(image)
    assert found.shape == (4, 95, 7, 7)
    assert largest_difference(found, ordinary.train()(image)) < 1e-4


@pytest.mark.parametrize('lift', ['GaussianLift', 'GaussianPyramidLift', 'BilinearPyramidLift'])
def test_shapes(lift):
    model = ScaleConvNet(
        GRID, dict(type=f'mmscale.{lift}'), (3, 2, 1), in_channels=3, channels=(4, 5, 6),
        num_convs=(1, 2, 1), out_indices=(0, 1, 2),
    )  # fmt: skip
    outputs = model(torch.rand(2, 3, 28, 31))
    assert model.feat_dim == 6 and [conv.interaction for conv in model.convs] == [3, 2, 2, 1]
    sizes = [(14, 16), (7, 8), (7, 8)]
    for channels, size, output in zip((4, 5, 6), sizes, outputs, strict=True):
        for k, level in enumerate(split_levels(output)):
            step = 1 if lift == 'GaussianLift' else 2**k
            assert level.shape == (2, channels, *(len(range(0, n, step)) for n in size))


def test_has_the_parameters_of_the_literature_with_its_head():
    import mmpretrain.models  # noqa: F401  registers the head

    backbone = MODELS.build(dict(type='mmscale.ScaleConvNet', scale_space=GRID))
    head = MODELS.build(
        dict(type='mmpretrain.StackedLinearClsHead', num_classes=10, in_channels=95 * 4,
             mid_channels=[256], dropout_rate=0.7, norm_cfg=dict(type='BN1d'))
    )  # fmt: skip
    count = sum(p.numel() for m in (backbone, head) for p in m.parameters())
    assert abs(count - 494_000) < 3_000, count


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(kernel_size=6), 'kernel_size must be odd, got 6'),
        (dict(interaction=(1, 2)), r'interaction must be .* 3 stages, got \(1, 2\)'),
        (dict(out_indices=(3,)), r'out_indices must be .* from 0 to 2, got \(3,\)'),
        (dict(pool_size=0), 'kernel_size must be at least 1, got 0'),
        (dict(channels=()), r'channels must .*\(\)'),
        (dict(channels=32), 'channels must be one integer a stage, at least one, got 32'),
        (dict(norm_cfg=dict(type='BN1d')), "norm_cfg=.*'BN1d'.* use .*mmscale.ScaleBN"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_with_their_value(change, message):
    with pytest.raises(ValueError, match=message):
        ScaleConvNet(**{'scale_space': GRID, **change})
