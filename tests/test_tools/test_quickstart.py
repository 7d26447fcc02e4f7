# Copyright (c) mmscale contributors.
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from .conftest import ROOT, run_here, run_tool

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
        folder = quickstart.folder_of(out, name, 0)
        folder.mkdir()
        torch.save(dict(state_dict=model.state_dict()), folder / f'epoch_{quickstart.EPOCHS}.pth')
    result = run_tool('tools/quickstart.py', '--out', out)
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def test_prints_the_table_and_where_the_figure_is(finished):
    out, printed = finished
    for title in ('accuracy in %', 'change of the pooled features', 'equivariance error'):
        assert title in printed
    assert all(printed.count(f'\n  {name} ') == 4 for name in quickstart.CONFIGS)
    assert f'figure: {out / "quickstart.png"}' in printed
    assert (out / 'quickstart.png').stat().st_size > 20_000


def test_what_follows_the_lift_is_exact_at_powers_of_the_base(finished):
    results = json.loads((finished[0] / 'quickstart.json').read_text())
    at_two = results['factors'].index(2.0)
    body = {name: runs[0]['body'][at_two] for name, runs in results['models'].items()}
    assert body['ResNet'] > 0.05
    assert body['DSS v1'] < 1e-10 and body['economical-up1'] < 1e-10


def test_a_second_run_measures_nothing_anew(finished, monkeypatch, capsys):
    out, first = finished
    run_here(monkeypatch, 'tools/quickstart.py', '--out', out)
    again = capsys.readouterr().out
    assert 'measuring' in first and 'measuring' not in again
    assert again.splitlines()[-20:] == first.splitlines()[-20:]


def test_what_was_trained_with_other_code_has_another_folder(monkeypatch, tmp_path):
    before = quickstart.folder_of(tmp_path, 'ResNet', 0)
    assert before == quickstart.folder_of(tmp_path, 'ResNet', 0)
    assert before != quickstart.folder_of(tmp_path, 'ResNet', 1)
    read = Path.read_bytes
    monkeypatch.setattr(Path, 'read_bytes', lambda path: read(path) + b'#')
    assert before != quickstart.folder_of(tmp_path, 'ResNet', 0)
