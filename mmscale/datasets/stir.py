# Copyright (c) mmscale contributors.
"""Make STIR, the benchmark of sizes that were never trained: digits of MNIST, and emoji."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmpretrain.datasets import MNIST

from mmscale.checks import check_choice, check_flag
from mmscale.registry import DATASETS

from .base import SPLITS, RescaledDataset, check_folder
from .cache import Arrays, load_or_build
from .scale_mnist import read_pool

CANVAS, DIGITS, INSTANCES, TRAINING_IMAGES = 64, 10, 50, 60000
SIZES = range(64, 16, -1)
# Font Awesome's names of the classes, in their order.
EMOJI = (
    'tired', 'surprise', 'smile-wink', 'smile-beam', 'sad-tear', 'sad-cry', 'meh-rolling-eyes',
    'meh-blank', 'laugh-wink', 'laugh-squint', 'laugh-beam', 'laugh', 'kiss-wink-heart',
    'kiss-beam', 'kiss', 'grin-wink', 'grin-tongue-wink', 'grin-tongue-squint', 'grin-tongue',
    'grin-tears', 'grin-stars', 'grin-squint-tears', 'grin-squint', 'grin-hearts',
    'grin-beam-sweat', 'grin-beam', 'grin-alt', 'grin', 'grimace', 'frown-open', 'flushed', 'dizzy',
    'angry', 'smile', 'meh', 'frown',
)  # fmt: skip
# SHA-256 of the published digits of each split: by size, digit and instance.
DIGESTS = {
    'train': 'fe151ca790b4f112eeb6d3a3d3ba88b735ab85fd2295579265825591ae8f3450',
    'val': '31bd1eda9d91fc87b0bda586a6dd47d5b93d96d39a761ee9e55eed25c2ab4da7',
    'test': '1fe96afecac2b7e0edd849ffe8b059a52044a86ad89a9a325d32a6d3b8151bee',
}


@DATASETS.register_module()
class STIR(RescaledDataset):
    """STIR: digits or emoji of 17 to 64 pixels, anywhere on a canvas of 64x64 pixels.

    A split of digits has 24,000 images: 50 of each digit at each of the 48 sizes. They equal the
    published images bit for bit. A split of emoji has 1,728 images: one of each of 36 icons at each
    size. They are made by the published recipe, with CairoSVG; no digests are published. The
    published evaluations train on the sizes 17 to 32 (1), 33 to 48 (2), 49 to 64 (3) or on all
    sizes (4), and test on all sizes.
    Source: Altstidl et al., Just a Matter of Scale? Reevaluating Scale Equivariance in
    Convolutional Neural Networks, arXiv 2211.10288, 2022.

    A split is made once (half a minute) and kept in ``cache_dir``.

    Args:
        data_root (str): Folder of the files of MNIST, as in :class:`ScaleMNIST`, or folder of Font
            Awesome Free 5.15 for Desktop, with the icons in ``svgs/regular``.
        split (str): 'train', 'val' or 'test'. Defaults to 'train'.
        sizes (Sequence[int]): Smallest and largest size of the square frames of the objects, in
            pixels. Defaults to (17, 64).
        scale (float, optional): One size for the whole split, ``scale * 64`` rounded; ``sizes``
            then have no effect. Defaults to None.
        cache_dir (str, optional): Folder of the splits. Defaults to ``data_root/stir``.
        download (bool): Whether to download missing files of MNIST. Defaults to True.
        objects (str): 'digits' or 'emoji'. Defaults to 'digits'.
        **kwargs: Other arguments of :class:`mmpretrain.datasets.BaseDataset`, such as
            ``pipeline`` and ``indices``.

    Raises:
        ValueError: For an argument that is not as described.
        FileNotFoundError: If an icon is missing, or a file of MNIST that was not downloaded.
        ImportError: If emoji are to be made, and CairoSVG is not installed.
        RuntimeError: If a file of MNIST is damaged, a download failed, or the libraries do not
            make the published images.
    """

    METAINFO = MNIST.METAINFO
    LARGEST_SCALE = 1.0

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        sizes: Sequence[int] = (SIZES[-1], SIZES[0]),
        scale: float | None = None,
        cache_dir: str | None = None,
        download: bool = True,
        objects: str = 'digits',
        **kwargs: Any,
    ) -> None:
        check_flag('download', download)
        check_choice('objects', objects, ('digits', 'emoji'))
        is_emoji = objects == 'emoji'
        root = check_folder('data_root', data_root, 'Font Awesome' if is_emoji else 'MNIST')
        if is_emoji:
            kwargs = dict(metainfo=dict(classes=EMOJI)) | kwargs
        self.cache_dir = root / 'stir'
        if cache_dir is not None:
            self.cache_dir = check_folder('cache_dir', cache_dir, 'the cache')
        sound = isinstance(sizes, Sequence) and len(sizes) == 2
        if not sound or not all(size in SIZES for size in sizes) or sizes[0] > sizes[1]:
            raise ValueError(
                f'sizes must be the smallest and the largest size, from {SIZES[-1]} to {SIZES[0]}, '
                f'got {sizes!r}'
            )
        self.objects, self.sizes, self.download = objects, tuple(sizes), download
        super().__init__(
            split=split,
            scale_range=[size / CANVAS for size in sizes],
            scale=scale,
            seed=0,
            data_root=str(root),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Read the split from the cache, or make it first."""
        if self.scale is not None:
            self.sizes = (round(self.scale * CANVAS),) * 2
            if self.sizes[0] not in SIZES:
                raise ValueError(
                    f'scale must give a size from {SIZES[-1]} to {SIZES[0]} pixels, got '
                    f'{self.scale!r}: {self.sizes[0]}'
                )
        is_emoji = self.objects == 'emoji'
        path = self.cache_dir / f'{"emoji" if is_emoji else "mnist"}_{self.split}.npz'
        published = {} if is_emoji else dict(images=DIGESTS[self.split])
        arrays = load_or_build(path, self._build, published)
        chosen = slice(SIZES.index(self.sizes[1]), SIZES.index(self.sizes[0]) + 1)
        images = arrays['images'][chosen]
        places, labels, _ = np.indices(images.shape[:3]).reshape(3, -1)
        factors = np.array(SIZES)[chosen][places] / CANVAS
        return self.to_data_list(images.reshape(-1, CANVAS, CANVAS), labels, factors)

    def extra_repr(self) -> list[str]:
        return [
            f'Split: \t{self.split}',
            f'Objects: \t{self.objects} of {self.sizes[0]} to {self.sizes[1]} pixels',
        ]

    def _build(self) -> Arrays:
        is_emoji = self.objects == 'emoji'
        place = place_icon if is_emoji else place_digit
        objects = self._icons() if is_emoji else self._digits()
        positions = draw_positions(len(objects), len(objects[0]))[SPLITS.index(self.split)]
        images = np.zeros((*positions.shape[:3], CANVAS, CANVAS), np.uint8)
        for i, label, n in np.ndindex(images.shape[:3]):
            images[i, label, n] = place(objects[label][n], SIZES[i], *positions[i, label, n])
        return dict(images=images)

    def _digits(self) -> list[np.ndarray]:
        pool, labels = read_pool(Path(self.data_root), self.download)
        part = slice(TRAINING_IMAGES, None) if self.split == 'test' else slice(TRAINING_IMAGES)
        first, found = INSTANCES if self.split == 'val' else 0, []
        for digit in range(DIGITS):
            found.append(pool[part][labels[part] == digit])
            np.random.RandomState(42).shuffle(found[-1])
        return [images[first : first + INSTANCES] for images in found]

    def _icons(self) -> list[list[Path]]:
        folder = Path(self.data_root) / 'svgs' / 'regular'
        found = [[folder / f'{name}.svg'] for name in EMOJI]
        for (path,) in found:
            if not path.is_file():
                raise FileNotFoundError(
                    f'there is no {path}: data_root must be the folder of Font Awesome Free 5.15 '
                    'for Desktop'
                )
        return found


