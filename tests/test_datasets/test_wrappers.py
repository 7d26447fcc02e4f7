# Copyright (c) mmscale contributors.
"""Our datasets within the wrappers of MMEngine and MMPretrain, built as a config has them."""

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from .synthetic import expect_synthetic_mnist, write_cifar10, write_mnist

COUNT = 23


@pytest.fixture(params=['mmscale.ScaleMNIST', 'mmscale.ScaleCIFAR10', 'mmscale.ScaleDigits'])
def config(request, tmp_path, monkeypatch) -> dict:
    """Of a dataset of ``COUNT`` images."""
    options = dict(type=request.param, indices=COUNT, pipeline=[dict(type='PackInputs')])
    if request.param == 'mmscale.ScaleMNIST':
        write_mnist(tmp_path / 'raw')
        expect_synthetic_mnist(monkeypatch)
        options |= dict(data_root=str(tmp_path))
    elif request.param == 'mmscale.ScaleCIFAR10':
        write_cifar10(tmp_path)
        options |= dict(data_root=str(tmp_path), val_size=10, check_integrity=False)
    return options


def build(config: dict):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(config)


def items(dataset) -> list[tuple]:
    """Pixels and label of each item, in a form that can be compared."""
    samples = [dataset[i] for i in range(len(dataset))]
    return [(s['inputs'].numpy().tobytes(), s['data_samples'].gt_label.item()) for s in samples]


def test_repeated(config):
    plain, wrapped = build(config), build(dict(type='RepeatDataset', dataset=config, times=3))
    assert items(wrapped) == 3 * items(plain) and len(set(items(plain))) > COUNT // 2
    assert wrapped.metainfo['classes'] == plain.metainfo['classes']


def test_concatenated(config):
    other = dict(config, scale=0.5)
    wrapped = build(dict(type='ConcatDataset', datasets=[config, other]))
    assert items(wrapped) == items(build(config)) + items(build(other))
    assert items(build(config)) != items(build(other))
    assert len(wrapped.metainfo['classes']) == 10


def test_balanced(config):
    """Items of a class below the threshold come ceil(sqrt(threshold / frequency)) times."""
    plain = build(config)
    wrapped = build(dict(type='ClassBalancedDataset', dataset=config, oversample_thr=0.5))
    labels = [plain[i]['data_samples'].gt_label.item() for i in range(COUNT)]
    repeats = np.ceil(np.maximum(1, np.sqrt(0.5 * COUNT / np.bincount(labels)[labels])))
    expected = [item for item, times in zip(items(plain), repeats) for _ in range(int(times))]
    assert items(wrapped) == expected and len(expected) > COUNT


def test_folds(config):
    """Each image is in the test of one fold and in the training of the others."""
    folds = dict(type='KFoldDataset', num_splits=3, dataset=config)
    tests = [items(build(dict(folds, fold=i, test_mode=True))) for i in range(3)]
    assert sum(tests, []) == items(build(config))
    for i, test in enumerate(tests):
        wrapped = build(dict(folds, fold=i))
        assert sorted(items(wrapped) + test) == sorted(items(build(config)))
        assert len(wrapped.metainfo['classes']) == 10
