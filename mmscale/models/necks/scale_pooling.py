# Copyright (c) mmscale contributors.
"""Pooling over scale, which turns equivariance into invariance."""

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmscale.checks import check_choice
from mmscale.ops.adaptive_pool import adaptive_pool2d
from mmscale.registry import MODELS
from mmscale.scale_space import (
    ScaleGrid,
    Signal,
    check_signal,
    is_pyramid,
    resample_level,
    split_levels,
)

POOLINGS = ('max', 'avg')
ALIGNMENTS = ('smallest', 'largest', 'image')


def check_scale_dropout(scale_dropout: float) -> None:
    """Raise ``ValueError`` unless ``scale_dropout`` is a probability below 1."""
    if not isinstance(scale_dropout, Real) or not 0 <= scale_dropout < 1:
        raise ValueError(f'scale_dropout must be from 0 to below 1, got {scale_dropout!r}')


def draw_levels(
    num_levels: int, batch_size: int, scale_dropout: float, device: torch.device
) -> Tensor:
    """Draw a mask of levels for training, ``(S, N)``, true for at least one level of each sample.

    Sources: Sangalli et al., Scale Equivariant U-Net, BMVC 2022 (scale dropout); Perzanowski &
    Lindeberg, Scale generalisation properties of extended scale-covariant and scale-invariant
    Gaussian derivative networks, 2024 (scale-channel dropout).
    """
    draws = torch.rand(num_levels, batch_size, device=device)
    # The level of the largest draw always stays, so that each level is equally likely to stay.
    return (draws >= scale_dropout) | (draws == draws.amax(0))


def _reduce(levels: list[Tensor], mode: str, scale_dropout: float) -> Tensor:
    """Pool levels of one shape ``(N, ...)`` by maximum or mean, with scale dropout."""
    stacked = torch.stack(levels)
    if scale_dropout == 0 or len(levels) == 1:
        return stacked.amax(0) if mode == 'max' else stacked.mean(0)
    kept = draw_levels(*stacked.shape[:2], scale_dropout, stacked.device)
    kept = kept.view(*kept.shape, *[1] * (stacked.ndim - 2))
    if mode == 'max':
        return stacked.masked_fill(~kept, -math.inf).amax(0)
    return (stacked * kept).sum(0) / kept.sum(0)


def _as_tuple(inputs) -> tuple[Signal, ...]:
    """Return the inputs of a neck as a tuple of signals; a tensor is one dense signal."""
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


