# Copyright (c) mmscale contributors.
import hashlib
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS

from mmscale.datasets import ScaleCIFAR10, download, rescale, scale_cifar10

from .synthetic import Program, write_cifar10

FOLDER = 'cifar-10-batches-py'
COPY = dict(check_integrity=False, download=False, val_size=50)


@pytest.fixture
def root(tmp_path):
    """200 training and 40 test images, which are not the original."""
    write_cifar10(tmp_path)
    return tmp_path


@pytest.fixture
def as_original(root, monkeypatch):
    """Takes the files of root for the original."""
    for batches in ('train_list', 'test_list'):
        expected = [
            [name, hashlib.md5((root / FOLDER / name).read_bytes()).hexdigest()]
            for name, _ in getattr(scale_cifar10.CIFAR10, batches)
        ]
        monkeypatch.setattr(scale_cifar10.CIFAR10, batches, expected)


def column(dataset, key):
    return np.array([dataset.get_data_info(i)[key] for i in range(len(dataset))])


def numbers(root, split, **options):
    """Which image of the files each item shows."""
    dataset = ScaleCIFAR10(str(root), split, **{**COPY, **options, 'scale': 1})
    return column(dataset, 'img')[:, 0, 0, 0]


def test_scale_one_shows_the_original_pixels(root):
    dataset = ScaleCIFAR10(str(root), 'test', scale=1, **COPY)
    batch = pickle.loads((root / FOLDER / 'test_batch').read_bytes())
    expected = batch['data'].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(column(dataset, 'img'), expected)
    np.testing.assert_array_equal(dataset.get_gt_labels(), batch['labels'])


def test_splits(root):
    train, val = numbers(root, 'train'), numbers(root, 'val')
    assert len(train) == 150 and len(val) == 50
    assert sorted([*train, *val]) == list(range(200))
    labels = ScaleCIFAR10(str(root), 'val', **COPY).get_gt_labels()
    assert np.bincount(labels).tolist() == [5] * 10
    assert set(numbers(root, 'val', seed=1)) != set(val)
    assert len(numbers(root, 'train', val_size=0)) == 200


def test_factors_depend_on_seed_and_image_only(root):
    by_image = {}
    for options in (dict(split='train'), dict(split='val'), dict(split='train', val_size=0)):
        options = {**COPY, **options}
        dataset = ScaleCIFAR10(str(root), seed=3, **options)
        options.pop('split')
        factors = column(dataset, 'rescale_factor')
        assert 0.3 <= factors.min() and factors.max() <= 1.0
        for number, factor in zip(numbers(root, dataset.split, seed=3, **options), factors):
            assert by_image.setdefault(number, factor) == factor
    assert len(by_image) == len(set(by_image.values())) == 200
    test = column(ScaleCIFAR10(str(root), 'test', seed=3, **COPY), 'rescale_factor')
    assert not set(test) & set(by_image.values())


@pytest.mark.parametrize('padding', ['zeros', 'reflect', 'replicate'])
def test_images_are_rescaled(root, padding):
    original = column(ScaleCIFAR10(str(root), 'val', scale=1, **COPY), 'img')
    dataset = ScaleCIFAR10(str(root), 'val', padding=padding, **COPY)
    for image, item in zip(original, map(dataset.get_data_info, range(len(dataset)))):
        expected = rescale(image, item['rescale_factor'], padding=padding)
        np.testing.assert_array_equal(item['img'], expected)
    fixed = ScaleCIFAR10(str(root), 'val', padding=padding, scale=0.5, **COPY)
    np.testing.assert_array_equal(
        fixed.get_data_info(0)['img'], rescale(original[0], 0.5, padding=padding)
    )


def test_built_by_name(root):
    dataset = DATASETS.build(
        dict(
            type='mmscale.ScaleCIFAR10',
            data_root=str(root),
            pipeline=[dict(type='RandomCrop', crop_size=32, padding=4), dict(type='PackInputs')],
            **COPY,
        )
    )
    item = dataset[0]
    assert item['inputs'].shape == (3, 32, 32) and item['inputs'].dtype == torch.uint8
    assert dataset.metainfo['classes'][0] == 'airplane'
    assert 'Padding' in repr(dataset)


def test_checksums(root, as_original):
    ScaleCIFAR10(str(root), val_size=50, download=False)
    path = root / FOLDER / 'data_batch_3'
    path.write_bytes(path.read_bytes()[:-1] + b'!')
    ScaleCIFAR10(str(root), 'test', download=False)
    with pytest.raises(
        RuntimeError,
        match='data_batch_3 is not the original.*MD5.*Delete it.*check_integrity=False',
    ):
        ScaleCIFAR10(str(root), val_size=50, download=False)


