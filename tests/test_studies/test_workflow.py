# Copyright (c) mmscale contributors.
"""A small study, run by Snakemake as `make study` does."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from cells import ROOT
from collect import read

pytest.importorskip('snakemake', reason='needs `pip install mmscale[studies]`')

CONFIG = 'configs/resnet/resnet18-w8_1xb50-10e_scaledigits.py'
STUDY = f"""
title = 'Few digits'
seeds = [0, 1]
epochs = 4
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
PASSING = ['seconds', 'date', 'commit']


def command(folder, *more, work=None, out=None) -> dict:
    """Arguments of a process that runs the study of a folder, its work and results there or not."""
    words = [sys.executable, '-m', 'snakemake', '--snakefile', 'studies/Snakefile', '--profile',
             'studies/profile', '--cores', '2', '--directory', (work or folder) / 'work', *more,
             '--config', f'study={folder / "few.py"}', f'out={out or folder}']  # fmt: skip
    return dict(args=list(map(str, words)), cwd=ROOT, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT)  # fmt: skip


def run(folder, *more, code=0, **places) -> str:
    result = subprocess.run(**command(folder, *more, **places))
    assert result.returncode == code, result.stdout
    return result.stdout


def results(folder):
    """The numbers of a study, as text, without those that differ from run to run."""
    found = read(folder / 'few.csv')
    return found[found.metric != 'seconds'].drop(columns=PASSING).to_dict('records')


def logged(folder) -> int:
    """Epochs trained, validated and tested: how far the tools are, however fast the machine is."""
    paths = folder.glob('work/few/**/t*.log')
    return sum(path.read_text(encoding='utf-8').count(' Epoch(') for path in paths)


def logs(folder) -> dict:
    return {path: path.stat().st_size for path in folder.glob('work/few/*/train.log')}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Folder of a study that was run undisturbed, and what it printed."""
    folder = tmp_path_factory.mktemp('study')
    (folder / 'few.py').write_text(STUDY)
    return folder, run(folder)


def test_results_are_those_of_the_tools(finished, tmp_path):
    folder, printed = finished
    assert 'Few digits: 0 cells are measured' in printed
    assert 'ResNet, small, seed 0: missing' in printed
    for log in logs(folder):
        assert str(log) in printed and 'Epoch(val) [4]' in log.read_text(encoding='utf-8')
    rows = results(folder)
    assert {(row['cell'], row['seed']) for row in rows} == {('ResNet, small', s) for s in '01'}
    assert {row['parameters'] for row in rows} == {'176258'}
    tested = next(row for row in rows if row['metric'] == 'test/accuracy/top1')
    (best,) = folder.glob('work/few/*seed0*/best_*.pth')
    words = tested['command'].replace("'best_*.pth'", str(best)).split()
    words[0] = sys.executable
    more = ['--work-dir', str(tmp_path), '--out', str(tmp_path)]
    subprocess.run([*words[:4], *more, *words[4:]], cwd=ROOT, check=True, capture_output=True)
    found = json.loads((tmp_path / 'metrics.json').read_text())
    assert str(found['accuracy/top1']) == tested['value']
    assert 'Few digits' in (folder / 'few.md').read_text(encoding='utf-8')
    assert (folder / 'work' / 'few' / 'few_scale.png').stat().st_size > 10_000


def test_a_study_that_is_killed_at_random_ends_like_an_undisturbed_one(finished, tmp_path):
    (tmp_path / 'few.py').write_text(STUDY)
    draw, killed = random.Random(0), []
    for number in range(5):
        target = logged(tmp_path) + draw.randint(1, 4)  # of 18
        process = subprocess.Popen(**command(tmp_path) | dict(stdout=subprocess.DEVNULL),
                                   start_new_session=True)  # fmt: skip
        while process.poll() is None and logged(tmp_path) < target:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        killed.append(process.poll() is None)
        if number % 2:  # Snakemake alone, whose tools run on, or all of it
            process.kill()
        elif process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    # Both ways. Then tools that ran on may have left nothing to kill.
    assert all(killed[:2]), killed
    run(tmp_path)
    assert results(tmp_path) == results(finished[0])


def test_another_folder_of_work_shares_what_was_measured(finished, tmp_path):
    folder, _ = finished
    (tmp_path / 'few.py').write_text(STUDY)
    before = (folder / 'few.csv').read_bytes()
    printed = run(tmp_path, out=folder)
    assert 'Few digits: 2 cells are measured' in printed and '0 are to run' in printed
    assert (folder / 'few.csv').read_bytes() == before and not logs(tmp_path)


def test_a_dry_run_says_what_would_run(finished, tmp_path):
    folder, _ = finished
    (tmp_path / 'few.py').write_text(STUDY.replace('epochs = 4', 'epochs = 3'))
    printed = run(tmp_path, '-n', out=folder)
    assert 'ResNet, small, seed 1: changed: config' in printed and 'resnet-small_seed1' in printed
    assert not (tmp_path / 'work' / 'few').exists()


def test_a_change_of_the_measurement_trains_nothing_anew(finished, tmp_path):
    folder, _ = finished
    trained = logs(folder)
    changed = STUDY.replace('factors=[1, 2]', 'factors=[1, 1.5]').replace('[0, 1]', '[0]', 1)
    (tmp_path / 'few.py').write_text(changed)
    run(tmp_path, work=folder)
    assert {row['factor'] for row in results(tmp_path)} == {'', '1.0', '1.5'}
    assert logs(folder) == trained


def test_a_cell_that_fails_does_not_hold_up_the_others(finished, tmp_path):
    folder, _ = finished
    bad = "runs['bad'] = dict(config='{}', options={{'default_hooks.timer.type': 'NoHook'}})\n"
    (tmp_path / 'few.py').write_text(STUDY.replace('[0, 1]', '[0]', 1) + bad.format(CONFIG))
    printed = run(tmp_path, work=folder, code=1)
    assert 'error: tools/train.py failed' in printed
    assert results(tmp_path) == [row for row in results(folder) if row['seed'] == '0']
