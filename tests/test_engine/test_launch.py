# Copyright (c) mmscale contributors.
from argparse import Namespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmpretrain.models import ImageClassifier
from networks import PRETRAINED

from mmscale.engine import launch


def make_cfg(**kwargs) -> Config:
    return Config(
        dict(
            launcher='none',
            train_dataloader=dict(batch_size=32, num_workers=0),
            val_dataloader=dict(batch_size=32, num_workers=2, pin_memory=True),
            param_scheduler=dict(type='OneCycleLR', eta_max=0.01),
            auto_scale_lr=dict(base_batch_size=128),
            **kwargs,
        )
    )


def merged(cfg, work_dir=None, no_pin_memory=False, options={}, **forced) -> Config:
    args = Namespace(launcher='none', work_dir=work_dir, config='configs/dss/name.py',
                     cfg_options=options, no_pin_memory=no_pin_memory)  # fmt: skip
    loaders = ('train_dataloader', 'val_dataloader', 'absent')
    launch.merge_arguments(cfg, args, (), loaders, **forced)
    return cfg


@pytest.mark.parametrize(
    'argument, configured, expected',
    [('given', 'configured', 'given'), (None, 'configured', 'configured'), (None, None, None)],
)
def test_work_dir_priority(argument, configured, expected):
    cfg = merged(make_cfg(work_dir=configured), work_dir=argument)
    assert cfg.work_dir == (expected or 'work_dirs/name')


def test_defaults_do_not_override_the_config(monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    cfg = make_cfg()
    cfg.train_dataloader.persistent_workers = True  # without workers none persists
    cfg = merged(cfg)
    assert cfg.train_dataloader.pin_memory is cfg.train_dataloader.persistent_workers is False
    assert cfg.val_dataloader.pin_memory is True and cfg.val_dataloader.persistent_workers is True
    assert 'absent' not in cfg
    cfg = merged(make_cfg(), no_pin_memory=True, options={'val_dataloader.batch_size': 7})
    assert cfg.val_dataloader.pin_memory is False and cfg.val_dataloader.batch_size == 7
    cfg = merged(make_cfg(), persistent_workers=False)
    assert cfg.val_dataloader.persistent_workers is False


@pytest.mark.parametrize(
    ('config', 'stacks'),
    [
        (dict(default_scope='mmpretrain'), True),
        (dict(default_scope='mmdet', model=dict(type='mmpretrain.ImageClassifier')), False),
        (dict(model=dict(type=ImageClassifier)), True),
        (dict(model=dict(type=BaseModule)), False),
        (dict(), False),
    ],
)
def test_only_images_of_mmpretrain_are_stacked(config, stacks):
    """As MMPretrain's train.py has it; MMEngine's own way keeps images of several sizes apart."""
    cfg = make_cfg(**config)
    cfg.val_dataloader.collate_fn = dict(type='pseudo_collate')
    merged(cfg)
    collate = dict(type='default_collate') if stacks else None
    assert cfg.train_dataloader.get('collate_fn') == collate
    assert cfg.val_dataloader.collate_fn.type == 'pseudo_collate'


@pytest.mark.parametrize('kind', PRETRAINED)
def test_a_checkpoint_is_the_last_that_initialises(kind, tmp_path):
    """MMEngine would draw over what it does not know for a checkpoint."""
    path, weight = str(tmp_path / 'a.pth'), torch.full((3, 2), 7.0)
    torch.save({'layer.weight': weight, 'layer.bias': torch.zeros(3)}, path)

    class Model(BaseModule):
        def __init__(self, init_cfg):
            super().__init__(init_cfg)
            self.layer = torch.nn.Linear(2, 3)

    init_cfg = [dict(type=kind, checkpoint=path), dict(type='Normal', layer='Linear')]
    cfg = Config(dict(model=dict(backbone=dict(init_cfg=init_cfg))))
    launch.name_pretrained(cfg.model)
    model = Model([dict(entry) for entry in cfg.model.backbone.init_cfg])
    model.init_weights()
    assert torch.equal(model.layer.weight, weight)


def test_launcher_without_its_variables(monkeypatch):
    monkeypatch.delenv('SLURM_NTASKS', raising=False)
    with pytest.raises(ValueError, match='SLURM_NTASKS is not set'):
        launch.world_size('slurm')


@pytest.mark.parametrize('launcher, device', [('pytorch', 'mps'), ('slurm', 'cpu')])
def test_processes_without_a_backend_are_refused(launcher, device, monkeypatch):
    """MMEngine would ask for a CUDA device."""
    monkeypatch.setenv(launch.WORLD_SIZE_VARIABLES[launcher], '2')
    monkeypatch.setattr(launch, 'get_device', lambda: device)
    with pytest.raises(ValueError, match=f'--launcher {launcher}: cannot share the device'):
        launch.init_cpu_processes(Config(dict(launcher=launcher)))
    launch.init_cpu_processes(Config(dict(launcher='none')))