def test_only_the_files_of_the_split_are_needed(root, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError('must not download over a copy')

    monkeypatch.setattr(download, 'download_url', never)
    (root / FOLDER / 'test_batch').unlink()
    options = {**COPY, 'download': True}
    ScaleCIFAR10(str(root), 'train', **options)
    with pytest.raises(
        FileNotFoundError, match='CIFAR-10 file test_batch not found in .*data_root.*download=True'
    ):
        ScaleCIFAR10(str(root), 'test', **options)


def without_labels(path):
    batch = pickle.loads(path.read_bytes())
    del batch['labels']
    path.write_bytes(pickle.dumps(batch))


def wrong_shape(path):
    batch = pickle.loads(path.read_bytes())
    batch['data'] = batch['data'][:, :100]
    path.write_bytes(pickle.dumps(batch))


@pytest.mark.parametrize(
    'damage, message',
    [
        (lambda path: path.write_bytes(path.read_bytes()[:500]), 'is damaged'),
        (lambda path: path.write_bytes(b''), 'is damaged'),
        (lambda path: path.write_bytes(b'no pickle'), 'is damaged'),
        (without_labels, 'is damaged .*labels'),
        (wrong_shape, r'must hold uint8 data \(n, 3072\) .*has uint8 \(40, 100\)'),
    ],
)
def test_damaged_copy(root, damage, message):
    damage(root / FOLDER / 'data_batch_2')
    with pytest.raises(RuntimeError, match=f'data_batch_2 {message}.*Delete it'):
        ScaleCIFAR10(str(root), **COPY)


def test_absent_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='data_batch_1.*not found in'):
        ScaleCIFAR10(str(tmp_path), download=False)


def test_download(root, as_original, tmp_path, monkeypatch):
    archive = tmp_path / 'cifar-10-python.tar.gz'
    with tarfile.open(archive, 'w:gz') as file:
        file.add(root / FOLDER, FOLDER)

    def download_url(url, folder, filename, md5):
        assert url == 'https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz'
        assert md5 == 'c58f30108f718f92721af3b95e74349a'
        shutil.copy(archive, folder)

    monkeypatch.setattr(download, 'download_url', download_url)
    fresh = tmp_path / 'fresh'
    fresh.mkdir()
    assert len(ScaleCIFAR10(str(fresh), 'test')) == 40
    assert sorted(path.name for path in fresh.glob('[!.]*')) == [FOLDER, archive.name]


def test_failed_download(tmp_path, monkeypatch):
    def download_url(*args, **kwargs):
        raise OSError('no route')

    monkeypatch.setattr(download, 'download_url', download_url)
    with pytest.raises(RuntimeError, match='cifar-10-python.tar.gz to .*no route.*data_root'):
        ScaleCIFAR10(str(tmp_path))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(split='training'), 'split must be one of'),
        (dict(padding='wrap'), "padding must be one of .*got 'wrap'"),
        (dict(scale=0), 'scale must be a number .*got 0'),
        (dict(scale_range=(1, 0.3)), 'scale_range must be'),
        (dict(val_size=-1), 'val_size must be .*got -1'),
        (dict(split='val', val_size=0), "val_size must be positive for split='val', got 0"),
        (dict(val_size=199), 'val_size must be .*from 10 to 190 .*got 199'),
        (dict(data_root=''), 'data_root must name'),
    ],
)
def test_wrong_arguments(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        ScaleCIFAR10(**{'data_root': str(root), **COPY, **arguments})


def test_a_batch_that_runs_a_program_is_not_opened(root):
    path = root / FOLDER / 'data_batch_2'
    batch = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(dict(batch, more=Program(root / 'ran'))))
    with pytest.raises(RuntimeError, match='data_batch_2 .*it holds .*makedirs, and batches'):
        ScaleCIFAR10(str(root), **COPY)
    assert not (root / 'ran').exists()


@pytest.mark.parametrize('protocol', [2, 5])
def test_batches_of_any_protocol_and_version_of_numpy(root, protocol):
    path = root / FOLDER / 'test_batch'
    content = pickle.dumps(pickle.loads(path.read_bytes()), protocol)
    before = ScaleCIFAR10(str(root), 'test', **COPY)
    if protocol == 2:  # in which names are lines
        content = content.replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    path.write_bytes(content)
    after = ScaleCIFAR10(str(root), 'test', **COPY)
    np.testing.assert_array_equal(column(after, 'img'), column(before, 'img'))
