# Copyright (c) mmscale contributors.
"""The detectors and segmentors, and the ordinary ones from which they differ in the backbone.

Those of one FPN on every level differ in the type of the neck, too.
"""

import math
import re

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from .conftest import CONFIGS, ITERATIONS, ROOT, SIDE, small

for module in ('mmdet', 'mmseg'):
    pytest.importorskip(module, reason='needs the environment of `make test-downstream`')

# MMDetection's and MMSegmentation's own configs, each once.
BASES = sorted({re.search(r"_base_ = '(.*)'", path.read_text())[1] for path in CONFIGS})
FIVE_LINES, OF_A_SEGMENTOR = re.findall(
    r'```python\n(.*?)```', (ROOT / 'docs/downstream.md').read_text(), re.S
)[:2]
IN_README = re.search(r'five lines.*?```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S)[
    1
]
INDEXED = yaml.safe_load((ROOT / 'configs/downstream/metafile.yml').read_text())['Models']


def twin_of(base: str, folder):
    path = folder / 'twin.py'
    path.write_text(f"_base_ = '{base}'\n")
    return path


def train(cfg) -> list[float]:
    """The losses of all iterations."""
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.interval = ITERATIONS
    runner = Runner.from_cfg(cfg)
    runner.train()
    history = runner.message_hub.get_scalar('train/loss').data[0]
    return history.tolist()


def build(cfg):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('model', INDEXED, ids=lambda model: model['Name'])
def test_the_index_repeats_what_the_config_says(model):
    cfg, stated = Config.fromfile(ROOT / model['Config']), model['Metadata']
    length = [cfg.train_cfg.get('max_epochs'), cfg.train_cfg.get('max_iters')]
    assert length == [stated.get('Epochs'), stated.get('Iterations')]
    assert stated['Batch Size'] % cfg.train_dataloader.batch_size == 0
    with torch.device('meta'):
        assert sum(p.numel() for p in build(cfg).parameters()) == stated['Parameters']


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_the_config_trains(path, data, tmp_path):
    losses = train(small(path, data, tmp_path))
    assert len(losses) == ITERATIONS and all(map(math.isfinite, losses))
    assert (tmp_path / 'last_checkpoint').is_file()


@pytest.mark.parametrize('base', BASES)
def test_its_ordinary_twin_trains(base, data, tmp_path):
    losses = train(small(twin_of(base, tmp_path), data, tmp_path))
    assert len(losses) == ITERATIONS and all(map(math.isfinite, losses))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_it_differs_where_it_must_alone(path, data, tmp_path):
    (base,) = re.findall(r"_base_ = '(.*)'", path.read_text())
    ours, twin = (small(p, data, tmp_path) for p in (path, twin_of(base, tmp_path)))
    allowed = {'depth', 'init_cfg', 'type', 'scale_space', 'lift', 'aa_layer', 'scale_pooling'}
    backbones = ours.model.pop('backbone'), twin.model.pop('backbone')
    assert {key for key in backbones[0] if backbones[0][key] != backbones[1].get(key)} <= allowed
    if backbones[0].depth != backbones[1].depth:  # a depth that the toolbox has no config of
        assert ours.model.neck.pop('in_channels') != twin.model.neck.pop('in_channels')
    if ours.model.get('neck', {}).get('type') == 'mmscale.ScaleFPN':
        assert ours.model.neck.pop('scale_space') == backbones[0].scale_space
        ours.model.neck.type = 'FPN'
        if backbones[0].scale_space.base != 2:  # more maps, between those of the twin
            strides = ours.model.bbox_head.anchor_generator.pop('strides')
            assert strides == ours.model.neck.pop('strides')
            assert len(strides) == ours.model.neck.pop('num_outs')
            assert strides[::2] == twin.model.bbox_head.anchor_generator.pop('strides')
            assert twin.model.neck.pop('num_outs') == 5
    assert ours.model == twin.model and ours.optim_wrapper == twin.optim_wrapper


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_maps_and_names_are_those_of_the_ordinary_network(path, data, tmp_path):
    """So that anchors and strides are right, and its checkpoints load."""
    (base,) = re.findall(r"_base_ = '(.*)'", path.read_text())
    ours = small(path, data, tmp_path)
    twin = small(twin_of(base, tmp_path), data, tmp_path)
    if ours.model.backbone.depth != twin.model.backbone.depth:
        twin.merge_from_dict({'model.backbone.depth': ours.model.backbone.depth})
        twin.model.neck.in_channels = ours.model.neck.in_channels
    ours, twin = build(ours), build(twin)
    names = {name.replace('neck.fpn.', 'neck.') for name in ours.state_dict()}
    assert names - twin.state_dict().keys() == {
        name for name in names if name.startswith('backbone.stem.')
    }
    ours.eval(), twin.eval()
    image = torch.rand(1, 3, SIDE, SIDE + 17)
    shapes = [[y.shape for y in net.extract_feat(image)] for net in (ours, twin)]
    step = 1 if len(shapes[0]) == len(shapes[1]) else 2  # maps half an octave apart
    assert shapes[0][::step] == shapes[1]


def test_the_lines_of_the_documentation_are_all_it_takes(data, tmp_path):
    assert IN_README in FIVE_LINES
    path = tmp_path / 'config.py'
    path.write_text(FIVE_LINES)
    cfg = Config.fromfile(path)
    stock = Config.fromfile(twin_of('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', tmp_path))
    changed = {
        k for k in cfg.model.backbone if cfg.model.backbone[k] != stock.model.backbone.get(k)
    }
    assert changed == {'type', 'scale_space', 'lift'}
    changed = {k for k in cfg.model.neck if cfg.model.neck[k] != stock.model.neck.get(k)}
    assert changed == {'type', 'scale_space'}
    losses = train(small(path, data, tmp_path))
    assert all(map(math.isfinite, losses))


def test_the_lines_of_a_segmentor(data, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(OF_A_SEGMENTOR)
    cfg = Config.fromfile(path)
    base = re.search(r"_base_ = '(.*)'", OF_A_SEGMENTOR)[1]
    stock = Config.fromfile(twin_of(base, tmp_path))
    changed = {k for k in cfg.model if cfg.model[k] != stock.model[k]}
    assert changed == {'backbone'}
    backbones = cfg.model.backbone, stock.model.backbone
    changed = {k for k in backbones[0] if backbones[0][k] != backbones[1].get(k)}
    assert changed == {'type', 'scale_space', 'lift', 'scale_pooling'}
    net, twin = (build(small(p, data, tmp_path)) for p in (path, twin_of(base, tmp_path)))
    image = torch.rand(1, 3, SIDE, SIDE)
    maps = [[y.shape for y in one.eval().extract_feat(image)] for one in (net, twin)]
    assert maps[0] == maps[1]
