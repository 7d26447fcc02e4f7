# Copyright (c) mmscale contributors.
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from test_tools.conftest import logged_scalars

from mmscale.engine.resuming import InterruptedValidationHook

from .test_schedules import Line


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


def run(work_dir, killed_in=None, epochs=4, interval=1, hooks=(InterruptedValidationHook,)) -> list:
    """Trains, or resumes, and returns the epochs that were validated to the end."""
    metric = Interrupted(killed_in)
    loader = dict(
        batch_size=2, dataset=[torch.ones(1)] * 4, sampler=dict(type='DefaultSampler', shuffle=True)
    )
    runner = Runner(
        Line(), str(work_dir), train_dataloader=loader, val_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=interval), val_cfg=dict(),
        val_evaluator=[metric], optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='top1')),
        custom_hooks=[hook() for hook in hooks], resume=True, log_level='ERROR',
        experiment_name=f'{work_dir}_{killed_in}_{epochs}_{len(list(work_dir.iterdir()))}',
    )  # fmt: skip
    metric.runner = runner
    try:
        runner.train()
    except KeyboardInterrupt:
        pass
    return metric.epochs


@pytest.mark.parametrize('killed_in, rest', [(2, [2, 3, 4]), (4, [4])])
def test_the_interrupted_validation_is_made_when_the_run_is_resumed(tmp_path, killed_in, rest):
    assert run(tmp_path, killed_in, hooks=()) == list(range(1, killed_in))
    assert (tmp_path / f'epoch_{killed_in}.pth').is_file()
    assert run(tmp_path) == rest
    steps = [entry['step'] for entry in logged_scalars(tmp_path) if 'top1' in entry]
    assert sorted(steps) == [1, 2, 3, 4]


def test_what_is_the_best_is_written_down_where_the_next_resumption_reads_it(tmp_path):
    run(tmp_path, killed_in=1)
    assert run(tmp_path, epochs=1) == [1]
    known = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['message_hub']['runtime_info']
    assert known['best_score'] == 1.0 and known['best_ckpt'].endswith('best_top1_epoch_1.pth')


def test_without_the_hook_an_epoch_is_never_validated(tmp_path):
    run(tmp_path, killed_in=1, hooks=())
    assert run(tmp_path, hooks=()) == [2, 3, 4]


def test_what_was_validated_is_not_validated_again(tmp_path):
    assert run(tmp_path, epochs=2) == [1, 2]
    assert run(tmp_path, epochs=2) == []
    assert run(tmp_path, epochs=4, killed_in=4) == [3]
    assert run(tmp_path, epochs=4) == [4]


def test_what_was_not_due_is_not_made_up_for(tmp_path):
    run(tmp_path, epochs=3, interval=2, hooks=())  # leaves no word of what was validated
    assert run(tmp_path, epochs=4, interval=2) == [4]
