# Copyright (c) mmscale contributors.
"""A feature pyramid network of one set of weights on every level of a scale space."""

from mmengine.model import BaseModule
from torch import Tensor

from mmscale.registry import MODELS
from mmscale.scale_space import ScaleGrid, Signal, check_signal, is_pyramid, split_levels


@MODELS.register_module()
class ScaleFPN(BaseModule):
    """Runs a feature pyramid network on each level of pyramids, with one set of weights.

    Pooling over scale loses the level, which is the size of an object, and a detector predicts
    that. Here level k of all stages goes through an FPN of its own, which gives the map that is
    ``base**k`` times as coarse as that of level 0, and the head, which RetinaNet and most others
    share over the maps of an FPN, finds an object of half the size on the next finer map, with the
    same scores: backbone, neck and head together are equivariant to the base. The coarsest level
    gives the maps beyond, too. With three levels and stages of strides 8, 16 and 32, five maps of
    strides 8 (level 0), 16 (level 1), 32, 64 and 128 (level 2), those of the ordinary network.

    It has the parameters of the FPN, and checkpoints of that load; where they have convolutions
    for maps that the levels give here, those are left over.

    Source of one network on an image pyramid: Singh & Davis, An Analysis of Scale Invariance in
    Object Detection (SNIP), CVPR 2018; of the FPN: Lin et al., CVPR 2017.

    Args:
        scale_space (dict | ScaleGrid): The levels of the backbone, of base 2, from level 0 on. The
            backbone has no ``scale_pooling``.
        num_outs (int): Maps, at least one for each level.
        fpn_type (str): The FPN. Its maps halve from one to the next.
        **kwargs: Of the FPN: ``in_channels``, ``out_channels``, ``start_level``, ....

    Shape:
        - Input: a tuple of pyramids of S tensors ``(N, C_i, H_k, W_k)``, one for each stage.
        - Output: a tuple of ``num_outs`` maps ``(N, out_channels, H', W')``, from fine to coarse,
          of which the first S are the levels of one scale space.

    Raises:
        ValueError: If the base is not 2, level 0 is not the first, there are fewer maps than
            levels, or the inputs are no pyramids.
    """

    def __init__(
        self,
        scale_space: dict | ScaleGrid,
        num_outs: int,
        fpn_type: str = 'mmdet.FPN',
        init_cfg: dict | list[dict] | None = None,
        **kwargs,
    ):
        super().__init__(init_cfg)
        self.grid = ScaleGrid.build(scale_space)
        if self.grid.base != 2:
            raise ValueError(f'base must be 2, as that of the maps of an FPN; got {self.grid.base}')
        if self.grid.levels[0] != 0:
            raise ValueError(
                f'the first level must be 0, or the maps have other strides than the head expects; '
                f'got {self.grid.levels[0]}'
            )
        if num_outs < self.grid.num_scales:
            raise ValueError(
                f'num_outs must be at least num_scales={self.grid.num_scales}, got {num_outs}'
            )
        stages = len(kwargs['in_channels']) - kwargs.get('start_level', 0)
        self.num_outs = num_outs
        beyond = num_outs - self.grid.num_scales + 1
        self.fpn = MODELS.build(dict(kwargs, type=fpn_type, num_outs=max(beyond, stages)))

    def forward(self, inputs: tuple[Signal, ...]) -> tuple[Tensor, ...]:
        if not all(is_pyramid(x) for x in inputs):
            raise ValueError(
                'expected pyramids, of a backbone with a pyramid lift and without scale_pooling'
            )
        for x in inputs:
            check_signal(x, self.grid)
        *finer, coarsest = zip(*map(split_levels, inputs), strict=True)
        maps = [self.fpn(level)[0] for level in finer]
        return tuple([*maps, *self.fpn(coarsest)][: self.num_outs])

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # Checkpoints of ordinary detectors have the weights of the FPN where this module is.
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key.removeprefix(prefix)
            if not name.startswith('fpn.'):
                state_dict[f'{prefix}fpn.{name}'] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
