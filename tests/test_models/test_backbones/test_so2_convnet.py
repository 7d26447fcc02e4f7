# Copyright (c) mmscale contributors.
import copy

import pytest
import torch
from mmengine.registry import MODELS
from naive import largest_difference
from rotation import (
    as_if_trained_so2,
    quarter_turn,
    quarter_turn_field,
    smooth_image,
    turning_errors,
    with_statistics_of,
)
from torch import nn

from mmscale.models import ScaleConvNet
from mmscale.models.backbones.so2_convnet import SO2ConvNet

SMALL = dict(channels=(3, 4, 5), out_indices=(0, 1, 2))


def image(size=(29, 29), channels=1, batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize('max_order', [0, 1, 2, 3])
def test_shapes(max_order):
    model = SO2ConvNet(3, (4, 5, 6), 5, max_order, out_indices=(0, 2))
    found = model(torch.rand(2, 3, 28, 31))
    assert [tuple(x.shape) for x in found] == [
        (2, 4 * (1 + max_order), 14, 16),
        (2, 6 * (1 + max_order), 7, 8),
    ]
    assert model.feat_dim == found[-1].shape[1]
    fields = model.fields(torch.rand(2, 3, 28, 31))
    assert [x.shape[1] for x in fields] == [4 * (1 + 2 * max_order), 6 * (1 + 2 * max_order)]


@pytest.mark.parametrize('size', [(20, 20), (21, 21), (14, 17)])
@pytest.mark.parametrize('is_training', [True, False])
@pytest.mark.parametrize('max_order', [1, 2])
def test_commutes_with_quarter_turns_at_every_stage(size, is_training, max_order):
    model = as_if_trained_so2(SO2ConvNet(max_order=max_order, **SMALL)).train(is_training)
    x = image(size)
    for map_, turned in zip(model(x), model(quarter_turn(x)), strict=True):
        assert largest_difference(quarter_turn(map_), turned) < 1e-12
    for field, turned in zip(model.fields(x), model.fields(quarter_turn(x)), strict=True):
        assert largest_difference(quarter_turn_field(field, max_order), turned) < 1e-12
        # It is a field: turning its pixels alone does not do.
        assert largest_difference(quarter_turn(field), turned) > 0.1


@pytest.mark.parametrize('size', [28, 29])
def test_commutes_with_quarter_turns_in_single_precision(size):
    model = as_if_trained_so2(SO2ConvNet()).float()
    x = image((size, size)).float()
    (found,), (turned,) = model(x), model(quarter_turn(x))
    assert largest_difference(quarter_turn(found), turned) < 1e-5 * found.abs().max()


@pytest.mark.parametrize('is_training', [True, False])
def test_commutes_with_any_angle_the_better_the_finer_the_image(is_training):
    """What is left at 33 pixels are the zeros around the image, which the kernels see."""
    torch.manual_seed(0)
    model = SO2ConvNet(channels=(3, 3, 3))
    ordinary = ScaleConvNet(dict(num_scales=1), channels=(8, 8, 8))
    for network in (model, ordinary):
        with_statistics_of(network, smooth_image(65).float()).train(is_training)
    angles = (15, 30, 45)
    errors = turning_errors(lambda x: model(x.float())[0].double(), angles, sizes=(33, 65, 129))
    others = turning_errors(lambda x: ordinary(x.float())[0][0].double(), angles, sizes=(129,))
    for (coarse, middle, fine), (other,) in zip(errors, others, strict=True):
        assert coarse > middle > fine
        assert fine < 0.05
        assert other > 0.2 and other > 10 * fine


def test_builds_from_a_config_and_feeds_an_ordinary_neck_and_head():
    import mmpretrain.models  # noqa: F401  registers them

    classifier = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmscale.SO2ConvNet', channels=(3, 4, 5)),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=15),
        )
    ).eval()
    x = image().float()
    found, turned = classifier(x), classifier(quarter_turn(x))
    assert found.shape == (2, 10)
    assert largest_difference(found, turned) < 1e-5


def test_has_the_parameters_of_the_literature_with_its_head():
    model = SO2ConvNet()
    head = nn.Sequential(nn.Linear(4 * model.feat_dim, 256), nn.BatchNorm1d(256),
                         nn.Linear(256, 10))  # fmt: skip
    count = sum(p.numel() for m in (model, head) for p in m.parameters())
    assert abs(count - 494_000) < 3_000, count


def test_the_state_does_not_depend_on_the_mode():
    model = SO2ConvNet(**SMALL).train()
    names = list(model.state_dict())
    model(image().float())
    before = copy.deepcopy(model.eval().state_dict())
    model(image().float())
    assert names == list(before)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    other = SO2ConvNet(**SMALL).eval()
    other.load_state_dict(before)
    assert all(torch.equal(a, b) for a, b in zip(model(image().float()), other(image().float())))


def test_every_parameter_learns():
    model = as_if_trained_so2(SO2ConvNet(channels=(3, 4, 5))).train()
    model(image())[0].square().sum().backward()
    # A bias before a norm has little to say, but says it through the nonlinearity.
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_blank_image_has_finite_gradients():
    model = SO2ConvNet(**SMALL).train()
    x = torch.zeros(2, 1, 16, 16, requires_grad=True)
    sum(y.sum() for y in model(x)).backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_mixed_precision():
    model = SO2ConvNet(**SMALL).train()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outputs = model(image().float())
        loss = sum(y.float().square().mean() for y in outputs)
    loss.backward()
    assert all(y.isfinite().all() for y in outputs)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all()
               for p in model.parameters())  # fmt: skip


def test_exports_and_traces():
    model, x = SO2ConvNet(channels=(2, 2)).eval(), image((11, 12)).float()
    expected = model(x)
    program = torch.export.export(model, (x,))
    assert largest_difference(program.module()(x), expected) < 1e-6
    traced = torch.jit.trace(model, x)
    assert largest_difference(traced(2 * x), model(2 * x)) < 1e-5


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(kernel_size=6), 'kernel_size must be an odd integer, got 6'),
        (dict(in_channels=0), 'in_channels must be an integer of at least 1, got 0'),
        (dict(channels=()), r'channels must .*\(\)'),
        (dict(channels=(4, 0)), r'channels must .*\(4, 0\)'),
        (dict(channels=32), 'channels must .*32'),
        (dict(max_order=-1), 'max_order must be an integer of at least 0, got -1'),
        (dict(max_order=7), 'kernel_size=7 and in_order=0, .*, got 7'),
        (dict(out_indices=(3,)), r'out_indices must be .* from 0 to 2, got \(3,\)'),
        (dict(out_indices=()), 'out_indices must be a sequence of stages'),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_with_their_value(change, message):
    with pytest.raises(ValueError, match=message):
        SO2ConvNet(**change)
