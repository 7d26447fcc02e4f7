# Copyright (c) mmscale contributors.
import csv
import json
import os

import digests
import pytest
from cells import ROOT, STUDIES, as_words, changed, find_study, make_cell, plan, read_study
from run_cell import COLUMNS, checkpoint_of, flags

DIGITS = 'configs/resnet/resnet18-w8_1xb50-10e_scaledigits.py'
DEFORMABLE = 'configs/dcn/resnet18-w7-dcnv1_1xb50-10e_scaledigits.py'


def study_of(folder, **changes):
    base = dict(title='t', seeds=[0, 1], runs=dict(a=dict(config=DIGITS)))
    study = {**base, **changes}
    path = folder / 'small.py'
    path.write_text('\n'.join(f'{name} = {value!r}' for name, value in study.items()))
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
    assert len({cell['folder'] for cell in found}) == len(study.runs)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(seeds=[]), 'has no seeds'),
        (dict(runz=3), 'has runz; known are title, runs'),
        (dict(checkpoint='x'), "checkpoint='x'; it must be 'last' or 'best'"),
        (dict(tests=dict(small={}), columns=dict(x=['big', 'mIoU'])), "no test 'big' for columns"),
        (dict(equivariance=dict(acuracy_images=5)), 'equivariance with acuracy_images, unknown'),
        (dict(pictures=[dict(kind='scale', runs=['b'])]), "no run 'b' for pictures or comp"),
        (dict(comparisons=[('', 'a', 'b')]), "no run 'b' for pictures or comp"),
    ],
)
def test_what_a_study_cannot_have_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        study_of(tmp_path, **changes)


def test_what_a_config_does_not_take_is_named_before_anything_runs(tmp_path):
    study = study_of(tmp_path, tests=dict(half={'test_data': 1}))
    with pytest.raises(ValueError, match="runs\\['a'\\]: .*nothing looks for test_data"):
        plan(study, tmp_path / 'none.csv')
    with pytest.raises(FileNotFoundError, match='this repository has .*models_scalemnist'):
        find_study('none')


def names_of(found: dict) -> list:
    return [(cell['cell'], cell['seed']) for cell in found['todo']]


def test_all_runs_have_the_first_seed_before_any_has_the_second(tmp_path):
    study = study_of(tmp_path)
    study.runs = dict(b=dict(config=DIGITS), a=dict(config=DEFORMABLE))
    found = plan(study, tmp_path / 'none.csv')
    assert names_of(found) == [('b', 0), ('a', 0), ('b', 1), ('a', 1)]
    assert names_of(plan(study, tmp_path / 'none.csv', only='^a, seed 1')) == [('a', 1)]


def test_a_cell_in_the_results_runs_again_only_if_something_has_changed(tmp_path):
    study = study_of(tmp_path)
    first, second = (make_cell(study, 'a', seed) for seed in (0, 1))
    path = write(tmp_path / 'small.csv', first)
    found = plan(study, path)
    assert names_of(found) == [('a', 1)] and '1 cells are measured' in found['lines'][0]
    assert found['lines'][1:] == ['  a, seed 1: missing']
    # Measured before code had a digest, and on a machine with other code.
    for code, states in (('', []), ('0', ['  a, seed 1: changed: code'])):
        found = plan(study, write(tmp_path / 'small.csv', first, {**second, 'code': code}))
        assert found['lines'][1:] == states
    study.options = {'optim_wrapper.optimizer.lr': 0.5}
    lines = plan(study, write(tmp_path / 'small.csv', first, second))['lines']
    assert lines[1:] == ['  a, seed 0: changed: config', '  a, seed 1: changed: config']


def test_data_that_are_not_there_matter_only_to_cells_that_are_to_run(tmp_path, monkeypatch):
    study = study_of(tmp_path)
    study.seeds = [0]
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
        (dict(epochs=3), True, True),
        (dict(checkpoint='best'), True, True),
        (dict(test=True), True, False),
        (dict(tests=dict(small={})), True, False),
        (dict(equivariance=dict(border=1)), True, False),
    ],
)
def test_names_change_with_what_numbers_depend_on(changes, differs, trains, tmp_path):
    before, after = (make_cell(study_of(tmp_path, **c), 'a', 0) for c in ({}, changes))
    assert (before['result'] != after['result']) == differs == bool(changed(before, after))
    assert (before['folder'] != after['folder']) == trains


def test_the_best_checkpoint_is_best_by_what_the_config_says(tmp_path):
    study = study_of(tmp_path, checkpoint='best')
    assert 'default_hooks.checkpoint.save_best=auto' in make_cell(study, 'a', 0)['options']
    path = tmp_path / 'own.py'
    path.write_text(
        f"_base_ = '{ROOT / DIGITS}'\n"
        "default_hooks = dict(checkpoint=dict(save_best='equivariance/backbone', rule='less'))\n"
    )
    study.runs = dict(a=dict(config=str(path)))
    assert not any('save_best' in word for word in make_cell(study, 'a', 0)['options'])


def test_options_that_are_the_seed_are_another_in_each_cell(tmp_path):
    study = study_of(tmp_path, seed_options=['train_dataloader.dataset.seed'])
    first, second = (make_cell(study, 'a', seed) for seed in (0, 1))
    assert 'train_dataloader.dataset.seed=1' in second['options']
    assert first['config'] != second['config']


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
    assert checkpoint_of(dict(checkpoint='last'), tmp_path) == tmp_path / 'epoch_12.pth'
    found = checkpoint_of(dict(checkpoint='best'), tmp_path)
    assert found == tmp_path / 'best_top1_epoch_12.pth'


def test_the_snakefile_can_read_a_plan(tmp_path):
    assert json.loads(json.dumps(plan(study_of(tmp_path), tmp_path / 'none.csv')))['todo']