@MODELS.register_module()
class ScalePooling(BaseModule):
    """A neck that pools each scale space over its levels to an ordinary feature map.

    The map of a pyramid has the stride of the level ``k`` that ``align`` names: ``base**k`` times
    the stride of an ordinary network. FPNs and heads with anchors need the ordinary strides,
    ``'image'``. Ordinary necks follow: ``neck=[dict(type='mmscale.ScalePooling'),
    dict(type='GlobalAveragePooling')]``. ``scale_pooling`` of a backbone does the same.

    Args:
        mode (str): ``'max'`` or ``'avg'`` over levels.
        align (str): The level to whose size a pyramid is resampled: ``'smallest'`` (DSS v2),
            ``'largest'``, or ``'image'``, level 0. Max pooling resamples finer levels, bilinear
            interpolation coarser levels. Dense scale spaces need no resampling.
        scale_space (dict | ScaleGrid, optional): The levels of the backbone. Required unless
            ``align`` is ``'smallest'``.
        scale_dropout (float): Probability of leaving a level out in training, drawn per sample; at
            least one level stays. Without dropout a maximum over levels learns to rely on the
            levels that fit the sizes in the training data.

    Shape:
        - Input: a tuple of dense ``(N, C, S, H, W)`` or of pyramids.
        - Output: a tuple of ``(N, C, H', W')``.
    """

    def __init__(
        self,
        mode: str = 'max',
        align: str = 'smallest',
        scale_space: dict | ScaleGrid | None = None,
        scale_dropout: float = 0.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        check_choice('mode', mode, POOLINGS)
        check_choice('align', align, ALIGNMENTS)
        if align != 'smallest' and scale_space is None:
            raise ValueError(f'align={align!r} needs scale_space of the backbone, got None')
        check_scale_dropout(scale_dropout)
        self.mode, self.align, self.scale_dropout = mode, align, scale_dropout
        self.grid = None if scale_space is None else ScaleGrid.build(scale_space)
        if align == 'image' and 0 not in self.grid.levels:
            raise ValueError(f"align='image' needs level 0, and {self.grid} has none")

    def forward(self, inputs: tuple[Signal, ...]) -> tuple[Tensor, ...]:
        return tuple(self._pool(x) for x in _as_tuple(inputs))

    def _pool(self, x: Signal) -> Tensor:
        levels = list(split_levels(x))
        if is_pyramid(x) and self.align == 'smallest':
            size = levels[-1].shape[-2:]
            levels = [adaptive_pool2d(level, size, 'max') for level in levels]
        elif is_pyramid(x):
            check_signal(x, self.grid)
            target = self.grid.levels.index(0) if self.align == 'image' else 0
            size, factors = levels[target].shape[-2:], self.grid.factors
            levels = [
                adaptive_pool2d(level, size, 'max')
                if k < target
                else resample_level(level, factors[target] / factors[k], size)
                for k, level in enumerate(levels)
            ]
        return _reduce(levels, self.mode, self.scale_dropout if self.training else 0)


@MODELS.register_module()
class ScaleLevels(BaseModule):
    """A neck that returns one feature map for each stride of the levels, from fine to coarse.

    The map of a stride concatenates the channels of all stages that have a level of this stride,
    later stages first. Stages of strides 8, 16 and 32 with three levels of base 2 give maps of
    strides 8, 16, 32, 64 and 128. With ResNet-50's 512, 1024 and 2048 channels the following FPN
    has the ``in_channels`` 512, 1536, 3584, 3072 and 2048.

    Args:
        strides (Sequence[int]): Strides of the inputs at level 0, in pixels, increasing.
        scale_space (dict | ScaleGrid): The levels of the backbone, with an integer base.

    Shape:
        - Input: a tuple of pyramids of S tensors ``(N, C_i, H_k, W_k)``, one for each stride.
        - Output: a tuple of maps ``(N, C, H', W')``, one for each stride of a level.

    Raises:
        ValueError: If the base is no integer, or the inputs are not as described.
    """

    def __init__(
        self,
        strides: Sequence[int],
        scale_space: dict | ScaleGrid,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.grid = ScaleGrid.build(scale_space)
        if self.grid.base != int(self.grid.base):
            raise ValueError(
                f'base must be an integer, so that stages share strides, got {self.grid.base}'
            )
        self.strides = tuple(strides)
        if not self.strides or any(a >= b for a, b in pairwise(self.strides)):
            raise ValueError(f'strides must grow from stage to stage, got {self.strides}')

    def forward(self, inputs: tuple[Signal, ...]) -> tuple[Tensor, ...]:
        if len(inputs) != len(self.strides) or not all(is_pyramid(x) for x in inputs):
            raise ValueError(
                f'expected one pyramid for each of the strides {self.strides}: dense levels have '
                'one size, and no map of another stride'
            )
        maps = defaultdict(list)
        for stride, x in reversed(list(zip(self.strides, inputs, strict=True))):
            check_signal(x, self.grid)
            for level, factor in zip(split_levels(x), self.grid.factors):
                maps[stride * factor].append(level)
        return tuple(torch.cat(maps[stride], dim=1) for stride in sorted(maps))


@MODELS.register_module()
class ScaleGlobalPooling(BaseModule):
    """A neck that pools each scale space over space and then over its levels to a vector.

    Args:
        scale (str): ``'max'`` or ``'avg'`` over levels, or ``'none'``, which returns a vector per
            level for :class:`~mmscale.models.ScaleClsHead`.
        space (str): ``'avg'`` or ``'max'`` over positions. On a canvas of constant size a smaller
            object lowers the mean but not the maximum, so that only ``'max'`` is invariant.
        output_size (int): Number of cells along each side: 1 is global pooling, 2 pools the four
            quarters of the image separately, as the MNIST-Scale networks do.
        scale_dropout (float): See :class:`ScalePooling`; with ``scale='none'`` set it in the head.

    Shape:
        - Input: a tuple of dense ``(N, C, S, H, W)`` or of pyramids; or the single feature map
          ``(N, C, H, W)`` of an ordinary network.
        - Output: a tuple of vectors ``(N, C output_size**2)``, or with ``scale='none'`` of dense
          scale spaces of one position, ``(N, C output_size**2, S, 1, 1)``.
    """

    def __init__(
        self,
        scale: str = 'max',
        space: str = 'avg',
        output_size: int = 1,
        scale_dropout: float = 0.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        check_choice('scale', scale, (*POOLINGS, 'none'))
        check_choice('space', space, POOLINGS)
        if output_size < 1:
            raise ValueError(f'output_size must be at least 1, got {output_size}')
        check_scale_dropout(scale_dropout)
        if scale == 'none' and scale_dropout:
            raise ValueError(
                "scale_dropout must be 0 with scale='none', which drops no level: give it "
                f'to the head, mmscale.ScaleClsHead; got {scale_dropout}'
            )
        self.scale, self.space, self.output_size = scale, space, output_size
        self.scale_dropout = scale_dropout

    def forward(self, inputs: tuple[Signal, ...]) -> tuple[Tensor, ...]:
        signals = _as_tuple(inputs)
        # Several maps may be the levels of a pyramid; a single map is an ordinary feature map.
        if len(signals) == 1 and not is_pyramid(signals[0]) and signals[0].ndim == 4:
            signals = (signals,)
        return tuple(self._pool(x) for x in signals)

    def _pool(self, x: Signal) -> Tensor:
        levels = [adaptive_pool2d(level, self.output_size, self.space) for level in split_levels(x)]
        if self.scale == 'none':
            return torch.stack([level.flatten(1) for level in levels], 2)[..., None, None]
        return _reduce(levels, self.scale, self.scale_dropout if self.training else 0).flatten(1)
