# Copyright (c) mmscale contributors.
"""Small stand-ins for MNIST and CIFAR-10, in their file formats."""

import gzip
import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np

from mmscale.datasets import mnist_recipe, scale_mnist
from mmscale.datasets.cache import digest

TRAIN, TEST = 500, 60
SIZES = {'train': 100, 'val': 40, 'test': 300}


def mnist_pool():
    """Images (560, 28, 28), a random block each, and labels."""
    rng = np.random.default_rng(0)
    images = np.zeros((TRAIN + TEST, 28, 28), np.uint8)
    images[:, 4:24, 4:24] = rng.integers(0, 256, (TRAIN + TEST, 5, 5)).repeat(4, 1).repeat(4, 2)
    labels = rng.permutation(np.arange(TRAIN + TEST) % 10).astype(np.uint8)
    return images, labels


def mnist_files() -> dict[str, bytes]:
    """Uncompressed contents of the four IDX files."""
    images, labels = mnist_pool()
    contents = {}
    for name, part in (('train', slice(0, TRAIN)), ('t10k', slice(TRAIN, None))):
        count = len(labels[part])
        head = struct.pack('>IIII', 0x803, count, 28, 28)
        contents[f'{name}-images-idx3-ubyte'] = head + images[part].tobytes()
        head = struct.pack('>II', 0x801, count)
        contents[f'{name}-labels-idx1-ubyte'] = head + labels[part].tobytes()
    return contents


def write_mnist(folder: Path, compressed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in mnist_files().items():
        if compressed:
            (folder / f'{name}.gz').write_bytes(gzip.compress(content, 1))
        else:
            (folder / name).write_bytes(content)


def expect_synthetic_mnist(monkeypatch) -> None:
    """Make ScaleMNIST take the stand-in, and its splits, for the original."""
    checksums = {name: hashlib.md5(content).hexdigest() for name, content in mnist_files().items()}
    monkeypatch.setattr(scale_mnist, 'IDX_FILES', checksums)
    for split, size in SIZES.items():
        monkeypatch.setitem(mnist_recipe.SPLIT_SIZES, split, size)
    images, labels = mnist_pool()
    digests = [{} for _ in range(6)]
    for realization, published in enumerate(digests):
        factors = mnist_recipe.draw_split_factors(realization)
        for split, chosen in mnist_recipe.split_pool(labels, realization).items():
            rescaled = mnist_recipe.rescale_digits(images[chosen], factors[split])
            published[split] = [digest(rescaled), digest(labels[chosen])]
    monkeypatch.setattr(scale_mnist, 'PUBLISHED_DIGESTS', digests)


def column(dataset, key: str) -> np.ndarray:
    """One entry of every item."""
    return np.array([dataset.get_data_info(i)[key] for i in range(len(dataset))])


def write_cifar10(root: Path, per_batch: int = 40, with_test: bool = True) -> None:
    """Images whose first pixel tells their number; labels go round the ten classes."""
    folder = root / 'cifar-10-batches-py'
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch'] * with_test
    for number, name in enumerate(names):
        data = rng.integers(0, 256, (per_batch, 3072), np.uint8)
        data[:, 0] = number * per_batch + np.arange(per_batch)
        labels = [i % 10 for i in range(per_batch)]
        (folder / name).write_bytes(pickle.dumps({'data': data, 'labels': labels}))


class Program:
    """What a pickle from a stranger may hold: opened, it makes a folder."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.makedirs, (self.path, 0o777, True)
