# Copyright (c) mmscale contributors.
"""What the documentation shows works as it stands there."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, DefaultScope
from nbclient import NotebookClient
from PIL import Image
from torch import nn

from mmscale.engine.models import build_network
from mmscale.models import ScaleResNet

from .conftest import ROOT, run_tool
from .pages import PAGES, blocks

DOCS = ROOT / 'docs'


# Pages whose examples are to be added to a config, and such a config.
BASES = {
    'docs/choosing.md': 'aa_pyramid/scaleresnet50-economical_8xb32_in1k.py',
    'docs/deformable.md': 'dss/scaleresnet50-s4_8xb32_in1k.py',
    'docs/downstream.md': 'downstream/retinanet_scaleresnet50-pyramid_scalefpn_1x_coco.py',
    'docs/equivariance.md': 'resnet/resnet18-w8_1xb50-10e_scaledigits.py',
}
# What takes minutes on the page of the equivariance error, and a part of it.
FEW = {
    'range(12)': 'range(2)',
    'range(64)': 'range(1)',
    '((1, 4), (2, 7), (4, 13))': '((1, 4),)',
    '    (2**0.5, 5, 1.0, dict(kernel_size=7)),\n    (2**0.25, 9, 1.0, dict(variance=3.0)),\n': '',
}


def is_config(block: str) -> bool:
    return all(isinstance(node, ast.Assign) for node in ast.parse(block).body)


CONFIGS = [(page, block) for page in PAGES for block in blocks(page, 'python') if is_config(block)]


@pytest.mark.parametrize(('page', 'block'), CONFIGS, ids=[page for page, _ in CONFIGS])
def test_a_config_builds(page, block, tmp_path):
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    base = '' if block.startswith('_base_') else f"_base_ = 'configs/{BASES[page]}'\n"
    if toolbox := re.search('mmdet|mmseg|downstream', (base + block).splitlines()[0]):
        module = toolbox[0].replace('downstream', 'mmdet')
        pytest.importorskip(module, reason=f'no {module}: tests/downstream has it')
    (tmp_path / 'config.py').write_text(base + block, encoding='utf-8')
    cfg = Config.fromfile(tmp_path / 'config.py')
    network = build_network(cfg, page)
    types = re.findall(r"'mmscale\.(\w+)'", block)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        parts = [*network.modules(), *map(HOOKS.build, cfg.get('custom_hooks', []))]
    assert {*types} <= {type(part).__name__ for part in parts}


def test_levels_kept_apart_have_the_channels_that_the_page_gives_the_neck():
    (block,) = (block for _, block in CONFIGS if 'ScaleLevels' in block)
    exec(block, names := {})  # noqa: S102
    grid, lift = dict(base=2, num_scales=3), dict(type='mmscale.GaussianPyramidLift')
    backbone = ScaleResNet(50, grid, lift, **names['model']['backbone'])
    maps = backbone(torch.rand(2, 3, 128, 128))
    assert [y.shape[1] for y in maps] == names['model']['neck']['in_channels']


@pytest.fixture
def animals(tmp_path) -> Path:
    """The config of the page, beside configs/ and a folder of images of two classes."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for number, name in enumerate(('cat', 'dog')):
            folder = tmp_path / 'data' / 'animals' / split / name
            folder.mkdir(parents=True)
            for image in range(2):
                pixels = rng.integers(128 * number, 128 + 128 * number, (40, 50, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f'{image}.jpg')
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    path = tmp_path / 'animals.py'
    path.write_text(next(filter(is_config, blocks('docs/getting_started.md', 'python'))))
    return path


def test_a_folder_of_images_is_trained_on_as_the_page_says(animals):
    cfg = Config.fromfile(animals)
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    options = ['train_cfg.max_epochs=1', 'model.backbone.init_cfg=None',
               'train_dataloader.dataset.pipeline.1.scale=32']  # fmt: skip
    for loader in ('train_dataloader', 'val_dataloader'):
        options += [f'{loader}.num_workers=0', f'{loader}.persistent_workers=False',
                    f'{loader}.dataset.data_root={animals.parent}/data/animals']  # fmt: skip
    work_dir = animals.parent / 'work'
    result = run_tool('tools/train.py', animals, '--work-dir', work_dir, '--cfg-options', *options)
    assert result.returncode == 0, result.stderr
    assert 'accuracy/top1' in result.stdout + result.stderr


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip('sphinx')
    words = ['-m', 'sphinx', '-W', '--keep-going', '-q', '-b', 'html', 'docs', tmp_path / 'html']
    result = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True,
                            text=True)  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    results = (tmp_path / 'html' / 'results.html').read_text(encoding='utf-8')
    assert 'DSS v1' in results and '<!-- study' not in results


