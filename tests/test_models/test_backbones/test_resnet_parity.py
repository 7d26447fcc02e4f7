# Copyright (c) mmscale contributors.
"""Exactness statement 3: with one level a ScaleResNet is MMPretrain's ResNet, weight for weight."""

import pytest
import torch
from mmengine.runner import save_checkpoint
from mmpretrain.models import ResNet, ResNet_CIFAR
from naive import largest_difference
from networks import PRETRAINED, as_if_trained
from torch import nn

from mmscale.models import ScaleBN, ScaleConv, ScaleConvNet, ScaleResNet, ScaleResNet_CIFAR

SMALL = dict(base_channels=8, stem_channels=8, out_indices=(0, 1, 2, 3))
VARIANTS = [
    dict(depth=18),
    dict(depth=34),
    dict(depth=50),
    dict(depth=50, style='caffe'),
    dict(depth=50, deep_stem=True, avg_down=True),
    dict(depth=18, avg_down=True),
    dict(depth=50, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    dict(depth=18, in_channels=1, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
         out_indices=(1, 2)),
    dict(depth=50, expansion=2),
    dict(depth=18, cifar=True),
    dict(depth=50, cifar=True),
]  # fmt: skip


def pair(variant, pyramid=False):
    """Return MMPretrain's network, and a ScaleResNet with one level and the same state."""
    variant = {**SMALL, **variant}
    ours, theirs = ScaleResNet, ResNet
    if variant.pop('cifar', False):
        ours, theirs = ScaleResNet_CIFAR, ResNet_CIFAR
    lift = dict(type='mmscale.GaussianPyramidLift' if pyramid else 'mmscale.GaussianLift')
    ours = ours(scale_space=dict(num_scales=1), lift=lift, **variant)
    theirs = as_if_trained(theirs(**variant)).float()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    # The order matters, too: optimizers store their state in this order.
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    return theirs, ours.eval()


def single_level(outputs, pyramid):
    return [output[0] if pyramid else output[:, :, 0] for output in outputs]


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('train, dtype, tolerance', [
    (False, torch.float32, 1e-5),
    # Statistics of 16 values amplify the rounding of float32 to the size of a real fault.
    (True, torch.float64, 1e-10),
])  # fmt: skip
def test_outputs_and_gradients(variant, pyramid, train, dtype, tolerance):
    theirs, ours = (network.to(dtype) for network in pair(variant, pyramid))
    theirs.train(train), ours.train(train)
    image = torch.randn(4, variant.get('in_channels', 3), 64, 49, dtype=dtype)
    images = [image.clone().requires_grad_(), image.clone().requires_grad_()]
    expected, found = theirs(images[0]), single_level(ours(images[1]), pyramid)
    for a, b in zip(expected, found, strict=True):
        assert largest_difference(a, b) <= tolerance * max(1, a.abs().max().item())
    for outputs in (expected, found):
        sum(y.mean() for y in outputs).backward()
    gradients = {name: (p.grad, q.grad) for (name, p), q in zip(
        theirs.named_parameters(), ours.parameters(), strict=True)}  # fmt: skip
    gradients['image'] = images[0].grad, images[1].grad
    for name, (a, b) in gradients.items():
        scale = max(1, a.abs().max().item())
        assert largest_difference(a, b.reshape(a.shape)) <= tolerance * scale, name
    buffers = dict(ours.named_buffers())
    for name, buffer in theirs.named_buffers():
        assert largest_difference(buffers[name].double(), buffer.double()) < tolerance, name


@pytest.mark.parametrize(
    'variant, interaction',
    [(dict(depth=18), 1), (dict(depth=50, deep_stem=True, avg_down=True), 2)],
)
def test_an_imagenet_checkpoint_loads_by_init_cfg(variant, interaction, tmp_path):
    """As MMPretrain saves classifiers: the backbone under a prefix, beside a head."""
    theirs, _ = pair(variant)
    classifier = nn.ModuleDict(dict(backbone=theirs, head=nn.Linear(8, 10)))
    path = tmp_path / 'resnet.pth'
    save_checkpoint(dict(meta=dict(epoch=1), state_dict=classifier.state_dict()), str(path))
    model = ScaleResNet(
        scale_space=dict(base=2, num_scales=4),
        interaction=interaction,
        init_cfg=dict(type='Pretrained', checkpoint=str(path), prefix='backbone.'),
        **{**SMALL, **variant},
    )
    model.init_weights()
    expected, loaded = theirs.state_dict(), model.state_dict()
    for name, value in expected.items():
        if value.ndim == 4:
            assert torch.equal(loaded[name][:, :, 0], value), name
            assert (loaded[name][:, :, 1:] == 0).all(), name
        else:
            assert torch.equal(loaded[name], value), name
    # Level 0 of the network is the ordinary network then.
    image = torch.randn(1, 3, 64, 64)
    for a, b in zip(theirs(image), model.eval()(image), strict=True):
        assert largest_difference(b[0], a) <= 1e-5 * max(1, a.abs().max().item())


def test_weights_start_as_those_of_resnet():
    torch.manual_seed(0)
    theirs = ResNet(50, **SMALL)
    theirs.init_weights()
    torch.manual_seed(0)
    ours = ScaleResNet(50, dict(num_scales=1), **SMALL)
    ours.init_weights()
    for (name, a), b in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        # Kaiming's normal of fan-out: the same distribution, not the same draws.
        assert a.std().item() == pytest.approx(b.std().item(), rel=0.25, abs=1e-6), name
        assert a.mean().item() == pytest.approx(b.mean().item(), abs=0.03), name


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('zero', [True, False])
def test_zero_init_residual(depth, zero):
    model = ScaleResNet(depth, dict(num_scales=2), zero_init_residual=zero, **SMALL)
    model.init_weights()
    last = 'bn2.weight' if depth == 18 else 'bn3.weight'
    weights = {n: p for n, p in model.named_parameters() if n.endswith('weight') and p.ndim == 1}
    for name, weight in weights.items():
        is_last = name.endswith(last) and name.startswith('layer')
        assert (weight == (0 if zero and is_last else 1)).all(), name


@pytest.mark.parametrize('kind', PRETRAINED)
def test_pretrained_weights_are_not_zeroed(kind, tmp_path):
    theirs, _ = pair(dict(depth=18))
    torch.save(dict(state_dict=theirs.state_dict()), tmp_path / 'a.pth')
    init_cfg = dict(type=kind, checkpoint=str(tmp_path / 'a.pth'))
    model = ScaleResNet(18, dict(num_scales=2), init_cfg=init_cfg, **SMALL)
    model.init_weights()
    assert model.layer1[0].bn2.weight.abs().min() > 0
    assert all(m.weight.abs().sum() > 0 for m in model.modules() if isinstance(m, ScaleConv))


@pytest.mark.parametrize('depth', [18, 50])
def test_contracted_dilation(depth):
    """MMSegmentation's option: the first block of a dilated stage has half the dilation."""
    variant = {**SMALL, 'depth': depth, 'strides': (1, 2, 1, 1), 'dilations': (1, 1, 2, 4)}
    theirs = as_if_trained(ResNet(**variant)).float()
    for stage, dilation in ((theirs.layer3, 1), (theirs.layer4, 2)):
        conv = stage[0].conv1 if depth == 18 else stage[0].conv2
        conv.dilation = conv.padding = (dilation, dilation)
    ours = ScaleResNet(scale_space=dict(num_scales=1), contract_dilation=True, **variant).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, 64, 49)
    for a, b in zip(theirs(image), single_level(ours(image), True), strict=True):
        assert largest_difference(a, b) <= 1e-5 * max(1, a.abs().max().item())


