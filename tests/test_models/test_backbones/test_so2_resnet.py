# Copyright (c) mmscale contributors.
import copy

import pytest
import torch
from mmengine.registry import MODELS
from naive import largest_difference
from networks import PRETRAINED
from rotation import (
    as_if_trained_so2,
    quarter_turn,
    quarter_turn_field,
    smooth_image,
    turning_errors,
    with_statistics_of,
)

from mmscale.models import ScaleResNet_CIFAR
from mmscale.models.backbones.so2_resnet import SO2ResidualBlock, SO2ResNet, SO2ResNet_CIFAR
from mmscale.models.layers.so2 import SO2BatchNorm
from mmscale.models.layers.so2_basis import sampled_basis

SMALL = dict(stem_channels=2, base_channels=2)
EVERY = dict(out_indices=(0, 1, 2, 3))
networks = pytest.mark.parametrize('network', [SO2ResNet, SO2ResNet_CIFAR])


def image(size=(40, 33), batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, *size, generator=generator).to(dtype)


def loss_of(outputs):
    return sum(y.square().mean() for y in outputs)


@pytest.mark.parametrize('depth', [18, 34, 50])
@pytest.mark.parametrize('max_order', [0, 1, 2])
def test_every_depth_builds_and_runs(depth, max_order):
    cfg = dict(type='mmscale.SO2ResNet', depth=depth, max_order=max_order, **SMALL, **EVERY)
    model = MODELS.build(cfg).eval()
    outputs = model(image(batch=1))
    expansion = 1 if depth < 50 else 4
    for i, size in enumerate([(10, 9), (5, 5), (3, 3), (2, 2)]):
        assert outputs[i].shape == (1, 2 * 2**i * expansion * (1 + max_order), *size)
    assert model.feat_dim == outputs[-1].shape[1]


def test_a_stem_for_small_images():
    model = SO2ResNet_CIFAR(18, strides=(1, 2, 1, 2), in_channels=1, **SMALL, **EVERY).eval()
    sizes = [y.shape[-1] for y in model(torch.rand(1, 1, 29, 29))]
    assert sizes == [29, 15, 15, 8]
    assert model.conv1.kernel_size == 3
    assert MODELS.build(dict(type='mmscale.SO2ResNet_CIFAR', depth=18, **SMALL)).feat_dim == 48


@pytest.mark.parametrize(
    'network, depth, size',
    [
        (SO2ResNet, 18, (34, 34)),
        (SO2ResNet, 18, (33, 33)),
        (SO2ResNet, 50, (32, 35)),
        (SO2ResNet_CIFAR, 18, (16, 18)),
        (SO2ResNet_CIFAR, 18, (17, 17)),
    ],
)
@pytest.mark.parametrize('is_training', [True, False])
def test_commutes_with_quarter_turns_at_every_stage(network, depth, size, is_training):
    model = network(depth, stem_channels=2, base_channels=1, **EVERY)
    model = as_if_trained_so2(model).train(is_training)
    x = image(size, dtype=torch.float64)
    for field, turned in zip(model.fields(x), model.fields(quarter_turn(x)), strict=True):
        scale = field.abs().max()
        assert largest_difference(quarter_turn_field(field, 2), turned) < 1e-12 * scale
        # It is a field: turning its pixels alone does not do.
        assert largest_difference(quarter_turn(field), turned) > 0.1 * scale
    for map_, turned in zip(model(x), model(quarter_turn(x)), strict=True):
        assert largest_difference(quarter_turn(map_), turned) < 1e-12 * map_.abs().max()


@networks
@pytest.mark.parametrize('size', [32, 33])
def test_commutes_with_quarter_turns_in_single_precision(network, size):
    model = as_if_trained_so2(network(18, **SMALL, **EVERY)).float()
    x = image((size, size))
    for map_, turned in zip(model(x), model(quarter_turn(x)), strict=True):
        assert largest_difference(quarter_turn(map_), turned) < 1e-5 * map_.abs().max()


