# Copyright (c) mmscale contributors.
import ast
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmscale.engine import schedules
from mmscale.engine.launch import load_config, merge_options
from mmscale.studies import cells
from mmscale.studies.cells import check_runs, make_cells, read_study
from mmscale.studies.processes import gpu_of
from mmscale.studies.runs import checkpoint_of, commands, commit

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 'configs/resnet/resnet18-w8_1xb50-10e_scaledigits.py'
DEFORMABLE = 'configs/dcn/resnet18-w7-dcnv1_1xb50-10e_scaledigits.py'


def study_of(**changes) -> Config:
    study = dict(title='t', seeds=[0, 1], runs=dict(a=dict(config=DIGITS)), **cells.DEFAULTS)
    return Config({**study, **changes})


def write(folder: Path, text: str) -> Path:
    path = folder / 'study.py'
    path.write_text(text)
    return path


@pytest.mark.parametrize('path', sorted((ROOT / 'studies').glob('*.py')), ids=lambda p: p.stem)
def test_studies_of_the_repository_are_sound(path):
    study = read_study(path, ROOT)
    if any('downstream' in run.config for run in study.runs.values()):
        pytest.importorskip('mmdet', reason='needs the environment of `make test-downstream`')
    for run in study.runs.values():
        cfg = load_config(str(ROOT / run.config))
        merge_options(cfg, {**study.options, **run.get('options', {})})
        if study.epochs:
            schedules.stretched(cfg, study.epochs)
    for _, first, second in study.comparisons:
        assert {first, second} <= set(study.runs)
    for picture in study.pictures:
        assert set(picture.get('runs', [])) <= set(study.runs)