@pytest.mark.parametrize('bn', ['BN', 'BN2d', 'mmengine.BN', nn.BatchNorm2d], ids=str)
def test_takes_the_norm_cfg_of_ordinary_backbones(bn):
    """The arguments hold, and the norms have the parameters of an ordinary checkpoint."""
    norm_cfg = dict(type=bn, requires_grad=False, eps=1e-3, momentum=0.02)
    options = dict(scale_space=dict(num_scales=2), norm_cfg=norm_cfg)
    for model in (ScaleResNet(18, **options, **SMALL), ScaleConvNet(**options)):
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert len(norms) >= 3 and all(type(norm) is ScaleBN for norm in norms)
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.02)}
        assert not any(norm.weight.requires_grad for norm in norms)


def test_pretrained_is_a_checkpoint(tmp_path):
    """Configs of MMSegmentation give ``pretrained``, which is None without a checkpoint."""
    theirs, expected = pair(dict(depth=18))
    path = str(tmp_path / 'resnet.pth')
    save_checkpoint(dict(state_dict=theirs.state_dict()), path)
    options = dict(depth=18, scale_space=dict(num_scales=1), **SMALL)
    loaded = ScaleResNet(pretrained=path, **options)
    loaded.init_weights()
    assert all(map(torch.equal, loaded.parameters(), expected.parameters()))
    assert ScaleResNet(pretrained=None, **options).init_cfg == ScaleResNet(**options).init_cfg


@pytest.mark.parametrize('names', ['MMSegmentation', 'timm'])
@pytest.mark.parametrize('avg_down', [False, True])
def test_deep_stems_of_others_load(names, avg_down):
    """ResNet-V1c and -V1d of MMSegmentation, resnet50c and resnet50d of timm.

    They list conv, norm, ReLU, conv, ....
    """
    theirs, ours = pair(dict(depth=50, deep_stem=True, avg_down=avg_down))
    renamed = {}
    for name, value in theirs.state_dict().items():
        parts = name.split('.')
        if parts[0] == 'stem':
            position = 3 * int(parts[1]) + (parts[2] == 'bn')
            stem = 'stem' if names == 'MMSegmentation' else 'conv1'
            name = f'{stem}.{position}.{parts[3]}'
            if name.startswith('conv1.7.'):
                name = f'bn1.{parts[3]}'
        if names == 'timm' and avg_down and name.startswith('layer1.0.downsample'):
            # An identity comes first where the shortcut has stride 1.
            position, rest = name.removeprefix('layer1.0.downsample.').split('.')
            name = f'layer1.0.downsample.{int(position) + 1}.{rest}'
        renamed[f'backbone.{name}'] = value
    fresh = ScaleResNet(50, dict(num_scales=1), deep_stem=True, avg_down=avg_down, **SMALL)
    nn.ModuleDict(dict(backbone=fresh)).load_state_dict(renamed, strict=True)
    assert all(map(torch.equal, fresh.state_dict().values(), ours.state_dict().values()))
