# Copyright (c) mmscale contributors.
"""Folders of images, a folder for each class, as users have them."""

import json
import random
import re
import shutil
from contextlib import suppress

import mmcv
import numpy as np
import pytest
import torch

from mmscale.engine.models import build_network, load_config

from .conftest import CONFIG, ROOT, exit_message, run_here

CLASSES = ('cat', 'dog', 'ship')
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


def write_folders(root, per_class=4) -> None:
    draw = np.random.default_rng(0)
    for split in ('train', 'val', 'test'):
        for name in CLASSES:
            for i in range(per_class):
                image = draw.integers(0, 256, (32, 32), np.uint8)
                mmcv.imwrite(image, str(root / split / name / f'{i}.png'))


def write_config(path, root) -> str:
    path.write_text(FOLDERS.format(base=str(ROOT / CONFIG), root=root))
    return str(path)


@pytest.fixture(scope='module')
def trained_on_folders(tmp_path_factory):
    """Config and checkpoint of a run on three classes."""
    root = tmp_path_factory.mktemp('folders')
    write_folders(root)
    config = write_config(root / 'three.py', root)
    with pytest.MonkeyPatch.context() as patch:
        run_here(patch, 'tools/train.py', config, '--work-dir', root / 'work')
    return root, root / 'work' / 'epoch_1.pth'


TOOLS = {
    'train': ['tools/train.py', 'CONFIG', '--work-dir', 'OUT'],
    'resume': ['tools/train.py', 'CONFIG', '--work-dir', 'OUT', '--resume', 'CHECKPOINT'],
    'test': ['tools/test.py', 'CONFIG', 'CHECKPOINT', '--work-dir', 'OUT'],
    'equivariance': ['tools/equivariance.py', 'CONFIG:CHECKPOINT', '--num-images', '2', '--out',
                     'OUT'],
    'predictions': ['tools/visualize_predictions.py', 'CONFIG:CHECKPOINT', '--out', 'OUT'],
}  # fmt: skip


def filled(command: list[str], words: dict[str, str]) -> list[str]:
    """A command with words in the places of their names."""
    for name, word in words.items():
        command = [part.replace(name, word) for part in command]
    return command


@pytest.mark.parametrize(
    ('tool', 'changed', 'message'),
    [
        ('train', 'val', "the validation data have no 'dog', which the training data have"),
        ('resume', 'train val', "have no 'dog', which the data of the checkpoint have"),
        ('test', 'test', "the test data have no 'dog', which the data of the checkpoint have"),
        ('equivariance', 'test', "the test data have no 'dog', which the data of the checkpoint"),
        ('predictions', 'test', "the test data have no 'dog', which the data of the checkpoint"),
    ],
)
def test_classes_that_differ_are_named(
    tool, changed, message, trained_on_folders, tmp_path, monkeypatch
):
    source, checkpoint = trained_on_folders
    for split in ('train', 'val', 'test'):
        shutil.copytree(source / split, tmp_path / split)
        if split in changed.split():
            shutil.rmtree(tmp_path / split / 'dog')
    config = write_config(tmp_path / f'two_{tool}.py', tmp_path)
    words = dict(CONFIG=config, CHECKPOINT=str(checkpoint), OUT=str(tmp_path / 'out'))
    assert message in exit_message(monkeypatch, *filled(TOOLS[tool], words))


def test_classes_of_other_names_are_taken_if_asked_for(trained_on_folders, tmp_path, monkeypatch):
    source, checkpoint = trained_on_folders
    shutil.copytree(source / 'test', tmp_path / 'test')
    (tmp_path / 'test' / 'dog').rename(tmp_path / 'test' / 'hound')
    config = write_config(tmp_path / 'hounds.py', tmp_path)
    command = ('tools/test.py', config, checkpoint, '--work-dir', tmp_path)
    assert "have no 'dog'" in exit_message(monkeypatch, *command)
    run_here(monkeypatch, *command, '--no-strict', '--cfg-options', 'experiment_name=hounds')


def test_images_of_one_name_in_several_folders_are_drawn_apart(
    trained_on_folders, tmp_path, monkeypatch
):
    root, checkpoint = trained_on_folders
    shown = tmp_path / 'shown'
    run_here(monkeypatch, 'tools/test.py', root / 'three.py', checkpoint, '--work-dir', tmp_path,
             '--show-dir', shown)  # fmt: skip
    names = sorted(path.relative_to(shown).as_posix() for path in shown.rglob('*.png'))
    assert names == [f'{name}/{i}.png_0.png' for name in CLASSES for i in range(4)]


def test_images_without_a_path_are_drawn_apart_in_batches_of_any_length(
    trained, tmp_path, monkeypatch
):
    run_here(monkeypatch, 'tools/test.py', CONFIG, trained / 'epoch_1.pth', '--work-dir', tmp_path,
             '--show-dir', tmp_path / 'shown', '--cfg-options', 'test_dataloader.batch_size=5',
             'test_dataloader.dataset.indices=7')  # fmt: skip
    assert len(list((tmp_path / 'shown').glob('*.png'))) == 7


