# Copyright (c) mmscale contributors.
"""Small data in the formats of COCO and of MMSegmentation, and configs cut down to it."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

import mmscale  # noqa: F401  (before configs are read: it names the packages of scopes)

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / 'configs' / 'downstream').glob('*.py'))
SIDE, COUNT, ITERATIONS = 96, 4, 20


@pytest.fixture(scope='session')
def data(tmp_path_factory) -> Path:
    """Images with one bright rectangle each: boxes in COCO's JSON, and masks."""
    folder = tmp_path_factory.mktemp('data')
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for name in ('images', 'masks'):
        (folder / name).mkdir()
    for i in range(COUNT):
        pixels = generator.integers(0, 100, (SIDE, SIDE, 3), dtype=np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        x, y = generator.integers(0, SIDE // 2, 2).tolist()
        w, h = generator.integers(SIDE // 4, SIDE // 2, 2).tolist()
        pixels[y : y + h, x : x + w] += 150
        mask[y : y + h, x : x + w] = 1
        Image.fromarray(pixels).save(folder / 'images' / f'{i}.png')
        Image.fromarray(mask).save(folder / 'masks' / f'{i}.png')
        images.append(dict(id=i, file_name=f'{i}.png', width=SIDE, height=SIDE))
        annotations.append(
            dict(id=i + 1, image_id=i, category_id=1, bbox=[x, y, w, h], area=w * h, iscrowd=0)
        )
    content = dict(images=images, annotations=annotations)
    content['categories'] = [dict(id=1, name='person')]
    (folder / 'boxes.json').write_text(json.dumps(content))
    return folder


def small(path: str | Path, data: Path, work_dir: Path) -> Config:
    """A config as it is, but for its data, its length, and weights from the network."""
    cfg = Config.fromfile(path)
    cfg.train_dataloader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='InfiniteSampler', shuffle=True),
        dataset=dict(DATASETS[cfg.default_scope], data_root=str(data)),
    )
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
        _on_cpu(cfg.model)
    cfg.work_dir = str(work_dir)
    cfg.model.pop('pretrained', None)
    cfg.model.backbone.pop('init_cfg', None)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=ITERATIONS, val_interval=10**6)
    cfg.param_scheduler = []
    for mode in ('val', 'test'):
        for part in ('dataloader', 'evaluator', 'cfg'):
            cfg[f'{mode}_{part}'] = None
    cfg.randomness = dict(seed=0)
    return cfg


def _dataset(classes: tuple, annotations: dict, pack: str, **more) -> dict:
    load = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', **annotations)
    return dict(metainfo=dict(classes=classes), pipeline=[*load, dict(type=pack)], **more)


DATASETS = dict(
    mmdet=_dataset(('person',), dict(with_bbox=True), 'PackDetInputs', type='CocoDataset',
                   ann_file='boxes.json', data_prefix=dict(img='images/')),
    mmseg=_dataset(('ground', 'object'), {}, 'PackSegInputs', type='BaseSegDataset',
                   data_prefix=dict(img_path='images', seg_map_path='masks'), img_suffix='.png'),
)  # fmt: skip


def _on_cpu(cfg) -> None:
    """Synchronised batch norm exists on GPUs alone."""
    for key, value in cfg.items() if isinstance(cfg, dict) else enumerate(cfg):
        if isinstance(value, dict | list):
            _on_cpu(value)
        elif key == 'type' and value == 'SyncBN':
            cfg[key] = 'BN'
