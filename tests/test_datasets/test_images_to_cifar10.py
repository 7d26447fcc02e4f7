# Copyright (c) mmscale contributors.
import pickle
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmscale.datasets import ScaleCIFAR10

SCRIPT = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'images_to_cifar10.py'
CLASSES = ScaleCIFAR10.METAINFO['classes']


@pytest.fixture
def convert(monkeypatch):
    def run(source, target):
        monkeypatch.setattr(sys, 'argv', [SCRIPT.name, str(source), str(target)])
        runpy.run_path(str(SCRIPT), run_name='__main__')

    return run


@pytest.fixture
def source(tmp_path):
    """Two training images of each class and one test image, whose red tells the class."""
    for split, count in (('train', 2), ('test', 1)):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / 'images' / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.full((32, 32, 3), (label, i, 7), np.uint8)
                Image.fromarray(pixels).save(folder / f'{i}.png')
    return tmp_path / 'images'


@pytest.mark.parametrize('zipped', [False, True])
def test_conversion(source, tmp_path, convert, zipped):
    if zipped:
        source = shutil.make_archive(str(tmp_path / 'images'), 'zip', source)
    convert(source, tmp_path / 'cifar10')
    for split, count in (('train', 20), ('test', 10)):
        dataset = ScaleCIFAR10(
            str(tmp_path / 'cifar10'), split, scale=1, val_size=0, check_integrity=False
        )
        assert len(dataset) == count
        for i in range(count):
            item = dataset.get_data_info(i)
            assert (item['img'][..., 0] == item['gt_label']).all()
            assert (item['img'][..., 2] == 7).all()
        assert dataset.get_gt_labels().tolist() != sorted(dataset.get_gt_labels())


def test_training_images_only(source, tmp_path, convert):
    shutil.rmtree(source / 'test')
    convert(source, tmp_path / 'cifar10')
    written = sorted(path.name for path in (tmp_path / 'cifar10' / 'cifar-10-batches-py').iterdir())
    assert written == [f'data_batch_{i}' for i in range(1, 6)]


@pytest.mark.parametrize('zipped', [False, True])
def test_hidden_files_are_left_out(source, tmp_path, convert, zipped):
    for name in ('train/cat/._0.png', '__MACOSX/train/cat/0.png', 'train/.thumbnails/0.png'):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b'of a file system')
    (source / 'train' / 'cat' / 'folder.png').mkdir()
    if zipped:
        source = shutil.make_archive(str(tmp_path / 'images'), 'zip', source)
    convert(source, tmp_path / 'cifar10')
    data = dict(data_root=str(tmp_path / 'cifar10'), val_size=0, check_integrity=False)
    assert len(ScaleCIFAR10(**data)) == 20


@pytest.mark.parametrize('split', ['train', 'test'])
def test_an_unreadable_image_is_named_and_nothing_written(source, tmp_path, convert, split):
    path = source / split / 'dog' / '0.png'
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(SystemExit, match=rf'^error: {split}/dog/0.png: cannot be read \(.*\)$'):
        convert(source, tmp_path / 'cifar10')
    assert not (tmp_path / 'cifar10').exists()


def test_damaged_archives(source, tmp_path, convert):
    archive = Path(shutil.make_archive(str(tmp_path / 'images'), 'zip', source))
    content = archive.read_bytes()
    place = content.index(b'0.png') + 40
    damaged = {
        r'/0.png': content[:place] + b'xxxx' + content[place + 4 :],
        r'images.zip': content[:100] + content[-100:],
    }
    for name, content in damaged.items():
        archive.write_bytes(content)
        with pytest.raises(SystemExit, match=rf'{name}: cannot be read \('):
            convert(archive, tmp_path / 'cifar10')
    assert not (tmp_path / 'cifar10').exists()


def test_a_target_is_written_as_a_whole_or_not_at_all(source, tmp_path, convert, monkeypatch):
    target, dump = tmp_path / 'cifar10', pickle.dump

    def full_disk(batch, file):
        if Path(file.name).name == 'data_batch_4':
            raise OSError(28, 'No space left on device')
        dump(batch, file)

    monkeypatch.setattr(pickle, 'dump', full_disk)
    with pytest.raises(SystemExit, match='cifar-10-batches-py cannot be written .*No space'):
        convert(source, target)
    assert not list(target.glob('[!.]*'))

    def late(batch, file):  # of another process, which was faster
        (target / 'cifar-10-batches-py').mkdir(exist_ok=True)
        (target / 'cifar-10-batches-py' / 'data_batch_1').touch()
        dump(batch, file)

    monkeypatch.setattr(pickle, 'dump', late)
    with pytest.raises(SystemExit, match='cifar-10-batches-py exists already'):
        convert(source, target)
    assert [path.stat().st_size for path in target.glob('[!.]*/*')] == [0]


def test_wrong_sources_and_targets(source, tmp_path, convert, capsys):
    target = tmp_path / 'cifar10'
    Image.new('RGB', (16, 16)).save(source / 'train' / 'cat' / '0.png')
    with pytest.raises(SystemExit, match='train/cat/0.png: 16x16 pixels instead of 32x32'):
        convert(source, target)
    (source / 'train' / 'cat').rename(source / 'train' / 'lion')
    with pytest.raises(SystemExit, match='lion is not one of airplane'):
        convert(source, target)
    with pytest.raises(SystemExit, match='has no images train/<class>/<name>'):
        convert(source / 'test', target)
    assert not target.exists()
    (tmp_path / 'file').touch()
    (target / 'cifar-10-batches-py').mkdir(parents=True)
    for at, to, message in (
        (tmp_path / 'nowhere', target, 'nowhere is neither a folder nor a zip archive'),
        (source, tmp_path / 'file', 'file is not a folder'),
        (source, target, 'cifar-10-batches-py exists already'),
    ):
        with pytest.raises(SystemExit):
            convert(at, to)
        assert message in capsys.readouterr().err
