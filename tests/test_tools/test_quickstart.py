# Copyright (c) mmscale contributors.
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from .conftest import ROOT, run_tool

sys.path.insert(0, str(ROOT / 'tools'))
import quickstart  # noqa: E402


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A quickstart whose trainings are over: with their checkpoints there, it measures."""
    out = tmp_path_factory.mktemp('quickstart')
    torch.manual_seed(0)
    for name, config in quickstart.CONFIGS.items():
        cfg = Config.fromfile(ROOT / config)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        folder = quickstart.folder_of(out, name)
        folder.mkdir()
        torch.save(dict(state_dict=model.state_dict()), folder / f'epoch_{quickstart.EPOCHS}.pth')
    result = run_tool('tools/quickstart.py', '--out', out)
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def test_prints_the_tables_and_where_the_figure_is(finished):
    out, printed = finished
    for title in ('accuracy in %', 'equivariance error, backbone', 'body alone'):
        assert title in printed
    assert all(printed.count(f'\n{name} ') >= 2 for name in quickstart.CONFIGS)
    assert f'figure: {out / "equivariance.png"}' in printed


def test_what_follows_the_lift_is_exact_at_powers_of_the_base(finished):
    results = json.loads((finished[0] / 'equivariance.json').read_text())['models']
    at_two = results[0]['factors'].index(2.0)
    resnet, _, *scaled = results
    assert resnet['layers']['backbone']['mean'][at_two] > 0.05
    assert all(result['body']['mean'][at_two] < 1e-10 for result in scaled)
    assert [result['accuracy']['n'][0] for result in results] == [500] * 4


def test_a_second_run_measures_nothing_anew(finished):
    out, first = finished
    again = run_tool('tools/quickstart.py', '--out', out).stdout
    assert first.count(': measuring ') == again.count(': measured already, see ') == 4
    assert again.splitlines()[-20:] == first.splitlines()[-20:]


def test_what_was_trained_with_other_code_has_another_folder(monkeypatch, tmp_path):
    before = quickstart.folder_of(tmp_path, 'ResNet')
    assert before == quickstart.folder_of(tmp_path, 'ResNet')
    assert before != quickstart.folder_of(tmp_path, 'ResNet, blur')
    read = Path.read_bytes
    monkeypatch.setattr(Path, 'read_bytes', lambda path: read(path) + b'#')
    assert before != quickstart.folder_of(tmp_path, 'ResNet')


def test_a_failed_training_shows_the_end_of_its_log(monkeypatch, tmp_path):
    monkeypatch.setitem(quickstart.CONFIGS, 'ResNet', 'configs/none.py')
    with pytest.raises(RuntimeError, match=r'(?s)training ResNet failed; the end of .*none\.py'):
        quickstart.train('ResNet', tmp_path, 1)


def test_a_checkpoint_that_a_kill_has_cut_off_does_not_count(tmp_path):
    path = tmp_path / f'epoch_{quickstart.EPOCHS}.pth'
    torch.save(dict(state_dict=dict(weight=torch.zeros(1000))), path)
    assert quickstart.is_trained(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    assert not quickstart.is_trained(tmp_path)
