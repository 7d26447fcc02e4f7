# Copyright (c) mmscale contributors.
import os
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from mmscale.engine import checkpoints


def config(**kwargs) -> Config:
    return Config(kwargs)


@pytest.fixture
def upstream_fault(monkeypatch):
    """The original MMEngine with a new torch."""
    monkeypatch.setattr(mmengine, '__version__', '0.10.7')
    monkeypatch.setattr(torch, '__version__', '2.6.0+cpu')
    monkeypatch.delenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', raising=False)


def save_checkpoint(path, **more) -> str:
    torch.save(dict(state_dict=dict(weight=torch.zeros(1)), **more), path)
    return str(path)


def test_checkpoint_that_mmengine_cannot_load_is_refused(upstream_fault, tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / 'epoch_1.pth', message_hub=dict(loss=HistoryBuffer([1], [1])))
    cfg = config(load_from=path)
    with pytest.raises(ValueError, match='cannot load its own checkpoints.*onedl-mmengine'):
        checkpoints.check_checkpoint(cfg)
    (tmp_path / 'last_checkpoint').write_text(path)
    with pytest.raises(ValueError, match='epoch_1.pth'):
        checkpoints.check_checkpoint(config(load_from=None, resume=True, work_dir=str(tmp_path)))
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    checkpoints.check_checkpoint(cfg)


def resumed(work_dir, **kwargs) -> Config:
    cfg = config(work_dir=str(work_dir), **kwargs)
    checkpoints.resume_latest(cfg)
    return cfg


def test_a_run_without_checkpoint_begins_from_what_its_config_loads(tmp_path):
    cfg = resumed(tmp_path, load_from='resnet50.pth')
    assert (cfg.resume, cfg.load_from) == (False, 'resnet50.pth')
    path = save_checkpoint(tmp_path / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text(path)
    cfg = resumed(tmp_path, load_from='resnet50.pth')
    assert (cfg.resume, cfg.load_from) == (True, None)


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


def test_checkpoint_of_weights_alone_is_accepted(upstream_fault, tmp_path):
    checkpoints.check_checkpoint(config(load_from=save_checkpoint(tmp_path / 'weights.pth')))


@pytest.mark.parametrize(
    'mmengine_version, torch_version, faulty',
    [('0.10.7', '2.5.1', False), ('0.10.8', '2.11.0', False), ('0.10.7', '2.11.0+cu130', True)],
)
def test_versions_that_cannot_load_checkpoints(
    upstream_fault, monkeypatch, mmengine_version, torch_version, faulty
):
    monkeypatch.setattr(mmengine, '__version__', mmengine_version)
    monkeypatch.setattr(torch, '__version__', torch_version)
    assert checkpoints.cannot_load_checkpoints() is faulty


def test_missing_checkpoint_is_named_and_addresses_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no file .*missing.pth'):
        checkpoints.check_checkpoint(config(load_from=str(tmp_path / 'missing.pth')))
    checkpoints.check_checkpoint(config(load_from='torchvision://resnet50'))
    checkpoints.check_checkpoint(config(load_from=None))
