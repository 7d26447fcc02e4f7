# Copyright (c) mmscale contributors.
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmpretrain.datasets import BaseDataset
from torch.utils.data import Dataset

from mmscale.checks import check_choice, check_flag, is_integer

from .rescaling import LARGEST_FACTOR, check_factor, check_scale_range, check_seed

SPLITS = ('train', 'val', 'test')


def leaf_datasets(dataset: ConfigDict) -> list[ConfigDict]:
    """Return the configs of the datasets within wrappers such as RepeatDataset and ConcatDataset.

    The pipelines are in these configs. A ``dataset`` that wraps nothing is returned itself.
    """
    within = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets') or []
    return [leaf for inner in within for leaf in leaf_datasets(inner)] or [dataset]


class NamingPipeline(Compose):
    """A pipeline whose errors name the image."""

    def __call__(self, data: dict) -> dict | None:
        path = data.get('img_path')
        try:
            return super().__call__(data)
        except Exception as error:  # any library may read this kind of file
            if path is None or str(path) in str(error):
                raise
            text = ' '.join(str(error).split())
            raise ValueError(f'the image {path}: {type(error).__name__}: {text}') from error


def name_images(dataset: Dataset) -> None:
    """Make the pipelines of a dataset, and of datasets within it, name an image in their errors."""
    for inner in (getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())):
        if inner is not None:
            name_images(inner)
    if type(getattr(dataset, 'pipeline', None)) is Compose:
        dataset.pipeline.__class__ = NamingPipeline


class RescaledDataset(BaseDataset):
    """The base of datasets that rescale each image by its own factor.

    A subclass reads and rescales its images in ``load_data_list`` and describes the arguments.
    Every item has the keys ``img``, ``gt_label`` and ``rescale_factor``. To pass the factor to an
    evaluation, list it in ``meta_keys`` of ``PackInputs``. All splits except 'train' are in test
    mode by default. ``ann_file`` and ``data_prefix`` raise TypeError, because there are no
    annotation files. Another argument that is not as described raises ValueError.
    """

    LARGEST_SCALE = LARGEST_FACTOR

    def __init__(
        self,
        split: str = 'train',
        scale_range: Sequence[float] = (0.3, 1.0),
        scale: float | None = None,
        seed: int = 0,
        test_mode: bool | None = None,
        pipeline: Sequence[dict | Callable] = (),
        indices: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ('ann_file', 'data_prefix'):
            if name in kwargs:
                raise TypeError(f'{type(self).__name__} has no {name}, got {kwargs[name]!r}')
        check_choice('split', split, SPLITS)
        if scale is not None:
            check_factor('scale', scale, self.LARGEST_SCALE)
        check_seed(seed)
        if isinstance(pipeline, str) or not isinstance(pipeline, Sequence):
            raise ValueError(f'pipeline must be a list of transforms, got {pipeline!r}')
        asked = indices if isinstance(indices, Sequence) else [indices]
        # MMEngine fails on a dataset without images.
        if indices is not None and not (all(map(is_integer, asked)) and indices and len(asked)):
            raise ValueError(
                'indices must be the number of images to take, integers that say which, or None, '
                f'got {indices!r}'
            )
        self.split = split
        self.scale_range = check_scale_range(scale_range, self.LARGEST_SCALE)
        self.scale = scale
        self.seed = int(seed)
        if test_mode is None:
            test_mode = split != 'train'
        check_flag('test_mode', test_mode)
        super().__init__(
            ann_file='', data_prefix={}, test_mode=test_mode, pipeline=pipeline, indices=indices,
            **kwargs,
        )  # fmt: skip

    def to_data_list(
        self, images: np.ndarray | Sequence[np.ndarray], labels: np.ndarray, factors: np.ndarray
    ) -> list[dict]:
        """Return one dict per uint8 image, ``(H, W)`` or ``(H, W, 3)``, which is not copied."""
        count, asked = len(images), self._indices or 0
        # MMEngine would silently take fewer images.
        places = asked if isinstance(asked, Sequence) else range(min(asked, 0), max(asked, 0))
        if not all(-count <= place < count for place in places):
            raise ValueError(
                f'indices must be within the {count} images of split {self.split!r}, got '
                f'{self._indices!r}'
            )
        return [
            dict(img=image, gt_label=label, rescale_factor=factor)
            for image, label, factor in zip(images, labels.tolist(), factors.tolist())
        ]

    def extra_repr(self) -> list[str]:
        """Return the lines of ``repr`` on this dataset."""
        scales = self.scale
        if scales is None:
            scales = f'uniform in {self.scale_range}, seed {self.seed}'
        return [f'Split: \t{self.split}', f'Scale factors: \t{scales}']


def check_folder(name: str, value: str | os.PathLike[str], of: str) -> Path:
    """Return ``value`` with the user's home expanded; raise ValueError if it is no path."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(f'{name} must name the folder of {of}, got {value!r}')
    return Path(value).expanduser()
