# Copyright (c) mmscale contributors.
"""Scatter real objects of many sizes over photographs, for detectors and segmentors.

The objects are digits of MNIST or images of CIFAR-10. Their longer side is drawn log-uniformly from
``--sizes``. They lie side by side on parts of photographs, of scikit-learn or of a folder. Images
are in ``TARGET/images/SPLIT``, annotations of detectors in ``TARGET/annotations/SPLIT.json``
(COCO), and masks of segmentors in ``TARGET/masks/SPLIT`` (PNG, 0 is the background, 1 to 10 are the
classes). The splits ``train``, ``val`` and ``test`` have objects of all sizes. The splits
``train_medium``, ``test_small``, ``test_medium`` and ``test_large`` have objects of one third of
the range, to train on some sizes and test on others. No object is in two of train, val and test.
Objects of train and val lie on the left halves of the photographs, objects of test on the right
halves. The area of an annotation is the area of the box, not of the ink.

Example:
    python tools/dataset_converters/scatter_objects.py mnist data/mnist data/scattered_mnist
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.utils import track_iter_progress
from numpy.random import Generator
from PIL import Image

from mmscale.datasets.images import read_photographs
from mmscale.datasets.scale_cifar10 import CIFAR10, read_batches
from mmscale.datasets.scale_mnist import MNIST, read_pool
from mmscale.datasets.scratch import put, scratch_folder
from mmscale.engine.errors import one_line_errors

# For each split, the split of its objects and photographs, and the third of the sizes or None.
SPLITS = {
    'train': ('train', None),
    'train_medium': ('train', 1),
    'val': ('val', None),
    'test': ('test', None),
    'test_small': ('test', 0),
    'test_medium': ('test', 1),
    'test_large': ('test', 2),
}
# Parts of the objects and of the width of each photograph, as fractions.
OBJECTS = {'train': (0, 0.6), 'val': (0.6, 0.7), 'test': (0.7, 1)}
WIDTHS = {'train': (0, 0.5), 'val': (0, 0.5), 'test': (0.5, 1)}
FEWEST_OBJECTS, MOST_OBJECTS, PLACES_TRIED = 2, 8, 50
# Least difference between the mean colours of a digit's ink and its background, of 255.
CONTRAST = 70


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('objects', choices=['mnist', 'cifar10'])
    parser.add_argument('source', type=Path, help='folder of MNIST or CIFAR-10, as data_root')
    parser.add_argument('target', type=Path, help='folder to be made')
    parser.add_argument('--photographs', type=Path, help="folder; default: scikit-learn's two")
    parser.add_argument('--side', type=int, default=256, help='side of an image, in pixels')
    parser.add_argument('--sizes', type=float, nargs=2, default=[16, 128], metavar=('MIN', 'MAX'),
                        help='longer side of an object, in pixels')  # fmt: skip
    for split, count in (('train', 1000), ('val', 200), ('test', 300)):
        parser.add_argument(f'--{split}', type=int, default=count, help='images in such a split')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    smallest, largest = args.sizes
    if not 4 <= smallest < largest <= args.side / 2:
        parser.error(f'--sizes: must be 4 <= MIN < MAX <= half of --side = {args.side / 2:g}, got '
                     f'{smallest:g} {largest:g}')  # fmt: skip
    for name, least in dict(train=1, val=1, test=1, seed=0).items():
        if getattr(args, name) < least:
            parser.error(f'--{name}: must be at least {least}, got {getattr(args, name)}')
    if args.target.exists():
        parser.error(f'target: {args.target} exists already')
    if args.photographs and not args.photographs.is_dir():
        parser.error(f'--photographs: there is no folder {args.photographs}')
    return args


def read_objects(kind: str, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read all images, ``(n, H, W)`` or ``(n, H, W, 3)``, and their labels ``(n, )``."""
    if kind == 'mnist':
        return read_pool(root, may_download=False)
    folder = root / CIFAR10.base_folder
    batches = CIFAR10.train_list + CIFAR10.test_list
    found = [(name, md5) for name, md5 in batches if (folder / name).is_file()]
    if not found:
        raise ValueError(f'source: {folder} has no batches of CIFAR-10')
    return read_batches(folder, found, check_integrity=False)


def part(length: int, ends: tuple[float, float]) -> slice:
    """Return the slice of a range of ``length`` between two fractions."""
    return slice(*(round(length * end) for end in ends))


def draw_canvas(photographs: list, whole: str, side: int, rng: Generator) -> np.ndarray:
    """Draw a square of a photograph, of random size and place, mirrored with probability 0.5."""
    photograph = photographs[rng.integers(len(photographs))]
    photograph = photograph[:, part(photograph.shape[1], WIDTHS[whole])]
    length = int(min(photograph.shape[:2]) * rng.uniform(0.5, 1))
    top, left = (rng.integers(size - length + 1) for size in photograph.shape[:2])
    square = photograph[top : top + length, left : left + length]
    square = square[:, ::-1] if rng.random() < 0.5 else square
    return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC))


