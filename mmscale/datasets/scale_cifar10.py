# Copyright (c) mmscale contributors.
import codecs
import hashlib
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmengine.dist as dist
import numpy as np
from mmpretrain.datasets import CIFAR10

from mmscale.checks import check_choice, check_count, check_flag
from mmscale.registry import DATASETS

from .base import RescaledDataset, check_folder
from .download import download_folder
from .rescaling import PADDINGS, draw_factors, rescale


@DATASETS.register_module()
class ScaleCIFAR10(RescaledDataset):
    """CIFAR-10 with each image rescaled by its own factor on its 32x32 canvas.

    The content is shrunk about the middle, anti-aliased (see :func:`mmscale.datasets.rescale`),
    and surrounded by ``padding``. An image's factor depends on ``seed`` and the image only, not on
    its split. Images are RGB.

    The files are CIFAR-10's original pickles, and their checksums are verified. A copy with other
    checksums (re-encoded, or made by ``tools/dataset_converters/images_to_cifar10.py``) needs
    ``check_integrity=False``. Pickles with more than arrays and numbers raise an error and run no
    code. A split needs only its own files: training and validation work without ``test_batch``.

    Args:
        data_root (str): Folder of ``cifar-10-batches-py``.
        split (str): 'train', 'val' (a part of the training images) or 'test'. Defaults to
            'train'.
        scale_range (Sequence[float]): Lowest and highest factor, drawn uniformly. Defaults to
            (0.3, 1.0).
        scale (float, optional): One factor for the whole split; ``scale_range`` then has no
            effect. Defaults to None.
        seed (int): Seed of the validation split and of the factors. Defaults to 0.
        padding (str): 'zeros', 'reflect' or 'replicate'. Defaults to 'zeros'.
        val_size (int): Number of validation images, stratified by class. Defaults to 5000.
        check_integrity (bool): Whether to require the checksums of the original files. Defaults to
            True.
        download (bool): Whether to download CIFAR-10, from MMPretrain's address, if ``data_root``
            has no ``cifar-10-batches-py``. Existing files are never overwritten. Defaults to True.
        **kwargs: Other arguments of :class:`mmpretrain.datasets.BaseDataset`, such as
            ``pipeline`` and ``indices``.

    Raises:
        ValueError: For an argument that is not as described.
        FileNotFoundError: If a file of the split is missing and was not downloaded.
        RuntimeError: If a file is damaged or not the original, or a download failed.
    """

    METAINFO = CIFAR10.METAINFO

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        scale_range: Sequence[float] = (0.3, 1.0),
        scale: float | None = None,
        seed: int = 0,
        padding: str = 'zeros',
        val_size: int = 5000,
        check_integrity: bool = True,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        check_choice('padding', padding, PADDINGS)
        check_flag('check_integrity', check_integrity)
        check_flag('download', download)
        root = check_folder('data_root', data_root, 'CIFAR-10')
        check_count('val_size', val_size, 0)
        if split == 'val' and val_size == 0:
            raise ValueError("val_size must be positive for split='val', got 0")
        self.padding = padding
        self.val_size = val_size
        self.check_integrity = check_integrity
        self.download = download
        super().__init__(
            split=split,
            scale_range=scale_range,
            scale=scale,
            seed=seed,
            data_root=str(root),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Read the batches, draw split and factors, and rescale."""
        folder = Path(self.data_root) / CIFAR10.base_folder
        if self.download:
            _download_where_absent(folder)
        is_test = self.split == 'test'
        batches = CIFAR10.test_list if is_test else CIFAR10.train_list
        images, labels = read_batches(folder, batches, self.check_integrity)
        factors = draw_factors(
            len(labels), self.scale_range, self.scale, np.random.default_rng((self.seed, is_test))
        )
        chosen = np.arange(len(labels)) if is_test else self._choose(labels)
        rescaled = [rescale(images[i], factors[i], padding=self.padding) for i in chosen]
        return self.to_data_list(rescaled, labels[chosen], factors[chosen])

    def extra_repr(self) -> list[str]:
        return [*super().extra_repr(), f'Padding: \t{self.padding}']

    def _choose(self, labels: np.ndarray) -> np.ndarray:
        """Return the indices of the split among the training images, in ascending order."""
        if self.val_size == 0:
            return np.arange(len(labels))
        from sklearn.model_selection import train_test_split  # a slow import, only if needed

        try:
            train, val = train_test_split(
                np.arange(len(labels)),
                test_size=self.val_size,
                stratify=labels,
                random_state=self.seed,
            )
        except ValueError as error:
            classes = len(np.unique(labels))
            raise ValueError(
                f'val_size must be 0, or from {classes} to {len(labels) - classes} for the '
                f'{len(labels)} training images, {classes} classes, of {self.data_root}, got '
                f'{self.val_size} ({error})'
            ) from error
        return np.sort(train if self.split == 'train' else val)


def read_batches(
    folder: Path, batches: Sequence[Sequence[str]], check_integrity: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Read files of CIFAR-10's Python version in ``folder``, ``cifar-10-batches-py``.

    ``batches`` are the names and MD5s of the files. Return uint8 RGB images ``(n, 32, 32, 3)`` and
    labels ``(n, )``.
    """
    missing = [name for name, _ in batches if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f'CIFAR-10 file {", ".join(missing)} not found in {folder}. Set data_root to the '
            f'folder that has {folder.name}/, extract {CIFAR10.url} there, or, where there is no '
            f'{folder.name}/, use download=True.'
        )
    parts = [_read_batch(folder / name, md5 if check_integrity else None) for name, md5 in batches]
    pixels = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in parts])
    return pixels.transpose(0, 2, 3, 1), labels


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler of arrays and plain values that runs no other code."""

    known = {
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
        # Pickles name these functions for arrays, up to protocol 4 and since protocol 5.
        'numpy.core.multiarray._reconstruct': np.empty(1).__reduce__()[0],
        'numpy.core.numeric._frombuffer': np.empty(1).__reduce_ex__(5)[0],
        '_codecs.encode': codecs.encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        path = f'{module}.{name}'
        known = self.known.get(path.replace('numpy._core', 'numpy.core'))  # NumPy 2's new name
        if known is None:
            raise pickle.UnpicklingError(f'it holds {path}, and batches hold arrays alone')
        return known


def _read_batch(path: Path, md5: str | None) -> tuple[np.ndarray, np.ndarray]:
    remedy = f'Delete it, and extract it again from {CIFAR10.url}.'
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RuntimeError(f'CIFAR-10 file {path} cannot be read ({error}).') from error
    if md5 is not None:
        actual = hashlib.md5(content).hexdigest()
        if actual != md5:
            raise RuntimeError(
                f'CIFAR-10 file {path} is not the original: its MD5 is {actual} instead of {md5}. '
                f'{remedy} Or, if it is meant to differ, set check_integrity=False.'
            )
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding='latin1').load()
        pixels, labels = np.asarray(batch['data']), np.asarray(batch['labels'])
    # Unpickling a damaged file can raise nearly anything.
    except Exception as error:
        raise RuntimeError(
            f'CIFAR-10 file {path} is damaged ({type(error).__name__}: {error}). {remedy}'
        ) from error
    sound = pixels.dtype == np.uint8 and labels.shape == (len(pixels),)
    if not sound or pixels.shape[1:] != (3072,) or not np.isin(labels, range(10)).all():
        raise RuntimeError(
            f'CIFAR-10 file {path} must hold uint8 data (n, 3072) and n labels from 0 to 9, has '
            f'{pixels.dtype} {pixels.shape} and labels {labels.shape}. {remedy}'
        )
    return pixels, labels


def _download_where_absent(folder: Path) -> None:
    """Download CIFAR-10 in the main process; an existing folder, maybe a user's copy, stays."""
    try:
        if dist.is_main_process() and not folder.exists():
            download_folder(CIFAR10.url, folder, CIFAR10.tgz_md5)
    finally:
        # Also after an error: the other processes then report the missing files.
        dist.barrier()
