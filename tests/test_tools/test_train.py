# Copyright (c) mmscale contributors.
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.utils import get_installed_path

from .conftest import (
    CONFIG,
    ROOT,
    SMALL,
    exit_message,
    logged_scalars,
    run_here,
    run_tool,
    tool_environment,
    train,
)

EPOCHS = 4
# A head with dropout: a resumed run must draw the masks that the uninterrupted one drew.
RESUME_OPTIONS = (
    f'train_cfg.max_epochs={EPOCHS}',
    'model.head.type=StackedLinearClsHead',
    'model.head.mid_channels=[32]',
    'model.head.dropout_rate=0.5',
    'randomness.deterministic=True',
)


def weights(path) -> dict:
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def train_and_kill_after_first_epoch(work_dir):
    """Kills a run as soon as it has a checkpoint, like a machine that goes down."""
    command = [sys.executable, 'tools/train.py', CONFIG, '--work-dir', str(work_dir)]
    with open(work_dir / 'output', 'w', encoding='utf-8') as output:
        process = subprocess.Popen(
            [*command, '--cfg-options', *SMALL, *RESUME_OPTIONS],
            cwd=ROOT, env=tool_environment(), stdout=output, stderr=output,
        )  # fmt: skip
        while not (work_dir / 'last_checkpoint').exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()


def test_resume_after_a_kill_gives_the_weights_of_an_uninterrupted_run(tmp_path):
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    killed.mkdir()
    assert train(whole, options=RESUME_OPTIONS).returncode == 0
    train_and_kill_after_first_epoch(killed)
    assert (killed / 'epoch_1.pth').exists(), (killed / 'output').read_text()
    assert not (killed / f'epoch_{EPOCHS}.pth').exists()

    result = train(killed, '--resume', options=RESUME_OPTIONS)
    assert result.returncode == 0, result.stderr
    assert 'resumed epoch: ' in result.stdout + result.stderr

    expected = weights(whole / f'epoch_{EPOCHS}.pth')
    actual = weights(killed / f'epoch_{EPOCHS}.pth')
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.equal(value, actual[name]), name


def test_two_processes_train_one_model_on_half_the_batches_each(tmp_path):
    result = run_tool(
        'tools/dist_train.sh', CONFIG, 2, '--work-dir', tmp_path, '--auto-scale-lr',
        '--cfg-options', *SMALL, 'train_cfg.max_epochs=1',
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    training = [line for line in logged_scalars(tmp_path) if 'loss' in line]
    assert len(training) == 200 // 50 // 2
    # One cycle starts at a 25th of its peak, and twice the batch size doubles the peak.
    assert training[0]['lr'] == pytest.approx(2 * 0.01 / 25)
    assert weights(tmp_path / 'epoch_1.pth')


FALL = """
import os
import signal
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Fall(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if get_rank() == 1 and runner.epoch == 1 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)
"""
FALL_CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmscale', 'fall'])
custom_hooks = [dict(type='mmscale.EpochSeedHook'), dict(type='mmengine.Fall')]
"""


def test_a_process_that_is_killed_ends_the_others_and_leaves_its_checkpoint(tmp_path, monkeypatch):
    """One of two, within the second of two epochs of four iterations."""
    (tmp_path / 'fall.py').write_text(FALL)
    config, work_dir = tmp_path / 'falls.py', tmp_path / 'work'
    config.write_text(FALL_CONFIG.format(base=str(ROOT / CONFIG)))
    options = ('train_dataloader.dataset.indices=80', 'train_dataloader.batch_size=10',
               'train_cfg.max_epochs=2', 'train_cfg.val_interval=10')  # fmt: skip
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
    result = run_tool('tools/dist_train.sh', config, 2, '--work-dir', work_dir,
                      '--cfg-options', *options)  # fmt: skip
    assert result.returncode != 0
    assert [path.name for path in work_dir.glob('*.pth')] == ['epoch_1.pth'], result.stderr

    # A process by itself has twice the iterations, for which the cycle was not made.
    arguments = ('--work-dir', work_dir, '--resume', '--cfg-options', *options)
    line = exit_message(monkeypatch, 'tools/train.py', CONFIG, *arguments)
    assert 'resumed with the length, batch size and number of processes that it was' in line
    result = run_tool('tools/dist_train.sh', CONFIG, 2, *arguments)
    assert result.returncode == 0, result.stderr
    first, second = weights(work_dir / 'epoch_1.pth'), weights(work_dir / 'epoch_2.pth')
    assert (work_dir / 'last_checkpoint').read_text().endswith('epoch_2.pth')
    assert not any(torch.equal(first[n], second[n]) for n in first if n.endswith('conv1.weight'))


def test_no_workers_and_no_validation(tmp_path):
    result = train(
        tmp_path,
        '--no-validate',
        '--no-pin-memory',
        options=[
            'train_cfg.max_epochs=1',
            'train_dataloader.num_workers=0',
            'train_dataloader.persistent_workers=True',
        ],
    )
    assert result.returncode == 0, result.stderr
    assert all('accuracy/top1' not in line for line in logged_scalars(tmp_path))


TOOLBOX = """
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS

@DATASETS.register_module()
class Sizes(BaseDataset):
    def load_data_list(self):
        return [dict(inputs=torch.ones(1, 4 + i, 5), data_samples=i) for i in range(4)]

@MODELS.register_module()
class Sum(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode, **kwargs):
        assert isinstance(inputs, list) and len({image.shape for image in inputs}) > 1
        return dict(loss=sum((self.weight * image).sum() for image in inputs))
"""
TOOLBOX_CONFIG = """
custom_imports = dict(imports=['toolbox_of_sizes'])
default_scope = 'mmengine'
model = dict(type='Sum')
train_dataloader = dict(batch_size=4, sampler=dict(type='DefaultSampler', shuffle=False),
                        dataset=dict(type='Sizes'))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=1.0))
