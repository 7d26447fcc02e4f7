# Copyright (c) mmscale contributors.
import copy

import pytest
import torch
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.registry import MODELS
from naive import largest_difference
from networks import as_if_trained, assert_checkpointing_changes_no_gradient, loss_of
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmscale.models import ScaleBN, ScaleConv, ScaleResNet, ScaleResNet_CIFAR, ScaleResNetV1c
from mmscale.scale_space import split_levels

GRID = dict(base=2, num_scales=3)
SMALL = dict(scale_space=GRID, base_channels=4, stem_channels=4)
DENSE, PYRAMID = dict(type='mmscale.GaussianLift'), dict(type='mmscale.GaussianPyramidLift')
lifts = pytest.mark.parametrize('lift', [DENSE, PYRAMID], ids=['dense', 'pyramid'])


def image(batch=2, size=(40, 33), dtype=torch.float32):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
def test_every_depth_builds_and_runs(depth):
    cfg = dict(
        type='mmscale.ScaleResNet', depth=depth, out_indices=(0, 1, 2, 3), lift=DENSE, **SMALL
    )
    model = MODELS.build(cfg).eval()
    outputs = model(image(1))
    expansion = 1 if depth < 50 else 4
    sizes = [(10, 9), (5, 5), (3, 3), (2, 2)]
    for i, (output, size) in enumerate(zip(outputs, sizes, strict=True)):
        assert output.shape == (1, 4 * 2**i * expansion, 3, *size)


def test_out_indices_choose_among_the_same_stages():
    model = ScaleResNet(18, out_indices=(0, 1, 2, 3), **SMALL).eval()
    every = model(image())
    for indices in ((3,), (1, 3), [0, 2]):
        some = ScaleResNet(18, out_indices=indices, **SMALL).eval()
        some.load_state_dict(model.state_dict())
        outputs = some(image())
        assert len(outputs) == len(indices)
        for i, output in zip(indices, outputs):
            assert largest_difference(split_levels(output), split_levels(every[i])) == 0


@pytest.mark.parametrize(
    'deep_stem, frozen', [(False, -1), (False, 0), (True, 0), (True, 2), (False, 4)]
)
def test_frozen_stages(deep_stem, frozen):
    model = ScaleResNet(
        18, deep_stem=deep_stem, frozen_stages=frozen, out_indices=(0, 1, 2, 3), **SMALL
    )
    assert model.train() is model
    before = copy.deepcopy(model.state_dict())
    outputs = model(image())
    if frozen < 4:
        loss_of(outputs).backward()
    frozen_names = ['conv1.', 'bn1.', 'stem.'] if frozen >= 0 else []
    frozen_names += [f'layer{i}.' for i in range(1, frozen + 1)]
    for name, parameter in model.named_parameters():
        is_frozen = name.startswith(tuple(frozen_names))
        assert parameter.requires_grad != is_frozen
        assert (parameter.grad is None) == is_frozen, name
    for name, buffer in model.named_buffers():
        unchanged = torch.equal(buffer, before[name])
        assert unchanged == name.startswith(tuple(frozen_names)), name


def test_norm_eval_keeps_statistics_but_trains_parameters():
    model = ScaleResNet(18, norm_eval=True, **SMALL).train()
    before = {n: b.clone() for n, b in model.named_buffers()}
    loss_of(model(image())).backward()
    assert all(torch.equal(before[n], b) for n, b in model.named_buffers())
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert norms and all(m.weight.grad is not None and not m.training for m in norms)


@lifts
@pytest.mark.parametrize('depth, drop_path_rate', [(18, 0.5), (50, 0.0)])
def test_checkpointing_changes_no_gradient_and_stores_less(lift, depth, drop_path_rate):
    args = dict(depth=depth, lift=lift, drop_path_rate=drop_path_rate, interaction=2, **SMALL)
    plain, saving = ScaleResNet(**args).double(), ScaleResNet(**args, with_cp=True).double()
    assert_checkpointing_changes_no_gradient(plain, saving, image(dtype=torch.float64))


def test_checkpointing_repeats_the_random_numbers_of_the_device(monkeypatch):
    """PyTorch restores the generators of the GPUs of its tensor arguments."""
    found, checkpoint = [], torch.utils.checkpoint.checkpoint

    def spy(fn, *args, **kwargs):
        found.append({arg.device for arg in args if isinstance(arg, torch.Tensor)})
        return checkpoint(fn, *args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, 'checkpoint', spy)
    model = ScaleResNet(18, with_cp=True, drop_path_rate=0.5, **SMALL)
    model(image())
    assert found == [{torch.device('cpu')}] * 8


@lifts
def test_stochastic_depth_is_one_draw_a_sample_for_all_its_levels(lift):
    model = ScaleResNet(18, lift=lift, drop_path_rate=0.5, **SMALL)
    rates = [getattr(b.drop_path, 'drop_prob', 0.0) for i in range(1, 5)
             for b in getattr(model, f'layer{i}')]  # fmt: skip
    assert rates == pytest.approx(torch.linspace(0, 0.5, 8).tolist())
    block = model.layer4[1].train()
    block.drop_path.drop_prob = 0.5
    nn.init.constant_(block.bn2.weight, 0), nn.init.constant_(block.bn2.bias, 1)
    # The branch is 1 everywhere, so that each output tells whether its branch was dropped.
    x = torch.zeros(64, 32, 3, 4, 4)
    if lift is PYRAMID:
        x = tuple(torch.zeros(64, 32, n, n) for n in (4, 2, 1))
    levels = split_levels(block(x))
    draws = torch.stack([level.flatten(1).amax(1) for level in levels])
    assert torch.equal(draws, torch.stack([level.flatten(1).amin(1) for level in levels]))
    assert (draws == draws[0]).all()
    assert set(draws[0].tolist()) == {0.0, 2.0}
    assert all((level == 1).all() for level in split_levels(block.eval()(x)))