@pytest.mark.parametrize('is_training', [True, False])
def test_commutes_with_any_angle_the_better_the_finer_the_image(is_training):
    """In training each order is brought to one size: with its alias, order 2 would spoil all."""
    torch.manual_seed(0)
    args = dict(depth=18, in_channels=1, num_stages=2, strides=(1, 2), out_indices=(1,))
    model = SO2ResNet_CIFAR(stem_channels=2, base_channels=2, **args)
    ordinary = ScaleResNet_CIFAR(
        scale_space=dict(num_scales=1), stem_channels=6, base_channels=6, dilations=(1, 1), **args
    )
    for network in (model, ordinary):
        with_statistics_of(network, smooth_image(65).float()).train(is_training)
    angles = (15, 30, 45)
    errors = turning_errors(lambda x: model(x.float())[0].double(), angles, sizes=(33, 65, 129))
    others = turning_errors(lambda x: ordinary(x.float())[0][0].double(), angles, sizes=(129,))
    for (coarse, middle, fine), (other,) in zip(errors, others, strict=True):
        assert coarse > middle > fine
        assert fine < 0.05
        assert other > 0.2 and other > 10 * fine


def test_strides_do_not_commute_where_sides_are_even():
    """Why blocks pool: an ordinary ResNet with kernels that turn would fail here all the same."""
    block = SO2ResidualBlock(2, [(3, 2), (3, 2)], 2, 2, False).double().eval()
    x = torch.randn(1, 10, 8, 8, dtype=torch.float64)
    turned = quarter_turn_field(x, 2)
    assert largest_difference(block(turned), quarter_turn_field(block(x), 2)) < 1e-12
    conv = block.conv1
    strided, other = conv(x)[..., ::2, ::2], conv(turned)[..., ::2, ::2]
    assert largest_difference(other, quarter_turn_field(strided, 2)) > 0.1


def test_out_indices_choose_among_the_same_stages():
    model = SO2ResNet(18, **SMALL, **EVERY).eval()
    every = model(image())
    for indices in ((3,), (1, 3), [0, 2]):
        some = SO2ResNet(18, out_indices=indices, **SMALL).eval()
        some.load_state_dict(model.state_dict())
        for i, output in zip(indices, some(image()), strict=True):
            assert torch.equal(output, every[i])


@networks
@pytest.mark.parametrize('frozen', [-1, 0, 2, 4])
def test_frozen_stages(network, frozen):
    model = network(18, frozen_stages=frozen, **SMALL, **EVERY)
    assert model.train() is model
    before = copy.deepcopy(model.state_dict())
    outputs = model(image())
    if frozen < 4:
        loss_of(outputs).backward()
    frozen_names = ['conv1.', 'norm1.', 'act1.'] if frozen >= 0 else []
    frozen_names += [f'layer{i}.' for i in range(1, frozen + 1)]
    for name, parameter in model.named_parameters():
        is_frozen = name.startswith(tuple(frozen_names))
        assert parameter.requires_grad != is_frozen
        assert (parameter.grad is None) == is_frozen, name
    for name, buffer in model.state_dict().items():
        if 'running' in name:
            unchanged = torch.equal(buffer, before[name])
            assert unchanged == name.startswith(tuple(frozen_names)), name


def test_norm_eval_keeps_statistics_but_trains_parameters():
    model = SO2ResNet(18, norm_eval=True, **SMALL).train()
    assert model.training and model.layer1[0].training
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    loss_of(model(image())).backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    norms = [m for m in model.modules() if isinstance(m, SO2BatchNorm)]
    assert norms and all(m.weight.grad is not None and not m.training for m in norms)


@pytest.mark.parametrize('depth', [18, 50])
def test_checkpointing_changes_no_gradient_and_stores_less(depth):
    plain = as_if_trained_so2(SO2ResNet(depth, **SMALL))
    saving = SO2ResNet(depth, with_cp=True, **SMALL).double()
    saving.load_state_dict(plain.state_dict())
    results, stored = [], []
    for model in (plain.train(), saving.train()):
        count = 0

        def pack(x):
            nonlocal count
            count += x.numel()
            return x

        x = image(dtype=torch.float64).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss = loss_of(model(x))
        loss.backward()
        stored.append(count)
        results.append([loss, x.grad, *(p.grad for p in model.parameters())])
    for found, expected in zip(*results, strict=True):
        assert largest_difference(found, expected) < 1e-12 * max(1, expected.abs().max())
    assert stored[1] < 0.6 * stored[0]


def test_starts_with_blocks_that_pass_their_input():
    model = SO2ResNet(18, **SMALL)
    model.init_weights()
    assert all((block.last_norm.weight == 0).all() for block in model.layer1)
    x = torch.randn(2, 10, 6, 6)
    passed = torch.cat((x[:, :2].relu(), x[:, 2:]), 1)
    assert largest_difference(model.layer1[1].eval()(x), passed) < 1e-6
    other = SO2ResNet(18, zero_init_residual=False, **SMALL)
    other.init_weights()
    assert all((block.last_norm.weight == 1).all() for block in other.layer1)


