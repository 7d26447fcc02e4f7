# Copyright (c) mmscale contributors.
"""Turn CIFAR-10 as image files into the pickles that CIFAR-10 datasets read.

The source, a folder or a zip archive, holds ``train/<class>/<name>.<png|jpg|...>`` and, where there
is one, ``test/<class>/...``, with the ten class names of CIFAR-10. The result is
``<target>/cifar-10-batches-py`` with ``data_batch_1`` to ``data_batch_5`` and ``test_batch``. Its
checksums are not those of the original: read it with
``dict(type='mmscale.ScaleCIFAR10', data_root=<target>, check_integrity=False)``.

Example:
    python tools/dataset_converters/images_to_cifar10.py cifar10.zip data/cifar10
"""

import argparse
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from mmengine.utils import track_iter_progress
from mmpretrain.datasets import CIFAR10
from PIL import Image

SUFFIXES = {'.png', '.jpg', '.jpeg', '.bmp', '.webp'}
CLASSES = CIFAR10.METAINFO['classes']


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='folder or zip archive')
    parser.add_argument('target', type=Path, help='folder in which to make cifar-10-batches-py')
    args = parser.parse_args()
    if not args.source.is_dir() and not zipfile.is_zipfile(args.source):
        parser.error(f'{args.source} is neither a folder nor a zip archive')
    if (args.target / CIFAR10.base_folder).exists():
        parser.error(f'{args.target / CIFAR10.base_folder} exists already')
    return args


def open_source(source: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """Relative names of the files of a folder or zip archive, and how to read one."""
    if source.is_dir():
        files = [path.relative_to(source).as_posix() for path in source.rglob('*')]
        return files, lambda name: (source / name).read_bytes()
    archive = zipfile.ZipFile(source)
    return archive.namelist(), archive.read


def collect(names: list[str], split: str) -> list[tuple[str, int]]:
    """Names of a split's images and their labels, shuffled as CIFAR-10's are."""
    found = []
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.suffix.lower() not in SUFFIXES or path.parts[-3:-2] != (split,):
            continue
        if path.parent.name not in CLASSES:
            raise SystemExit(f'{name}: {path.parent.name} is not one of {", ".join(CLASSES)}')
        found.append((name, CLASSES.index(path.parent.name)))
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in order]


def read_pixels(name: str, content: bytes) -> np.ndarray:
    """The 3072 values of an image: 1024 of red, then green, then blue."""
    image = Image.open(io.BytesIO(content)).convert('RGB')
    if image.size != (32, 32):
        raise SystemExit(f'{name}: {image.size[0]}x{image.size[1]} pixels instead of 32x32')
    return np.asarray(image).transpose(2, 0, 1).reshape(-1)


def write_batches(folder: Path, names: list[str], pixels: np.ndarray, labels: np.ndarray) -> None:
    """Write images in equal parts to files of the given names."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = zip(names, np.array_split(pixels, len(names)), np.array_split(labels, len(names)))
    for name, data, part_labels in parts:
        with open(folder / name, 'wb') as file:
            pickle.dump({'data': data, 'labels': part_labels.tolist()}, file)


def main():
    args = parse_args()
    names, read = open_source(args.source)
    items = {split: collect(names, split) for split in ('train', 'test')}
    if not items['train']:
        raise SystemExit(f'{args.source} has no images train/<class>/<name>')
    for split, batches in (('train', CIFAR10.train_list), ('test', CIFAR10.test_list)):
        if not items[split]:
            print(f'{args.source} has no images {split}/<class>/<name>: no {batches[0][0]}')
            continue
        pixels = [read_pixels(name, read(name)) for name, _ in track_iter_progress(items[split])]
        labels = np.array([label for _, label in items[split]])
        folder = args.target / CIFAR10.base_folder
        write_batches(folder, [name for name, _ in batches], np.stack(pixels), labels)
        print(f'\n{len(labels)} {split} images in {folder}')


if __name__ == '__main__':
    main()
