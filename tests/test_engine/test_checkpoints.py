# Copyright (c) mmscale contributors.
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from test_datasets.synthetic import Program

from mmscale.engine import checkpoints
from mmscale.engine.safe_loading import _method_of


def save_checkpoint(path, **more) -> str:
    torch.save(dict(state_dict=dict(weight=torch.zeros(1)), **more), path)
    return str(path)


def test_a_checkpoint_that_runs_a_program_is_not_opened(tmp_path):
    path = save_checkpoint(tmp_path / 'epoch_1.pth', more=Program(tmp_path / 'ran'))
    (tmp_path / 'last_checkpoint').write_text(path)
    for check in (lambda: checkpoints.check_file(path), lambda: resumed(tmp_path)):
        with pytest.raises(ValueError, match='epoch_1.pth: it holds .*makedirs, .*--trust-check'):
            check()
    assert not (tmp_path / 'ran').exists()


def test_nothing_is_reached_through_what_is_allowed(tmp_path):
    """Methods of two classes are known by name; attributes of anything else are not."""
    path = save_checkpoint(tmp_path / 'a.pth', more=HistoryBuffer([1], [1]))
    checkpoints.check_file(path)
    asked = [(HistoryBuffer.mean, '__globals__'), (HistoryBuffer, '__class__'), (os, 'makedirs')]
    for owner, name in asked:
        with pytest.raises(ValueError, match=f'cannot ask for {name}'):
            _method_of(owner, name)


def resumed(work_dir, **kwargs) -> Config:
    cfg = Config(dict(work_dir=str(work_dir), **kwargs))
    checkpoints.resume_latest(cfg)
    return cfg


def test_a_run_without_checkpoint_begins_from_what_its_config_loads(tmp_path):
    cfg = resumed(tmp_path, load_from='resnet50.pth')
    assert (cfg.resume, cfg.load_from) == (False, 'resnet50.pth')
    path = save_checkpoint(tmp_path / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text(path)
    cfg = resumed(tmp_path, load_from='resnet50.pth')
    assert (cfg.resume, cfg.load_from) == (True, path)


def test_a_checkpoint_that_was_being_written_is_passed_over(tmp_path):
    paths = [save_checkpoint(tmp_path / f'epoch_{epoch}.pth') for epoch in (8, 9, 10)]
    for age, path in zip((30, 20, 10), paths):
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / 'last_checkpoint').write_text(paths[-1])
    Path(paths[-1]).write_bytes(Path(paths[-1]).read_bytes()[:200])
    with pytest.warns(UserWarning, match='epoch_10.pth: the file is cut off.*going on from .*9'):
        cfg = resumed(tmp_path)
    assert (cfg.resume, cfg.load_from) == (True, paths[1])
    (tmp_path / 'last_checkpoint').write_text('')  # was being written
    with pytest.warns(UserWarning, match='going on from .*epoch_9'):
        assert resumed(tmp_path).load_from == paths[1]
    for path in paths:
        Path(path).write_bytes(b'')
    with pytest.raises((ValueError, FileNotFoundError)):
        resumed(tmp_path)


def test_missing_checkpoint_is_named_and_addresses_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no file .*missing.pth'):
        checkpoints.check_file(tmp_path / 'missing.pth')
    checkpoints.check_file('torchvision://resnet50')
    checkpoints.check_file(None)
