# Copyright (c) mmscale contributors.
"""Backbones with deformable scale convolutions."""

import logging

import pytest
import torch
from mmpretrain.models import ResNet
from naive import largest_difference, randn
from networks import as_if_trained, with_offsets

from mmscale.evaluation import equivariance_error
from mmscale.models import (
    DeformScaleConv,
    ModulatedDeformScaleConv,
    ScaleConvNet,
    ScaleResNet,
    ScaleResNet_CIFAR,
)
from mmscale.scale_space import gaussian_lift
from mmscale.testing import assert_scale_equivariant

pytest.importorskip('mmcv._ext', reason='MMCV without compiled ops')
from mmcv.ops import ModulatedDeformConv2dPack  # noqa: E402

pytestmark = pytest.mark.ops

GRID = dict(base=2, num_scales=3)
SMALL = dict(base_channels=8, stem_channels=8)
PYRAMID = dict(type='mmscale.GaussianPyramidLift')
LAST_THREE = (False, True, True, True)


def deformable(model) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, DeformScaleConv)]


@pytest.mark.parametrize(
    'depth, blocks, layer',
    [(18, (2, 2, 2), DeformScaleConv), (50, (4, 6, 3), ModulatedDeformScaleConv)],
)
def test_conv2_of_the_stages_named(depth, blocks, layer):
    deform = dict(type=f'mmscale.{layer.__name__}', stages=LAST_THREE, deform_groups=2)
    model = ScaleResNet(depth, GRID, deform=deform, **SMALL)
    expected = [
        f'layer{stage}.{block}.conv2'
        for stage, count in enumerate(blocks, start=2)
        for block in range(count)
    ]
    assert deformable(model) == expected
    convs = [model.get_submodule(name) for name in expected]
    assert all(type(conv) is layer and conv.deform_groups == 2 for conv in convs)


@pytest.fixture
def quiet():
    """Initialise without MMEngine's log of each parameter."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


def test_offsets_start_at_zero_after_init_weights(quiet):
    deform = dict(type='mmscale.DeformScaleConv', stages=LAST_THREE)
    kaiming = dict(type='Kaiming', layer='ScaleConv')
    for model in (
        ScaleResNet(18, GRID, deform=deform, **SMALL),
        ScaleConvNet(GRID, channels=(4, 5, 6, 7), deform=deform, init_cfg=kaiming),
    ):
        model.init_weights()
        check_offsets_are_zero(model)


def check_offsets_are_zero(model):
    assert deformable(model)
    for name in deformable(model):
        branch = model.get_submodule(name).conv_offset
        assert not branch.weight.any() and not branch.bias.any()


@pytest.mark.parametrize('layer', ['DeformScaleConv', 'ModulatedDeformScaleConv'])
def test_deformable_layers_are_initialised_as_the_others(layer, quiet):
    """Kaiming's standard deviation, fan out: sqrt(2 / (9 channels))."""
    model = ScaleResNet(18, GRID, deform=dict(type=f'mmscale.{layer}', stages=LAST_THREE))
    model.init_weights()
    for stage, channels in enumerate((64, 128, 256, 512), start=1):
        weight = model.get_submodule(f'layer{stage}.1.conv2').weight
        assert weight.std().item() == pytest.approx((2 / (9 * channels)) ** 0.5, rel=0.03)


def test_a_checkpoint_keeps_its_offsets(tmp_path):
    deform = dict(type='mmscale.DeformScaleConv', stages=LAST_THREE)
    model = ScaleResNet(18, GRID, deform=deform, **SMALL)
    for name in deformable(model):
        with_offsets(model.get_submodule(name))
    torch.save(model.state_dict(), tmp_path / 'trained.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'trained.pth'))
    again = ScaleResNet(18, GRID, deform=deform, init_cfg=init_cfg, **SMALL)
    again.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize(
    'network',
    [lambda **kw: ScaleResNet(18, GRID, **SMALL, **kw),
     lambda **kw: ScaleConvNet(GRID, channels=(4, 5, 6, 7), **kw)],
    ids=['resnet', 'convnet'],
)  # fmt: skip
def test_offsets_that_a_checkpoint_lacks_start_at_zero(network, tmp_path, quiet):
    """With another ``init_cfg``, too, which draws the offset branch first."""
    torch.save(network().state_dict(), tmp_path / 'ordinary.pth')
    kaiming = dict(type='Kaiming', layer=['ScaleConv', 'DeformScaleConv'])
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'ordinary.pth'))
    deform = dict(type='mmscale.DeformScaleConv', stages=LAST_THREE)
    model = network(deform=deform, init_cfg=[kaiming, pretrained])
    model.init_weights()
    check_offsets_are_zero(model)


