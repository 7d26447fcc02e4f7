# Copyright (c) mmscale contributors.
"""Backbones that are equivariant to rotation."""

import pytest
import torch
from mmengine.registry import MODELS
from naive import largest_difference
from networks import PRETRAINED, assert_checkpointing_changes_no_gradient, loss_of
from rotation import (
    as_if_trained_so2,
    quarter_turn,
    quarter_turn_field,
    smooth_image,
    turning_errors,
    with_statistics_of,
)
from torch import nn

from mmscale.models import ScaleConvNet, ScaleResNet_CIFAR, SO2ConvNet, SO2ResNet, SO2ResNet_CIFAR
from mmscale.models.layers.so2 import SO2BatchNorm, SO2NormReLU
from mmscale.models.layers.so2_basis import sampled_basis

SLIM = dict(stem_channels=2, base_channels=2)
SMALL = dict(SLIM, out_indices=(0, 1, 2, 3))
CONVNET = dict(in_channels=3, channels=(3, 4, 5), out_indices=(0, 1, 2))


def image(size=(40, 33), batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, *size, generator=generator).to(dtype)


@pytest.mark.parametrize('max_order', [0, 1, 2])
@pytest.mark.parametrize(
    'network, args, channels, sizes',
    [
        ('SO2ResNet', dict(depth=18, **SMALL), (2, 4, 8, 16), [(10, 9), (5, 5), (3, 3), (2, 2)]),
        ('SO2ResNet', dict(depth=34, out_indices=(3,), **SLIM), (16,), [(2, 2)]),
        ('SO2ResNet', dict(depth=50, out_indices=[0, 3], **SLIM), (8, 64), [(10, 9), (2, 2)]),
        ('SO2ResNet_CIFAR', dict(depth=18, strides=(1, 2, 1, 2), **SMALL), (2, 4, 8, 16),
         [(40, 33), (20, 17), (20, 17), (10, 9)]),
        ('SO2ConvNet', dict(CONVNET, out_indices=(0, 2)), (3, 5), [(20, 17), (10, 9)]),
    ],
)  # fmt: skip
def test_shapes(network, args, channels, sizes, max_order):
    model = MODELS.build(dict(type=f'mmscale.{network}', max_order=max_order, **args)).eval()
    expected = [(2, c * (1 + max_order), *size) for c, size in zip(channels, sizes, strict=True)]
    assert [tuple(y.shape) for y in model(image())] == expected
    assert model.feat_dim == channels[-1] * (1 + max_order)
    fields = [y.shape[1] for y in model.fields(image())]
    assert fields == [c * (1 + 2 * max_order) for c in channels]


@pytest.mark.parametrize(
    'network, args, size',
    [
        (SO2ResNet, dict(depth=18, **SMALL), (34, 34)),
        (SO2ResNet, dict(depth=18, **SMALL), (33, 33)),
        (SO2ResNet, dict(depth=50, **SMALL), (32, 35)),
        (SO2ResNet_CIFAR, dict(depth=18, **SMALL), (16, 18)),
        (SO2ConvNet, dict(CONVNET, max_order=1), (20, 20)),
        (SO2ConvNet, CONVNET, (14, 17)),
    ],
)
@pytest.mark.parametrize('is_training', [True, False])
def test_commutes_with_quarter_turns_at_every_stage(network, args, size, is_training):
    model = as_if_trained_so2(network(**args)).train(is_training)
    x = image(size, dtype=torch.float64)
    for field, turned in zip(model.fields(x), model.fields(quarter_turn(x)), strict=True):
        scale = field.abs().max()
        assert (
            largest_difference(quarter_turn_field(field, model.max_order), turned) < 1e-12 * scale
        )
        # The result is a field: a rotation of its pixels alone does not suffice.
        assert largest_difference(quarter_turn(field), turned) > 0.1 * scale
    for map_, turned in zip(model(x), model(quarter_turn(x)), strict=True):
        assert largest_difference(quarter_turn(map_), turned) < 1e-12 * map_.abs().max()
    single = model.float().eval()
    for map_, turned in zip(single(x.float()), single(quarter_turn(x).float()), strict=True):
        assert largest_difference(quarter_turn(map_), turned) < 1e-5 * map_.abs().max()


@pytest.mark.parametrize('is_training', [True, False])
@pytest.mark.parametrize('kind', ['resnet', 'convnet'])
def test_commutes_with_any_angle_the_better_the_finer_the_image(kind, is_training):
    """Training normalises each order: the alias of order 2 would dominate the error."""
    torch.manual_seed(0)
    args = dict(depth=18, in_channels=1, num_stages=2, strides=(1, 2), out_indices=(1,))
    if kind == 'resnet':
        model = SO2ResNet_CIFAR(**SLIM, **args)
        wide = dict(scale_space=dict(num_scales=1), stem_channels=6, base_channels=6)
        ordinary = ScaleResNet_CIFAR(dilations=(1, 1), **wide, **args)
    else:
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


