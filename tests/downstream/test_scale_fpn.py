# Copyright (c) mmscale contributors.
"""One FPN on every level: a detector whose maps move by a place when the image is halved."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmscale.evaluation.features import Features
from mmscale.models import ScaleFPN

from .conftest import ROOT

for module in ('mmdet', 'mmseg'):
    pytest.importorskip(module, reason='needs the environment of `make test-downstream`')

CONFIG = ROOT / 'configs/downstream/retinanet_scaleresnet18-pyramid_scalefpn_1x_coco.py'
STAGES = [8, 16, 32]
FPN = dict(in_channels=STAGES, out_channels=4, add_extra_convs='on_input')
GRID = dict(base=2, num_scales=3)


def build(cfg: dict):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg).double().eval()


def scale_fpn(**options):
    torch.manual_seed(0)
    return build(dict(FPN, type='mmscale.ScaleFPN', **{**dict(scale_space=GRID), **options}))


def detector():
    model = Config.fromfile(CONFIG).model
    model.backbone.update(base_channels=8, stem_channels=8, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
    torch.manual_seed(0)
    return build(model)


def test_scores_and_boxes_of_half_the_size_are_those_of_the_next_finer_map():
    net = detector()
    finest = net.backbone.lift(torch.rand(2, 3, 256, 256, dtype=torch.float64))
    another = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    halved = (*finest[1:], another)
    large, small = (
        net.bbox_head(net.neck(net.backbone.body(levels))) for levels in (tuple(finest), halved)
    )
    for outputs in zip(large, small, strict=True):  # scores, then boxes
        coarser, finer = outputs
        assert len(coarser) == len(finer) == 5
        for k in range(2):
            assert torch.equal(coarser[k + 1], finer[k]) and coarser[k + 1].abs().max() > 0


def test_each_level_alone_is_the_stock_network():
    net = detector()
    stock = build(dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, start_level=1,
                       num_outs=3))  # fmt: skip
    stock.load_state_dict(net.neck.fpn.state_dict())
    stages = net.backbone(torch.rand(1, 3, 200, 136, dtype=torch.float64))
    maps = net.neck(stages)
    sizes = [(-(-200 // stride), -(-136 // stride)) for stride in (8, 16, 32, 64, 128)]
    assert [tuple(y.shape[-2:]) for y in maps] == sizes
    for k in range(3):
        assert torch.equal(maps[k], stock([stage[k] for stage in stages])[0])
    assert all(torch.equal(a, b) for a, b in zip(maps[2:], stock([s[2] for s in stages])))


def test_maps_of_half_octaves_move_by_one_and_go_on_by_octaves():
    grid = dict(base=2**0.5, num_scales=5)
    strides = [8 * 2 ** (n / 2) for n in range(9)]
    neck = scale_fpn(scale_space=grid, num_outs=9, strides=strides)
    sizes = [math.ceil(512 / 2 ** (k / 2) - 1e-9) for k in range(6)]
    stages = [
        [torch.rand(1, c, -(-n // s), -(-n // s), dtype=torch.float64) for n in sizes]
        for c, s in zip(STAGES, (8, 16, 32), strict=True)
    ]
    large, small = (neck([tuple(x[i : i + 5]) for x in stages]) for i in (0, 1))
    assert [y.shape[-1] for y in large] == [math.ceil(512 / stride - 1e-9) for stride in strides]
    for k in range(4):
        assert torch.equal(large[k + 1], small[k])
    for n, level, octave in ((5, 3, 1), (6, 4, 1), (7, 3, 2), (8, 4, 2)):
        assert torch.equal(large[n], neck.fpn([x[level] for x in stages])[octave])


def test_one_level_is_the_stock_neck():
    options = dict(scale_space=dict(GRID, num_scales=1), num_outs=5)
    neck = scale_fpn(**options)
    stock = build(dict(FPN, type='FPN', num_outs=5))
    inputs = [torch.rand(1, c, n, n, dtype=torch.float64) for c, n in zip(STAGES, (32, 16, 8))]
    # A checkpoint of a stock detector has no `fpn.` in its names.
    found = neck.load_state_dict(stock.state_dict())
    assert not found.missing_keys and not found.unexpected_keys
    assert all(torch.equal(a, b) for a, b in zip(neck(tuple((x,) for x in inputs)), stock(inputs)))
    again = scale_fpn(**options)
    again.load_state_dict(neck.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), neck.parameters()))


@pytest.mark.parametrize('num_scales, num_outs', [(4, 5), (3, 3), (3, 6), (5, 5), (2, 5)])
def test_maps_are_halved_from_one_to_the_next_and_whatever_learns_has_a_gradient(
    num_scales, num_outs
):
    neck = scale_fpn(scale_space=dict(base=2, num_scales=num_scales), num_outs=num_outs)
    stages = [
        tuple(torch.rand(1, c, n // 2**k, n // 2**k).double() for k in range(num_scales))
        for c, n in zip(STAGES, (64, 32, 16), strict=True)
    ]
    maps = neck(stages)
    assert [y.shape[-1] for y in maps] == [64 // 2**n for n in range(num_outs)]
    sum(y.square().sum() for y in maps).backward()
    assert all((p.grad is not None) == p.requires_grad for p in neck.parameters())


def test_weights_start_as_those_of_the_fpn():
    neck = scale_fpn(num_outs=5).float()
    neck.init_weights()
    assert all(layer.conv.bias.abs().max() == 0 for layer in neck.fpn.lateral_convs)
    bound = (6 / (8 + 4)) ** 0.5  # Xavier, uniform
    weight = neck.fpn.lateral_convs[0].conv.weight
    assert bound / 2 < weight.abs().max() <= bound


def test_the_maps_of_the_levels_are_measured_as_one_scale_space():
    net = detector()
    net.forward = net.extract_feat
    image = torch.rand(1, 3, 128, 128, dtype=torch.float64)
    found = Features(net, ['neck'], net.backbone.grid)(image)
    assert list(found) == ['neck'] and len(found['neck']) == 3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(scale_space=dict(base=1.5, num_scales=3), num_outs=5), 'base must be 2'),
        (dict(scale_space=dict(base=2**0.25, num_scales=3), num_outs=5), 'fill no octave'),
        # What one forgets who takes another base in a config that is of base 2.
        (dict(scale_space=dict(base=2**0.5, num_scales=5), num_outs=5), r'11\.31.*got None'),
        (dict(scale_space=GRID, num_outs=4, strides=[8, 16, 32]), r'\[8, 16, 32, 64\], got'),
        (dict(scale_space=GRID, num_outs=4, strides=[4, 8, 16, 31]), r'\[4, 8, 16, 32\], got'),
        (dict(scale_space=dict(GRID, first_level=-1), num_outs=5), 'first level must be 0'),
        (dict(scale_space=GRID, num_outs=2), 'num_outs must be at least num_scales=3'),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ScaleFPN(**FPN, **options)


def test_pooled_maps_are_refused():
    with pytest.raises(ValueError, match='without scale_pooling'):
        scale_fpn(num_outs=5)([torch.rand(1, c, 16, 16, dtype=torch.float64) for c in STAGES])
