# Copyright (c) mmscale contributors.
"""Segmentation that combines the predictions of the levels, pixel by pixel."""

from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmscale.checks import check_choice
from mmscale.models.necks import ScalePooling
from mmscale.registry import MODELS
from mmscale.scale_space import ScaleGrid, Signal, is_pyramid, split_levels, stack_levels

POOLS = {'prob': 'avg', 'max': 'max', 'mean': 'avg'}


@MODELS.register_module()
class ScaleDecodeHead(BaseModule):
    """A decode head of MMSegmentation that runs on each level and combines the predictions.

    All levels predict with the same weights. Their maps are brought to the size of level 0 and
    combined at each pixel, so that a pixel of an object of another size gets the same prediction
    from another level. The output is logits, which the head turns into losses and predictions like
    its own logits. With one level they are the logits of the head, and checkpoints of the head
    load. The backbone must have no ``scale_pooling``.

    Args:
        scale_space (dict | ScaleGrid): The levels of the backbone, with level 0.
        pool (str): ``'prob'``, the mean of the probabilities; ``'max'`` or ``'mean'`` of the logits
            of each class.
        scale_dropout (float): Probability of leaving a level out in training, drawn per sample; at
            least one level stays.
        head_type (str): A head whose logits are one map, ``(N, num_classes, H, W)``.
        **kwargs: Arguments of the head: ``in_channels``, ``in_index``, ``num_classes``, ....

    Shape:
        - Input: a tuple of dense ``(N, C, S, H, W)`` or of pyramids, one for each stage.
        - Output: ``(N, num_classes, H, W)``, the size of the head's map of level 0.

    Raises:
        ValueError: If an argument is out of range, or the inputs or the logits are not as
            described.
    """

    def __init__(
        self,
        scale_space: dict | ScaleGrid,
        pool: str = 'prob',
        scale_dropout: float = 0.0,
        head_type: str = 'mmseg.FCNHead',
        init_cfg: dict | list[dict] | None = None,
        **kwargs: Any,
    ):
        super().__init__(init_cfg)
        check_choice('pool', pool, POOLS)
        self.pool = pool
        self.pooling = ScalePooling(POOLS[pool], 'image', scale_space, scale_dropout)
        self.head: nn.Module = MODELS.build(dict(kwargs, type=head_type))
        self.sigmoid = any(getattr(part, 'use_sigmoid', False) for part in self.head.modules())
        # A segmentor asks its head for these.
        for name in ('num_classes', 'out_channels', 'align_corners', 'threshold'):
            setattr(self, name, getattr(self.head, name, None))

    def forward(self, inputs: tuple[Signal, ...]) -> Tensor:
        stages = [split_levels(x) for x in inputs]
        if len({len(levels) for levels in stages}) > 1:
            found = [len(levels) for levels in stages]
            raise ValueError(f'the stages must have the same levels, got {found}')
        maps = [self.head(list(level)) for level in zip(*stages)]
        if not all(isinstance(logits, Tensor) and logits.ndim == 4 for logits in maps):
            kind = type(self.head).__name__
            raise ValueError(f'head_type must return one map of logits, and {kind} does not')
        if len(maps) == 1:
            return maps[0]
        # Half precision has too few digits for small probabilities.
        maps = [logits.to(torch.promote_types(logits.dtype, torch.float32)) for logits in maps]
        if self.pool == 'prob':
            maps = [logits.sigmoid() if self.sigmoid else logits.softmax(1) for logits in maps]
        signal = tuple(maps) if is_pyramid(inputs[-1]) else stack_levels(maps)
        (combined,) = self.pooling((signal,))
        if self.pool == 'prob':
            smallest = torch.finfo(combined.dtype).eps
            combined = combined.logit(smallest) if self.sigmoid else (combined + smallest).log()
        return combined

    def loss(self, inputs: tuple[Signal, ...], batch_data_samples: list, train_cfg: Any) -> dict:
        """Return the losses of the head for the combined logits."""
        return self.head.loss_by_feat(self(inputs), batch_data_samples)

    def predict(self, inputs: tuple[Signal, ...], batch_img_metas: list, test_cfg: Any) -> Tensor:
        """Return the combined logits at the size of the images, ``(N, num_classes, H, W)``."""
        return self.head.predict_by_feat(self(inputs), batch_img_metas)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # Checkpoints of ordinary segmentors name the weights of the head without `head.`.
        for key in [key for key in state_dict if key.startswith(prefix)]:
            if not key.startswith(f'{prefix}head.'):
                state_dict[f'{prefix}head.{key.removeprefix(prefix)}'] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
