# Copyright (c) mmscale contributors.
import hashlib
import pickle

import numpy as np
import pytest

from mmscale.datasets import ScaleCIFAR10, rescale, scale_cifar10

from .synthetic import Program, column, write_cifar10

FOLDER = 'cifar-10-batches-py'
COPY = dict(check_integrity=False, download=False, val_size=50)


@pytest.fixture
def root(tmp_path):
    """200 training and 40 test images, which are not the original."""
    write_cifar10(tmp_path)
    return tmp_path


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


@pytest.mark.parametrize('padding', ['zeros', 'reflect'])
def test_images_are_rescaled(root, padding):
    original = column(ScaleCIFAR10(str(root), 'val', scale=1, **COPY), 'img')
    for scale in (None, 0.5):
        dataset = ScaleCIFAR10(str(root), 'val', padding=padding, scale=scale, **COPY)
        factors = column(dataset, 'rescale_factor')
        assert scale is None or set(factors) == {scale}
        expected = [rescale(i, f, padding=padding) for i, f in zip(original, factors)]
        np.testing.assert_array_equal(column(dataset, 'img'), expected)


def test_checksums(root, monkeypatch):
    for batches in ('train_list', 'test_list'):
        known = [
            [name, hashlib.md5((root / FOLDER / name).read_bytes()).hexdigest()]
            for name, _ in getattr(scale_cifar10.CIFAR10, batches)
        ]
        monkeypatch.setattr(scale_cifar10.CIFAR10, batches, known)
    ScaleCIFAR10(str(root), val_size=50)
    path = root / FOLDER / 'data_batch_3'
    path.write_bytes(path.read_bytes()[:-1] + b'!')
    ScaleCIFAR10(str(root), 'test')
    message = 'data_batch_3 is not the original.*MD5.*Delete it.*check_integrity=False'
    with pytest.raises(RuntimeError, match=message):
        ScaleCIFAR10(str(root), val_size=50)


def test_only_the_files_of_the_split_are_needed_and_no_copy_is_downloaded_over(root):
    (root / FOLDER / 'test_batch').unlink()
    options = {**COPY, 'download': True}
    ScaleCIFAR10(str(root), 'train', **options)
    message = 'CIFAR-10 file test_batch not found in .*data_root.*download=True'
    with pytest.raises(FileNotFoundError, match=message):
        ScaleCIFAR10(str(root), 'test', **options)
    with pytest.raises(FileNotFoundError, match='data_batch_1.*not found in'):
        ScaleCIFAR10(str(root / 'elsewhere'), download=False)
    assert not (root / 'elsewhere').exists()


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda batch: None, 'is damaged'),
        (lambda batch: dict(data=batch['data']), 'is damaged .*labels'),
        (lambda batch: dict(batch, data=batch['data'][:, :100]), r'must hold .* \(40, 100\)'),
        (lambda batch: dict(batch, labels=[10] * 40), 'must hold .* n labels from 0 to 9'),
    ],
)
def test_damaged_copy(root, change, message):
    path = root / FOLDER / 'data_batch_2'
    content = path.read_bytes()
    changed = change(pickle.loads(content))
    path.write_bytes(pickle.dumps(changed) if changed else content[:500])
    with pytest.raises(RuntimeError, match=f'data_batch_2 {message}.*Delete it'):
        ScaleCIFAR10(str(root), **COPY)


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
