# Copyright (c) mmscale contributors.
import math
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmscale.checks import check_choice, check_flag
from mmscale.registry import TRANSFORMS

from ..rescaling import PADDINGS, check_center, check_factor, check_scale_range, check_seed, rescale

DISTRIBUTIONS = ('uniform', 'log_uniform')

# Annotations with positions, which would be wrong after the image's content has moved.
_POSITIONAL_KEYS = ('gt_bboxes', 'gt_masks', 'gt_seg_map', 'gt_keypoints')


class _Rescale(BaseTransform):
    """The base of the rescalings; subclasses define the factor, ``_factor(results)``."""

    def __init__(self, padding: str, center: tuple[float, float] | None, antialias: bool):
        check_choice('padding', padding, PADDINGS)
        check_center(center)
        check_flag('antialias', antialias)
        self.options = dict(padding=padding, center=center, antialias=antialias)

    def transform(self, results: dict) -> dict:
        """Rescale ``results['img']``."""
        positional = [key for key in _POSITIONAL_KEYS if key in results]
        if positional:
            raise ValueError(
                f'Rescaling moves the content of {", ".join(positional)}, but transforms only the '
                'image'
            )
        factor = self._factor(results)
        results['img'] = rescale(results['img'], factor, **self.options)
        results['rescale_factor'] = results.get('rescale_factor', 1.0) * factor
        return results

    def __repr__(self) -> str:
        values = {**vars(self), **self.options}
        shown = ', '.join(f'{k}={v!r}' for k, v in values.items() if k != 'options')
        return f'{type(self).__name__}({shown})'


@TRANSFORMS.register_module()
class FixedRescale(_Rescale):
    """Rescale the content of the image by one factor on a canvas that keeps its size.

    By default the content is anti-aliased and scaled about the middle. With ``antialias=False`` and
    ``center=(14.5, 14.5)`` it is scaled as in the published MNIST-Scale. See
    :func:`mmscale.datasets.rescale`.

    **Required Keys:** ``img`` (uint8 or float32, ``(H, W)`` or ``(H, W, C)``)

    **Modified Keys:** ``img``, ``rescale_factor`` (the product of all rescalings so far, the size
    of the content relative to the original)

    Args:
        scale (float): Size of the content afterwards relative to before.
        padding (str): Values around a shrunken image: 'zeros', 'reflect' or 'replicate'.
            Defaults to 'zeros'.
        center (tuple[float, float], optional): The fixed point, x then y, in pixels from the upper
            left corner. Defaults to None, the middle of the image.
        antialias (bool): Whether to low-pass when shrinking. Defaults to True.

    Raises:
        ValueError: For an argument that is not as described. In use, for an image with boxes,
            masks or keypoints, because they are not transformed.
    """

    def __init__(
        self,
        scale: float,
        padding: str = 'zeros',
        center: tuple[float, float] | None = None,
        antialias: bool = True,
    ) -> None:
        check_factor('scale', scale)
        self.scale = scale
        super().__init__(padding, center, antialias)

    def _factor(self, results: dict) -> float:
        return self.scale


@TRANSFORMS.register_module()
class RandomRescale(_Rescale):
    """Rescale the content of the image by a random factor on a canvas that keeps its size.

    The augmentation of the scale-equivariance literature draws from [0.5, 2]. Drawn log-uniformly,
    doubling is as likely as halving. The published experiments drew uniformly.

    Without a ``seed``, NumPy's global generator draws a factor each time an image is loaded.
    MMEngine seeds this generator when a worker starts: without ``persistent_workers`` each epoch
    draws the same sequence, for images in another order. With a ``seed``, the factor of an image is
    a function of ``(seed, sample_idx)``. It is the same in every epoch and does not depend on the
    order or the number of workers.

    **Required Keys:** ``img`` (uint8 or float32, ``(H, W)`` or ``(H, W, C)``); with a ``seed`` also
    ``sample_idx``, which every dataset of MMEngine sets

    **Modified Keys:** ``img``, ``rescale_factor`` (the product of all rescalings so far)

    Args:
        scale_range (Sequence[float]): Lowest and highest factor. Defaults to (0.5, 2.0).
        distribution (str): 'log_uniform' or 'uniform'. Defaults to 'log_uniform'.
        seed (int, optional): Seed that fixes the factor of each image. Defaults to None.
        padding, center, antialias: As in :class:`FixedRescale`.

    Raises:
        ValueError: As :class:`FixedRescale`.
    """

    def __init__(
        self,
        scale_range: Sequence[float] = (0.5, 2.0),
        distribution: str = 'log_uniform',
        seed: int | None = None,
        padding: str = 'zeros',
        center: tuple[float, float] | None = None,
        antialias: bool = True,
    ) -> None:
        check_choice('distribution', distribution, DISTRIBUTIONS)
        if seed is not None:
            check_seed(seed)
        self.scale_range = check_scale_range(scale_range)
        self.distribution = distribution
        self.seed = seed
        super().__init__(padding, center, antialias)

    def _factor(self, results: dict) -> float:
        if self.seed is None:
            position = self._draw_position()
        elif 'sample_idx' in results:
            position = np.random.default_rng((self.seed, results['sample_idx'])).random()
        else:
            raise ValueError(
                "RandomRescale with a seed needs results['sample_idx'], which the dataset must set"
            )
        lowest, highest = self.scale_range
        if self.distribution == 'log_uniform':
            return lowest * math.exp(position * math.log(highest / lowest))
        return lowest + position * (highest - lowest)

    @cache_randomness
    def _draw_position(self) -> float:
        return np.random.random()
