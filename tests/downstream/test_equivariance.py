# Copyright (c) mmscale contributors.
"""Error, AP and mIoU over scale of detectors and segmentors, by the tool and the hook."""

import json
import runpy
import sys

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from .conftest import ROOT, SIDE, small

for module in ('mmdet', 'mmseg'):
    pytest.importorskip(module, reason='needs the environment of `make test-downstream`')

CONFIGS = ROOT / 'configs/downstream'
DETECTOR = CONFIGS / 'scattered_mnist/retinanet_scaleresnet18-w16-pyramid_fpn_1xb8-24e.py'
SEGMENTOR = CONFIGS / 'fcn_scaleresnet18-d8-balanced_4xb2-80k_cityscapes-512x1024.py'
MAIN = dict(mmdet='coco/bbox_mAP', mmseg='mIoU')


@pytest.fixture(scope='module')
def doubled(data, tmp_path_factory):
    """The data with each pixel four times, so that the bilinear reading of half the size is exact.

    The last image is of another height: sides are multiples of 64 pixels, so that nothing is padded
    at half the size.
    """
    folder = tmp_path_factory.mktemp('doubled')
    heights = {'0': 2 * SIDE, '1': 2 * SIDE, '2': 2 * SIDE, '3': 128}
    for name in ('images', 'masks'):
        (folder / name).mkdir()
        for path in (data / name).iterdir():
            pixels = np.array(Image.open(path)).repeat(2, 0).repeat(2, 1)[: heights[path.stem]]
            Image.fromarray(pixels).save(folder / name / path.name)
    content = json.loads((data / 'boxes.json').read_text())
    for image in content['images']:
        image.update(width=2 * SIDE, height=heights[str(image['id'])])
    for found in content['annotations']:
        found['bbox'] = [2 * value for value in found['bbox']]
        found['area'] *= 4
    (folder / 'boxes.json').write_text(json.dumps(content))
    return folder


def with_test(path, data, folder, factor: int = 1) -> Config:
    """A config, cut down, with a test over images made smaller by its pipeline."""
    cfg = small(path, data, folder)
    cfg.default_hooks.checkpoint.interval = cfg.train_cfg.max_iters
    load, annotate, pack = cfg.train_dataloader.dataset.pipeline
    resize = dict(type='Resize', scale_factor=1 / factor, keep_ratio=True)
    pipeline = [load, resize, annotate, pack]
    if cfg.default_scope == 'mmdet':
        cfg.model.bbox_head.num_classes = 1
        cfg.model.test_cfg.score_thr = 0.0
        pack.meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
        cfg.test_evaluator = dict(
            type='CocoMetric', ann_file=str(data / 'boxes.json'), metric='bbox'
        )
        cfg.train_cfg.max_iters = 60
    else:
        cfg.model.decode_head.num_classes = cfg.model.auxiliary_head.num_classes = 2
        cfg.model.data_preprocessor.update(size=None, size_divisor=64)
        cfg.train_dataloader.batch_size = 1
        cfg.test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
    cfg.test_dataloader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset={**cfg.train_dataloader.dataset, 'pipeline': pipeline, 'test_mode': True},
    )
    cfg.test_cfg = dict(type='TestLoop')
    return cfg


@pytest.fixture(scope='module', params=[DETECTOR, SEGMENTOR], ids=['detector', 'segmentor'])
def trained(request, doubled, tmp_path_factory):
    """Config, its path, and a checkpoint of it."""
    folder = tmp_path_factory.mktemp('trained')
    cfg = with_test(request.param, doubled, folder)
    Runner.from_cfg(cfg).train()
    cfg.dump(folder / 'config.py')
    return request.param, folder / 'config.py', (folder / 'last_checkpoint').read_text()


def run_tool(*words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(ROOT / 'tools/equivariance.py'), *map(str, words)])
        runpy.run_path(sys.argv[0], run_name='__main__')


def test_metrics_at_each_factor_are_those_of_a_test_with_smaller_images(trained, doubled, tmp_path):
    path, dumped, checkpoint = trained
    run_tool(f'{dumped}:{checkpoint}', '--factors', 1, 2, '--layers', 'backbone', '--resampling',
             'bilinear', '--batch-size', 2, '--out', tmp_path)  # fmt: skip
    (found,) = json.loads((tmp_path / 'equivariance.json').read_text())['models']
    name = MAIN[Config.fromfile(dumped).default_scope]
    assert found['accuracy'] == found['metrics'][name]
    assert found['images']['count'] == 4 and '2 sizes' in found['images']['source']
    for place, factor in enumerate((1, 2)):
        cfg = with_test(path, doubled, tmp_path / f'{factor}', factor)
        cfg.load_from = checkpoint
        expected = Runner.from_cfg(cfg).test()
        assert len(expected) > 2
        for key, value in expected.items():
            value = None if value == -1 else pytest.approx(value, abs=1e-9)  # -1: no such objects
            assert found['metrics'][key]['mean'][place] == value, key
        assert expected[name] > 0.01
    assert (tmp_path / 'equivariance.png').is_file()


def test_the_hook_measures_what_the_tool_does(trained, doubled, tmp_path):
    path, dumped, checkpoint = trained
    layers = ['backbone', 'neck' if path == DETECTOR else 'decode_head.convs']
    run_tool(f'{dumped}:{checkpoint}', '--factors', 1, 1.5, '--layers', *layers, '--no-accuracy',
             '--batch-size', 1, '--out', tmp_path)  # fmt: skip
    (found,) = json.loads((tmp_path / 'equivariance.json').read_text())['models']
    assert found['accuracy'] is None
    cfg = with_test(path, doubled, tmp_path / 'test')
    cfg.load_from = checkpoint
    cfg.custom_hooks = [dict(type='mmscale.EquivarianceHook', layers=layers, factors=[1.5])]
    metrics = Runner.from_cfg(cfg).test()
    # Maps of the backbone at each stage, and those of the neck: none is taken for another.
    assert len(found['layers']) == (3 + 5 if path == DETECTOR else 4 + 1)
    for name, curve in found['layers'].items():
        assert 0 < curve['mean'][1] == pytest.approx(metrics[f'equivariance/{name}/s1.5'], rel=1e-4)
