# Copyright (c) mmscale contributors.
import gzip
import multiprocessing

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS

from mmscale.datasets import ScaleMNIST, mnist_recipe

from .synthetic import SIZES, column, expect_synthetic_mnist, mnist_pool, write_mnist


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Data root of a small MNIST, which ScaleMNIST takes for the original."""
    expect_synthetic_mnist(monkeypatch)
    write_mnist(tmp_path / 'mnist')
    return tmp_path / 'mnist'


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_items(root, split):
    pipeline = [dict(type='PackInputs', meta_keys=('sample_idx', 'rescale_factor'))]
    dataset = ScaleMNIST(str(root), split, realization=2, pipeline=pipeline)
    assert len(dataset) == SIZES[split]
    images, labels = mnist_pool()
    chosen = mnist_recipe.split_pool(labels, 2)[split]
    factors = mnist_recipe.draw_split_factors(2)[split]
    expected = mnist_recipe.rescale_digits(images[chosen], factors)
    np.testing.assert_array_equal(column(dataset, 'img'), expected)
    np.testing.assert_array_equal(dataset.get_gt_labels(), labels[chosen])
    np.testing.assert_array_equal(column(dataset, 'rescale_factor'), factors)
    item = dataset[3]
    assert item['inputs'].shape == (1, 28, 28) and item['inputs'].dtype == torch.uint8
    assert item['data_samples'].gt_label.tolist() == [labels[chosen][3]]
    assert item['data_samples'].rescale_factor == factors[3]
    assert dataset.test_mode == (split != 'train')
    assert len(dataset.metainfo['classes']) == 10
    assert dataset.published


def test_made_once_where_it_is_asked_for(root, tmp_path):
    options = dict(split='val', cache_dir=str(tmp_path / 'elsewhere'), download=False)
    first = ScaleMNIST(str(root), **options)
    for file in root.glob('*.gz'):
        file.unlink()
    again = ScaleMNIST(str(root), **options)
    np.testing.assert_array_equal(column(first, 'img'), column(again, 'img'))
    assert not (root / 'mnist_scale').exists()
    with pytest.raises(FileNotFoundError):
        ScaleMNIST(str(root), **dict(options, split='train'))


def test_options_change_the_factors_and_nothing_else(root):
    images, labels = mnist_pool()
    chosen = mnist_recipe.split_pool(labels, 0)['val']
    seen = [mnist_recipe.draw_split_factors(0)['val'].tolist()]
    for options in (
        dict(seed=9),
        dict(scale_range=[0.5, 0.8]),
        dict(seed=9, scale_range=(0.5, 0.8)),
        dict(scale=1 / 1.1),
    ):
        dataset = ScaleMNIST(str(root), 'val', **options)
        factors = column(dataset, 'rescale_factor')
        np.testing.assert_array_equal(dataset.get_gt_labels(), labels[chosen])
        expected = mnist_recipe.rescale_digits(images[chosen], factors)
        np.testing.assert_array_equal(column(dataset, 'img'), expected)
        low, high = options.get('scale_range', (0.3, 1.0))
        assert low <= factors.min() and factors.max() <= high
        assert factors.tolist() not in seen
        seen.append(factors.tolist())
        assert not dataset.published
    assert set(seen[-1]) == {1 / 1.1}


def test_doubled(root):
    doubled = ScaleMNIST(str(root), 'val', image_size=56)
    single = column(ScaleMNIST(str(root), 'val'), 'img')
    np.testing.assert_array_equal(column(doubled, 'img'), mnist_recipe.double(single))


@pytest.mark.parametrize('folder, compressed', [('', False), ('raw', True), ('MNIST/raw', False)])
def test_places_of_the_files(tmp_path, monkeypatch, folder, compressed):
    expect_synthetic_mnist(monkeypatch)
    write_mnist(tmp_path / folder, compressed)
    ScaleMNIST(str(tmp_path), 'val', download=False)  # compares published digests


FILE = 't10k-images-idx3-ubyte.gz'


@pytest.mark.parametrize(
    'change, error, message',
    [
        (None, FileNotFoundError, 'not found in .*data_root'),
        (lambda content: content[:-50], RuntimeError, 'is damaged'),
        (lambda content: b'not gzip', RuntimeError, 'is damaged'),
        (
            lambda content: gzip.compress(gzip.decompress(content)[:-1] + b'x'),
            RuntimeError,
            'not the original.*MD5',
        ),
    ],
)
def test_missing_truncated_and_wrong_files(root, change, error, message):
    content = (root / FILE).read_bytes()
    (root / FILE).unlink()
    if change:
        (root / FILE).write_bytes(change(content))
    with pytest.raises(error, match=f'(?s)MNIST file .*{FILE}.*{message}.*download=True'):
        ScaleMNIST(str(root), download=False)
    assert not (root / 'mnist_scale').exists()


def test_libraries_that_do_not_reproduce_the_published_pixels(root, monkeypatch):
    monkeypatch.setattr(mnist_recipe, 'CENTER', (14.0, 14.0))
    with pytest.raises(RuntimeError, match='differ from the published .*Pillow .*scikit-learn'):
        ScaleMNIST(str(root), 'val')


def construct(rank, root, results):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{root.parent}/store', rank=rank, world_size=2
    )
    made, rescale_digits = [], mnist_recipe.rescale_digits
    mnist_recipe.rescale_digits = lambda *args: made.append(1) or rescale_digits(*args)
    try:
        told = column(ScaleMNIST(str(root), 'val', download=False), 'img').tolist()
    except FileNotFoundError as error:
        told = str(error)
    results.put((rank, bool(made), told))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('sound', [True, False])
def test_the_main_process_makes_it_and_an_error_reaches_every_process(root, sound):
    if not sound:
        (root / FILE).unlink()
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    ranks = [(rank, root, results) for rank in range(2)]
    processes = [context.Process(target=construct, args=rank, daemon=True) for rank in ranks]
    for process in processes:
        process.start()
    (_, made, told), (_, made_elsewhere, told_elsewhere) = sorted(
        (results.get(timeout=120) for _ in processes), key=lambda report: report[0]
    )
    for process in processes:
        process.join()
    assert made == sound and not made_elsewhere
    assert told == told_elsewhere and (sound or FILE in told)


def test_lazy_and_indices(root):
    lazy = DATASETS.build(dict(type='mmscale.ScaleMNIST', data_root=str(root), lazy_init=True))
    assert not (root / 'mnist_scale').exists()
    assert len(lazy) == SIZES['train']
    assert len(ScaleMNIST(str(root), indices=7)) == 7
    assert 'Realization' in repr(lazy) and '(0.3, 1.0)' in repr(lazy)