def draw_positions(classes: int, instances: int) -> np.ndarray:
    """Draw left and upper borders of objects, ``(split, size, class, instance, 2)``, in pixels."""
    rng = np.random.RandomState(42)
    positions = np.zeros((len(SPLITS), len(SIZES), classes, instances, 2), int)
    for label, n, i, split in np.ndindex(classes, instances, len(SIZES), len(SPLITS)):
        positions[split, i, label, n] = rng.randint(0, CANVAS - SIZES[i] + 1, 2)
    return positions


def place_digit(image: np.ndarray, size: int, left: int, top: int) -> np.ndarray:
    """Rescale a digit, with its original sharpness, on a canvas of 64x64 pixels.

    The digit is uint8 ``(28, 28)``, the result uint8 ``(64, 64)``. The result's digit is ``size``
    pixels wide, with its corner in column ``left`` and row ``top``. The steps are the steps of
    scikit-image's ``resize`` and ``gaussian``, as in the published recipe.
    """
    from scipy import ndimage  # a slow import, only if needed

    side, digit = len(image), image.astype(float)
    if size < side:
        digit = ndimage.gaussian_filter(digit, (side / size - 1) / 2, mode='mirror')
    digit = ndimage.zoom(digit, size / side, order=3, mode='mirror', grid_mode=True)
    canvas = np.zeros((CANVAS, CANVAS))
    canvas[top : top + size, left : left + size] = digit.clip(image.min(), image.max())
    canvas = ndimage.gaussian_filter(canvas, 7 / 8 * size / side, mode='nearest')
    canvas = 2 / np.pi * np.arctan(0.02 * (canvas - 128))
    lowest, highest = canvas.min(), canvas.max()
    return (255 * (canvas - lowest) / (highest - lowest)).astype(np.uint8)


def place_icon(path: Path, size: int, left: int, top: int) -> np.ndarray:
    """Draw an SVG icon in white on a black canvas, uint8 ``(64, 64)``.

    The icon's frame is ``size`` pixels wide, with its corner in column ``left`` and row ``top``.
    """
    try:
        import cairosvg  # an optional dependency
    except (ImportError, OSError) as error:  # the library Cairo may be missing, too
        raise ImportError(f'emoji are drawn by CairoSVG (pip install cairosvg): {error}') from error
    png = cairosvg.svg2png(url=str(path), parent_width=size, parent_height=size)
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    canvas[top : top + size, left : left + size] = mmcv.imfrombytes(png, 'unchanged')[..., 3]
    return canvas
