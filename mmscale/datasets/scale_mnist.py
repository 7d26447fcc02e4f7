# Copyright (c) mmscale contributors.
import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import mmengine.dist as dist
import numpy as np
from mmpretrain.datasets import MNIST

from mmscale.checks import check_flag, is_integer
from mmscale.registry import DATASETS

from . import mnist_recipe
from .base import RescaledDataset, check_folder
from .cache import Arrays, load_or_build
from .download import download

_DIGESTS = Path(__file__).with_name('mnist_digests.json')
PUBLISHED_DIGESTS = json.loads(_DIGESTS.read_text(encoding='utf-8'))['sha256']

# These are MD5s of the uncompressed files, because compressed copies differ by compressor.
IDX_FILES = {
    'train-images-idx3-ubyte': '6bbc9ace898e44ae57da46a324031adb',
    'train-labels-idx1-ubyte': 'a25bea736e30d166cdddb491f175f624',
    't10k-images-idx3-ubyte': '2646ac647ad5339dbf082846283269ea',
    't10k-labels-idx1-ubyte': '27ae3e4e09519cfbb04c329615203637',
}

# MMPretrain and torchvision keep the files in these folders of their data roots.
_FOLDERS = ('', 'raw', 'MNIST/raw')


@DATASETS.register_module()
class ScaleMNIST(RescaledDataset):
    """MNIST-Scale: handwritten digits, each rescaled by a random factor on its 28x28 canvas.

    ``ScaleMNIST(root, split, realization)`` is the published dataset bit for bit: 10,000 training,
    2,000 validation and 50,000 test images with factors uniform in [0.3, 1], in six realizations
    (Sosnovik, Szmaja & Smeulders, Scale-Equivariant Steerable Networks, ICLR 2020; the recipe is
    in :mod:`mmscale.datasets.mnist_recipe`, the digests in ``mnist_digests.json``).

    The realization alone sets the digits of each split. ``seed``, ``scale_range`` and ``scale``
    change only the factors, so the test digits of a realization are always unseen in training.

    A split is made once (a few seconds) and kept in ``cache_dir``.

    Args:
        data_root (str): Folder of the four IDX files of MNIST, compressed by gzip or not, or of
            ``raw/`` or ``MNIST/raw/`` with them.
        split (str): 'train', 'val' or 'test'. Defaults to 'train'.
        realization (int): 0 to 5. Defaults to 0.
        image_size (int): 28, or 56 for the digits doubled by nearest-neighbour interpolation as
            published. Defaults to 28.
        scale_range (Sequence[float]): Lowest and highest factor. Defaults to (0.3, 1.0).
        scale (float, optional): One factor for the whole split; ``scale_range`` and ``seed`` then
            have no effect. Defaults to None.
        seed (int, optional): Seed of the factors. Defaults to None, the realization.
        cache_dir (str, optional): Folder of the splits. Defaults to ``data_root/mnist_scale``.
        download (bool): Whether to download missing files, from the addresses of MMPretrain's
            MNIST, to ``data_root``. Defaults to True.
        **kwargs: Other arguments of :class:`mmpretrain.datasets.BaseDataset`, such as
            ``pipeline`` and ``indices``.

    Raises:
        ValueError: For an argument that is not as described.
        FileNotFoundError: If a file of MNIST is missing and was not downloaded.
        RuntimeError: If a file of MNIST is damaged, or a download failed.
    """

    METAINFO = MNIST.METAINFO

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        realization: int = 0,
        image_size: int = 28,
        scale_range: Sequence[float] = mnist_recipe.PUBLISHED_RANGE,
        scale: float | None = None,
        seed: int | None = None,
        cache_dir: str | None = None,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        if not is_integer(realization) or not 0 <= realization < len(PUBLISHED_DIGESTS):
            raise ValueError(
                f'realization must be an integer from 0 to {len(PUBLISHED_DIGESTS) - 1}, got '
                f'{realization!r}'
            )
        if image_size not in (28, 56):
            raise ValueError(f'image_size must be 28 or 56, got {image_size!r}')
        check_flag('download', download)
        root = check_folder('data_root', data_root, 'MNIST')
        self.cache_dir = root / 'mnist_scale'
        if cache_dir is not None:
            self.cache_dir = check_folder('cache_dir', cache_dir, 'the cache')
        self.realization = realization
        self.image_size = image_size
        self.download = download
        super().__init__(
            split=split,
            scale_range=scale_range,
            scale=scale,
            seed=realization if seed is None else seed,
            data_root=str(root),
            **kwargs,
        )

    @property
    def published(self) -> bool:
        """Whether this is a split of a published realization."""
        return (
            self.scale is None
            and self.seed == self.realization
            and self.scale_range == mnist_recipe.PUBLISHED_RANGE
        )

    def load_data_list(self) -> list[dict]:
        """Read the split from the cache, or make it first."""
        if self.scale is not None:
            factors = f'scale{float(self.scale)}'
        else:
            factors = 'range{}-{}_seed{}'.format(*self.scale_range, self.seed)
        path = self.cache_dir / f'realization{self.realization}_{factors}_{self.split}.npz'
        published = self._published_digests() if self.published else None
        arrays = load_or_build(path, self._build, published)
        images = arrays['images']
        if self.image_size == 56:
            images = mnist_recipe.double(images)
        return self.to_data_list(images, arrays['labels'], arrays['factors'])

    def extra_repr(self) -> list[str]:
        return [f'Realization: \t{self.realization}', *super().extra_repr()]

    def _published_digests(self) -> dict[str, str]:
        return dict(zip(('images', 'labels'), PUBLISHED_DIGESTS[self.realization][self.split]))

    def _build(self) -> Arrays:
        images, labels = read_pool(Path(self.data_root), self.download)
        chosen = mnist_recipe.split_pool(labels, self.realization)[self.split]
        if self.scale is not None:
            factors = np.full(len(chosen), float(self.scale))
        else:
            factors = mnist_recipe.draw_split_factors(self.seed, self.scale_range)[self.split]
        rescaled = mnist_recipe.rescale_digits(images[chosen], factors)
        return dict(images=rescaled, labels=labels[chosen], factors=factors, sources=chosen)


