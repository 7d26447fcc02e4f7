# Copyright (c) mmscale contributors.
import copy

import pytest
import torch
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.registry import MODELS
from naive import largest_difference
from networks import as_if_trained
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmscale.models import ScaleConv, ScaleResNet, ScaleResNet_CIFAR, ScaleResNetV1c
from mmscale.scale_space import split_levels

GRID = dict(base=2, num_scales=3)
SMALL = dict(scale_space=GRID, base_channels=4, stem_channels=4)
DENSE, PYRAMID = dict(type='mmscale.GaussianLift'), dict(type='mmscale.GaussianPyramidLift')
BILINEAR = dict(type='mmscale.BilinearPyramidLift')
lifts = pytest.mark.parametrize('lift', [DENSE, PYRAMID], ids=['dense', 'pyramid'])


def image(batch=2, size=(40, 33), dtype=torch.float32):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(dtype)


def loss_of(outputs):
    return sum(level.square().mean() for x in outputs for level in split_levels(x))


def gradients_of(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


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


@pytest.mark.parametrize('lift', [PYRAMID, BILINEAR])
def test_pyramid_outputs(lift):
    outputs = ScaleResNet(18, lift=lift, out_indices=(0, 2), **SMALL).eval()(image())
    assert isinstance(outputs, tuple) and all(isinstance(x, tuple) for x in outputs)
    assert [tuple(level.shape) for level in outputs[0]] == [
        (2, 4, 10, 9), (2, 4, 5, 5), (2, 4, 3, 3)
    ]  # fmt: skip
    assert [level.shape[1:] for level in outputs[1]] == [(16, 3, 3), (16, 2, 2), (16, 1, 1)]


@lifts
def test_out_indices_choose_among_the_same_stages(lift):
    model = ScaleResNet(18, lift=lift, out_indices=(0, 1, 2, 3), **SMALL).eval()
    every = model(image())
    for indices in ((3,), (1, 3), [0, 2]):
        some = ScaleResNet(18, lift=lift, out_indices=indices, **SMALL).eval()
        some.load_state_dict(model.state_dict())
        outputs = some(image())
        assert len(outputs) == len(indices)
        for i, output in zip(indices, outputs):
            assert largest_difference(split_levels(output), split_levels(every[i])) == 0


@lifts
@pytest.mark.parametrize('deep_stem', [False, True])
@pytest.mark.parametrize('frozen', [-1, 0, 2, 4])
def test_frozen_stages(lift, deep_stem, frozen):
    model = ScaleResNet(
        18, lift=lift, deep_stem=deep_stem, frozen_stages=frozen, out_indices=(0, 1, 2, 3), **SMALL
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


@lifts
def test_norm_eval_keeps_statistics_but_trains_parameters(lift):
    model = ScaleResNet(18, lift=lift, norm_eval=True, **SMALL).train()
    assert model.training and model.layer1[0].training
    before = {n: b.clone() for n, b in model.named_buffers()}
    loss_of(model(image())).backward()
    assert all(torch.equal(before[n], b) for n, b in model.named_buffers())
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert norms and all(m.weight.grad is not None and not m.training for m in norms)


@lifts
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_checkpointing_changes_no_gradient(lift, depth, drop_path_rate):
    args = dict(depth=depth, lift=lift, drop_path_rate=drop_path_rate, interaction=2, **SMALL)
    plain, saving = ScaleResNet(**args).double(), ScaleResNet(**args, with_cp=True).double()
    saving.load_state_dict(plain.state_dict())
    results = []
    for model in (plain.train(), saving.train()):
        torch.manual_seed(0)
        x = image(dtype=torch.float64).requires_grad_()
        loss = loss_of(model(x))
        loss.backward()
        results.append((loss, x.grad, gradients_of(model)))
    (loss, x, grads), (other_loss, other_x, other_grads) = results
    assert loss == other_loss and loss > 0
    assert largest_difference(x, other_x) < 1e-14
    assert grads.keys() == other_grads.keys() == dict(plain.named_parameters()).keys()
    for name, grad in grads.items():
        assert largest_difference(grad, other_grads[name]) < 1e-12, name


@lifts
def test_checkpointing_repeats_the_random_numbers_of_the_device(lift, monkeypatch):
    """PyTorch finds the GPUs whose generators it has to restore by the tensors it is given."""
    found, checkpoint = [], torch.utils.checkpoint.checkpoint

    def spy(fn, *args, **kwargs):
        found.append({arg.device for arg in args if isinstance(arg, torch.Tensor)})
        return checkpoint(fn, *args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, 'checkpoint', spy)
    model = ScaleResNet(18, lift=lift, with_cp=True, drop_path_rate=0.5, **SMALL)
    model(image())
    assert found == [{torch.device('cpu')}] * 8


@lifts
def test_checkpointing_stores_less(lift):
    stored = []
    for with_cp in (False, True):
        model, count = ScaleResNet(50, lift=lift, with_cp=with_cp, **SMALL).train(), 0

        def pack(x):
            nonlocal count
            count += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model(image().requires_grad_())
        stored.append(count)
    assert stored[1] < 0.6 * stored[0]


@lifts
def test_stochastic_depth_is_one_draw_a_sample_for_all_its_levels(lift):
    model = ScaleResNet(18, lift=lift, drop_path_rate=0.5, **SMALL)
    rates = [getattr(b.drop_path, 'drop_prob', 0.0) for i in range(1, 5)
             for b in getattr(model, f'layer{i}')]  # fmt: skip
    assert rates == pytest.approx(torch.linspace(0, 0.5, 8).tolist())
    block = model.layer4[1].train()
    block.drop_path.drop_prob = 0.5
    nn.init.constant_(block.bn2.weight, 0), nn.init.constant_(block.bn2.bias, 1)
    # The branch is 1 everywhere: an output tells by itself whether its branch was dropped.
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
@pytest.mark.parametrize('model', [ScaleResNet, ScaleResNet_CIFAR])
def test_interaction_per_stage_pointwise_layers_apart(interaction, model):
    model = model(50, interaction=interaction, **SMALL)
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


def test_an_own_activation_and_norm():
    norm_cfg = dict(type='GN', num_groups=2)
    model = ScaleResNet(18, norm_cfg=norm_cfg, act_cfg=dict(type='GELU'), **SMALL)
    assert isinstance(model.layer2[1].gn2, nn.GroupNorm)
    for lift in (DENSE, PYRAMID):
        model = ScaleResNet(18, lift=lift, norm_cfg=norm_cfg, act_cfg=dict(type='GELU'), **SMALL)
        outputs = model(image())
        assert all(level.isfinite().all() for level in split_levels(outputs[0]))


@lifts
def test_synchronised_norms(lift):
    """As distributed training makes them: in eval on one process they are the norms they were."""
    model = as_if_trained(ScaleResNet(18, lift=lift, **SMALL)).float()
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)).eval()
    assert isinstance(synced.bn1, nn.SyncBatchNorm)
    assert not any(type(m).__name__ == 'ScaleBN' for m in synced.modules())
    assert list(synced.state_dict()) == list(model.state_dict())
    a, b = (split_levels(m(image())[0]) for m in (model, synced))
    assert largest_difference(a, b) < 1e-6
    built = ScaleResNet(18, lift=lift, norm_cfg=dict(type='SyncBN'), **SMALL).eval()
    built.load_state_dict(model.state_dict())
    assert largest_difference(split_levels(built(image())[0]), a) < 1e-6


