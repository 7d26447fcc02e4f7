# Copyright (c) mmscale contributors.
"""The equivariance hook on models made by hand: several outputs, several stages, odd inputs."""

import math
import uuid

import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmscale.engine import EquivarianceHook
from mmscale.evaluation import equivariance_error
from mmscale.models import ScaleConv

from .test_equivariance_hook import figures_of, messages_of


class CountImages(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(count=len(results))


class TinyModel(BaseModel):
    """As little as MMEngine asks of a model; draws random numbers also in evaluation."""

    def __init__(self, outputs=1):
        super().__init__()
        self.outputs = outputs
        self.conv = ScaleConv(1, 2, 3, padding=1, scale_space=dict(base=2, num_scales=1))
        self.stages = nn.Identity()
        self.linear = nn.Linear(2, 3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        inputs = torch.stack(inputs) if isinstance(inputs, list) else inputs
        x = self.conv(inputs[:, :, None])[:, :, 0]
        x = x + 0.01 * torch.rand_like(x)
        x = self.stages((x, x[:, :, ::2, ::2].square())[: self.outputs])[-1]
        x = self.linear(x.mean((2, 3)))
        if mode == 'loss':
            return dict(loss=nn.functional.cross_entropy(x, data_samples))
        return list(x) if mode == 'predict' else x


class TwoStages(TinyModel):
    """Like a two-stage detector: without data samples it stops after the first stage."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.backbone(torch.stack(inputs) if isinstance(inputs, list) else inputs)
        labels = torch.as_tensor([sample for sample in data_samples])
        x = self.linear(x.mean((2, 3)))
        return list(x) if mode == 'predict' else dict(loss=nn.functional.cross_entropy(x, labels))


def run_tiny(work_dir, *hooks, model=None, collate=default_collate, save_best=None) -> Runner:
    generator = torch.Generator().manual_seed(0)
    data = [
        dict(inputs=torch.rand(1, 12, 12, generator=generator), data_samples=i % 3)
        for i in range(8)
    ]
    loader = dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data)
    torch.manual_seed(0)
    checkpoint = dict(type='CheckpointHook', save_best=save_best, rule='less')
    runner = Runner(
        model or TinyModel(), str(work_dir),
        train_dataloader=dict(loader, collate_fn=default_collate),
        val_dataloader=dict(loader, collate_fn=collate),
        train_cfg=dict(by_epoch=True, max_epochs=2), val_cfg=dict(),
        val_evaluator=[CountImages()], optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=list(hooks), default_hooks=dict(checkpoint=checkpoint),
        randomness=dict(seed=0), experiment_name=uuid.uuid4().hex,
    )  # fmt: skip
    runner.train()
    return runner


def test_layers_that_run_before_data_samples_are_missed(tmp_path):
    """One line says why others are not measured, and the table of how many images it is."""
    torch.manual_seed(0)
    model = TwoStages()
    hook = EquivarianceHook(factors=[2], num_images=4)  # of the backbone
    runner = run_tiny(tmp_path / 'a', hook, model=model)
    images = torch.stack([runner.val_dataloader.dataset[i]['inputs'] for i in range(4)])
    expected = equivariance_error(model.backbone, images, [2]).mean.item()
    assert expected > 1e-3
    assert runner.val()['equivariance/backbone'] == pytest.approx(expected, rel=1e-5)

    for layers, count, isnan in (
        (['backbone', 'linear'], 4, [False, False, True, True]),
        (['linear'], 0, [True, True]),
    ):
        hook = EquivarianceHook(layers, [2], num_images=4)
        runner = run_tiny(tmp_path / str(count), model=TwoStages())
        runner.register_hook(hook)
        hook.before_run(runner)
        messages = messages_of(runner)
        figures = figures_of(runner.val())
        assert [math.isnan(value) for value in figures.values()] == isnan
        (reason,) = [text for text in messages if 'could not be measured' in text]
        assert "without data samples (TypeError: 'NoneType' object is not iterable)" in reason
        assert "stops before the layer 'linear'" in reason and '\n' not in reason
        assert any(text.startswith(f'Equivariance error of {count} images') for text in messages)


def test_training_ends_in_the_same_weights(tmp_path):
    hook = EquivarianceHook(['conv'], [2], num_images=3)
    models = [run_tiny(tmp_path / str(len(hooks)), *hooks).model for hooks in ([], [hook])]
    for name, value in models[0].state_dict().items():
        assert torch.equal(models[1].state_dict()[name], value), name


def test_layer_with_several_outputs(tmp_path):
    # The first validation is not measured, and must name the figures all the same.
    hook, key = EquivarianceHook(['stages'], [2], interval=2), 'equivariance/stages[1]'
    runner = run_tiny(tmp_path, hook, model=TinyModel(outputs=2), save_best=key)
    (best,) = tmp_path.glob('best_*')
    assert best.name == 'best_equivariance_stages[1]_epoch_2.pth'
    metrics = runner.val()
    assert metrics['count'] == 8
    names = ['stages[0]', 'stages[1]']
    assert list(figures_of(metrics)) == [
        f'equivariance/{name}{end}' for name in names for end in ('/s2', '')
    ]
    assert all(math.isfinite(value) for value in metrics.values())


def test_inputs_that_are_no_tensor_give_nan(tmp_path):
    runner = run_tiny(tmp_path, EquivarianceHook(['conv'], [2]), collate=pseudo_collate)
    figures = figures_of(runner.val())
    assert list(figures) == ['equivariance/conv/s2', 'equivariance/conv']
    assert all(math.isnan(value) for value in figures.values())
