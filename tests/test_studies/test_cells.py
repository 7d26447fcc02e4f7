# Copyright (c) mmscale contributors.
import csv
import json
import os
import sys

import cells
import digests
import pytest
from cells import ROOT, STUDIES, changed, find_study, make_cell, plan, read_study, stretched
from collect import collect
from mmengine.config import Config
from run_cell import COLUMNS, as_words, checkpoint_of, flags

from mmscale.engine.models import load_config

DIGITS = 'configs/resnet/resnet18-w8_1xb50-10e_scaledigits.py'
DEFORMABLE = 'configs/dcn/resnet18-w7-dcnv1_1xb50-10e_scaledigits.py'


def study_of(folder, **changes):
    base = dict(title='t', seeds=[0, 1], runs=dict(a=dict(config=DIGITS)))
    path = folder / 'small.py'
    path.write_text(''.join(f'{name} = {value!r}\n' for name, value in {**base, **changes}.items()))
    return read_study(path)


def write(path, *cells):
    """A CSV file of results with one line for each cell."""
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction='ignore', lineterminator='\n')
        writer.writeheader()
        writer.writerows({'metric': 'accuracy', 'value': '0.1', **cell} for cell in cells)
    return path


@pytest.mark.parametrize('path', sorted(STUDIES.glob('*.py')), ids=lambda path: path.stem)
def test_studies_of_the_repository_are_sound(path, monkeypatch):
    study = read_study(path)
    if any('downstream' in run['config'] for run in study.runs.values()):
        pytest.importorskip('mmdet', reason='needs the environment of `make test-downstream`')
    monkeypatch.setattr(digests, 'of_data', lambda cfg: '0')
    found = [make_cell(study, run, study.seeds[0]) for run in study.runs]
    assert len({(cell['folder'], cell['result']) for cell in found}) == len(study.runs)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(seeds=[]), 'has no seeds'),
        (dict(runz=3), 'has runz; known are title, runs'),
        (dict(checkpoint='x'), "checkpoint='x'; it must be 'last' or 'best'"),
        (dict(tests=dict(small={}), columns=dict(x=['big', 'mIoU'])), "no test 'big' for columns"),
        (dict(equivariance=dict(acuracy_images=5)), 'equivariance with acuracy_images, unknown'),
        (dict(pictures=[dict(kind='scale', runs=['b'])]), "no run 'b' for pictures, comp"),
        (dict(comparisons=[('', 'a', 'b')]), "no run 'b' for pictures, comp"),
        (dict(runs=dict(a=dict(config=DIGITS, weights_of='b'))), "no run 'b' for .* or weights"),
        (dict(tests=dict(half=dict(test_data=1))), "runs\\['a'\\]: .*nothing looks for test_data"),
    ],
)
def test_what_a_study_cannot_have_is_named_before_anything_runs(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        plan(study_of(tmp_path, **changes), tmp_path / 'none.csv')


def test_a_study_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(FileNotFoundError, match='this repository has .*models_scalemnist'):
        find_study('none')


def names_of(found: dict) -> list:
    return [(cell['cell'], cell['seed']) for cell in found['todo']]


def test_all_runs_have_the_first_seed_before_any_has_the_second(tmp_path):
    study = study_of(tmp_path, runs=dict(b=dict(config=DIGITS), a=dict(config=DEFORMABLE)))
    found = plan(study, tmp_path / 'none.csv')
    assert names_of(found) == [('b', 0), ('a', 0), ('b', 1), ('a', 1)]
    assert names_of(plan(study, tmp_path / 'none.csv', only='^a, seed 1')) == [('a', 1)]


def test_a_cell_in_the_results_runs_again_only_if_something_has_changed(tmp_path):
    study = study_of(tmp_path)
    first, second = (make_cell(study, 'a', seed) for seed in (0, 1))
    found = plan(study, write(tmp_path / 'small.csv', first))
    assert names_of(found) == [('a', 1)] and '1 cells are measured' in found['lines'][0]
    assert found['lines'][1:] == ['  a, seed 1: missing']
    # Measured before code had a digest, and on a machine with other code.
    for code, states in (('', []), ('0', ['  a, seed 1: changed: code'])):
        found = plan(study, write(tmp_path / 'small.csv', first, {**second, 'code': code}))
        assert found['lines'][1:] == states
    study.options = {'optim_wrapper.optimizer.lr': 0.5}
    lines = plan(study, write(tmp_path / 'small.csv', first, second))['lines']
    assert lines[1:] == ['  a, seed 0: changed: config', '  a, seed 1: changed: config']


def test_the_plan_is_the_last_line_whatever_datasets_print_as_they_are_made(
    tmp_path, monkeypatch, capfd
):
    study_of(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['cells.py', str(tmp_path / 'small.py'), 'none.csv'])
    monkeypatch.setattr(digests, 'of_data', lambda cfg: str(os.write(1, b'[>>]')))
    cells.main()
    assert len(json.loads(capfd.readouterr().out.splitlines()[-1])['todo']) == 2


def test_data_that_are_not_there_matter_only_to_cells_that_are_to_run(tmp_path, monkeypatch):
    study = study_of(tmp_path, seeds=[0])
    path = write(tmp_path / 'small.csv', make_cell(study, 'a', 0))

    def absent(cfg):
        raise ValueError('no folder data')

    monkeypatch.setattr(digests, 'of_data', absent)
    assert names_of(plan(study, path)) == []
    study.epochs = 3
    with pytest.raises(ValueError, match="runs\\['a'\\]: its data cannot be read: no folder data"):
        plan(study, path)


@pytest.mark.parametrize(
    ('changes', 'differs', 'trains'),
    [
        (dict(title='another', pictures=[dict(kind='scale')]), False, False),
        (dict(options={'optim_wrapper.optimizer.lr': 0.02}), True, True),
        (dict(options={'train_dataloader.dataset.seed': 5}), True, True),
        (dict(seed_options=['train_dataloader.dataset.seed']), True, True),
        (dict(epochs=3), True, True),
        (dict(checkpoint='best'), True, True),
        (dict(test=True), True, False),
        (dict(tests=dict(small={})), True, False),
        (dict(equivariance=dict(border=1)), True, False),
    ],
)
def test_names_change_with_what_numbers_depend_on(changes, differs, trains, tmp_path):
    before, after = (make_cell(study_of(tmp_path, **c), 'a', 1) for c in ({}, changes))
    assert (before['result'] != after['result']) == differs == bool(changed(before, after))
    assert (before['folder'] != after['folder']) == trains


def test_the_best_checkpoint_is_best_by_what_the_config_says(tmp_path):
    study = study_of(tmp_path, checkpoint='best')
    saved = 'default_hooks.checkpoint.save_best'
    assert make_cell(study, 'a', 0)['options'][saved] == 'auto'
    path = tmp_path / 'own.py'
    path.write_text(
        f"_base_ = '{ROOT / DIGITS}'\n"
        "default_hooks = dict(checkpoint=dict(save_best='equivariance/backbone', rule='less'))\n"
    )
    study.runs = dict(a=dict(config=str(path)))
    assert saved not in make_cell(study, 'a', 0)['options']


def test_options_that_are_the_seed_are_another_in_each_cell(tmp_path):
    study = study_of(tmp_path, seed_options=['train_dataloader.dataset.seed'])
    first, second = (make_cell(study, 'a', seed) for seed in (0, 1))
    assert second['options']['train_dataloader.dataset.seed'] == 1
    assert second['options']['randomness.seed'] == 1
    assert first['config'] != second['config']
    study.seed_options = {'train_dataloader.dataset.data_root': 'draw_{seed}'}
    assert make_cell(study, 'a', 1)['options']['train_dataloader.dataset.data_root'] == 'draw_1'


def test_a_run_with_the_weights_of_another_is_measured_by_its_own_config(tmp_path):
    def made(**options):
        runs = dict(
            a=dict(config=DIGITS, options=options),
            b=dict(config=DIGITS, options={'model.neck.scale': 'avg'}, weights_of='a'),
        )
        study = study_of(tmp_path, runs=runs)
        return [make_cell(study, run, 0) for run in runs]

    (a, b), (changed_a, changed_b) = made(), made(**{'optim_wrapper.optimizer.lr': 0.02})
    assert b['folder'] == a['folder'] and b['trained'] == a['trained']
    assert 'model.neck.scale' in b['options'] and 'model.neck.scale' not in b['trained']['options']
    assert b['result'] != a['result']
    assert changed_a['folder'] == changed_b['folder'] != a['folder']
    assert changed(changed_b, b) == ['config']


def test_options_and_arguments_are_words_that_the_command_line_reads_back():
    options = {'a.b': 'text', 'c': [1, 2.5], 'd': ('x', 'y'), 'e': True, 'f': None}
    assert as_words(options) == ['a.b=text', 'c=[1,2.5]', "d=('x','y')", 'e=True', 'f=None']
    asked = dict(border=1, factors=[1, 2], breakdown=False, unsquared=True, metric=None)
    assert flags(asked) == ['--border', '1', '--factors', '1', '2', '--unsquared']


def test_the_checkpoint_is_the_last_or_the_best_that_was_written_last(tmp_path):
    for epoch in (9, 12):
        (tmp_path / f'best_top1_epoch_{epoch}.pth').touch()
        os.utime(tmp_path / f'best_top1_epoch_{epoch}.pth', (epoch, epoch))
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_12.pth')
    found = [checkpoint_of(dict(checkpoint=which), tmp_path).name for which in ('last', 'best')]
    assert found == ['epoch_12.pth', 'best_top1_epoch_12.pth']


def test_new_lines_of_a_cell_take_the_place_of_its_former_ones(tmp_path):
    study = study_of(tmp_path)
    cells = [dict(cell=name, seed=seed) for seed in (1, 0) for name in ('gone', 'a')]
    path = write(tmp_path / 'all.csv', *cells)
    new = write(tmp_path / 'new.csv', *[dict(cells[3], value='0.30000000000000004')] * 2)
    collect(study, path, [new, tmp_path / 'absent.csv'])
    with path.open() as file:
        found = [(row['cell'], row['seed'], row['value']) for row in csv.DictReader(file)]
    assert found[:3] == [('a', '0', '0.30000000000000004')] * 2 + [('a', '1', '0.1')]
    assert sorted(found[3:]) == [('gone', '0', '0.1'), ('gone', '1', '0.1')]
    before = path.read_bytes()
    collect(study, path, [new])
    assert path.read_bytes() == before


def test_one_cycle_and_two_cosines_are_stretched_alike():
    cycle = stretched(load_config(str(ROOT / DIGITS)), 20)
    assert cycle == {'train_cfg.max_epochs': 20, 'param_scheduler.total_steps': 20}
    cosines = stretched(load_config(str(ROOT / DEFORMABLE)), 20)
    ends = [cosines[f'param_scheduler.{i}.{end}'] for i in (0, 1) for end in ('begin', 'end')]
    assert len(cosines) == 5 and ends == [0, 6, 6, 20]


def config_of(*schedules: dict, **train_cfg) -> Config:
    return Config(dict(train_cfg=train_cfg, param_scheduler=list(schedules)))


def test_milestones_are_stretched():
    step = dict(type='MultiStepLR', milestones=[30, 60], by_epoch=True)
    found = stretched(config_of(step, max_epochs=90), 30)
    assert found['param_scheduler.0.milestones'] == [10, 20]


@pytest.mark.parametrize(
    ('schedule', 'train_cfg', 'epochs', 'message'),
    [
        (dict(by_epoch=False), dict(max_epochs=9), 3, 'param_scheduler.0 counts in iterations'),
        (dict(step_size=10), dict(max_epochs=30), 1, '1 are too few for param_scheduler.0.step_si'),
        ({}, dict(max_epochs=9), 0, 'epochs must be an integer from 1, got 0'),
        ({}, dict(max_iters=9), 3, 'not by epochs'),
    ],
)
def test_what_cannot_be_stretched_is_named(schedule, train_cfg, epochs, message):
    with pytest.raises(ValueError, match=message):
        stretched(config_of(dict(type='StepLR', **schedule), **train_cfg), epochs)


@pytest.mark.parametrize(('epochs', 'end'), [(60, 2), (15, 1), (10, 1), (2, 1)])
def test_a_shortened_warm_up_keeps_a_whole_step(epochs, end):
    warm_up = dict(type='LinearLR', end=1), dict(type='CosineAnnealingLR', begin=1, end=30)
    cfg = config_of(*warm_up, max_epochs=30)
    found = stretched(cfg, epochs)
    assert found['param_scheduler.0.end'] == found['param_scheduler.1.begin'] == end
    assert found['param_scheduler.1.end'] == epochs
    with pytest.raises(ValueError, match='1 are too few for param_scheduler.1.end.* 30 of 30'):
        stretched(cfg, 1)