@pytest.mark.parametrize('kind', PRETRAINED)
def test_a_checkpoint_loads_as_it_is(kind, tmp_path):
    source = as_if_trained_so2(SO2ResNet(18, **SMALL)).float()
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'model.pth')
    init_cfg = dict(type=kind, checkpoint=str(tmp_path / 'model.pth'))
    model = SO2ResNet(18, init_cfg=init_cfg, **SMALL).eval()
    model.init_weights()
    assert torch.equal(model(image())[0], source(image())[0])


@networks
def test_the_state_does_not_depend_on_the_mode(network):
    model = network(18, frozen_stages=1, **SMALL)
    train = list(model.train().state_dict())
    model(image())
    before = copy.deepcopy(model.eval().state_dict())
    model(image())
    assert train == list(before) and not any('basis' in name for name in train)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_parameters_of_the_widths_that_stand_for_resnet():
    """Against the counts of ResNet with a linear head, 1000 classes or 10."""
    with torch.device('meta'):
        for model, classes, expected in (
            (SO2ResNet_CIFAR(18), 10, 11_173_962),
            (SO2ResNet(18), 1000, 11_689_512),
            (SO2ResNet(34), 1000, 21_797_672),
            (SO2ResNet(50, stem_channels=32, base_channels=32), 1000, 25_557_032),
        ):
            count = sum(p.numel() for p in model.parameters())
            count += (model.feat_dim + 1) * classes
            assert abs(count / expected - 1) < 0.05, (model.depth, classes, count)
    assert sampled_basis(3, 2, 2).device.type == 'cpu', 'later layers share it'


def test_mixed_precision():
    model = SO2ResNet(18, **SMALL).train()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outputs = model(image((64, 48)))
        loss = loss_of(outputs)
    loss.backward()
    assert all(y.isfinite().all() for y in outputs)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all()
               for p in model.parameters())  # fmt: skip


@pytest.mark.parametrize('neck', ['mmpretrain.GlobalAveragePooling', 'mmscale.ScaleGlobalPooling'])
def test_feeds_ordinary_necks(neck):
    import mmpretrain.models  # noqa: F401  registers one

    options = dict(space='max') if neck.startswith('mmscale') else {}
    backbone, neck = SO2ResNet(18, **SMALL).eval(), MODELS.build(dict(type=neck, **options))
    x = image((64, 60))
    (found,), (turned,) = neck(backbone(x)), neck(backbone(quarter_turn(x)))
    assert found.shape == (2, backbone.feat_dim)
    assert largest_difference(found, turned) < 1e-5 * found.abs().max()


@networks
@pytest.mark.parametrize(
    'change, message',
    [
        (dict(depth=19), r'depth must be one of \(18, 34, 50\), got 19'),
        (dict(num_stages=5), 'num_stages must be from 1 to 4, got 5'),
        (dict(num_stages=0), 'num_stages must be from 1 to 4, got 0'),
        (dict(frozen_stages=5), 'frozen_stages must be from -1 to num_stages=4, got 5'),
        (dict(frozen_stages=-2), 'frozen_stages must be from -1 .*, got -2'),
        (dict(out_indices=(4,)), r'out_indices must be .* from 0 to 3, got \(4,\)'),
        (dict(out_indices=()), r'out_indices must be .* from 0 to 3, got \(\)'),
        (dict(strides=(1, 2)), r'strides must be .* for each .*, got \(1, 2\)'),
        (dict(strides=(1, 2, 3, 1)), r'strides must be 1 or 2, got \(1, 2, 3, 1\)'),
        (dict(stem_channels=0), 'stem_channels must be an integer of at least 1, got 0'),
        (dict(base_channels=1.5), 'base_channels must be an integer of at least 1, got 1.5'),
        (dict(in_channels=None), 'in_channels must be an integer of at least 1, got None'),
        (dict(max_order=-1), 'max_order must be an integer of at least 0, got -1'),
        (dict(max_order=7), 'out_order must be less than [37] with kernel_size=[37] .*, got 7'),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_with_their_value(network, change, message):
    with pytest.raises(ValueError, match=message):
        network(**{'depth': 18, **SMALL, **change})
