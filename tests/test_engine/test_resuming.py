# Copyright (c) mmscale contributors.
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import VISBACKENDS
from mmengine.runner import Runner
from mmengine.visualization import BaseVisBackend
from test_tools.conftest import logged_scalars

from mmscale.engine.resuming import InterruptedValidationHook


class Slope(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode):
        return dict(loss=self.linear(inputs).square().mean()) if mode == 'loss' else [inputs]

    def data_preprocessor(self, data, training=False):
        return dict(inputs=torch.stack(data))


class Interrupted(BaseMetric):
    """Counts the epochs it was asked for, and is killed in one of them."""

    def __init__(self, killed_in=None):
        super().__init__()
        self.killed_in, self.epochs, self.runner = killed_in, [], None

    def process(self, data_batch, data_samples):
        if self.runner.epoch == self.killed_in:
            raise KeyboardInterrupt
        self.results.append(1)

    def compute_metrics(self, results):
        self.epochs.append(self.runner.epoch)
        return dict(top1=1.0 / self.runner.epoch)


def run(
    work_dir, hooks=(), killed_in=None, epochs=4, interval=1, backend='LocalVisBackend'
) -> list[int]:
    """Trains, or resumes, and returns the epochs that were validated to the end."""
    metric = Interrupted(killed_in)
    loader = dict(
        batch_size=2, dataset=[torch.ones(1)] * 4, sampler=dict(type='DefaultSampler', shuffle=True)
    )
    runner = Runner(
        Slope(),
        str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=interval),
        val_cfg=dict(),
        val_evaluator=[metric],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='top1')),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type=backend)]),
        custom_hooks=list(hooks),
        resume=True,
        log_level='ERROR',
        experiment_name=f'{work_dir}_{killed_in}_{epochs}_{len(list(work_dir.iterdir()))}',
    )
    metric.runner = runner
    try:
        runner.train()
    except KeyboardInterrupt:
        pass
    return metric.epochs


@pytest.mark.parametrize('killed_in, rest', [(2, [2, 3, 4]), (4, [4])])
def test_the_interrupted_validation_is_made_when_the_run_is_resumed(tmp_path, killed_in, rest):
    assert run(tmp_path, killed_in=killed_in) == list(range(1, killed_in))
    assert (tmp_path / f'epoch_{killed_in}.pth').is_file()
    assert run(tmp_path, [InterruptedValidationHook()]) == rest
    steps = [entry['step'] for entry in logged_scalars(tmp_path) if 'top1' in entry]
    assert sorted(steps) == [1, 2, 3, 4]


def test_what_is_the_best_is_written_down_where_the_next_resumption_reads_it(tmp_path):
    run(tmp_path, killed_in=1)
    assert run(tmp_path, [InterruptedValidationHook()], epochs=1) == [1]
    known = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['message_hub']['runtime_info']
    assert known['best_score'] == 1.0 and known['best_ckpt'].endswith('best_top1_epoch_1.pth')


def test_without_the_hook_an_epoch_is_never_validated(tmp_path):
    run(tmp_path, killed_in=1)
    assert run(tmp_path) == [2, 3, 4]


@VISBACKENDS.register_module()
class NoFiles(BaseVisBackend):
    """Logs to a server, say."""

    experiment = None

    def _init_env(self):
        pass


@pytest.mark.parametrize('backend', ['LocalVisBackend', 'NoFiles'])
def test_what_was_validated_is_not_validated_again(tmp_path, backend):
    hook, options = InterruptedValidationHook, dict(backend=backend)
    assert run(tmp_path, [hook()], epochs=2, **options) == [1, 2]
    assert run(tmp_path, [hook()], epochs=2, **options) == []
    assert run(tmp_path, [hook()], epochs=4, killed_in=4, **options) == [3]
    assert run(tmp_path, [hook()], epochs=4, **options) == [4]


def test_what_was_not_due_is_not_made_up_for(tmp_path):
    hook = InterruptedValidationHook
    run(tmp_path, [hook()], epochs=3, interval=5)  # at the end alone
    assert run(tmp_path, [hook()], epochs=4, interval=3) == [4]
