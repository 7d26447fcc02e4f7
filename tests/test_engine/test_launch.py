# Copyright (c) mmscale contributors.
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmpretrain.models import ImageClassifier
from networks import PRETRAINED

from mmscale.engine import launch

LOADERS = ('train_dataloader', 'val_dataloader')


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


def test_load_config_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no file .*missing.py'):
        launch.load_config(tmp_path / 'missing.py')


@pytest.mark.parametrize(
    'argument, configured, expected',
    [('given', 'configured', 'given'), (None, 'configured', 'configured'), (None, None, None)],
)
def test_work_dir_priority(argument, configured, expected):
    cfg = Config(dict(work_dir=configured))
    launch.set_work_dir(cfg, argument, 'configs/dss/name.py')
    assert cfg.work_dir == (expected or 'work_dirs/name')


def test_what_mmengine_reads_of_a_config_can_be_set():
    cfg = make_cfg()
    launch.merge_options(cfg, {'activation_checkpointing': ['backbone.layer1']})
    assert cfg.activation_checkpointing == ['backbone.layer1']
    with pytest.raises(ValueError, match='no activation_checkpoints; the nearest names are activ'):
        launch.merge_options(cfg, {'activation_checkpoints': []})


def test_defaults_do_not_override_the_config(monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    cfg = make_cfg()
    launch.set_dataloader_defaults(cfg, (*LOADERS, 'absent'), persistent_workers=True)
    assert cfg.train_dataloader.pin_memory is False
    assert cfg.val_dataloader.pin_memory is True
    assert cfg.train_dataloader.persistent_workers is True
    assert 'absent' not in cfg


@pytest.mark.parametrize(
    ('config', 'stacks'),
    [
        (dict(default_scope='mmpretrain'), True),
        (dict(default_scope='mmdet'), False),
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
    launch.set_dataloader_defaults(cfg, LOADERS)
    collate = dict(type='default_collate') if stacks else None
    assert cfg.train_dataloader.get('collate_fn') == collate
    assert cfg.val_dataloader.collate_fn.type == 'pseudo_collate'


def test_persistent_workers_need_workers():
    cfg = make_cfg()
    launch.override_dataloaders(cfg, LOADERS, persistent_workers=True)
    launch.drop_persistent_workers_without_workers(cfg, LOADERS)
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.val_dataloader.persistent_workers is True


@pytest.mark.parametrize('kind', PRETRAINED)
def test_a_checkpoint_is_the_last_that_initialises(kind, tmp_path):
    """MMEngine would draw over what it does not know for a checkpoint."""
    weights = dict(layer=dict(weight=torch.full((3, 2), 7.0), bias=torch.zeros(3)))
    torch.save({f'layer.{name}': v for name, v in weights['layer'].items()}, tmp_path / 'a.pth')

    class Model(BaseModule):
        def __init__(self, init_cfg):
            super().__init__(init_cfg)
            self.layer = torch.nn.Linear(2, 3)

    init_cfg = [
        dict(type=kind, checkpoint=str(tmp_path / 'a.pth')),
        dict(type='Normal', layer='Linear'),
    ]
    cfg = Config(dict(model=dict(backbone=dict(init_cfg=init_cfg))))
    launch.name_pretrained(cfg.model)
    model = Model([dict(entry) for entry in cfg.model.backbone.init_cfg])
    model.init_weights()
    assert torch.equal(model.layer.weight, weights['layer']['weight'])


def test_auto_scale_lr_needs_a_base_batch_size():
    with pytest.raises(ValueError, match='base_batch_size'):
        launch.enable_auto_scale_lr(Config(dict()))


def test_launcher_without_its_variables(monkeypatch):
    monkeypatch.delenv('SLURM_NTASKS', raising=False)
    with pytest.raises(ValueError, match='SLURM_NTASKS is not set'):
        launch.world_size('slurm')


@pytest.mark.parametrize('launcher, device', [('pytorch', 'mps'), ('slurm', 'cpu'), ('mpi', 'cpu')])
def test_processes_without_a_backend_are_refused(launcher, device, monkeypatch):
    """MMEngine would ask for a CUDA device."""
    monkeypatch.setenv(launch.WORLD_SIZE_VARIABLES[launcher], '2')
    monkeypatch.setattr(launch, 'get_device', lambda: device)
    with pytest.raises(
        ValueError, match=f'--launcher {launcher}: cannot share the device {device}'
    ):
        launch.init_cpu_processes(Config(dict(launcher=launcher)))
    launch.init_cpu_processes(Config(dict(launcher='none')))


def test_amp_needs_an_accelerator(monkeypatch):
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))))
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    with pytest.raises(ValueError, match='--amp'):
        launch.enable_amp_training(cfg)
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    launch.enable_amp_training(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