def run_blocks(page: str, capsys, **names) -> tuple[dict, str]:
    """The names that the code of a page leaves, and what it prints."""
    code = '\n'.join(b for b in blocks(f'docs/{page}', 'python') if not is_config(b))
    for whole, part in FEW.items() if page == 'equivariance.md' else ():
        assert whole in code
        code = code.replace(whole, part)
    exec(code, names)  # noqa: S102
    return names, capsys.readouterr().out


def test_the_page_of_the_equivariance_error_runs(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    _, printed = run_blocks('equivariance.md', capsys, images=torch.rand(2, 3, 64, 64))
    assert 'between levels' in printed and 'nan' not in printed


def test_models_are_found_by_name_as_the_page_says(capsys):
    names, printed = run_blocks('getting_started.md', capsys)
    assert 'scaleresnet50-economical_8xb32_in1k' in printed
    assert names['trained'].backbone.depth == 18


def test_the_layers_of_the_page_run_and_are_what_it_says(capsys):
    names, printed = run_blocks('extending.md', capsys)
    assert 'level' in printed and 'nan' not in printed
    net, images = names['net'], names['signal'][0][:, :3]
    assert names['equivariance_error'](net, images, (1,)).mean == 0
    (expected,) = net(images)
    (found,) = nn.SyncBatchNorm.convert_sync_batchnorm(net)(images)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, expected, strict=True))


def test_the_page_of_plain_pytorch_runs(capsys):
    names, printed = run_blocks('pytorch.md', capsys)
    assert printed.endswith('[(4, 16, 32, 32), (4, 16, 16, 16), (4, 16, 8, 8)]\n')
    assert names['loss'].isfinite()


def test_the_page_of_kernels_runs(capsys):
    names, printed = run_blocks('kernels.md', capsys)
    *_, errors = printed.splitlines()
    dilated, discrete, of_averages = map(float, errors.split())
    assert discrete < dilated and of_averages < 1
    assert names['net'](torch.rand(2, 1, 28, 28))[0].shape == (2, 95, 4, 7, 7)


def test_the_notebook_runs_from_top_to_bottom():
    notebook = nbformat.read(DOCS / 'tour.ipynb', as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == 'code']
    assert counts == list(range(1, len(counts) + 1))  # stored with its outputs, of one run
    trainings = [cell for cell in notebook.cells if 'epochs=5' in cell.source]
    assert len(trainings) == 1
    trainings[0].source = trainings[0].source.replace('epochs=5', 'epochs=2')  # saves a minute
    place = dict(metadata=dict(path=str(DOCS)))
    NotebookClient(notebook, timeout=600, kernel_name='python3', resources=place).execute()
    *_, last = (cell for cell in notebook.cells if cell.cell_type == 'code')
    printed = ''.join(output.get('text', '') for output in last.outputs)
    ordinary, economical = (
        [float(v) for v in re.search(rf'^{name}.*errors(.*)', printed, re.MULTILINE)[1].split()]
        for name in ('ResNet', 'economical-up1')
    )
    assert all(economical[i] < ordinary[i] for i in range(1, 6))  # factors above 1
