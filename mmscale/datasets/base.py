# Copyright (c) mmscale contributors.
from collections.abc import Sequence

import numpy as np
from mmpretrain.datasets import BaseDataset

from .rescaling import check_factor, check_scale_range, check_seed

SPLITS = ('train', 'val', 'test')


class RescaledDataset(BaseDataset):
    """Base of the datasets whose images are rescaled, each by a factor of its own.

    A subclass reads and rescales its images in ``load_data_list``. Every item has the keys
    ``img``, ``gt_label`` and ``rescale_factor``; to hand the last one on to an evaluation, list
    it in ``meta_keys`` of ``PackInputs``.

    Args:
        split (str): 'train', 'val' or 'test'.
        scale_range (Sequence[float]): Factors are drawn uniformly from (lowest, highest).
        scale (float, optional): One factor for the whole split, in place of random ones.
        seed (int): Seed of whatever the subclass draws.
        test_mode (bool, optional): As in :class:`mmengine.dataset.BaseDataset`. Defaults to
            ``split != 'train'``.
        **kwargs: Other arguments of :class:`mmpretrain.datasets.BaseDataset`.

    Raises:
        ValueError: For an argument that is not as described.
    """

    def __init__(
        self,
        split: str,
        scale_range: Sequence[float],
        scale: float | None,
        seed: int,
        test_mode: bool | None = None,
        **kwargs,
    ):
        if split not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
        if scale is not None:
            check_factor('scale', scale)
        check_seed(seed)
        self.split = split
        self.scale_range = check_scale_range(scale_range)
        self.scale = scale
        self.seed = seed
        if test_mode is None:
            test_mode = split != 'train'
        super().__init__(ann_file='', data_prefix={}, test_mode=test_mode, **kwargs)

    @staticmethod
    def to_data_list(
        images: Sequence[np.ndarray], labels: np.ndarray, factors: np.ndarray
    ) -> list[dict]:
        """One dict per image, which is not copied.

        Args:
            images (Sequence[np.ndarray]): ``n`` uint8 images, ``(H, W)`` or ``(H, W, 3)``.
            labels (np.ndarray): Integers, ``(n, )``.
            factors (np.ndarray): The factor by which each was rescaled, ``(n, )``.
        """
        return [
            dict(img=image, gt_label=label, rescale_factor=factor)
            for image, label, factor in zip(images, labels.tolist(), factors.tolist())
        ]

    def extra_repr(self) -> list[str]:
        """What distinguishes this dataset, for ``repr``."""
        scales = (
            f'uniform in {self.scale_range}, seed {self.seed}'
            if self.scale is None
            else f'{self.scale}'
        )
        return [f'Split: \t{self.split}', f'Scale factors: \t{scales}']
