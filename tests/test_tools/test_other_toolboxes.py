# Copyright (c) mmscale contributors.
"""Tools on configs of another toolbox: what they name is found in its registries."""

import json
import sys

import pytest
import torch
from mmengine.config import Config

from mmscale.engine import models
from mmscale.evaluation import equivariance_error

from .conftest import run_here

# Children of MMEngine's roots, as MMDetection and MMSegmentation have them. The names are those of
# other things in MMPretrain.
TOOLBOX = """
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry('model', parent=ROOT_MODELS, scope='small_toolbox')
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope='small_toolbox')
TRANSFORMS = Registry('transform', parent=ROOT_TRANSFORMS, scope='small_toolbox')


@DATASETS.register_module()
class ImageNet(BaseDataset):
    def load_data_list(self):
        generator = torch.Generator().manual_seed(0)
        return [dict(img=torch.rand(3, 24, 24, generator=generator)) for _ in range(3)]


@TRANSFORMS.register_module()
class PackInputs:
    def __call__(self, results):
        return dict(inputs=255 * results['img'], data_samples=None)


@MODELS.register_module()
class ResNet(torch.nn.Conv2d):
    pass


@MODELS.register_module()
class ImageClassifier(BaseModel):
    def __init__(self, backbone, data_preprocessor):
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.backbone(inputs)
"""
CONFIG = """
custom_imports = dict(imports=['small_toolbox'])
default_scope = 'small_toolbox'
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[128.0], std=[64.0]),
    backbone=dict(type='ResNet', in_channels=3, out_channels=5, kernel_size=3, padding=1),
)
test_dataloader = dict(dataset=dict(type='ImageNet', pipeline=[dict(type='PackInputs')]))
"""


@pytest.fixture
def config(tmp_path, monkeypatch) -> str:
    (tmp_path / 'small_toolbox.py').write_text(TOOLBOX)
    path = tmp_path / 'small.py'
    path.write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    yield str(path)
    # Registered once a process: the next test imports it anew.
    module = sys.modules.pop('small_toolbox', None)
    for name in ('MODELS', 'DATASETS', 'TRANSFORMS') if module else ():
        getattr(module, name).parent._children.pop('small_toolbox')


def test_counts_its_model(config, monkeypatch, capsys):
    run_here(monkeypatch, 'tools/analysis_tools/get_flops.py', config, '--shape', 20, 24)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f'| CNN | `{config}` | {5 * 27 + 5} | +0.0% | 0.0648 M |'  # 20 * 24 * 5 * 27


def test_measures_its_model_on_its_data(config, monkeypatch, tmp_path):
    out = tmp_path / 'out'
    run_here(monkeypatch, 'tools/equivariance.py', config, '--factors', 1, 2, '--out', out)
    (found,) = json.loads((out / 'equivariance.json').read_text())['models']
    assert found['images'] | dict(sha256='') == dict(
        source='the first test images of ImageNet', count=3, size=[24, 24], sha256=''
    )
    assert found['accuracy_note'] == 'no accuracy: the model is untrained'

    torch.manual_seed(0)
    network = models.build_network(Config.fromfile(config), config)
    images = torch.rand(9 * 24 * 24, generator=torch.Generator().manual_seed(0)).view(3, 3, 24, 24)
    images = (255 * images - 128) / 64
    expected = equivariance_error(network.backbone, images, (1, 2)).mean.tolist()
    (curve,) = found['layers'].values()
    assert curve['mean'] == pytest.approx(expected, rel=1e-5) and expected[1] > 1e-3
