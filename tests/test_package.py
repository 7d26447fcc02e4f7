# Copyright (c) mmscale contributors.
"""Registration, the model index, and what an installation contains."""

import ast
import os
import shutil
import subprocess
import sys
from email.parser import Parser
from importlib.util import resolve_name
from pathlib import Path

import mmpretrain
import pytest
import torch
import yaml
from mmengine.config import Config

import mmscale
from mmscale.engine.cost import count, image_shape
from mmscale.engine.schedules import schedules
from mmscale.model_index import register_model_index

ROOT = Path(__file__).resolve().parents[1]

CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
METAFILES = [
    yaml.safe_load((ROOT / path).read_text())
    for path in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
]
ALL = [model for metafile in METAFILES for model in metafile['Models']]
INDEXED = [model for model in ALL if model['Results'][0]['Task'] == 'Image Classification']


def run_python(code: str, cwd=ROOT) -> str:
    """What a fresh interpreter prints, without the chatter of the MM packages."""
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], cwd=cwd, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


def test_a_foreign_scope_finds_our_classes_before_any_import():
    out = run_python("""
import sys
from mmengine.registry import DATASETS, MODELS, DefaultScope, Registry
toolbox = Registry('model', parent=MODELS, scope='toolbox')
DefaultScope.get_instance('test', scope_name='toolbox')
assert 'mmscale' not in sys.modules
model = toolbox.build(dict(type='mmscale.ScaleResNet', depth=18, scale_space=dict(num_scales=2)))
print(type(model).__module__, DATASETS.get('mmscale.ScaleDigits').__name__)
""")
    assert out == 'mmscale.models.backbones.scale_resnet ScaleDigits'


def test_models_work_without_mmpretrain():
    out = run_python("""
import sys
sys.modules['mmpretrain'] = None  # from here on importing it fails, as if it were not installed
import mmscale, torch
from mmengine.registry import MODELS
model = MODELS.build(dict(type='mmscale.ScaleResNet', depth=18, scale_space=dict(num_scales=2)))
print(*[tuple(level.shape) for level in model(torch.rand(1, 3, 64, 64))[0]])
""")
    assert out == '(1, 512, 2, 2) (1, 512, 1, 1)'


def test_a_wrong_environment_is_not_mistaken_for_a_wrong_name():
    """MMEngine swallows ImportErrors of a scope; our error must come through."""
    out = run_python("""
from mmengine.registry import MODELS
from importlib import metadata
version = metadata.Distribution.version
metadata.Distribution.version = property(
    lambda self: '9.9' if 'mmcv' in self.metadata['Name'] else version.fget(self))
try:
    MODELS.build(dict(type='mmscale.ScaleResNet', depth=18, scale_space=dict(num_scales=2)))
except RuntimeError as error:
    print(str(error).splitlines()[-1])
""")
    assert 'mmcv 9.9 is installed, but mmcv' in out.replace('-lite', '')


def test_no_arrow_runs_back_up():
    """A room of the package imports of those before it alone."""
    rooms = ['scale_space', 'ops', 'models', 'datasets', 'evaluation', 'engine', 'visualization']
    for path in (ROOT / 'mmscale').rglob('*/*.py'):
        *folders, _ = path.relative_to(ROOT).parts
        if folders[1] not in rooms:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if not isinstance(node, ast.ImportFrom):
                continue
            source = resolve_name('.' * node.level + (node.module or ''), '.'.join(folders))
            if source.startswith('mmscale.') and (room := source.split('.')[1]) in rooms:
                assert rooms.index(room) <= rooms.index(folders[1]), (path, source)


def test_the_index_has_every_config_under_its_own_name_and_papers_as_mim_reads_them():
    assert sorted(model['Config'] for model in ALL) == CONFIGS
    assert all(Path(model['Config']).stem == model['Name'] for model in ALL)
    for metafile in METAFILES:
        (collection,) = metafile['Collections']
        assert collection['Paper'].keys() == {'URL', 'Title'}
        assert {model['In Collection'] for model in metafile['Models']} == {collection['Name']}


