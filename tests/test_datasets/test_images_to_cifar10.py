# Copyright (c) mmscale contributors.
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


def test_wrong_sources(source, tmp_path, convert, capsys):
    target = tmp_path / 'cifar10'
    Image.new('RGB', (16, 16)).save(source / 'train' / 'cat' / '0.png')
    with pytest.raises(SystemExit, match='train/cat/0.png: 16x16 pixels instead of 32x32'):
        convert(source, target)
    (source / 'train' / 'cat').rename(source / 'train' / 'lion')
    with pytest.raises(SystemExit, match='lion is not one of airplane'):
        convert(source, target)
    with pytest.raises(SystemExit, match='has no images train/<class>/<name>'):
        convert(source / 'test', target)
    with pytest.raises(SystemExit):
        convert(tmp_path / 'nowhere', target)
    assert 'nowhere is neither a folder nor a zip archive' in capsys.readouterr().err
    assert not target.exists()
    (target / 'cifar-10-batches-py').mkdir(parents=True)
    with pytest.raises(SystemExit):
        convert(source, target)
    assert 'cifar-10-batches-py exists already' in capsys.readouterr().err
