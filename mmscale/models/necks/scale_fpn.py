# Copyright (c) mmscale contributors.
"""A feature pyramid network that shares its weights over the levels of a scale space."""

import math
from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from mmscale.registry import MODELS
from mmscale.scale_space import ScaleGrid, Signal, check_signal, is_pyramid, split_levels


@MODELS.register_module()
class ScaleFPN(BaseModule):
    """A feature pyramid network (FPN) that runs on each level of pyramids with shared weights.

    Level k of all stages gives a map that is ``base**k`` times as coarse as the map of level 0. A
    head with weights shared over the maps finds an object of half the size on the next finer map
    with the same scores: backbone, neck and head together are equivariant to the base. The coarsest
    level also gives all coarser maps. Three levels of base 2 and stages of strides 8, 16 and 32
    give five maps of the strides 8 (level 0), 16 (level 1), 32, 64 and 128 (level 2), as in the
    ordinary network.

    With a base of 2^(1/m) the m coarsest levels give the coarser maps in turn: five levels of base
    sqrt(2) give nine maps of strides 8, 8 sqrt(2), 16, ... and 128. The head of an ordinary
    detector expects other strides, so the neck takes the ``strides`` of the head and checks them.

    The neck has the parameters of the FPN, whose checkpoints load.

    Sources: Singh & Davis, An Analysis of Scale Invariance in Object Detection (SNIP), CVPR 2018
    (one network on an image pyramid); Lin et al., CVPR 2017 (the FPN).

    Args:
        scale_space (dict | ScaleGrid): The levels of the backbone, from level 0 on; the base is 2
            or a root of 2. The backbone has no ``scale_pooling``.
        num_outs (int): Number of maps, at least the number of levels.
        strides (Sequence[float], optional): Strides of the head's maps, in pixels. Required if the
            base is not 2.
        fpn_type (str): The FPN. Each of its maps has half the size of the map before.
        **kwargs: Arguments of the FPN: ``in_channels``, ``out_channels``, ``start_level``, ....

    Shape:
        - Input: a tuple of pyramids of S tensors ``(N, C_i, H_k, W_k)``, one for each stage.
        - Output: a tuple of ``num_outs`` maps ``(N, out_channels, H', W')``, from fine to coarse;
          the first S maps are the levels of one scale space.

    Raises:
        ValueError: If the base is no root of 2, the first level is not 0, the number of maps or the
            strides do not fit the levels, or the inputs are no pyramids.
    """

    def __init__(
        self,
        scale_space: dict | ScaleGrid,
        num_outs: int,
        strides: Sequence[float] | None = None,
        fpn_type: str = 'mmdet.FPN',
        init_cfg: dict | list[dict] | None = None,
        **kwargs: Any,
    ):
        super().__init__(init_cfg)
        self.grid = ScaleGrid.build(scale_space)
        self.per_octave = round(1 / math.log2(self.grid.base))
        if not math.isclose(self.grid.base**self.per_octave, 2):
            raise ValueError(
                f'base must be 2 or a root of 2, so that the maps of an FPN fit, got '
                f'{self.grid.base}'
            )
        if self.grid.levels[0] != 0:
            raise ValueError(
                f'the first level must be 0, so that the maps have the strides of the head, '
                f'got {self.grid.levels[0]}'
            )
        if num_outs < self.grid.num_scales:
            raise ValueError(
                f'num_outs must be at least num_scales={self.grid.num_scales}, got {num_outs}'
            )
        beyond = num_outs - self.grid.num_scales
        if beyond and self.grid.num_scales < self.per_octave:
            raise ValueError(
                f'num_outs must be num_scales={self.grid.num_scales} if the levels fill no '
                f'octave, got {num_outs}'
            )
        self._check_strides(strides, num_outs)
        stages = len(kwargs['in_channels']) - kwargs.get('start_level', 0)
        octaves = math.ceil(beyond / self.per_octave)
        self.num_outs = num_outs
        num_maps = max(1 + octaves, stages)
        self.fpn: BaseModule = MODELS.build(dict(kwargs, type=fpn_type, num_outs=num_maps))
        # An FPN makes a map for each stage. The last maps are not used, and
        # DistributedDataParallel would wait for the gradients of their convolutions.
        for conv in getattr(self.fpn, 'fpn_convs', ())[1 + octaves :]:
            conv.requires_grad_(False)

    def _check_strides(self, strides: Sequence[float] | None, num_outs: int) -> None:
        if strides is None and self.per_octave == 1:  # the usual strides of heads
            return
        base, first = self.grid.base, strides[0] if strides else 8
        expected = [first * base**n for n in range(num_outs)]
        fits = strides is not None and len(strides) == num_outs
        if not fits or not all(map(math.isclose, strides, expected)):
            raise ValueError(
                f'strides must be those of the head: {num_outs} maps of base {base} have the '
                f'strides {expected}, got {strides}'
            )

    def forward(self, inputs: tuple[Signal, ...]) -> tuple[Tensor, ...]:
        if not all(is_pyramid(x) for x in inputs):
            raise ValueError(
                'expected pyramids: use a backbone with a pyramid lift and without scale_pooling'
            )
        for x in inputs:
            check_signal(x, self.grid)
        pyramids = [self.fpn(level) for level in zip(*map(split_levels, inputs), strict=True)]
        finer, coarsest = pyramids[: -self.per_octave], pyramids[-self.per_octave :]
        maps = [maps[0] for maps in finer]
        maps += [level for octave in zip(*coarsest, strict=True) for level in octave]
        return tuple(maps[: self.num_outs])

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # Checkpoints of ordinary detectors name the weights of the FPN without `fpn.`.
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key.removeprefix(prefix)
            if not name.startswith('fpn.'):
                state_dict[f'{prefix}fpn.{name}'] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
