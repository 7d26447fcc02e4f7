# Copyright (c) mmscale contributors.
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
    expected, actual = (weights(folder / f'epoch_{EPOCHS}.pth') for folder in (whole, killed))
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.equal(value, actual[name]), name


def test_two_processes_train_one_model_on_half_the_batches_each_and_resume_it(tmp_path):
    def run():
        result = run_tool('tools/dist_train.sh', CONFIG, 2, '--work-dir', tmp_path, '--resume',
                          '--auto-scale-lr', '--cfg-options', *options)  # fmt: skip
        assert result.returncode == 0, result.stderr
        return weights(tmp_path / 'epoch_2.pth')

    options = (*SMALL, 'train_cfg.max_epochs=2')
    whole = run()
    training = [line for line in logged_scalars(tmp_path) if 'loss' in line]
    assert len(training) == 2 * 200 // 50 // 2
    # One cycle starts at a 25th of its peak, and twice the batch size doubles the peak.
    assert training[0]['lr'] == pytest.approx(2 * 0.01 / 25)

    (tmp_path / 'epoch_2.pth').unlink()  # as if it had been killed before
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    again = run()
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_no_workers_and_no_validation(tmp_path, monkeypatch):
    run_here(monkeypatch, 'tools/train.py', CONFIG, '--work-dir', tmp_path, '--no-validate',
             '--no-pin-memory', '--cfg-options', *SMALL, 'train_cfg.max_epochs=1',
             'train_dataloader.num_workers=0',
             'train_dataloader.persistent_workers=True')  # fmt: skip
    lines = logged_scalars(tmp_path)
    assert lines and all('accuracy/top1' not in line for line in lines)


@pytest.mark.skipif(
    not Path(get_installed_path('mmscale')).is_dir(),
    reason='the original MMEngine does not find the folder of an editable install',
)
def test_a_config_on_an_installed_one(tmp_path, trained, monkeypatch):
    """In a folder from which there is no path to it; MMEngine builds it in our scope."""
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = 'mmscale::{CONFIG.removeprefix('configs/')}'\n")
    found = []
    for name, config in (('plain', CONFIG), ('installed', mine)):
        run_here(monkeypatch, 'tools/test.py', config, trained / 'epoch_1.pth', '--work-dir',
                 tmp_path / name, '--out', tmp_path / name, '--cfg-options', *SMALL)  # fmt: skip
        found.append((tmp_path / name / 'metrics.json').read_text())
    assert found[0] == found[1] and 'accuracy/top1' in found[0]
    run_here(monkeypatch, 'tools/train.py', mine, '--work-dir', tmp_path / 'work', '--cfg-options',
             *SMALL, 'train_cfg.max_epochs=1')  # fmt: skip
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()


def test_what_cannot_be_trained_is_told_before(trained, tmp_path, monkeypatch):
    whole, other = trained / 'epoch_1.pth', tmp_path / 'other.pth'
    torch.save({f'encoder.{name}': value for name, value in weights(whole).items()}, other)
    for words, message in (
        (['--cfg-options', f'load_from={other}'],
         f'checkpoint {other}: none of its weights has a name'),
        (['--resume', whole, '--cfg-options', 'train_cfg.max_epochs=2', 'model.backbone.depth=34'],
         f'checkpoint {whole} does not fit the config: '),
        (['--cfg-options', 'train_cfg.max_epochs=11'],
         'param_scheduler: the OneCycleLR ends at iteration 40, the training at 44: make'),
    ):  # fmt: skip
        line = exit_message(monkeypatch, 'tools/train.py', CONFIG, '--work-dir', tmp_path / 'work',
                            *words, *SMALL)  # fmt: skip
        assert line.startswith(f'error: {message}')
    work = tmp_path / 'work'
    assert not list(work.glob('*.pth')) and not logged_scalars(work)