@pytest.mark.parametrize('interaction', [2, (1, 2, 3, 1)])
def test_interaction_per_stage_pointwise_layers_apart(interaction):
    model = ScaleResNet(50, interaction=interaction, **SMALL)
    per_stage = (2,) * 4 if interaction == 2 else interaction
    assert model.conv1.interaction == per_stage[0]
    for i, expected in enumerate(per_stage, start=1):
        for module in getattr(model, f'layer{i}').modules():
            if isinstance(module, ScaleConv):
                assert module.interaction == (1 if module.kernel_size == (1, 1) else expected)


def test_all_layers_share_the_grid_of_the_backbone():
    model = ScaleResNet(50, avg_down=True, deep_stem=True, **SMALL)
    grids = [m.grid for m in model.modules() if hasattr(m, 'grid')]
    assert len(grids) > 55 and all(grid is model.grid for grid in grids)


@lifts
def test_an_own_activation_and_norm(lift):
    norm_cfg = dict(type='GN', num_groups=2)
    model = ScaleResNet(18, lift=lift, norm_cfg=norm_cfg, act_cfg=dict(type='GELU'), **SMALL)
    assert isinstance(model.layer2[1].gn2, nn.GroupNorm)
    assert all(level.isfinite().all() for level in split_levels(model(image())[0]))


@lifts
def test_synchronised_norms_and_back(lift):
    """``sync_bn='torch'`` of a config converts norms; loading such a model reverts them."""
    model = as_if_trained(ScaleResNet(18, lift=lift, **SMALL))
    expected = split_levels(model(image(dtype=torch.float64))[0])
    names, norms = list(model.state_dict()), sum(isinstance(m, ScaleBN) for m in model.modules())
    built = ScaleResNet(18, lift=lift, norm_cfg=dict(type='SyncBN'), **SMALL).double()
    built.load_state_dict(model.state_dict())
    for synced in (convert_sync_batchnorm(model), built):
        assert sum(isinstance(m, nn.SyncBatchNorm) for m in synced.modules()) == norms > 0
        assert list(synced.state_dict()) == names
        for network in (synced.eval(), revert_sync_batchnorm(synced).eval()):
            found = split_levels(network(image(dtype=torch.float64))[0])
            assert largest_difference(found, expected) < 1e-12


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(depth=19), r'depth must be one of \(18, 34, 50, 101, 152\), got 19'),
        (dict(num_stages=5), 'num_stages must be from 1 to 4, got 5'),
        (dict(style='torch'), "style must be 'pytorch' or 'caffe', got 'torch'"),
        (dict(frozen_stages=5), 'frozen_stages must be from -1 to num_stages=4, got 5'),
        (dict(frozen_stages=-2), 'frozen_stages must be from -1 .*, got -2'),
        (dict(out_indices=(4,)), r'out_indices must be .* stages from 0 to 3, got \(4,\)'),
        (dict(out_indices=(-1,)), r'out_indices must .*\(-1,\)'),
        (dict(out_indices=()), r'out_indices must be a sequence of stages from 0 to 3, got \(\)'),
        (dict(out_indices=3), 'out_indices must .*3'),
        (dict(strides=(1, 2)), r'strides must be .* for each .*, got \(1, 2\)'),
        (dict(interaction=(1, 2)), r'interaction must be .* .*, got \(1, 2\)'),
        (dict(interaction=4), 'interaction must be an integer from 1 to num_scales=3, got 4'),
        (dict(interaction=1.5), 'interaction must .*1.5'),
        (dict(interaction=True), 'interaction must .*True'),
        (dict(strides=(1, 2, 2, True)), 'strides must .*True'),
        (dict(out_indices=(True,)), 'out_indices must .*True'),
        (dict(drop_path_rate=1.5), 'drop_path_rate must .*1.5'),
        (dict(norm_cfg=dict(type='BN1d')), "norm_cfg=.*'BN1d'.* use .*mmscale.ScaleBN"),
        (
            dict(pretrained='a.pth', init_cfg=dict(type='Pretrained', checkpoint='b.pth')),
            "pretrained='a.pth' and .*'b.pth'.* give one",
        ),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_with_their_value(change, message):
    with pytest.raises(ValueError, match=message):
        ScaleResNet(**{'depth': 18, **SMALL, **change})


def test_a_deep_stem_is_the_default_of_v1c_and_refused_for_small_images():
    for options in ({}, dict(deep_stem=True)):
        assert ScaleResNetV1c(18, **options, **SMALL).deep_stem
    with pytest.raises(ValueError, match='deep_stem must be False'):
        ScaleResNet_CIFAR(18, deep_stem=True, **SMALL)


@lifts
def test_images_too_small_for_the_grid(lift):
    model = ScaleResNet(18, lift=lift, **SMALL)
    with pytest.raises(ValueError, match='3x9 pixels is smaller .* have at least 4 pixels'):
        model(image(size=(3, 9)))
    assert model.eval()(image(size=(4, 4)))[0][0].isfinite().all()
