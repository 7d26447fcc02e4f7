# Copyright (c) mmscale contributors.
"""Scale spaces in ordinary necks and heads raise an error that names the right necks."""

import copy
import pickle

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models import GlobalAveragePooling

from mmscale.engine.models import build_network
from mmscale.models import ScaleResNet_CIFAR
from mmscale.scale_space.levels import Pyramid

BACKBONE = dict(
    type='mmscale.ScaleResNet_CIFAR',
    depth=18,
    stem_channels=4,
    base_channels=4,
    scale_space=dict(base=2, num_scales=3),
)
DENSE = dict(lift=dict(type='mmscale.GaussianLift'))
HEAD = dict(type='LinearClsHead', num_classes=5, in_channels=32)


def classifier(neck=None, head=HEAD, **backbone):
    return dict(type='ImageClassifier', backbone=BACKBONE | backbone, neck=neck, head=head)


@pytest.mark.parametrize('num_scales', [1, 3])
def test_a_pyramid_says_where_it_goes(num_scales):
    net = ScaleResNet_CIFAR(**{k: v for k, v in BACKBONE.items() if k != 'type'})
    outputs = net(torch.rand(2, 3, 32, 32))
    for ordinary in (GlobalAveragePooling(), torch.nn.Conv2d(32, 8, 1), torch.nn.ReLU()):
        with pytest.raises(TypeError, match='^a pyramid cannot go into .*ScaleGlobalPooling'):
            ordinary(outputs if isinstance(ordinary, GlobalAveragePooling) else outputs[0])
    with pytest.raises(AttributeError, match='ScaleFPN.* scale_pooling'):
        outputs[0].flatten(1)
    assert not hasattr(outputs[0], 'shape')


def test_a_pyramid_is_a_tuple_to_everyone_else():
    pyramid = Pyramid([torch.rand(1, 2, 4, 4), torch.rand(1, 2, 2, 2)])
    for copied in (copy.deepcopy(pyramid), pickle.loads(pickle.dumps(pyramid))):
        assert type(copied) is Pyramid and all(map(torch.equal, copied, pyramid))
    leaves, spec = torch.utils._pytree.tree_flatten([pyramid])
    assert len(leaves) == 2 and type(torch.utils._pytree.tree_unflatten(leaves, spec)[0]) is Pyramid
    assert torch.stack([level.mean() for level in pyramid]).shape == (2,)


@pytest.mark.parametrize(
    'model, part',
    [
        (classifier(dict(type='GlobalAveragePooling')), 'neck: GlobalAveragePooling'),
        (classifier(dict(type='GlobalAveragePooling'), **DENSE), 'neck: GlobalAveragePooling'),
        (classifier([dict(type='GeneralizedMeanPooling')], **DENSE), 'neck: GeneralizedMean'),
        (classifier(), 'head: LinearClsHead'),
    ],
)
def test_tools_say_so_before_they_start(model, part):
    with pytest.raises(ValueError, match=f'model.{part}.* does not take .*ScaleGlobalPooling'):
        build_network(Config(dict(model=model)), 'config.py')


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(scale_pooling=dict()), 'neck .* keeps levels.* ScaleResNet_CIFAR must have'),
        (dict(type='ResNet_CIFAR', scale_space=None), 'neck .* keeps levels.* ResNet_CIFAR must'),
        (dict(scale_pooling='max'), r"scale_pooling must be a dict .*, got 'max'"),
        (dict(), 'head: LinearClsHead takes one vector, .* one per level: use mmscale.ScaleClsH'),
    ],
)
def test_levels_that_are_not_there_or_not_taken(change, message):
    kept = dict(type='mmscale.ScaleGlobalPooling', scale='none')
    head = dict(HEAD, type='mmscale.ScaleClsHead') if change else HEAD
    model = classifier(kept, head, **change)
    if model['backbone']['scale_space'] is None:
        del model['backbone']['scale_space']
    with pytest.raises(ValueError, match=message):
        build_network(Config(dict(model=model)), 'config.py')


@pytest.mark.parametrize(
    'model',
    [
        classifier(dict(type='mmscale.ScaleGlobalPooling')),
        classifier(
            dict(type='mmscale.ScaleGlobalPooling', scale='none'),
            dict(HEAD, type='mmscale.ScaleClsHead'),
        ),
        classifier([dict(type='mmscale.ScalePooling'), dict(type='GlobalAveragePooling')]),
        classifier(dict(type='GlobalAveragePooling'), scale_pooling=dict()),
        classifier(dict(type='GlobalAveragePooling'), scale_space=dict(num_scales=1), **DENSE),
    ],
)
def test_what_fits_is_built_and_runs(model):
    build_network(Config(dict(model=model)), 'config.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network = MODELS.build(copy.deepcopy(model))
    network.eval()
    assert network(torch.rand(2, 3, 32, 32), mode='tensor').shape == (2, 5)
