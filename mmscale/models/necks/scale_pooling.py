# Copyright (c) mmscale contributors.
"""Pooling over scale: where a network stops being equivariant and becomes invariant."""

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real

import torch
from mmengine.model import BaseModule
from torch import Tensor

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
from mmscale.scale_space.resample import check_choice

POOLINGS = ('max', 'avg')
ALIGNMENTS = ('smallest', 'largest', 'image')


def check_scale_dropout(scale_dropout: float) -> None:
    """Raises ``ValueError`` for what is no probability below 1."""
    if not isinstance(scale_dropout, Real) or not 0 <= scale_dropout < 1:
        raise ValueError(f'scale_dropout must be from 0 to below 1, got {scale_dropout!r}')


def draw_levels(
    num_levels: int, batch_size: int, scale_dropout: float, device: torch.device
) -> Tensor:
    """Draws the levels that stay in training: ``(S, N)``, true at one level of a sample at least.

    Sources: Sangalli et al., Scale Equivariant U-Net, BMVC 2022 (scale dropout); Perzanowski &
    Lindeberg, Scale generalisation properties of extended scale-covariant and scale-invariant
    Gaussian derivative networks, 2024 (scale-channel dropout).
    """
    draws = torch.rand(num_levels, batch_size, device=device)
    # The level of the largest draw always stays: where all are below, one drawn evenly.
    return (draws >= scale_dropout) | (draws == draws.amax(0))


def _reduce(levels: list[Tensor], mode: str, scale_dropout: float) -> Tensor:
    """Maximum or mean over levels of one shape ``(N, ...)``, some of them left out a sample."""
    stacked = torch.stack(levels)
    if scale_dropout == 0 or len(levels) == 1:
        return stacked.amax(0) if mode == 'max' else stacked.mean(0)
    kept = draw_levels(*stacked.shape[:2], scale_dropout, stacked.device)
    kept = kept.view(*kept.shape, *[1] * (stacked.ndim - 2))
    if mode == 'max':
        return stacked.masked_fill(~kept, -math.inf).amax(0)
    return (stacked * kept).sum(0) / kept.sum(0)


def _as_tuple(inputs) -> tuple[Signal, ...]:
    """Inputs of a neck: a tuple of signals. A bare dense tensor is a tuple of one."""
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


@MODELS.register_module()
class ScalePooling(BaseModule):
    """Pools each scale space over its levels to an ordinary feature map.

    The map of a pyramid has the stride of the level it is brought to: ``base**k`` times that of an
    ordinary network. FPNs and heads with anchors want ``'image'``, the ordinary strides. Ordinary
    necks follow: ``neck=[dict(type='mmscale.ScalePooling'), dict(type='GlobalAveragePooling')]``. A
    backbone with ``scale_pooling`` does the same itself.

    Args:
        mode (str): ``'max'`` or ``'avg'`` over levels.
        align (str): The level whose size the others of a pyramid are brought to first:
            ``'smallest'`` (DSS v2), ``'largest'``, or ``'image'``, level 0. Finer levels are max
            pooled, coarser ones interpolated bilinearly. Dense scale spaces are not changed.
        scale_space (dict | ScaleGrid, optional): The levels of the backbone; all but
            ``'smallest'`` need them to know where the samples of a pyramid lie.
        scale_dropout (float): In training, each level is left out with this probability, drawn for
            each sample; at least one stays. A maximum over levels otherwise learns to rely on those
            that the sizes in the training data happen to fill.

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
            raise ValueError(f'align={align!r} needs scale_space, that of the backbone; got None')
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
    """Keeps the levels of pyramids apart: one feature map for each stride, from fine to coarse.

    What two stages have at one stride, the earlier one at a coarser level, lies side by side in the
    channels, the later stage first: stages of strides 8, 16 and 32 with three levels of base 2 give
    maps of strides 8, 16, 32, 64 and 128. With ResNet-50's 512, 1024 and 2048 channels the
    ``in_channels`` of an FPN behind them are 512, 1536, 3584, 3072 and 2048.

    Args:
        strides (Sequence[int]): Of the inputs at level 0, in pixels, growing.
        scale_space (dict | ScaleGrid): The levels of the backbone, of an integer base.

    Shape:
        - Input: a tuple of pyramids of S tensors ``(N, C_i, H_k, W_k)``, one for each stride.
        - Output: a tuple of ``(N, C, H', W')``, one for each stride that any of them has.

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
                f'base must be an integer, or no two stages share a stride; got {self.grid.base}'
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
    """Pools each scale space over space and then over its levels, to a vector.

    Args:
        scale (str): ``'max'`` or ``'avg'`` over levels; ``'none'`` keeps a vector of each, for
            :class:`~mmscale.models.ScaleClsHead`, which pools their answers.
        space (str): ``'avg'`` or ``'max'`` over positions. On a canvas that stays as it is, a
            smaller object fills less of the mean but keeps its maximum: ``'max'`` is the
            invariant one.
        output_size (int): Cells along each side that are kept apart: 1 is global pooling; 2 gives
            the four quarters of the image, as the MNIST-Scale networks have it.
        scale_dropout (float): As of :class:`ScalePooling`; with ``scale='none'`` the head has it.

    Shape:
        - Input: a tuple of dense ``(N, C, S, H, W)`` or of pyramids; or the one feature map
          ``(N, C, H, W)`` of an ordinary network, so that both can have the same neck.
        - Output: a tuple of ``(N, C output_size**2)``; with ``scale='none'`` of dense scale spaces
          of one position, ``(N, C output_size**2, S, 1, 1)``.
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
                "scale_dropout must be 0 with scale='none', where no level is left out: give it "
                f'to the head, mmscale.ScaleClsHead; got {scale_dropout}'
            )
        self.scale, self.space, self.output_size = scale, space, output_size
        self.scale_dropout = scale_dropout

    def forward(self, inputs: tuple[Signal, ...]) -> tuple[Tensor, ...]:
        signals = _as_tuple(inputs)
        # Several maps could be the levels of one pyramid; a single one is the same either way.
        if len(signals) == 1 and not is_pyramid(signals[0]) and signals[0].ndim == 4:
            signals = (signals,)
        return tuple(self._pool(x) for x in signals)

    def _pool(self, x: Signal) -> Tensor:
        levels = [adaptive_pool2d(level, self.output_size, self.space) for level in split_levels(x)]
        if self.scale == 'none':
            return torch.stack([level.flatten(1) for level in levels], 2)[..., None, None]
        return _reduce(levels, self.scale, self.scale_dropout if self.training else 0).flatten(1)