def resize(image: np.ndarray, size: float) -> np.ndarray:
    """Resize an image, so that its longer side has ``size`` pixels, rounded."""
    factor = size / max(image.shape[:2])
    height, width = (max(1, round(factor * n)) for n in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def trim(image: np.ndarray) -> np.ndarray:
    """Crop the empty rows and columns around a digit."""
    picture = Image.fromarray(image)
    return np.asarray(picture.crop(picture.getbbox()))


def paint(canvas: np.ndarray, image: np.ndarray, rng: Generator) -> np.ndarray:
    """Paint an object over a canvas of its size, in place; return its mask (H, W)."""
    if image.ndim == 3:
        canvas[:] = image
        return np.ones(image.shape[:2], bool)
    mean = canvas.mean()
    colour = rng.integers(0, 256, 3)
    while abs(colour.mean() - mean) < CONTRAST:
        colour = rng.integers(0, 256, 3)
    opacity = image[..., None] / 255
    canvas[:] = (opacity * colour + (1 - opacity) * canvas).round()
    return image > 127


def find_place(taken: np.ndarray, shape: tuple, rng: Generator) -> tuple[slice, slice] | None:
    """Find a free place of ``shape``; return None after ``PLACES_TRIED`` tries."""
    for _ in range(PLACES_TRIED):
        top, left = (rng.integers(n - m + 1) for n, m in zip(taken.shape, shape, strict=True))
        place = slice(top, top + shape[0]), slice(left, left + shape[1])
        if not taken[place].any():
            return place
    return None


def draw_scene(
    canvas: np.ndarray, draw_object: Callable[[], tuple[np.ndarray, int]], rng: Generator
) -> tuple[np.ndarray, np.ndarray, list[tuple]]:
    """Draw an image ``(H, W, 3)``, its mask ``(H, W)``, boxes ``(label, x, y, width, height)``."""
    canvas, mask = canvas.copy(), np.zeros(canvas.shape[:2], np.uint8)
    taken, boxes = np.zeros(canvas.shape[:2], bool), []
    for _ in range(rng.integers(FEWEST_OBJECTS, MOST_OBJECTS + 1)):
        image, label = draw_object()
        place = find_place(taken, image.shape[:2], rng)
        if place is None:
            continue
        taken[place] = True
        mask[place][paint(canvas[place], image, rng)] = label + 1
        (height, width), (rows, columns) = image.shape[:2], place
        boxes.append((int(label), int(columns.start), int(rows.start), width, height))
    return canvas, mask, boxes


def write_split(
    folder: Path, split: str, args: argparse.Namespace, objects: tuple, photographs: list
) -> int:
    """Write images, masks and annotations of a split; return the number of objects."""
    whole, third = SPLITS[split]
    images, labels = objects
    smallest, largest = map(math.log, args.sizes)
    if third is not None:
        step = (largest - smallest) / 3
        smallest, largest = smallest + third * step, smallest + (third + 1) * step
    for kind in ('images', 'masks'):
        (folder / kind / split).mkdir(parents=True)
    entries, annotations = [], []
    for i in track_iter_progress(range(getattr(args, whole))):
        rng = np.random.default_rng((args.seed, list(SPLITS).index(split), i))

        def draw_object(rng=rng):
            chosen = rng.integers(len(images))
            image = trim(images[chosen]) if args.objects == 'mnist' else images[chosen]
            return resize(image, math.exp(rng.uniform(smallest, largest))), labels[chosen]

        canvas = draw_canvas(photographs, whole, args.side, rng)
        image, mask, boxes = draw_scene(canvas, draw_object, rng)
        name = f'{i:06d}.png'
        Image.fromarray(image).save(folder / 'images' / split / name)
        Image.fromarray(mask).save(folder / 'masks' / split / name)
        entries.append(dict(id=i, file_name=name, height=args.side, width=args.side))
        annotations += [
            dict(id=number, image_id=i, category_id=label + 1, bbox=box, area=box[2] * box[3],
                 iscrowd=0)
            for number, (label, *box) in enumerate(boxes, start=len(annotations) + 1)
        ]  # fmt: skip
    classes = (MNIST if args.objects == 'mnist' else CIFAR10).METAINFO['classes']
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, start=1)]
    content = dict(images=entries, annotations=annotations, categories=categories)
    (folder / 'annotations').mkdir(exist_ok=True)
    (folder / 'annotations' / f'{split}.json').write_text(json.dumps(content), encoding='utf-8')
    return len(annotations)


@one_line_errors()
def main() -> None:
    args = parse_args()
    images, labels = read_objects(args.objects, args.source)
    order = np.random.default_rng(args.seed).permutation(len(images))
    try:
        photographs = read_photographs(args.photographs)
    except ValueError as error:
        raise ValueError(f'--photographs: {error}') from error
    with scratch_folder(args.target.absolute().parent) as scratch:
        folder = scratch / args.target.name
        for split, (whole, _) in SPLITS.items():
            mine = order[part(len(order), OBJECTS[whole])]
            count = write_split(folder, split, args, (images[mine], labels[mine]), photographs)
            print(f'\n{split}: {getattr(args, whole)} images, {count} objects')
        put(folder, args.target)
    print(f'written to {args.target}')


if __name__ == '__main__':
    main()
