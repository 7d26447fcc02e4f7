# Copyright (c) mmscale contributors.
"""Turn CIFAR-10 as image files into the pickles that CIFAR-10 datasets read.

The source is a folder or a zip archive. It holds ``train/<class>/<name>.<png|jpg|...>`` and, if
there is a test split, ``test/<class>/...``, with the ten class names of CIFAR-10. Hidden files and
the ``__MACOSX`` entries of archives are left out; symbolic links are followed. Images of 16 bits
are converted to 8 bits; an image with transparent pixels is an error. The result is
``<target>/cifar-10-batches-py`` with ``data_batch_1`` to ``data_batch_5`` and ``test_batch``. After
an error nothing is written. The checksums differ from the original's: read the result with
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

from mmscale.datasets.images import files_below, is_image, read_rgb
from mmscale.datasets.scale_cifar10 import CIFAR10
from mmscale.datasets.scratch import put, scratch_folder
from mmscale.engine.errors import one_line_errors

CLASSES = CIFAR10.METAINFO['classes']


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='folder or zip archive')
    parser.add_argument('target', type=Path, help='folder in which to make cifar-10-batches-py')
    args = parser.parse_args()
    if not args.source.is_dir() and not zipfile.is_zipfile(args.source):
        parser.error(f'{args.source} is neither a folder nor a zip archive')
    if args.target.exists() and not args.target.is_dir():
        parser.error(f'target: {args.target} is not a folder')
    if (args.target / CIFAR10.base_folder).exists():
        parser.error(f'{args.target / CIFAR10.base_folder} exists already')
    return args


def open_source(source: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """Return the relative names of the files of a folder or zip archive, and a reader of one."""
    if source.is_dir():
        names = [path.as_posix() for path in files_below(source)]
        return names, lambda name: (source / name).read_bytes()
    try:
        archive = zipfile.ZipFile(source)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f'{source}: cannot be read ({error})') from error
    return [entry.filename for entry in archive.infolist() if not entry.is_dir()], archive.read


def collect(names: list[str], split: str) -> list[tuple[str, int]]:
    """Return names and labels of a split's images, shuffled, as CIFAR-10 is shuffled."""
    found = []
    for name in sorted(names):
        path = PurePosixPath(name)
        if not is_image(path) or path.parts[-3:-2] != (split,):
            continue
        if path.parent.name not in CLASSES:
            raise ValueError(f'{name}: {path.parent.name} is not one of {", ".join(CLASSES)}')
        found.append((name, CLASSES.index(path.parent.name)))
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in order]


def read_pixels(name: str, read: Callable[[str], bytes]) -> np.ndarray:
    """Read the 3072 values of an image: 1024 of red, then green, then blue."""
    try:
        content = io.BytesIO(read(name))
    except Exception as error:  # a damaged archive can raise anything
        raise ValueError(f'{name}: cannot be read ({type(error).__name__}: {error})') from error
    pixels = read_rgb(content, name)
    height, width = pixels.shape[:2]
    if (height, width) != (32, 32):
        raise ValueError(f'{name}: {width}x{height} pixels instead of 32x32')
    return pixels.transpose(2, 0, 1).reshape(-1)


def read_split(items: list[tuple[str, int]], read: Callable[[str], bytes], parts: int) -> list:
    """Read pixels ``(n, 3072)`` and labels ``(n, )`` of the images of a split, in equal parts."""
    pixels = np.stack([read_pixels(name, read) for name, _ in track_iter_progress(items)])
    labels = np.array([label for _, label in items])
    return list(zip(np.array_split(pixels, parts), np.array_split(labels, parts)))


@one_line_errors()
def main() -> None:
    args = parse_args()
    names, read = open_source(args.source)
    splits = {'train': CIFAR10.train_list, 'test': CIFAR10.test_list}
    items = {split: collect(names, split) for split in splits}
    if not items['train']:
        raise ValueError(f'{args.source} has no images train/<class>/<name>')
    contents = {
        name: part
        for split, batches in splits.items() if items[split]
        for (name, _), part in zip(batches, read_split(items[split], read, len(batches)))
    }  # fmt: skip

    folder = args.target / CIFAR10.base_folder
    try:
        with scratch_folder(args.target) as scratch:
            (scratch / folder.name).mkdir()
            for name, (data, labels) in contents.items():
                with open(scratch / folder.name / name, 'wb') as file:
                    pickle.dump({'data': data, 'labels': labels.tolist()}, file)
            put(scratch / folder.name, folder)
    except OSError as error:
        raise OSError(f'{folder} cannot be written ({error})') from error
    for split, batches in splits.items():
        if items[split]:
            print(f'\n{len(items[split])} {split} images in {folder}')
        else:
            print(f'{args.source} has no images {split}/<class>/<name>: no {batches[0][0]}')


if __name__ == '__main__':
    main()
