# Copyright (c) mmscale contributors.
"""A head over levels in classifiers of MMPretrain: training, testing, checkpoints, export."""

import copy

import mmpretrain.models  # noqa: F401  registers classifiers, heads and losses
import onnxruntime
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import load_checkpoint
from mmpretrain.structures import DataSample
from naive import largest_difference
from torch import nn

POOLS = ('gate', 'prob', 'max', 'mean', 'logsumexp')


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def labelled(batch):
    return [DataSample().set_gt_label(i % 5) for i in range(batch)]


def classifier(pool='gate', **head):
    """Make a small classifier of three levels; with ``pool=None`` it pools features."""
    torch.manual_seed(0)
    neck = dict(type='mmscale.ScaleGlobalPooling', space='max')
    head = dict(num_classes=5, in_channels=6, **head)
    if pool is None:
        head |= dict(type='LinearClsHead')
    else:
        head |= dict(type='mmscale.ScaleClsHead', pool=pool)
        neck |= dict(scale='none')
    config = dict(
        type='ImageClassifier',
        backbone=dict(
            type='mmscale.ScaleConvNet',
            in_channels=3,
            channels=(4, 5, 6),
            scale_space=dict(base=2, num_scales=3),
            lift=dict(type='mmscale.GaussianPyramidLift'),
        ),
        neck=neck,
        head=head,
    )
    model = MODELS.build(config)
    model.init_weights()
    return model


def images(batch=8):
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def with_a_gate(model):
    nn.init.normal_(model.head.gate.weight, generator=torch.Generator().manual_seed(2))
    return model.eval()


def test_a_new_gate_weighs_all_levels_the_same_and_learns():
    model = classifier(scale_dropout=0.5)
    assert not model.head.gate.weight.any() and model.head.gate.bias is None
    model.eval()
    prob = classifier('prob').eval()
    prob.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(model(images()), prob(images()))
    model.train()(images(), labelled(8), mode='loss')['loss'].backward()
    assert model.head.gate.weight.grad.any()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_an_init_cfg_is_that_of_the_head_and_not_of_the_gate():
    model = classifier(init_cfg=dict(type='Constant', layer='Linear', val=0.3))
    assert (model.head.head.fc.weight == 0.3).all() and not model.head.gate.weight.any()


def test_weights_of_pooled_features_load(tmp_path):
    trained = classifier(None)
    nn.init.normal_(trained.head.fc.bias)
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'pooled.pth')
    for pool in POOLS:
        model = classifier(pool)
        if pool == 'gate':
            with_a_gate(model)
        load_checkpoint(model, str(tmp_path / 'pooled.pth'), strict=True)
        assert torch.equal(model.head.head.fc.bias, trained.head.fc.bias)
        assert model.head.gate is None or not model.head.gate.weight.any()
        model.load_state_dict(trained.state_dict())  # PyTorch's own loader reads it, too


def test_its_own_checkpoints_load_and_need_the_gate():
    trained = with_a_gate(classifier())
    model = classifier().eval()
    model.load_state_dict(copy.deepcopy(trained.state_dict()))
    assert torch.equal(model(images()), trained(images()))
    state = trained.state_dict()
    del state['head.gate.weight']
    with pytest.raises(RuntimeError, match='Missing key.*head.gate.weight'):
        model.load_state_dict(state)


def test_onnx(tmp_path):
    model = with_a_gate(classifier())

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, image):
            return self.model.head(self.model.extract_feat(image))

    path = tmp_path / 'network.onnx'
    torch.onnx.export(
        Logits().eval(), (images(2),), path, dynamo=True, verbose=False, input_names=['image'],
        dynamic_shapes=({0: torch.export.Dim('batch', min=1, max=64)},), external_data=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    for batch in (1, 5):
        (found,) = session.run(None, {'image': images(batch).numpy()})
        assert largest_difference(found, model(images(batch))) < 1e-5


def test_features_before_the_last_layer():
    model = classifier(
        head_type='mmpretrain.StackedLinearClsHead', mid_channels=[7], pool='gate'
    ).eval()
    found = model.extract_feat(images(), stage='pre_logits')
    assert found.shape == (8, 3, 7)
    logits = model.head.head.fc(found.flatten(0, 1))
    levels = model.extract_feat(images())[-1][..., 0, 0].mT
    expected = model.head.head((levels.flatten(0, 1),))
    assert largest_difference(logits, expected) < 1e-6