def test_mmpretrain_lists_our_classifiers_alone():
    names, listed = {model['Name'] for model in INDEXED}, set(mmpretrain.list_models())
    assert names <= listed and not {model['Name'] for model in ALL} - names & listed
    assert names <= set(mmpretrain.list_models(task='Image Classification'))
    register_model_index()  # once more
    assert set(mmpretrain.list_models()) == listed


COUNTED = {}  # by the model: configs of one differ in their trainings


@pytest.mark.parametrize('model', INDEXED, ids=lambda model: model['Name'])
def test_indexed_models_build_by_name(model):
    net = mmpretrain.get_model(model['Name'])
    assert sum(p.numel() for p in net.parameters()) == model['Metadata']['Parameters']
    shape = image_shape(net._config)
    # It takes seconds to trace a ResNet-50, whose layers are those of the other models.
    if net._config.model.backbone.get('depth') != 50:
        key = str(net._config.model)
        COUNTED[key] = COUNTED.get(key) or count(net, shape)[1]
        assert COUNTED[key] == model['Metadata']['FLOPs']
    with torch.no_grad():
        scores = net(torch.rand(1, shape[0], 32, 32))
    assert scores.shape == (1, net._config.data_preprocessor.num_classes)
    # A folder of one's own names its classes itself.
    if net._config.train_dataloader.dataset.type != 'CustomDataset':
        assert len(net._dataset_meta['classes']) == net._config.data_preprocessor.num_classes


@pytest.mark.parametrize('model', INDEXED, ids=lambda model: model['Name'])
def test_index_repeats_what_the_config_says(model):
    cfg = Config.fromfile(ROOT / model['Config'])
    assert model['Metadata']['Epochs'] == cfg.train_cfg.max_epochs
    assert model['Metadata']['Batch Size'] == cfg.auto_scale_lr.base_batch_size
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.custom_imports.imports == ['mmscale']
    *_, (_, last) = schedules(cfg.param_scheduler)
    if last.type != 'MultiStepLR':  # it is the only one that does not end with the training
        assert last.get('total_steps', last.get('end')) == cfg.train_cfg.max_epochs


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """A copy of the source tree: building leaves traces in the one it builds from."""
    source = tmp_path_factory.mktemp('source') / 'mmscale'
    source.mkdir()
    for name in ('mmscale', 'checkpoints', 'configs', 'tools', 'requirements'):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__', '.mim')
        )
    for path in ROOT.glob('*'):
        if path.is_file():
            shutil.copy2(path, source)
    return source


def build(source: Path, hook: str) -> None:
    """Calls a hook of setuptools' build backend, as pip does."""
    run_python(f"from setuptools import build_meta; print(build_meta.{hook}('dist'))", cwd=source)


@pytest.fixture(scope='module')
def site(source) -> Path:
    """A folder into which the wheel is unpacked."""
    shutil.rmtree(source / 'mmscale' / '.mim', ignore_errors=True)
    build(source, 'build_wheel')
    assert not (source / 'mmscale' / '.mim').exists()
    (wheel,) = source.glob('dist/*.whl')
    shutil.unpack_archive(wheel, source.parent / 'site', 'zip')
    return source.parent / 'site'


def test_wheel_contains_the_package_and_its_mim_folder(site):
    for path in [*CONFIGS, 'model-index.yml', 'configs/dss/metafile.yml', 'tools/dist_train.sh']:
        assert (site / 'mmscale/.mim' / path).is_file()
    assert (site / 'mmscale/scale_space/__init__.py').is_file()
    assert (site / 'mmscale/py.typed').is_file()
    assert not [*site.glob('tests*'), *site.rglob('__pycache__')]
    (metadata,) = site.glob('*.dist-info/METADATA')
    metadata = Parser().parsestr(metadata.read_text(encoding='utf-8'))
    assert metadata['Version'] == mmscale.__version__
    required = metadata.get_all('Requires-Dist')
    assert any(line.startswith('torch') for line in required)
    assert not [r for r in required if r.startswith(('mm', 'onedl')) and 'extra ==' not in r]
    assert {'onedl', 'openmmlab', 'tests'} <= set(metadata.get_all('Provides-Extra'))