@lifts
def test_mmengine_synchronises_norms_and_takes_it_back(lift):
    """``sync_bn='torch'`` of a config does the first; whoever loads such a model the second."""
    model = as_if_trained(ScaleResNet(18, lift=lift, **SMALL))
    expected = split_levels(model(image(dtype=torch.float64))[0])
    norms = sum(isinstance(m, _BatchNorm) for m in model.modules())
    model = convert_sync_batchnorm(model)
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in model.modules()) == norms > 0
    model = revert_sync_batchnorm(model).eval()
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    found = split_levels(model(image(dtype=torch.float64))[0])
    assert largest_difference(found, expected) < 1e-12


@lifts
def test_the_state_does_not_depend_on_the_mode(lift):
    model = ScaleResNet(50, lift=lift, frozen_stages=1, **SMALL)
    train = list(model.train().state_dict())
    model(image())
    assert train == list(model.eval().state_dict())


@lifts
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mixed_precision(lift, dtype):
    model = ScaleResNet(50, lift=lift, interaction=2, deep_stem=True, avg_down=True, **SMALL)
    # Maps of two pixels and more: PyTorch 2.11's bfloat16 gradient of a 3x3 convolution of stride 2
    # is undefined on the CPU where the input is one pixel wide.
    with torch.autocast('cpu', dtype=dtype):
        outputs = model.train()(image(size=(96, 80)))
        loss = loss_of(outputs)
    loss.backward()
    assert all(level.isfinite().all() for level in split_levels(outputs[0]))
    assert all(g.dtype == torch.float32 and g.isfinite().all()
               for g in gradients_of(model).values())  # fmt: skip