def test_metrics_of_a_test_are_json_though_one_is_no_number(trained, tmp_path, monkeypatch):
    config = tmp_path / 'hooked.py'
    hook = dict(type='mmscale.EquivarianceHook', factors=(2,), num_images=2, border=99)
    config.write_text(f'_base_ = {str(ROOT / CONFIG)!r}\ncustom_hooks = [{hook!r}]\n')
    run_here(monkeypatch, 'tools/test.py', config, trained / 'epoch_1.pth', '--work-dir', tmp_path,
             '--out', tmp_path, '--cfg-options', 'test_dataloader.dataset.indices=4')  # fmt: skip
    found = json.loads((tmp_path / 'metrics.json').read_text(), parse_constant=pytest.fail)
    assert found['equivariance/backbone'] is None and found['accuracy/top1'] >= 0


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
        (
            'several views',
            'backbone',
            r'data preprocessor must be a tensor \(N, C, H, W\), got list',
        ),
    ],
)
def test_models_that_are_no_classifiers_are_measured_or_one_line_says_why_not(
    kind, layer, message, trained_on_folders, tmp_path, monkeypatch
):
    root, _ = trained_on_folders
    config, checkpoint = tmp_path / 'other.py', tmp_path / 'a.pth'
    text = FOLDERS.format(base=str(ROOT / CONFIG), root=root) + OTHERS[kind].format(root=root)
    config.write_text(text)
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


@pytest.mark.parametrize(
    ('tool', 'workers', 'content'),
    [('train', 0, b''), ('train', 1, b'no image'), ('test', 1, b''), ('equivariance', 0, b'')],
)
def test_a_damaged_image_is_named_with_workers_and_without(
    tool, workers, content, trained_on_folders, tmp_path, monkeypatch
):
    source, checkpoint = trained_on_folders
    for split in ('train', 'val', 'test'):
        shutil.copytree(source / split, tmp_path / split)
        (tmp_path / split / 'cat' / '1.png').write_bytes(content)
    # Runs of one second in one process need names of their own.
    config = write_config(tmp_path / f'{tool}{workers}{len(content)}.py', tmp_path)
    words = dict(CONFIG=config, OUT=str(tmp_path / 'out'), CHECKPOINT=str(checkpoint))
    options = [f'{split}_dataloader.num_workers={workers}' for split in ('train', 'test')]
    command = [*filled(TOOLS[tool], words), '--cfg-options', *options]
    split = 'train' if tool == 'train' else 'test'
    line = exit_message(monkeypatch, *command)
    assert f'{tmp_path}/{split}/cat/1.png' in line and 'Traceback' not in line
    assert line.startswith('error: ') and len(line) < 500


def hidden(split):
    (split / 'cat' / '._0.txt').write_bytes(b'of a file system')


def behind_a_link(split):
    (split / 'dog').rename(split.parent / f'dogs of {split.name}')
    (split / 'dog').symlink_to(split.parent / f'dogs of {split.name}')


def of_16_bits(split):
    mmcv.imwrite(np.full((32, 32), 9999, np.uint16), str(split / 'ship' / '0.png'))


def see_through(split):
    mmcv.imwrite(np.full((32, 32, 4), 99, np.uint8), str(split / 'ship' / '1.png'))


def class_without_images(split):
    for path in (split / 'dog').iterdir():
        path.unlink()


def class_missing(split):
    shutil.rmtree(split / 'dog')


def class_added(split):
    shutil.copytree(split / 'dog', split / 'bird')


def class_renamed(split):
    (split / 'dog').rename(split / 'hound')


def cut_off(split):
    path = split / 'cat' / '2.png'
    path.write_bytes(path.read_bytes()[:40])


def text(split):
    (split / 'cat' / '3.png').write_text('no image', encoding='utf-8')


# What ends a tool, by its name in the message; None is no fault.
ODDITIES = {
    hidden: None, behind_a_link: None, of_16_bits: None, see_through: None,
    class_without_images: None, class_missing: 'dog', class_added: 'bird',
    class_renamed: 'dog|hound', cut_off: '2.png', text: '3.png',
}  # fmt: skip


@pytest.mark.parametrize('seed', range(15))
def test_odd_folders_give_the_numbers_of_even_ones_or_one_line(
    seed, trained_on_folders, tmp_path, monkeypatch
):
    """Drawn at random: a tool, and one or two oddities of the data that it reads."""
    draw = random.Random(seed)
    tool = draw.choice(['train', 'resume', 'test', 'equivariance'])
    split = 'test' if tool in ('test', 'equivariance') else draw.choice(['train', 'val'])
    oddities = draw.sample(list(ODDITIES), draw.choice([1, 2]))
    oddities.sort(key=list(ODDITIES).index)
    source, checkpoint = trained_on_folders
    for name in ('train', 'val', 'test'):
        shutil.copytree(source / name, tmp_path / name)
    for oddity in oddities:
        with suppress(FileNotFoundError):  # another has taken it away
            oddity(tmp_path / split)
    config = write_config(tmp_path / f'odd_{seed}.py', tmp_path)
    words = dict(CONFIG=config, OUT=str(tmp_path / 'out'), CHECKPOINT=str(checkpoint))
    command = filled(TOOLS[tool], words)
    command += ['--cfg-options', f'train_cfg.max_epochs={1 + (tool == "resume")}']
    names = [ODDITIES[oddity] for oddity in oddities if ODDITIES[oddity]]
    if not names:
        run_here(monkeypatch, *command)
        return
    line = exit_message(monkeypatch, *command)
    assert line.startswith('error: ') and re.search('|'.join(names), line), (oddities, line)