@pytest.mark.parametrize(
    'text, message',
    [
        ('title = "t"\nseeds = [0]', 'no runs'),
        ('title = "t"\nruns = dict(a=dict(config="x.py"))', 'no seeds'),
        ('title = "t"\nseeds = [0]\nruns = dict(a=dict(config="x.py"))', 'no file x.py'),
        ('title = "t"\nseeds = [0]\nruns = dict(a=3)', "runs\\['a'\\] must be a dict"),
        (f'title = "t"\nseeds = [-1]\nruns = dict(a=dict(config="{DIGITS}"))', 'seeds must'),
        (f'title = "t"\nseeds = [0]\nrunz = 3\nruns = dict(a=dict(config="{DIGITS}"))', 'runz'),
        (
            f'title = "t"\nseeds = [0]\ncheckpoint = "x"\nruns = dict(a=dict(config="{DIGITS}"))',
            'checkpoint must be',
        ),
        (
            'title = "t"\nseeds = [0]\ntests = dict(small={})\ncolumns = dict(x=["big", "mIoU"])\n'
            f'runs = dict(a=dict(config="{DIGITS}"))',
            "columns\\['x'\\] is of the test 'big', which is none of tests: small",
        ),
        (
            f'title = "t"\nseeds = [0]\nequivariance = dict(acuracy_images=5)\n'
            f'runs = dict(a=dict(config="{DIGITS}"))',
            'equivariance has acuracy_images; known are layers, factors',
        ),
    ],
)
def test_what_a_study_cannot_have_is_named(tmp_path, text, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_study(write(tmp_path, text), ROOT)


def test_an_unknown_study_names_those_there_are():
    with pytest.raises(FileNotFoundError, match='studies/models_scalemnist.py'):
        read_study(ROOT / 'studies/none.py', ROOT)


def test_all_runs_have_the_first_seed_before_any_has_the_second():
    study = study_of(runs=dict(b=dict(config=DIGITS), a=dict(config=DEFORMABLE)))
    found = make_cells(study, ROOT)
    assert [(c.name, c.seed) for c in found] == [('b', 0), ('a', 0), ('b', 1), ('a', 1)]
    assert len({c.key for c in found}) == len({c.slug for c in found}) == 4


def test_a_run_that_there_is_not_is_named():
    check_runs(study_of(), ['a'])
    with pytest.raises(ValueError, match="--only: z is not one of 'a'"):
        check_runs(study_of(), ['a', 'z'])


def key_of(**changes) -> str:
    return make_cells(study_of(**changes), ROOT)[0].key


def test_the_key_changes_with_what_numbers_depend_on_and_with_nothing_else(monkeypatch):
    base = key_of()
    assert key_of(title='another', pictures=[dict(kind='scale')]) == base
    assert key_of(options={'optim_wrapper.optimizer.lr': 0.02}) != base
    assert key_of(options={'train_dataloader.dataset.seed': 5}) != base
    assert key_of(epochs=3) != base and key_of(checkpoint='best') != base
    # Keys of before there were further tests are as they were.
    assert key_of(tests={}) == base != key_of(tests=dict(small={}))
    assert key_of(test=True) != base and key_of(equivariance=dict(border=1)) != base
    monkeypatch.setattr(cells, 'digest_code', lambda: 'other')
    assert key_of() != base


def test_further_tests_run_with_their_own_options_and_unknown_ones_are_named():
    tests = dict(half={'test_dataloader.dataset.scale': 0.5}, all={})
    (cell,) = make_cells(study_of(seeds=[0], tests=tests), ROOT)
    found = commands(cell, Path('w'), 'epoch_9.pth')
    assert list(found) == ['train', 'test_half', 'test_all']
    assert found['test_half'][-1] == 'test_dataloader.dataset.scale=0.5'
    assert found['test_half'][:3] == ['tools/test.py', DIGITS, 'w/epoch_9.pth']
    files = [words[words.index('--out') + 1] for words in list(found.values())[1:]]
    assert files == ['w/metrics_half.json', 'w/metrics_all.json']
    with pytest.raises(ValueError, match="runs\\['a'\\]: .*the config has no test_data"):
        make_cells(study_of(tests=dict(half={'test_data': 1})), ROOT)


def test_arguments_of_the_measurement_are_those_of_the_tool(monkeypatch):
    tool = runpy.run_path(str(ROOT / 'tools' / 'equivariance.py'))
    monkeypatch.setattr(sys, 'argv', ['equivariance.py', DIGITS])
    of_the_study = {'models', 'names', 'out', 'cfg_options'}
    assert set(vars(tool['parse_args']())) - of_the_study == set(cells.EQUIVARIANCE)
    asked = dict(border=1, factors=[1, 2], breakdown=False, unsquared=True, metric=None)
    (cell,) = make_cells(study_of(seeds=[0], equivariance=asked), ROOT)
    words = commands(cell, Path('w'), 'epoch_9.pth')['equivariance']
    found = ['--border', '1', '--factors', '1', '2', '--unsquared', '--out', 'w/equivariance']
    assert words[words.index('--border') : words.index('--cfg-options')] == found


def test_the_checkpoint_is_the_last_or_the_best_that_was_written_last(tmp_path):
    last, best = (make_cells(study_of(checkpoint=c), ROOT)[0] for c in cells.CHECKPOINTS)
    assert checkpoint_of(last, tmp_path) == 'epoch_*.pth'
    assert checkpoint_of(best, tmp_path) == 'best_*.pth'
    (tmp_path / 'last_checkpoint').write_text('/where/it/was/trained/epoch_12.pth')
    for age, name in ((20, 'best_top1_epoch_9.pth'), (10, 'best_top1_epoch_12.pth')):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert checkpoint_of(last, tmp_path) == 'epoch_12.pth'
    assert checkpoint_of(best, tmp_path) == 'best_top1_epoch_12.pth'


@pytest.mark.parametrize(
    'visible, found', [(None, '01230'), ('2,3', '23232'), (' GPU-a , GPU-b', ['GPU-a', 'GPU-b'])]
)
def test_workers_take_gpus_that_the_study_was_given(visible, found):
    count = len(visible.split(',')) if visible else 4
    assert [gpu_of(worker, count, visible) for worker in range(len(found))] == list(found)
    assert gpu_of(1, 1, '7,-1,2') == '7'  # what is behind -1 cannot be seen


def test_the_best_checkpoint_is_best_by_what_the_config_says(tmp_path):
    (cell, _) = make_cells(study_of(checkpoint='best'), ROOT)
    assert cell.options['default_hooks.checkpoint.save_best'] == 'auto'
    path = tmp_path / 'own.py'
    path.write_text(
        f"_base_ = '{ROOT / DIGITS}'\n"
        "default_hooks = dict(checkpoint=dict(save_best='equivariance/backbone', rule='less'))\n"
    )
    runs = dict(a=dict(config=str(path)))
    (cell, _) = make_cells(study_of(checkpoint='best', runs=runs), ROOT)
    assert not any('save_best' in key for key in cell.options)


def test_options_that_are_the_seed_are_another_in_each_cell():
    found = make_cells(study_of(seed_options=['train_dataloader.dataset.seed']), ROOT)
    assert [c.options['train_dataloader.dataset.seed'] for c in found] == [0, 1]
    assert len({c.digests['config'] for c in found}) == 2


def test_comments_and_docstrings_are_no_code(tmp_path):
    plain, said, other = (tmp_path / f'{name}.py' for name in ('plain', 'said', 'other'))
    plain.write_text('def f(x):\n    return x + 1\n')
    said.write_text('"""Module."""\n# why\n\ndef f(x):\n    """Doc."""\n    return x + 1  # one\n')
    other.write_text('def f(x):\n    return x + 2\n')
    assert cells._statements(plain) == cells._statements(said) != cells._statements(other)


def test_the_digest_of_code_is_the_same_in_every_python(tmp_path):
    """3.12 shows type parameters that there are none, and 3.13 no empty lists."""
    path = tmp_path / 'code.py'
    path.write_text('class A:\n    def f():\n        pass\n')
    arguments = 'arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])'
    method = f"FunctionDef(name='f', args={arguments}, body=[Pass()], decorator_list=[])"
    found = f"ClassDef(name='A', bases=[], keywords=[], body=[{method}], decorator_list=[])"
    assert cells._statements(path) == f'Module(body=[{found}], type_ignores=[])'


@pytest.mark.parametrize('python', ['3.11', '3.12'])
def test_formats_are_the_same_code_in_every_python(python, tmp_path, monkeypatch):
    """3.12.1 ends the format of f'{x:{y}}' with an empty string."""
    path = tmp_path / 'code.py'
    path.write_text("f'{x:<{y}}'\n")
    tree = ast.parse(path.read_text())
    values = tree.body[0].value.values[0].format_spec.values
    values[:] = [*values[:2], *([ast.Constant('')] if python == '3.12' else [])]
    monkeypatch.setattr(ast, 'parse', lambda *args, **kwargs: tree)
    x, y = (f"FormattedValue(value=Name(id='{n}', ctx=Load()), conversion=-1" for n in 'xy')
    spec = f"JoinedStr(values=[Constant(value='<'), {y})])"
    found = f'JoinedStr(values=[{x}, format_spec={spec})])'
    assert cells._statements(path) == f'Module(body=[Expr(value={found})], type_ignores=[])'


def test_the_digest_of_data_is_of_its_samples():
    cfg = load_config(str(ROOT / DIGITS))
    before = cells.digest_data(cfg)
    cfg.train_dataloader.batch_size = 7
    assert cells.digest_data(cfg) == before
    cfg.test_dataloader.dataset.scale = 0.5
    assert cells.digest_data(cfg) != before


def test_options_are_words_that_the_command_line_reads_back():
    options = {'a.b': 'text', 'c': [1, 2.5], 'd': ('x', 'y'), 'e': True, 'f': None}
    (cell, _) = make_cells(study_of(), ROOT)
    words = cells.as_words(options)
    assert words == ['a.b=text', 'c=[1,2.5]', "d=('x','y')", 'e=True', 'f=None']


def test_one_cycle_and_two_cosines_are_stretched_alike():
    cycle = schedules.stretched(load_config(str(ROOT / DIGITS)), 20)
    assert cycle == {'train_cfg.max_epochs': 20, 'param_scheduler.total_steps': 20}
    cosines = schedules.stretched(load_config(str(ROOT / DEFORMABLE)), 20)
    assert cosines == {
        'train_cfg.max_epochs': 20,
        'param_scheduler.0.begin': 0,
        'param_scheduler.0.end': 6,
        'param_scheduler.1.begin': 6,
        'param_scheduler.1.end': 20,
    }


def test_milestones_are_stretched_and_iterations_are_refused():
    step = dict(type='MultiStepLR', milestones=[30, 60], by_epoch=True)
    cfg = Config(dict(train_cfg=dict(max_epochs=90), param_scheduler=step))
    assert schedules.stretched(cfg, 30)['param_scheduler.milestones'] == [10, 20]
    cfg.param_scheduler.by_epoch = False
    with pytest.raises(ValueError, match='param_scheduler counts in iterations'):
        schedules.stretched(cfg, 30)
    with pytest.raises(ValueError, match='epochs must be an integer from 1, got 0'):
        schedules.stretched(cfg, 0)
    with pytest.raises(ValueError, match='not by epochs'):
        schedules.stretched(Config(dict(train_cfg=dict(max_iters=9))), 3)


def test_a_warm_up_of_which_nothing_would_be_left_is_named():
    warm_up = [dict(type='LinearLR', end=1), dict(type='CosineAnnealingLR', begin=1, end=30)]
    cfg = Config(dict(train_cfg=dict(max_epochs=30), param_scheduler=warm_up))
    assert schedules.stretched(cfg, 60)['param_scheduler.0.end'] == 2
    with pytest.raises(ValueError, match='10 are too few for param_scheduler.0.end.* 1 of 30'):
        schedules.stretched(cfg, 10)
    cfg.param_scheduler = dict(type='StepLR', step_size=10)
    with pytest.raises(ValueError, match='1 are too few for param_scheduler.step_size'):
        schedules.stretched(cfg, 1)


def test_a_revision_says_whether_code_was_changed_and_not_what_a_ledger_holds(tmp_path):
    def git(*words):
        subprocess.run(['git', '-C', tmp_path, '-c', 'user.name=a', '-c', 'user.email=a@b', *words],
                       check=True, capture_output=True)  # fmt: skip

    assert commit(tmp_path) is None
    for folder in ('mmscale', 'studies'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'file').write_text('1')
    git('init')
    git('add', '-A')
    git('commit', '-m', 'first')
    clean = commit(tmp_path)
    assert len(clean) == 12
    (tmp_path / 'studies' / 'file').write_text('2')
    assert commit(tmp_path) == clean
    (tmp_path / 'mmscale' / 'file').write_text('2')
    assert commit(tmp_path) == f'{clean}+'