def test_the_stem_is_frozen_as_a_whole():
    """Other arguments work as in ScaleResNet."""
    model = SO2ResNet(18, frozen_stages=1, norm_eval=True, **SLIM).train()
    loss_of(model(image())).backward()
    trained = {name.split('.')[0] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {'layer2', 'layer3', 'layer4'} and not model.layer4[1].norm2.training


@pytest.mark.parametrize('depth', [18, 50])
def test_checkpointing_changes_no_gradient_and_stores_less(depth):
    plain = as_if_trained_so2(SO2ResNet(depth, **SLIM))
    saving = SO2ResNet(depth, with_cp=True, **SLIM).double()
    assert_checkpointing_changes_no_gradient(plain, saving, image(dtype=torch.float64))


def test_starts_with_blocks_that_pass_their_input():
    model = SO2ResNet(18, **SLIM)
    model.init_weights()
    x = torch.randn(2, 10, 6, 6)
    passed = torch.cat((x[:, :2].relu(), x[:, 2:]), 1)
    assert largest_difference(model.layer1[1].eval()(x), passed) < 1e-6
    other = SO2ResNet(18, zero_init_residual=False, **SLIM)
    other.init_weights()
    assert all((block.last_norm.weight == 1).all() for block in other.layer1)


@pytest.mark.parametrize('kind', PRETRAINED)
def test_a_checkpoint_loads_as_it_is(kind, tmp_path):
    source = as_if_trained_so2(SO2ResNet(18, **SLIM)).float()
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'model.pth')
    init_cfg = dict(type=kind, checkpoint=str(tmp_path / 'model.pth'))
    model = SO2ResNet(18, init_cfg=init_cfg, **SLIM).eval()
    model.init_weights()
    assert torch.equal(model(image())[0], source(image())[0])


def test_parameters_of_the_widths_that_stand_for_ordinary_networks():
    """Those of ResNet with a linear head, of 1000 classes or 10; those of the literature's CNN."""

    def linear(classes):
        return lambda width: [nn.Linear(width, classes)]

    def hidden(width):
        return [nn.Linear(4 * width, 256), nn.BatchNorm1d(256), nn.Linear(256, 10)]

    with torch.device('meta'):
        for model, head, expected in (
            (SO2ResNet_CIFAR(18), linear(10), 11_173_962),
            (SO2ResNet(18), linear(1000), 11_689_512),
            (SO2ResNet(34), linear(1000), 21_797_672),
            (SO2ResNet(50, stem_channels=32, base_channels=32), linear(1000), 25_557_032),
            (SO2ConvNet(), hidden, 494_000),
        ):
            parts = [model, *head(model.feat_dim)]
            count = sum(p.numel() for part in parts for p in part.parameters())
            assert abs(count / expected - 1) < 0.05, (type(model), count)
    assert sampled_basis(3, 2, 2).device.type == 'cpu', 'later layers share it'


def test_a_blank_image_has_finite_gradients():
    model = SO2ConvNet(**CONVNET).train()
    x = torch.zeros(2, 3, 16, 16, requires_grad=True)
    sum(y.sum() for y in model(x)).backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('neck', ['mmpretrain.GlobalAveragePooling', 'mmscale.ScaleGlobalPooling'])
def test_feeds_ordinary_necks_and_heads(neck):
    import mmpretrain.models  # noqa: F401  registers them

    classifier = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmscale.SO2ConvNet', in_channels=3, channels=(3, 4, 5)),
            neck=dict(type=neck),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=15),
        )
    ).eval()
    found, turned = classifier(image((29, 28))), classifier(quarter_turn(image((29, 28))))
    assert found.shape == (2, 10)
    assert largest_difference(found, turned) < 1e-5


def test_exports_and_traces():
    model, x = SO2ConvNet(channels=(2, 2)).eval(), torch.randn(2, 1, 11, 12)
    program = torch.export.export(model, (x,))
    assert largest_difference(program.module()(x), model(x)) < 1e-6
    traced = torch.jit.trace(model, x)
    assert largest_difference(traced(2 * x), model(2 * x)) < 1e-5


RESNET = (SO2ResNet, dict(depth=18, **SLIM))


@pytest.mark.parametrize(
    'network, change, message',
    [
        (RESNET, dict(depth=19), r'depth must be one of \(18, 34, 50\), got 19'),
        (RESNET, dict(strides=(1, 2, 3, 1)), r'strides must be 1 or 2, got \(1, 2, 3, 1\)'),
        (RESNET, dict(stem_channels=0), 'stem_channels must be an integer of at least 1, got 0'),
        (RESNET, dict(base_channels=1.5), 'base_channels must be an integer .*, got 1.5'),
        (RESNET, dict(in_channels=None), 'in_channels must be an integer .*, got None'),
        (RESNET, dict(max_order=7), 'out_order must be less than 7 with kernel_size=7 .*, got 7'),
        ((SO2ConvNet, {}), dict(kernel_size=6), 'kernel_size must be an odd integer, got 6'),
        ((SO2ConvNet, {}), dict(channels=(4, 0)), r'channels must .*\(4, 0\)'),
        (
            (SO2NormReLU, dict(channels=2)),
            dict(channels=0),
            'channels must be an integer .*, got 0',
        ),
        ((SO2BatchNorm, dict(channels=2)), dict(max_order=None), 'max_order must be .*, got None'),
        ((SO2ConvNet, {}), dict(out_indices=(3,)), r'out_indices must be .* 0 to 2, got \(3,\)'),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_with_their_value(network, change, message):
    kind, args = network
    with pytest.raises(ValueError, match=message):
        kind(**{**args, **change})
