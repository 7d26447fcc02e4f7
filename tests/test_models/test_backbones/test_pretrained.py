# Copyright (c) mmscale contributors.
"""Checkpoints that leave weights random."""

import pytest
import torch
from naive import largest_difference
from networks import as_if_trained

from mmscale.models import ScaleConvNet, ScaleResNet, ScaleResNetV1c, SO2ConvNet, SO2ResNet

GRID = dict(base=2, num_scales=3)
CNN = dict(channels=(4, 8), kernel_size=3, in_channels=3)
RESNET = dict(depth=18, base_channels=4, stem_channels=4)


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 64, 64, generator=generator, dtype=torch.float64)


def pooled(network=ScaleResNet, **kwargs):
    torch.manual_seed(0)
    args = dict(RESNET, lift=dict(type='mmscale.GaussianPyramidLift'), scale_pooling=dict())
    return as_if_trained(network(scale_space=GRID, **args | kwargs))


def save(path, net, without='', prefix=''):
    state = {prefix + k: v for k, v in net.state_dict().items() if not (without and without in k)}
    torch.save(dict(state_dict=state), path)
    return dict(type='Pretrained', checkpoint=str(path))


def test_a_checkpoint_that_leaves_weights_random_is_an_error(tmp_path):
    init_cfg = save(tmp_path / 'a.pth', pooled(), without='conv1')
    with pytest.raises(ValueError, match='for 9 of .* weights, conv1.weight among them'):
        pooled(init_cfg=init_cfg).init_weights()
    pooled(init_cfg=init_cfg, partial_pretrained=True).init_weights()


@pytest.mark.parametrize(
    'changed, name',
    [(dict(in_channels=1), 'conv1.weight'), (dict(interaction=2), 'conv1.weight'),
     (dict(base_channels=8), 'layer1.0.downsample.0.weight')],
)  # fmt: skip
def test_weights_of_another_shape_are_an_error(changed, name, tmp_path):
    """MMEngine only logs that they are not loaded."""
    init_cfg = save(tmp_path / 'a.pth', pooled())
    with pytest.raises(ValueError, match=f'of other shapes, for .* {name} among them'):
        pooled(init_cfg=init_cfg, **changed).init_weights()
    pooled(init_cfg=init_cfg, partial_pretrained=True, **changed).init_weights()


def test_a_checkpoint_of_a_whole_classifier_needs_its_prefix(tmp_path):
    init_cfg = save(tmp_path / 'a.pth', pooled(), prefix='backbone.')
    with pytest.raises(ValueError, match='prefix='):
        pooled(init_cfg=init_cfg).init_weights()
    net = pooled(init_cfg=dict(init_cfg, prefix='backbone.'))
    net.init_weights()
    assert largest_difference(net(images()), pooled()(images())) == 0


def test_a_deep_stem_is_not_left_random_by_a_checkpoint_of_the_plain_one(tmp_path):
    init_cfg = save(tmp_path / 'a.pth', pooled())
    with pytest.raises(ValueError, match='stem.0'):
        pooled(network=ScaleResNetV1c, init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize(
    'network, args',
    [(ScaleConvNet, dict(CNN, scale_space=GRID)), (SO2ConvNet, CNN), (SO2ResNet, RESNET)],
)
def test_no_backbone_stays_random_in_silence(network, args, tmp_path):
    net = network(**args)
    init_cfg = save(tmp_path / 'a.pth', net, prefix='backbone.')
    with pytest.raises(ValueError, match='would stay random.* prefix='):
        network(**args, init_cfg=init_cfg).init_weights()
    network(**args, init_cfg=init_cfg, partial_pretrained=True).init_weights()
    loaded = network(**args, init_cfg=dict(init_cfg, prefix='backbone.'))
    loaded.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), net.parameters()))