def test_one_level_is_the_deformable_resnet():
    """MMPretrain's ResNet with MMCV's layer as conv2, as MMDetection builds it."""
    ordinary = ResNet(50, stem_channels=8, base_channels=8)
    for stage in (2, 3, 4):
        for block in getattr(ordinary, f'layer{stage}'):
            old = block.conv2
            block.conv2 = with_offsets(
                ModulatedDeformConv2dPack(
                    old.in_channels, old.out_channels, 3, old.stride, 1, bias=False
                )
            )
    as_if_trained(ordinary)
    model = ScaleResNet(50, dict(num_scales=1), deform=dict(
        type='mmscale.ModulatedDeformScaleConv', stages=LAST_THREE), **SMALL)  # fmt: skip
    model.double().eval().load_state_dict(ordinary.state_dict())
    image = randn(2, 3, 64, 80)
    expected = ordinary(image)[0]
    found = model(image)[0][0]
    assert largest_difference(found, expected) < 1e-10 * expected.abs().max()


@pytest.mark.parametrize('interaction', [1, 2])
@pytest.mark.parametrize('layer', ['DeformScaleConv', 'ModulatedDeformScaleConv'])
def test_pyramids_commute_with_scaling_to_rounding(layer, interaction):
    """Pyramid levels have the same samples before and after the scaling."""
    grid = dict(base=2, num_scales=4)
    deform = dict(type=f'mmscale.{layer}', stages=LAST_THREE)
    model = ScaleResNet(18, grid, PYRAMID, interaction, deform=deform, **SMALL)
    for name in deformable(model):
        with_offsets(model.get_submodule(name))
    as_if_trained(model)
    signal = tuple(randn(1, 3, 96 // 2**k, 64 // 2**k, seed=k) for k in range(4))
    for factor in (2, 4, 8):
        assert_scale_equivariant(lambda x: model.body(x)[0], signal, factor, grid)


def test_dense_networks_move_with_a_smooth_scale_space():
    """Away from the border only the error of bilinear interpolation remains."""
    grid = dict(base=2, num_scales=4, zero_scale=1.0)
    deform = dict(type='mmscale.DeformScaleConv', stages=(True,))
    small = dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,), **SMALL)
    model = ScaleResNet_CIFAR(18, grid, deform=deform, **small)
    for name in deformable(model):
        with_offsets(model.get_submodule(name), 0.02)
    as_if_trained(model)
    # Noise blurred by the zero scale of the grid, and a bit.
    image = gaussian_lift(randn(1, 3, 192, 192), dict(base=4, num_scales=2))[:, :, 1]
    error = equivariance_error(model.body, gaussian_lift(image, grid), (2,), scale_space=grid,
                               border=8)  # fmt: skip
    assert 0 < error.mean[0] < 0.01


@pytest.mark.parametrize(
    'deform, message',
    [
        ('mmscale.DeformScaleConv', r'deform must be None or dict\(type=..., stages='),
        (dict(type='mmscale.DeformScaleConv'), r'deform must be None or dict\(type=..., stages='),
        (dict(type='mmscale.DeformScaleConv', stages=(0, 1, 1, 1)), 'one bool for each of the 4'),
        (dict(type='mmscale.DeformScaleConv', stages=LAST_THREE, deform_groups=3),
         'deform_groups must divide'),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(deform, message):
    with pytest.raises(ValueError, match=message):
        ScaleResNet(18, GRID, deform=deform, **SMALL)