@pytest.mark.parametrize('model', [ScaleResNet, ScaleResNet_CIFAR])
@pytest.mark.parametrize(
    'change, message',
    [
        (dict(depth=19), r'depth must be one of \(18, 34, 50, 101, 152\), got 19'),
        (dict(num_stages=5), 'num_stages must be from 1 to 4, got 5'),
        (dict(num_stages=0), 'num_stages must be from 1 to 4, got 0'),
        (dict(style='torch'), "style must be 'pytorch' or 'caffe', got 'torch'"),
        (dict(frozen_stages=5), 'frozen_stages must be from -1 to num_stages=4, got 5'),
        (dict(frozen_stages=-2), 'frozen_stages must be from -1 .*, got -2'),
        (
            dict(out_indices=(4,)),
            r'out_indices must be a sequence of stages from 0 to 3, got \(4,\)',
        ),
        (
            dict(out_indices=(-1,)),
            r'out_indices must be a sequence of stages from 0 to 3, got \(-1,\)',
        ),
        (dict(out_indices=()), r'out_indices must be a sequence of stages from 0 to 3, got \(\)'),
        (dict(out_indices=3), 'out_indices must .*3'),
        (dict(strides=(1, 2)), r'strides must be .* for each .*, got \(1, 2\)'),
        (dict(dilations=(1,)), r'dilations must be .* for each .*, got \(1,\)'),
        (dict(interaction=(1, 2)), r'interaction must be .* .*, got \(1, 2\)'),
        (dict(interaction=4), 'interaction must be an integer from 1 to num_scales=3, got 4'),
        (dict(interaction=1.5), 'interaction must .*1.5'),
        (dict(interaction=True), 'interaction must .*True'),
        (dict(strides=(1, 2, 2, True)), 'strides must .*True'),
        (dict(out_indices=(True,)), 'out_indices must .*True'),
        (dict(drop_path_rate=1.5), 'drop_path_rate must .*1.5'),
        (dict(drop_path_rate=-0.1), 'drop_path_rate must .*-0.1'),
        (dict(norm_cfg=dict(type='BN1d')), "norm_cfg=.*'BN1d'.* use .*mmscale.ScaleBN"),
        (
            dict(pretrained='a.pth', init_cfg=dict(type='Pretrained', checkpoint='b.pth')),
            "pretrained='a.pth' and .*'b.pth'.* give one",
        ),
        (dict(norm_cfg=dict(type='BN3d')), 'norm_cfg=.*BN3d.* use .*mmscale.ScaleBN'),
        (dict(scale_space=dict(base=1)), 'base must be .*, got 1'),
        (dict(scale_space=dict(scales=1)), "scale_space has no 'scales'"),
        (dict(lift=dict(type='mmscale.GaussianLift', padding='same')), 'padding must be one of'),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_with_their_value(model, change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        model(**{'depth': 18, **SMALL, **change})


def test_scale_resnet_v1c_takes_the_argument_that_it_sets():
    for options in ({}, dict(deep_stem=True)):
        assert ScaleResNetV1c(18, **options, **SMALL).deep_stem


def test_a_deep_stem_is_refused_for_small_images():
    with pytest.raises(ValueError, match='deep_stem must be False'):
        ScaleResNet_CIFAR(18, deep_stem=True, **SMALL)


@lifts
def test_images_too_small_for_the_grid(lift):
    model = ScaleResNet(18, lift=lift, **SMALL)
    with pytest.raises(ValueError, match='3x9 pixels is smaller .* needs at least 4 pixels'):
        model(image(size=(3, 9)))
    assert model.eval()(image(size=(4, 4)))[0][0].isfinite().all()


def test_layer_depths_for_layer_wise_learning_rates():
    """What MMPretrain's LearningRateDecayOptimWrapperConstructor asks of a ResNet."""
    from mmpretrain.models import ResNet

    theirs = ResNet(50, base_channels=4, stem_channels=4)
    ours = ScaleResNet(50, **SMALL)
    for name, _ in theirs.named_parameters():
        full = f'backbone.{name}'
        assert ours.get_layer_depth(full, 'backbone.') == theirs.get_layer_depth(full, 'backbone.')
