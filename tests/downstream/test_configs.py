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

PYTHON = r'```python\n(.*?)```'
FIVE_LINES, OF_A_SEGMENTOR, *_ = re.findall(PYTHON, (ROOT / 'docs/downstream.md').read_text(), re.S)
IN_README = re.search(f'A detector needs.*?{PYTHON}', (ROOT / 'README.md').read_text(), re.S)[1]
INDEXED = yaml.safe_load((ROOT / 'configs/downstream/metafile.yml').read_text())['Models']


def twin_of(text: str, folder):
    """The config of the toolbox from which another one, of this text, inherits."""
    path = folder / 'twin.py'
    path.write_text(re.search("_base_ = '.*'", text)[0])
    return path


def changed(ours: dict, twin: dict) -> set[str]:
    return {key for key in ours if ours[key] != twin.get(key)}


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


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_it_differs_where_it_must_alone(path, data, tmp_path):
    ours, twin = (small(p, data, tmp_path) for p in (path, twin_of(path.read_text(), tmp_path)))
    allowed = {'depth', 'init_cfg', 'type', 'scale_space', 'lift', 'aa_layer', 'scale_pooling'}
    backbones = ours.model.pop('backbone'), twin.model.pop('backbone')
    assert changed(*backbones) <= allowed
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
    ours = small(path, data, tmp_path)
    twin = small(twin_of(path.read_text(), tmp_path), data, tmp_path)
    if ours.model.backbone.depth != twin.model.backbone.depth:
        twin.merge_from_dict({'model.backbone.depth': ours.model.backbone.depth})
        twin.model.neck.in_channels = ours.model.neck.in_channels
    ours, twin = build(ours), build(twin)
    names = {name.replace('neck.fpn.', 'neck.') for name in ours.state_dict()}
    assert all(n.startswith('backbone.stem.') for n in names - twin.state_dict().keys())
    ours.eval(), twin.eval()
    image = torch.rand(1, 3, SIDE, SIDE + 17)
    shapes = [[y.shape for y in net.extract_feat(image)] for net in (ours, twin)]
    step = 1 if len(shapes[0]) == len(shapes[1]) else 2  # maps half an octave apart
    assert shapes[0][::step] == shapes[1]


@pytest.mark.parametrize(
    ('text', 'neck', 'more'),
    [
        (FIVE_LINES, {'type', 'scale_space'}, set()),
        (IN_README, {'type', 'scale_space'}, set()),
        (OF_A_SEGMENTOR, set(), {'scale_pooling'}),
    ],
    ids=['detector', 'first page', 'segmentor'],
)
def test_the_lines_of_the_documentation_are_all_it_takes(text, neck, more, data, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(text)
    ours, twin = (Config.fromfile(p).model for p in (path, twin_of(text, tmp_path)))
    assert changed(ours, twin) == {'backbone', *(['neck'] if neck else [])}
    assert changed(ours.backbone, twin.backbone) == {'type', 'scale_space', 'lift'} | more
    assert changed(ours.get('neck', {}), twin.get('neck', {})) == neck
    assert all(map(math.isfinite, train(small(path, data, tmp_path))))
