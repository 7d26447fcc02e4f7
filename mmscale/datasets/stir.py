# Copyright (c) mmscale contributors.
"""Make STIR-MNIST, the benchmark of sizes that were never trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.datasets import MNIST

from mmscale.checks import check_flag
from mmscale.registry import DATASETS

from .base import SPLITS, RescaledDataset, check_folder
from .cache import Arrays, load_or_build
from .scale_mnist import read_pool

CANVAS, INSTANCES, TRAINING_IMAGES = 64, 50, 60000
SIZES = range(64, 16, -1)
# SHA-256 of the published images of each split: by size, digit and instance.
DIGESTS = {
    'train': 'fe151ca790b4f112eeb6d3a3d3ba88b735ab85fd2295579265825591ae8f3450',
    'val': '31bd1eda9d91fc87b0bda586a6dd47d5b93d96d39a761ee9e55eed25c2ab4da7',
    'test': '1fe96afecac2b7e0edd849ffe8b059a52044a86ad89a9a325d32a6d3b8151bee',
}


@DATASETS.register_module()
class STIR(RescaledDataset):
    """STIR-MNIST: digits of 17 to 64 pixels, anywhere on a canvas of 64x64 pixels.

    A split has 24,000 images: 50 of each digit at each of the 48 sizes. They equal the published
    images bit for bit. The published evaluations train on the sizes 17 to 32 (1), 33 to 48 (2), 49
    to 64 (3) or on all sizes (4), and test on all sizes.
    Source: Altstidl et al., Just a Matter of Scale? Reevaluating Scale Equivariance in
    Convolutional Neural Networks, arXiv 2211.10288, 2022.

    A split is made once (half a minute) and kept in ``cache_dir``.

    Args:
        data_root (str): Folder of the files of MNIST, as in :class:`ScaleMNIST`.
        split (str): 'train', 'val' or 'test'. Defaults to 'train'.
        sizes (Sequence[int]): Smallest and largest size of the digits' 28x28 frames, in pixels.
            Defaults to (17, 64).
        scale (float, optional): One size for the whole split, ``scale * 64`` rounded; ``sizes``
            then have no effect. Defaults to None.
        cache_dir (str, optional): Folder of the splits. Defaults to ``data_root/stir``.
        download (bool): Whether to download missing files of MNIST. Defaults to True.
        **kwargs: Other arguments of :class:`mmpretrain.datasets.BaseDataset`, such as
            ``pipeline`` and ``indices``.

    Raises:
        ValueError: For an argument that is not as described.
        FileNotFoundError: If a file of MNIST is missing and was not downloaded.
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
        **kwargs: Any,
    ) -> None:
        check_flag('download', download)
        root = check_folder('data_root', data_root, 'MNIST')
        self.cache_dir = root / 'stir'
        if cache_dir is not None:
            self.cache_dir = check_folder('cache_dir', cache_dir, 'the cache')
        sound = isinstance(sizes, Sequence) and len(sizes) == 2
        if not sound or not all(size in SIZES for size in sizes) or sizes[0] > sizes[1]:
            raise ValueError(
                f'sizes must be the smallest and the largest size, from {SIZES[-1]} to {SIZES[0]}, '
                f'got {sizes!r}'
            )
        self.sizes, self.download = tuple(sizes), download
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
        path = self.cache_dir / f'mnist_{self.split}.npz'
        published = dict(images=DIGESTS[self.split])
        arrays = load_or_build(path, self._build, published)
        chosen = slice(SIZES.index(self.sizes[1]), SIZES.index(self.sizes[0]) + 1)
        sizes, images = np.array(SIZES)[chosen], arrays['images'][chosen]
        factors = np.repeat(sizes / CANVAS, 10 * INSTANCES)
        labels = np.tile(np.repeat(np.arange(10), INSTANCES), len(sizes))
        return self.to_data_list(images.reshape(-1, CANVAS, CANVAS), labels, factors)

    def extra_repr(self) -> list[str]:
        return [f'Split: \t{self.split}', f'Sizes: \t{self.sizes[0]} to {self.sizes[1]} pixels']

    def _build(self) -> Arrays:
        pool, labels = read_pool(Path(self.data_root), self.download)
        part = slice(TRAINING_IMAGES, None) if self.split == 'test' else slice(TRAINING_IMAGES)
        pool, labels = pool[part], labels[part]
        first = INSTANCES if self.split == 'val' else 0
        images = np.zeros((len(SIZES), 10, INSTANCES, CANVAS, CANVAS), np.uint8)
        positions = draw_positions()[SPLITS.index(self.split)]
        for digit in range(10):
            found = pool[labels == digit]
            np.random.RandomState(42).shuffle(found)
            for i, n in np.ndindex(len(SIZES), INSTANCES):
                place = positions[i, digit, n]
                images[i, digit, n] = place_digit(found[first + n], SIZES[i], *place)
        return dict(images=images)


def draw_positions() -> np.ndarray:
    """Draw left and upper borders of digits, ``(split, size, digit, instance, 2)``, in pixels."""
    rng = np.random.RandomState(42)
    positions = np.zeros((len(SPLITS), len(SIZES), 10, INSTANCES, 2), int)
    for digit, n, i, split in np.ndindex(10, INSTANCES, len(SIZES), len(SPLITS)):
        positions[split, i, digit, n] = rng.randint(0, CANVAS - SIZES[i] + 1, 2)
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
