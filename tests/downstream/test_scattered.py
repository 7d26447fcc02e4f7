# Copyright (c) mmscale contributors.
"""Digits of many sizes: from the tool that makes the data to the first mAP and mIoU."""

import math
import os
import runpy
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from test_datasets.synthetic import expect_synthetic_mnist, write_mnist

from .conftest import ROOT

for module in ('mmdet', 'mmseg'):
    pytest.importorskip(module, reason='needs the environment of `make test-downstream`')

FOLDER = ROOT / 'configs/downstream/scattered_mnist'
CONFIGS = {name: sorted(FOLDER.glob(f'{name}_*.py')) for name in ('retinanet', 'fcn')}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with data/scattered_mnist in it, as the configs expect."""
    folder = tmp_path_factory.mktemp('scattered')
    write_mnist(folder / 'mnist')
    tool = ROOT / 'tools/dataset_converters/scatter_objects.py'
    with pytest.MonkeyPatch.context() as patch:
        expect_synthetic_mnist(patch)
        target = folder / 'data/scattered_mnist'
        target.parent.mkdir()
        words = (tool, 'mnist', folder / 'mnist', target, '--train', 4, '--val', 2, '--test', 2)
        patch.setattr(sys, 'argv', [str(word) for word in words])
        runpy.run_path(str(tool), run_name='__main__')
    return folder


def run_python(*words, folder=ROOT) -> None:
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    subprocess.run([sys.executable, *map(str, words)], cwd=folder, check=True, env=env)


def train(path, folder) -> Runner:
    """One epoch of the config, and its validation."""
    cfg = Config.fromfile(path)
    cfg.work_dir = str(folder)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.train_dataloader.batch_size = 2
    if cfg.default_scope == 'mmdet':
        # What a network that has learned nothing finds, so that there is something to be judged.
        cfg.model.test_cfg.score_thr = 0.0
    for mode in ('train', 'val', 'test'):
        cfg[f'{mode}_dataloader'].update(num_workers=0, persistent_workers=False)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert math.isfinite(runner.message_hub.log_scalars['train/loss'].current())
    assert (folder / 'epoch_1.pth').is_file()
    return runner


@pytest.mark.parametrize('path', CONFIGS['retinanet'], ids=lambda path: path.stem)
def test_trains_and_detects(path, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    runner = train(path, tmp_path)
    scalars = runner.message_hub.log_scalars
    assert {f'val/coco/bbox_mAP_{size}' for size in 'sml'} <= scalars.keys()

    model = runner.model.eval()
    shapes = [y.shape[-1] for y in model.extract_feat(torch.rand(1, 3, 256, 256))]
    strides = [stride for stride, _ in model.bbox_head.prior_generator.strides]
    assert shapes == [math.ceil(round(256 / stride, 6)) for stride in strides]
    octaves = shapes[::2] if 'balanced' in path.stem else shapes
    assert octaves == [32, 16, 8, 4, 2]


@pytest.mark.parametrize('path', CONFIGS['fcn'], ids=lambda path: path.stem)
def test_trains_and_segments(path, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    runner = train(path, tmp_path)
    assert 0 < runner.message_hub.log_scalars['val/mIoU'].current() < 100

    model = runner.model.eval()
    maps = model.extract_feat(torch.rand(1, 3, 256, 256))
    maps = [y if torch.is_tensor(y) else y[0] for y in maps]  # a decode head takes levels
    assert [y.shape[-1] for y in maps] == [64, 32, 32, 32]
    # The widths are those of the ordinary twin.
    assert sum(p.numel() for p in model.parameters()) == 942_862


@pytest.mark.parametrize('name', CONFIGS)
def test_predictions_are_drawn_into_a_folder(name, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    train(CONFIGS[name][0], tmp_path)
    words = [ROOT / 'tools/test.py', CONFIGS[name][0], tmp_path / 'epoch_1.pth', '--work-dir',
             tmp_path, '--show-dir', tmp_path / 'shown', '--cfg-options',
             'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False'
             ]  # fmt: skip
    run_python(*words, folder=folder)
    shown = (tmp_path / 'shown').rglob('*')
    assert sum(path.suffix in ('.png', '.jpg') for path in shown) == 2  # all of the test data


def test_a_study_of_a_detector_has_its_figures_by_size_and_over_scale(folder, tmp_path):
    root = f'{folder}/data/scattered_mnist/'
    options = {f'{mode}_dataloader.dataset.data_root': root for mode in ('train', 'val', 'test')}
    for mode in ('val', 'test'):
        options[f'{mode}_evaluator.ann_file'] = f'{root}annotations/{mode}.json'
    options |= {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1,
                'train_dataloader.batch_size': 2, 'model.test_cfg.score_thr': 0.0}  # fmt: skip
    small = {'test_dataloader.dataset.ann_file': 'annotations/test_small.json',
             'test_dataloader.dataset.data_prefix.img': 'images/test_small/',
             'test_evaluator.ann_file': f'{root}annotations/test_small.json'}  # fmt: skip
    config = CONFIGS['retinanet'][0].relative_to(ROOT)
    (tmp_path / 'few.py').write_text(f"""
title, seeds, runs = 'Few digits', [0], dict(twin=dict(config='{config}'))
options = {options}
tests = dict(all={{}}, small={small})
columns = dict(AP=['all', 'coco/bbox_mAP'], small=['small', 'coco/bbox_mAP'])
equivariance = dict(factors=[1, 2], layers=['neck'], num_images=1, accuracy_images=2)
""")
    sys.path.insert(0, str(ROOT / 'studies' / 'workflow'))
    import cells
    import collect

    study = cells.read_study(tmp_path / 'few.py')
    cell = cells.make_cell(study, 'twin', 0)
    result = tmp_path / cell['folder'] / f'{cell["result"]}.csv'
    run_python('studies/workflow/run_cell.py', tmp_path / 'few.py', 'twin', 0, result)
    rows = collect.read(result).to_dict('records')
    assert {row['parameters'] for row in rows} == {'1158542'}
    found = {(row['metric'], row['factor']): row['value'] for row in rows}
    assert all(0 <= float(found[f'test/{name}/coco/bbox_mAP', '']) <= 1 for name in study.tests)
    assert found['validation/last', ''] == found['validation/best', '']
    assert {('coco/bbox_mAP', factor) for factor in ('1.0', '2.0')} <= found.keys()
    assert {('coco/bbox_mAP_s', '2.0'), ('coco/bbox_mAP_l', '2.0')} <= found.keys()
    assert float(found['error/neck[0]', '2.0']) > 0