"""


def test_images_of_several_sizes_of_another_toolbox(tmp_path, monkeypatch):
    (tmp_path / 'toolbox_of_sizes.py').write_text(TOOLBOX)
    config = tmp_path / 'sizes.py'
    config.write_text(TOOLBOX_CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    run_here(monkeypatch, 'tools/train.py', config, '--work-dir', tmp_path / 'work')
    pixels = sum(range(4, 8)) * 5
    assert weights(tmp_path / 'work' / 'epoch_1.pth')['weight'].item() == -pixels


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['missing.py'], 'error: config: there is no file missing.py'),
        ([CONFIG, '--resume', 'missing.pth'], 'error: checkpoint: there is no file missing.pth'),
        ([CONFIG, '--launcher', 'pytorch'], 'error: --launcher pytorch: WORLD_SIZE is not set'),
        ([CONFIG, '--cfg-options', 'model.type.depth=18'], 'error: --cfg-options: '),
    ],
)
def test_bad_arguments_give_one_line(arguments, message, monkeypatch, tmp_path):
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    line = exit_message(monkeypatch, 'tools/train.py', *arguments, '--work-dir', tmp_path)
    assert line.startswith(message)


@pytest.fixture
def behind_scope(tmp_path) -> Path:
    """A config on an installed one of ours, in a folder from which there is no path to it."""
    path = tmp_path / 'mine.py'
    path.write_text(
        f"_base_ = 'mmscale::{CONFIG.removeprefix('configs/')}'\n"
        'test_dataloader = dict(batch_size=77)\n'
    )
    return path


@pytest.mark.skipif(
    not Path(get_installed_path('mmscale')).is_dir(),
    reason='the original MMEngine does not find the folder of an editable install',
)
def test_a_config_on_an_installed_one(behind_scope, tmp_path, trained, monkeypatch):
    options = ['train_cfg.max_epochs=1', 'param_scheduler.total_steps=1']
    result = train(tmp_path / 'work', config=behind_scope, options=options)
    assert result.returncode == 0, result.stderr
    for name, config in (('plain', CONFIG), ('installed', behind_scope)):
        run_here(monkeypatch, 'tools/test.py', config, trained / 'epoch_1.pth', '--work-dir',
                 tmp_path / name, '--out', tmp_path / name, '--cfg-options', *SMALL)  # fmt: skip
    plain, installed = ((tmp_path / name / 'metrics.json').read_text()
                        for name in ('plain', 'installed'))  # fmt: skip
    assert plain == installed and 'accuracy/top1' in plain


def test_names_of_another_toolbox_are_not_ours(tmp_path, monkeypatch):
    """Those that are known behind ``mmscale::`` alone."""
    words = ('tools/train.py', CONFIG, '--work-dir', tmp_path, '--cfg-options')
    assert 'mmscale.ResNet' in exit_message(
        monkeypatch, *words, 'model.backbone.type=mmscale.ResNet'
    )


def test_weights_of_which_none_fits_are_no_start(trained, tmp_path, monkeypatch):
    path, state = tmp_path / 'other.pth', weights(trained / 'epoch_1.pth')
    torch.save({f'encoder.{name}': value for name, value in state.items()}, path)
    line = exit_message(monkeypatch, 'tools/train.py', CONFIG, '--work-dir', tmp_path,
                        '--cfg-options', *SMALL, f'load_from={path}')  # fmt: skip
    assert line.startswith(f'error: checkpoint {path}: none of its weights has a name')


def test_a_resumed_checkpoint_fits_exactly(trained, tmp_path, monkeypatch):
    path = trained / 'epoch_1.pth'
    line = exit_message(monkeypatch, 'tools/train.py', CONFIG, '--work-dir', tmp_path,
                        '--resume', path, '--cfg-options', *SMALL, 'train_cfg.max_epochs=2',
                        'model.backbone.depth=34')  # fmt: skip
    assert line.startswith(f'error: checkpoint {path} does not fit the config: ')


def test_a_cycle_that_ends_before_the_training_is_told_before_it(tmp_path, monkeypatch):
    line = exit_message(monkeypatch, 'tools/train.py', CONFIG, '--work-dir', tmp_path,
                        '--cfg-options', *SMALL, 'train_cfg.max_epochs=11')  # fmt: skip
    assert line.startswith('error: param_scheduler: the OneCycleLR ends at iteration 40, the '
                           'training at 44: make total_steps as long')  # fmt: skip
    assert not list(tmp_path.glob('*.pth')) and not logged_scalars(tmp_path)


def test_missing_data_gives_one_line(tmp_path, monkeypatch):
    line = exit_message(
        monkeypatch, 'tools/train.py', 'configs/cnn/cnn_1xb128-20e_scalemnist.py', '--work-dir',
        tmp_path, '--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}',
        'train_dataloader.dataset.download=False',
    )  # fmt: skip
    assert str(tmp_path) in line
