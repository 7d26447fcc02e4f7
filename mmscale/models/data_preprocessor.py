# Copyright (c) mmscale contributors.
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.models import ClsDataPreprocessor

from mmscale.registry import MODELS


@MODELS.register_module()
class MultiScaleClsDataPreprocessor(ClsDataPreprocessor):
    """A data preprocessor that resizes each training batch to a random size.

    This is scale jitter without padding or cropping, over any range of sizes. Crop the training
    images to the largest size in the pipeline: shrinking is anti-aliased, and enlarging adds
    nothing. Tests use the size of their pipeline.

    Args:
        sizes (Sequence[int]): Sides of the square batches, in pixels, drawn with equal probability.
        **kwargs: Arguments of ``ClsDataPreprocessor``: ``mean``, ``std``, ``to_rgb``, ....

    Raises:
        ValueError: If ``sizes`` has no size, or an entry is no positive integer.
    """

    def __init__(self, sizes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f'sizes must be positive integers, got {sizes!r}')
        self.sizes = tuple(sizes)

    def forward(self, data: dict, training: bool = False) -> dict:
        data = super().forward(data, training)
        if training:
            side = self.sizes[int(torch.randint(len(self.sizes), ()))]
            shape = dict(size=(side, side), mode='bicubic', antialias=True)
            data['inputs'] = F.interpolate(data['inputs'], **shape)
        return data
