# Copyright (c) mmscale contributors.
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from .conftest import CONFIG, ROOT, exit_message, run_here, run_tool, tool_environment

TOOL = 'tools/study.py'
STUDY = f"""
title = 'Few digits'
seeds = [0, 1]
epochs = 2
test = True
checkpoint = 'best'
equivariance = dict(factors=[1, 2], num_images=2, accuracy_images=20)
options = {{
    'train_dataloader.dataset.indices': 100,
    'val_dataloader.dataset.indices': 100,
    'test_dataloader.dataset.indices': 100,
    'val_dataloader.dataset.scale': 1.0,
    'train_cfg.val_interval': 1,
}}
runs = {{'ResNet, small': dict(config='{CONFIG}')}}
pictures = [dict(kind='scale')]
"""
# Of the machine and the moment.
PASSING = ('made', 'training_seconds', 'seconds', 'commands')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Folder of a study that was run undisturbed, and what it printed."""
    folder = tmp_path_factory.mktemp('study')
    (folder / 'few.py').write_text(STUDY)
    result = run_tool(*words(folder))
    assert result.returncode == 0, result.stdout + result.stderr
    return folder, result.stdout


def words(folder, *more) -> list:
    return [TOOL, folder / 'few.py', '--work-dir', folder / 'work', '--out', folder, *more]


def cells(folder) -> list[dict]:
    found = json.loads((folder / 'few.json').read_text())['cells']
    return [{k: v for k, v in cell.items() if k not in PASSING} for cell in found]


def test_a_study_leaves_a_ledger_a_page_and_pictures(finished):
    folder, printed = finished
    assert '0 of 2 runs are done, 0 have changed, 2 are missing' in printed
    assert 'ResNet, small, seed 0: epoch 2/2, loss ' in printed
    assert [(c['name'], c['seed']) for c in cells(folder)] == [('ResNet, small', s) for s in (0, 1)]
    first = json.loads((folder / 'few.json').read_text())['cells'][0]
    assert first['parameters'] == 176_258 and first['training_seconds'] > 0
    assert first['factors'] == [1, 2] and first['layers']['backbone']['mean'][1] > 0
    assert f'work_dirs/resnet-small_seed0_{first["key"]}/best_*.pth' in first['commands']['test']
    assert 'Few digits' in (folder / 'few.md').read_text()
    assert (folder / 'few_scale.png').stat().st_size > 10_000


def test_its_numbers_are_those_of_the_tools(finished, tmp_path):
    folder, _ = finished
    cell = json.loads((folder / 'few.json').read_text())['cells'][0]
    (best,) = (folder / 'work' / 'few').glob(f'*{cell["key"]}/best_*.pth')
    options = cell['commands']['test'].split('--cfg-options ')[1].split()
    out = tmp_path / 'metrics.json'
    result = run_tool('tools/test.py', CONFIG, best, '--work-dir', tmp_path, '--out', out,
                      '--out-item', 'metrics', '--cfg-options', *options)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(out.read_text()) == cell['test']


def test_what_is_done_is_not_run_again_and_can_be_drawn_again(finished, monkeypatch, capsys):
    folder, _ = finished
    before = (folder / 'few.json').read_bytes()
    run_here(monkeypatch, *words(folder, '--dry-run'))
    again = capsys.readouterr().out
    assert '2 of 2 runs are done' in again and '0:00 of work' in again
    (folder / 'few.md').unlink()
    (folder / 'few_scale.png').unlink()
    run_here(monkeypatch, *words(folder, '--draw'))
    assert (folder / 'few.md').is_file() and (folder / 'few_scale.png').is_file()
    assert (folder / 'few.json').read_bytes() == before


def test_one_cell_alone_is_run_as_it_was_beside_others(finished, tmp_path):
    folder, _ = finished
    (tmp_path / 'few.py').write_text(STUDY)
    known = json.loads((folder / 'few.json').read_text())
    (tmp_path / 'few.json').write_text(json.dumps(dict(known, cells=known['cells'][:1])))
    # From another folder than the repository, in which its tools run, with paths relative to it.
    result = run_tool(ROOT / TOOL, 'few.py', '--work-dir', 'work', '--out', '.', folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    again = json.loads((tmp_path / 'few.json').read_text())['cells']
    assert [cell['made']['threads'] for cell in again] == [known['cells'][0]['made']['threads']] * 2
    assert cells(tmp_path) == cells(folder)


def test_a_killed_study_goes_on_to_the_same_ledger(finished, tmp_path):
    (tmp_path / 'few.py').write_text(STUDY)
    command = [sys.executable, *map(str, words(tmp_path))]
    for alone in (True, False):  # the study alone, which leaves its tools running; or all of it
        process = subprocess.Popen(
            command, cwd=ROOT, env=tool_environment(), stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        for line in process.stdout:
            if 'epoch' in line:
                break
        if alone:
            process.kill()
        else:
            time.sleep(2)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    result = run_tool(*words(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert cells(tmp_path) == cells(finished[0])


def test_a_run_that_fails_is_listed_and_the_others_are_run(finished, tmp_path):
    # Its training step works, and its training tool does not.
    bad = "runs['bad'] = dict(config='{}', options={{'default_hooks.timer.type': 'NoHook'}})\n"
    (tmp_path / 'few.py').write_text(
        STUDY.replace('seeds = [0, 1]', 'seeds = [0]') + bad.format(CONFIG)
    )
    result = run_tool(*words(tmp_path))
    assert result.returncode == 1
    assert 'failed: bad, seed 0: ' in result.stdout and 'train.log' in result.stdout
    assert 'error: 1 runs have failed; run again to retry' in result.stderr
    assert cells(tmp_path) == cells(finished[0])[:1]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'optim_wrapper.optimizer.lr': 'x'}, ''),
        # The scale space holds images of 32 pixels and not those of 16, at factor 2.
        (
            {
                'model.backbone.type': 'mmscale.ScaleResNet_CIFAR',
                'model.backbone.scale_space': dict(base=2.0, num_scales=6),
            },
            'at factor 2 the network does not take the scaled images of 16x16 pixels',
        ),
    ],
)
def test_a_run_that_cannot_be_trained_or_measured_ends_the_study_at_once(
    options, message, tmp_path, monkeypatch
):
    bad = f"runs['bad'] = dict(config='{CONFIG}', options={options})\n"
    (tmp_path / 'few.py').write_text(STUDY + bad)
    line = exit_message(monkeypatch, *words(tmp_path))
    assert f"error: study: runs['bad'] cannot be trained and measured: {message}" in line
    assert not (tmp_path / 'few.json').exists()


def test_a_run_that_was_done_and_has_changed_is_tried_again_before_it_is_trained(
    finished, tmp_path, monkeypatch
):
    shutil.copy(finished[0] / 'few.json', tmp_path)
    changed = "runs['ResNet, small']['options'] = {'optim_wrapper.optimizer.lr': 'x'}\n"
    (tmp_path / 'few.py').write_text(STUDY + changed)
    line = exit_message(monkeypatch, *words(tmp_path, '--dry-run'))
    assert "error: study: runs['ResNet, small'] cannot be trained and measured: " in line


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['studies/none.py'], 'studies/none.py'),
        (['studies/models_scalemnist.py', '--jobs', '0'], '--jobs: must be at least 1, got 0'),
        (['studies/models_scalemnist.py', '--only', 'X'], '--only: X is not one of '),
        (['studies/models_scalemnist.py', '--out', 'README.md/x'], '--out: README.md is a file'),
        (['studies/models_scalemnist.py', '--work-dir', 'README.md'], 'README.md is a file'),
    ],
)
def test_bad_input_is_one_line(monkeypatch, arguments, message):
    assert message in exit_message(monkeypatch, TOOL, *arguments)