def test_editable_install_links_the_mim_folder(source):
    build(source, 'build_editable')
    mim = source / 'mmscale' / '.mim'
    for name in ('checkpoints', 'configs', 'tools', 'model-index.yml'):
        assert (mim / name).resolve() == source / name
    build(source, 'build_editable')  # a second time, over the links of the first
    assert (mim / 'configs' / 'dss').is_dir()


def test_model_index_is_found_in_a_plain_checkout(source):
    shutil.rmtree(source / 'mmscale' / '.mim', ignore_errors=True)
    out = run_python(
        'import mmscale, mmscale.model_index as index; print(index.find_model_index())', cwd=source
    )
    assert Path(out) == source / 'model-index.yml'


OWN = """
_base_ = 'mmscale::dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'
model = dict(backbone=dict(stem_channels=4, base_channels=4), head=dict(in_channels=32))
train_cfg = dict(max_epochs=1, val_interval=5)
train_dataloader = dict(batch_size=20, dataset=dict(indices=40))
test_dataloader = dict(dataset=dict(indices=20))
"""


def test_commands_of_a_wheel_on_a_config_in_an_empty_folder(site, tmp_path):
    (points,) = site.glob('*.dist-info/entry_points.txt')
    assert 'mmscale = mmscale.__main__:main' in points.read_text()
    (tmp_path / 'mine.py').write_text(OWN)
    trained, few = 'mine.py:work_dirs/mine/epoch_1.pth', ['--num-images', '2', '--factors', '2']
    image = ROOT / 'docs/images/quickstart.png'
    for words, made in (
        (['train', 'mine.py'], 'mine/epoch_1.pth'),
        (['test', trained, '--out', 'work_dirs/test'], 'test/metrics.json'),
        (['equivariance', trained, *few], 'equivariance/equivariance.csv'),
        (['export', trained], 'export/mine.onnx'),
        (['visualize', 'equivariance', image, trained, '--size', '33'],
         'visualize_equivariance/equivariance.svg'),
    ):  # fmt: skip
        result = subprocess.run(
            [sys.executable, '-m', 'mmscale', *map(str, words)], cwd=tmp_path, capture_output=True,
            text=True, env={**os.environ, 'PYTHONPATH': str(site)},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert (tmp_path / 'work_dirs' / made).is_file()
        assert 'Could not import' not in result.stdout + result.stderr
    result = run_python('import sys; sys.argv = ["mmscale"]\nimport mmscale.__main__ as m\n'
                        'try: m.main()\nexcept SystemExit as end: print(end.code)')  # fmt: skip
    assert result == '0'


def test_import_needs_no_checkout_around_it(site):
    """From a wheel: the index in ``.mim`` serves MMPretrain's ``get_model``, and MMEngine's."""
    out = run_python(
        """
import mmpretrain, mmscale, torch
from mmengine.hub import get_config, get_model
from mmengine.registry import DefaultScope
path = 'mmscale::aa_pyramid/scaleresnet18-economical-up1-w8_1xb50-10e_scaledigits.py'
network, scope = get_model(path, pretrained=True), DefaultScope.get_current_instance()
weights = torch.load(mmscale.__path__[0] + '/.mim/' + get_config(path, True).model_path)
same = all(torch.equal(v, weights['state_dict'][k]) for k, v in network.state_dict().items())
named = mmpretrain.get_model('scaleresnet50-s4_8xb32_in1k')._config.filename
print(type(network).__module__, mmscale.__file__, named, same, scope)
""",
        cwd=site,
    )
    module, file, named, *same = out.split()
    assert module == 'mmpretrain.models.classifiers.image' and same == ['True', 'None']
    assert Path(file) == site / 'mmscale/__init__.py'
    assert Path(named) == site / 'mmscale/.mim/configs/dss/scaleresnet50-s4_8xb32_in1k.py'
