# Copyright (c) mmscale contributors.
import gzip
import multiprocessing
import re
import shutil
import urllib.error

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from mmscale.datasets import ScaleMNIST, download, mnist_recipe, scale_mnist

from .synthetic import SIZES, expect_synthetic_mnist, mnist_pool, write_mnist


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Data root of a small MNIST, which ScaleMNIST takes for the original."""
    expect_synthetic_mnist(monkeypatch)
    write_mnist(tmp_path / 'mnist')
    return tmp_path / 'mnist'


def images_of(dataset):
    return np.stack([dataset.get_data_info(i)['img'] for i in range(len(dataset))])


def factors_of(dataset):
    return np.array([dataset.get_data_info(i)['rescale_factor'] for i in range(len(dataset))])


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_items(root, split):
    dataset = ScaleMNIST(str(root), split, realization=2, pipeline=[dict(type='PackInputs')])
    assert len(dataset) == SIZES[split]
    images, labels = mnist_pool()
    chosen = mnist_recipe.split_pool(labels, 2)[split]
    factors = mnist_recipe.draw_split_factors(2)[split]
    np.testing.assert_array_equal(
        images_of(dataset), mnist_recipe.rescale_digits(images[chosen], factors)
    )
    np.testing.assert_array_equal(dataset.get_gt_labels(), labels[chosen])
    np.testing.assert_array_equal(factors_of(dataset), factors)
    item = dataset[3]
    assert item['inputs'].shape == (1, 28, 28) and item['inputs'].dtype == torch.uint8
    assert item['data_samples'].gt_label.tolist() == [labels[chosen][3]]
    assert dataset.test_mode == (split != 'train')
    assert len(dataset.metainfo['classes']) == 10
    assert dataset.published
    dataset.verify()


def test_factor_reaches_the_evaluation(root):
    pack = dict(type='PackInputs', meta_keys=('sample_idx', 'rescale_factor'))
    dataset = ScaleMNIST(str(root), 'val', pipeline=[pack])
    assert dataset[4]['data_samples'].rescale_factor == factors_of(dataset)[4]


def test_made_once(root, monkeypatch):
    first = ScaleMNIST(str(root), 'val')
    for file in root.glob('*.gz'):
        file.unlink()
    again = ScaleMNIST(str(root), 'val', download=False)
    np.testing.assert_array_equal(images_of(first), images_of(again))
    with pytest.raises(FileNotFoundError):
        ScaleMNIST(str(root), 'train', download=False)


def test_cache_dir(root, tmp_path):
    ScaleMNIST(str(root), 'val', cache_dir=str(tmp_path / 'elsewhere'))
    assert not (root / 'mnist_scale').exists()
    assert len(list((tmp_path / 'elsewhere').glob('*_val.npz'))) == 1


def test_damaged_cache_is_made_anew(root):
    expected = images_of(ScaleMNIST(str(root), 'val'))
    (cached,) = (root / 'mnist_scale').glob('*.npz')
    content = bytearray(cached.read_bytes())
    content[len(content) // 2] ^= 255
    cached.write_bytes(content)
    dataset = ScaleMNIST(str(root), 'val')
    np.testing.assert_array_equal(images_of(dataset), expected)
    dataset.verify()
    assert cached.read_bytes() != content


def test_options_change_the_factors_and_nothing_else(root):
    standard = ScaleMNIST(str(root), 'val')
    variants = {
        'seed': dict(seed=9),
        'range': dict(scale_range=[0.5, 0.8]),
        'both': dict(seed=9, scale_range=(0.5, 0.8)),
        'scale': dict(scale=0.4),
    }
    seen = [factors_of(standard).tolist()]
    for options in variants.values():
        dataset = ScaleMNIST(str(root), 'val', **options)
        factors = factors_of(dataset)
        np.testing.assert_array_equal(dataset.get_gt_labels(), standard.get_gt_labels())
        low, high = options.get('scale_range', (0.3, 1.0))
        assert low <= factors.min() and factors.max() <= high
        assert factors.tolist() not in seen
        seen.append(factors.tolist())
        assert not dataset.published
        with pytest.raises(ValueError, match='published digests'):
            dataset.verify()
    assert set(seen[-1]) == {0.4}


@pytest.mark.parametrize('scale', [1, 1 / 1.1, 1 / 3])
def test_fixed_scale(root, scale):
    images, labels = mnist_pool()
    chosen = mnist_recipe.split_pool(labels, 0)['test']
    dataset = ScaleMNIST(str(root), 'test', scale=scale)
    expected = mnist_recipe.rescale_digits(images[chosen], np.full(len(chosen), scale))
    np.testing.assert_array_equal(images_of(dataset), expected)
    if scale == 1:
        np.testing.assert_array_equal(images_of(dataset), images[chosen])


def test_doubled(root):
    single = ScaleMNIST(str(root), 'val')
    doubled = ScaleMNIST(str(root), 'val', image_size=56)
    assert images_of(doubled).shape == (SIZES['val'], 56, 56)
    np.testing.assert_array_equal(images_of(doubled), mnist_recipe.double(images_of(single)))
    doubled.verify()


@pytest.mark.parametrize('folder', ['', 'raw', 'MNIST/raw'])
@pytest.mark.parametrize('compressed', [True, False])
def test_places_of_the_files(tmp_path, monkeypatch, folder, compressed):
    expect_synthetic_mnist(monkeypatch)
    write_mnist(tmp_path / folder, compressed)
    ScaleMNIST(str(tmp_path), 'val', download=False).verify()


FILE = 't10k-images-idx3-ubyte.gz'


def recompress(path, change):
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


@pytest.mark.parametrize(
    'damage, error, message',
    [
        (lambda path: path.unlink(), FileNotFoundError, 'not found in .*data_root'),
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), RuntimeError, 'is damaged'),
        (lambda path: path.write_bytes(b''), RuntimeError, 'not the original: .* 0 bytes'),
        (lambda path: path.write_bytes(b'not gzip'), RuntimeError, 'is damaged'),
        (lambda path: recompress(path, lambda c: c[:-1]), RuntimeError, 'not the original'),
        (lambda path: recompress(path, lambda c: c[:-1] + b'x'), RuntimeError, 'MD5'),
    ],
)
def test_missing_truncated_and_wrong_files(root, damage, error, message):
    damage(root / FILE)
    with pytest.raises(error, match=f'(?s)MNIST file .*{FILE}.*{message}.*') as caught:
        ScaleMNIST(str(root), download=False)
    # and the remedy
    assert re.search('download=True', str(caught.value))
    assert not (root / 'mnist_scale').exists()


def test_libraries_that_do_not_reproduce_the_published_pixels(root, monkeypatch):
    monkeypatch.setattr(mnist_recipe, 'CENTER', (14.0, 14.0))
    with pytest.raises(RuntimeError, match='differ from the published .*Pillow .*scikit-learn'):
        ScaleMNIST(str(root), 'val')


def test_missing_files_are_downloaded(root, tmp_path, monkeypatch):
    calls = []

    def download_url(url, folder, filename, md5):
        calls.append((url, md5))
        shutil.copy(root / filename, folder)

    monkeypatch.setattr(download, 'download_url', download_url)
    fresh = tmp_path / 'fresh'
    fresh.mkdir()
    shutil.copy(root / 'train-labels-idx1-ubyte.gz', fresh)
    ScaleMNIST(str(fresh), 'val').verify()
    assert sorted(url.rsplit('/', 1)[1] for url, _ in calls) == [
        't10k-images-idx3-ubyte.gz',
        't10k-labels-idx1-ubyte.gz',
        'train-images-idx3-ubyte.gz',
    ]
    # the MD5 of the compressed file on MMPretrain's server
    assert (
        dict(calls)['https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz']
        == '9fb629c4189551a2d022fa330f9573f3'
    )


def test_failed_download(tmp_path, monkeypatch):
    def download_url(*args, **kwargs):
        raise urllib.error.URLError('no route')

    monkeypatch.setattr(download, 'download_url', download_url)
    with pytest.raises(RuntimeError, match='train-images.*gz to .*no route.* data_root'):
        ScaleMNIST(str(tmp_path))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(realization=6), 'realization must be an integer from 0 to 5, got 6'),
        (dict(realization=-1), 'got -1'),
        (dict(realization=1.0), 'got 1.0'),
        (dict(split='training'), "split must be one of .*got 'training'"),
        (dict(image_size=32), 'image_size must be 28 or 56, got 32'),
        (dict(scale=0), 'scale must be a number .*got 0'),
        (dict(scale_range=(1.0, 0.3)), 'scale_range must be .*'),
        (dict(seed='a'), "seed must be .*got 'a'"),
        (dict(data_root=''), 'data_root must name'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScaleMNIST(**{'data_root': 'somewhere', **arguments})


def construct(rank, root, results):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{root.parent}/store', rank=rank, world_size=2
    )
    made = []
    rescale_digits = mnist_recipe.rescale_digits
    scale_mnist.mnist_recipe.rescale_digits = lambda *args: made.append(1) or rescale_digits(*args)
    try:
        dataset = ScaleMNIST(str(root), 'val', download=False)
        results.put((rank, bool(made), dataset.verify()))
    except FileNotFoundError as error:
        results.put((rank, bool(made), str(error)))
    torch.distributed.destroy_process_group()


def run_two_ranks(root):
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    processes = [context.Process(target=construct, args=(r, root, results)) for r in range(2)]
    for process in processes:
        process.start()
    reports = sorted((results.get(timeout=120) for _ in processes), key=lambda report: report[0])
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return reports


def test_only_the_main_process_makes_it(root):
    (_, made, digests), (_, made_elsewhere, digests_elsewhere) = run_two_ranks(root)
    assert made and not made_elsewhere
    assert digests == digests_elsewhere


def test_an_error_reaches_every_process(root):
    (root / FILE).unlink()
    (_, _, error), (_, _, error_elsewhere) = run_two_ranks(root)
    assert FILE in error
    assert error == error_elsewhere


def test_through_runner_and_registry(root):
    loader = Runner.build_dataloader(
        dict(
            batch_size=16,
            num_workers=0,
            dataset=dict(
                type='mmscale.ScaleMNIST',
                data_root=str(root),
                split='train',
                pipeline=[
                    dict(type='mmscale.RandomRescale', scale_range=(0.5, 2.0)),
                    dict(type='PackInputs'),
                ],
            ),
            sampler=dict(type='DefaultSampler', shuffle=True),
        )
    )
    batch = next(iter(loader))
    assert len(batch['inputs']) == 16 and batch['inputs'][0].shape == (1, 28, 28)


def test_lazy_and_indices(root):
    lazy = DATASETS.build(dict(type='mmscale.ScaleMNIST', data_root=str(root), lazy_init=True))
    assert not (root / 'mnist_scale').exists()
    assert len(lazy) == SIZES['train']
    assert len(ScaleMNIST(str(root), indices=7)) == 7
    text = repr(lazy)
    assert 'Realization' in text and '(0.3, 1.0)' in text


def test_real_realization(shared_data, tmp_path):
    options = dict(realization=4, cache_dir=str(tmp_path), download=False)
    for _ in range(2):
        dataset = ScaleMNIST(str(shared_data / 'mnist'), 'val', **options)
        assert len(dataset) == 2000
        dataset.verify()
