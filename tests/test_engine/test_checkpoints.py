# Copyright (c) mmscale contributors.
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