def read_pool(root: Path, may_download: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read MNIST's 60,000 training images, then its 10,000 test images.

    ``root`` is the ``data_root`` of :class:`ScaleMNIST`. The main process may download missing
    files. Return uint8 images ``(70000, 28, 28)`` and labels ``(70000, )``.
    """
    train_images, train_labels, test_images, test_labels = (
        np.frombuffer(_read_file(root, name, may_download), np.uint8, offset=offset)
        for name, offset in zip(IDX_FILES, (16, 8, 16, 8))
    )
    images = np.concatenate([train_images, test_images]).reshape(-1, 28, 28)
    return images, np.concatenate([train_labels, test_labels])


def _read_file(root: Path, name: str, may_download: bool) -> bytes:
    """Read one IDX file and check that it is the original."""
    path = _find(root, name)
    if path is None and may_download and dist.is_main_process():
        archive = f'{name}.gz'
        md5 = dict(MNIST.train_list + MNIST.test_list)[archive]
        download(urljoin(MNIST.url_prefix, archive), root, md5)
        path = _find(root, name)
    if path is None:
        raise FileNotFoundError(
            f'MNIST file {name}.gz (or {name}) not found in {root} or its raw or MNIST/raw. Set '
            'data_root to the folder of the four IDX files, or download=True.'
        )
    remedy = f'Delete it, and get it again from {MNIST.url_prefix}{name}.gz or with download=True.'
    try:
        content = path.read_bytes()
        if path.suffix == '.gz':
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise RuntimeError(f'MNIST file {path} is damaged ({error}). {remedy}') from error
    md5 = hashlib.md5(content).hexdigest()
    if md5 != IDX_FILES[name]:
        raise RuntimeError(
            f'MNIST file {path} is not the original: the MD5 of its {len(content)} bytes, '
            f'uncompressed, is {md5} instead of {IDX_FILES[name]}. {remedy}'
        )
    return content


def _find(root: Path, name: str) -> Path | None:
    names = (name, f'{name}.gz')
    paths = [root / folder / file for folder in _FOLDERS for file in names]
    return next((path for path in paths if path.is_file()), None)
