# Copyright (c) mmscale contributors.
"""Folders of images, a folder for each class, as users have them."""

import json
import re
import shutil

import mmcv
import numpy as np
import pytest
import torch

from mmscale.engine.models import build_network, load_config

from .conftest import CONFIG, ROOT, exit_message, run_here, swap

CLASSES = ('cat', 'dog', 'ship')
SPLITS = ('train', 'val', 'test')
FOLDERS = """_base_ = {base!r}
pipeline = [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')]
data = dict(_delete_=True, type='CustomDataset', pipeline=pipeline)
train_dataloader = dict(dataset=dict(data, data_prefix='{root}/train'))
val_dataloader = dict(dataset=dict(data, data_prefix='{root}/val'))
test_dataloader = dict(dataset=dict(data, data_prefix='{root}/test'))
model = dict(head=dict(num_classes=3))
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = dict(_delete_=True, type='ConstantLR', factor=1.0)
"""
TOOLS = {
    'train': ['tools/train.py', 'CONFIG', '--work-dir', 'OUT'],
    'resume': ['tools/train.py', 'CONFIG', '--work-dir', 'OUT', '--resume', 'CHECKPOINT'],
    'test': ['tools/test.py', 'CONFIG', 'CHECKPOINT', '--work-dir', 'OUT'],
    'equivariance': ['tools/equivariance.py', 'CONFIG:CHECKPOINT', '--num-images', '2', '--out',
                     'OUT'],
}  # fmt: skip


def write_config(path, root) -> str:
    path.write_text(FOLDERS.format(base=str(ROOT / CONFIG), root=root))
    return str(path)


@pytest.fixture(scope='module')
def trained_on_folders(tmp_path_factory):
    """Folder with config and checkpoint of a run on three classes of four images."""
    root, draw = tmp_path_factory.mktemp('folders'), np.random.default_rng(0)
    for name in (f'{split}/{name}/{i}' for split in SPLITS for name in CLASSES for i in range(4)):
        mmcv.imwrite(draw.integers(0, 256, (32, 32), np.uint8), str(root / f'{name}.png'))
    config = write_config(root / 'three.py', root)
    with pytest.MonkeyPatch.context() as patch:
        run_here(patch, 'tools/train.py', config, '--work-dir', root / 'work')
    return root, root / 'work' / 'epoch_1.pth'


@pytest.fixture
def changed(trained_on_folders, tmp_path, request):
    """A copy of the data to change, and a function that fills in a command on it."""
    root, checkpoint = trained_on_folders
    for split in SPLITS:
        shutil.copytree(root / split, tmp_path / split)
    # Runs of one second in one process need names of their own.
    name = re.sub(r'\W', '', request.node.name)
    config = write_config(tmp_path / f'{name}.py', tmp_path)
    words = dict(CONFIG=config, CHECKPOINT=checkpoint, OUT=tmp_path / 'out')
    return tmp_path, lambda command: swap(command, **words)


@pytest.mark.parametrize(
    ('tool', 'splits', 'message'),
    [
        ('train', ['val'], "the validation data have no 'dog', which the training data have"),
        ('resume', ['train', 'val'], "have no 'dog', which the data of the checkpoint have"),
        ('test', ['test'], "the test data have no 'dog', which the data of the checkpoint have"),
        ('equivariance', ['test'], "the test data have no 'dog', which the data of the checkpoint"),
    ],
)
def test_classes_that_differ_are_named(tool, splits, message, changed, monkeypatch):
    folder, filled = changed
    for split in splits:
        shutil.rmtree(folder / split / 'dog')
    assert message in exit_message(monkeypatch, *filled(TOOLS[tool]))


def test_classes_of_other_names_are_taken_if_asked_for(changed, monkeypatch):
    folder, filled = changed
    (folder / 'test' / 'dog').rename(folder / 'test' / 'hound')
    run_here(monkeypatch, *filled(TOOLS['test']), '--no-strict')


def test_images_of_one_name_in_several_folders_are_drawn_apart(changed, monkeypatch):
    folder, filled = changed
    run_here(monkeypatch, *filled(TOOLS['test']), '--show-dir', folder / 'shown')
    names = sorted(p.relative_to(folder / 'shown').as_posix() for p in folder.rglob('shown/*/*'))
    assert names == [f'{name}/{i}.png_0.png' for name in CLASSES for i in range(4)]


@pytest.mark.parametrize(
    ('tool', 'workers', 'content'),
    [('train', 0, b''), ('train', 1, b'no image'), ('equivariance', 0, b'')],
)
def test_a_damaged_image_is_named_with_workers_and_without(
    tool, workers, content, changed, monkeypatch
):
    folder, filled = changed
    split = 'train' if tool == 'train' else 'test'
    (folder / split / 'cat' / '1.png').write_bytes(content)
    line = exit_message(monkeypatch, *filled(TOOLS[tool]), '--cfg-options',
                        f'train_dataloader.num_workers={workers}')  # fmt: skip
    assert line.startswith('error: ') and f'{folder}/{split}/cat/1.png' in line
    assert 'Traceback' not in line and len(line) < 500


OTHERS = {
    'retriever': """
model = dict(_delete_=True, type='ImageToImageRetriever',
    image_encoder=[dict(type='ResNet_CIFAR', depth=18, in_channels=1, base_channels=8,
                        stem_channels=8), dict(type='GlobalAveragePooling')],
    prototype=dict(dataset=dict(type='CustomDataset', data_prefix='{root}/train',
                                pipeline=pipeline), batch_size=4,
                   sampler=dict(type='DefaultSampler', shuffle=False),
                   collate_fn=dict(type='default_collate')))
test_evaluator = dict(_delete_=True, type='RetrievalRecall', topk=[1])
""",
    'several views': """
model = dict(_delete_=True, type='SimSiam', backbone=dict(type='ResNet_CIFAR', depth=18,
        in_channels=1, base_channels=8, stem_channels=8),
    neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=3,
        in_channels=64), data_preprocessor=dict(type='SelfSupDataPreprocessor'))
""",
}


@pytest.mark.parametrize(
    ('kind', 'layer', 'message'),
    [
        ('retriever', 'image_encoder.0', None),
        ('retriever', 'backbone', "there is no layer 'backbone'; the nearest names are .*encoder"),
        ('several views', 'backbone', r'preprocessor must be a tensor \(N, C, H, W\), got list'),
    ],
)
def test_models_that_are_no_classifiers_are_measured_or_one_line_says_why_not(
    kind, layer, message, trained_on_folders, tmp_path, monkeypatch
):
    root, _ = trained_on_folders
    config, checkpoint = tmp_path / 'other.py', tmp_path / 'a.pth'
    write_config(config, root)
    config.write_text(config.read_text() + OTHERS[kind].format(root=root))
    model = build_network(load_config(str(config)), str(config))
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    command = ('tools/equivariance.py', f'{config}:{checkpoint}', '--layers', layer, '--factors', 2,
               '--num-images', 2, '--accuracy-images', 4, '--out', tmp_path)  # fmt: skip
    if message is not None:
        assert re.search(message, exit_message(monkeypatch, *command))
        return
    run_here(monkeypatch, *command)
    (found,) = json.loads((tmp_path / 'equivariance.json').read_text(encoding='utf-8'))['models']
    assert found['layers'][layer]['n'] == [2]
    assert found['accuracy']['metric'] == 'retrieval/Recall@1'
