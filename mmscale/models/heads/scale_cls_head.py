# Copyright (c) mmscale contributors.
"""Classification that combines the predictions of the levels instead of their features."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.evaluation import Accuracy
from mmpretrain.models.heads import ClsHead, MultiLabelClsHead
from mmpretrain.models.losses import FocalLoss
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmscale.checks import check_choice
from mmscale.models.necks.scale_pooling import check_scale_dropout, draw_levels
from mmscale.registry import MODELS
from mmscale.scale_space import Signal, is_pyramid

MIXTURES = ('gate', 'prob')
POOLS = (*MIXTURES, 'max', 'mean', 'logsumexp')


@MODELS.register_module()
class ScaleClsHead(BaseModule):
    """A classification head that predicts from each level's vector and combines the predictions.

    A maximum of features over levels mixes features of different levels. Here each level predicts
    with the same weights, and the result is a mixture, ``p(y) = sum_k pi_k p_k(y)``. The weights
    ``pi`` are a softmax over levels of one linear unit of the same vectors, so that an object of
    another size gets the same prediction from another level. The unit starts at 0, where all
    levels have equal weights.

    The output is logits, which the head turns into losses and predictions like its own logits:
    the logarithm of the mixture for a softmax, ``log p - log(1 - p)`` of each label if the head or
    its loss has a sigmoid. With one level the output is the logits of the head.

    The module has the parameters of the head and, with ``pool='gate'``, ``in_channels`` more.
    Checkpoints of the head behind :class:`~mmscale.models.ScaleGlobalPooling` load, the gate as 0.

    Sources: Jacobs et al., Adaptive Mixtures of Local Experts, Neural Computation 1991 (the gate
    and the loss of the mixture); Jansson & Lindeberg, Scale-invariant scale-channel networks, J.
    Math. Imaging Vis. 2022 (maximum, mean and logsumexp of the channels' outputs).

    Args:
        pool (str): The combination: ``'gate'``; ``'prob'``, the mixture with equal weights;
            ``'max'``, ``'mean'`` or ``'logsumexp'`` of the logits of each class. Logsumexp is taken
            minus the logarithm of the number of levels, so that equal logits stay unchanged.
        scale_dropout (float): Probability of leaving a level out in training, drawn per sample; at
            least one level stays.
        head_type (str): A head on vectors, with the ``loss`` and the predictions of ``ClsHead`` or
            ``MultiLabelClsHead``.
        **kwargs: Arguments of the head: ``num_classes``, ``in_channels``, ``loss``, ``topk``, ....

    Shape:
        - Input: a tuple whose last entry comes from ``ScaleGlobalPooling(scale='none')``,
          ``(N, in_channels, S, 1, 1)``.
        - Output: logits ``(N, num_classes)``, float32 or wider.

    Raises:
        ValueError: If the head overrides the loss or the predictions, or the input has another
            shape or other channels than ``in_channels``.
    """

    def __init__(
        self,
        pool: str = 'gate',
        scale_dropout: float = 0.0,
        head_type: str = 'mmpretrain.LinearClsHead',
        init_cfg: dict | list[dict] | None = None,
        **kwargs: Any,
    ):
        super().__init__()
        check_choice('pool', pool, POOLS)
        check_scale_dropout(scale_dropout)
        self.pool, self.scale_dropout = pool, scale_dropout
        if init_cfg is not None:
            kwargs['init_cfg'] = init_cfg  # of the head alone: the gate starts at 0
        self.head: ClsHead | MultiLabelClsHead = MODELS.build(dict(kwargs, type=head_type))
        kinds = [kind for kind in (ClsHead, MultiLabelClsHead) if _answers_as(self.head, kind)]
        if not kinds:
            raise ValueError(
                'head_type must be a head with the loss and the predictions of ClsHead or '
                f'MultiLabelClsHead, such as mmpretrain.LinearClsHead, got {head_type}'
            )
        self.multi_label = kinds == [MultiLabelClsHead]
        self.sigmoid = self.multi_label or _has_sigmoid(self.head.loss_module)
        self.num_classes: int | None = getattr(self.head, 'num_classes', None)
        self.gate: nn.Linear | None = None
        if pool == 'gate':
            if not hasattr(self.head, 'in_channels'):
                raise ValueError(f"pool='gate' needs in_channels, and {head_type} has none")
            # A bias would be the same for all levels, and cancel.
            self.gate = nn.Linear(self.head.in_channels, 1, bias=False)
            nn.init.zeros_(self.gate.weight)

    def forward(self, feats: tuple[Signal, ...]) -> Tensor:
        return self._combine(*self._ask(feats))

    def pre_logits(self, feats: tuple[Signal, ...]) -> Tensor:
        """Return the input of the last linear layer, ``(N, S, C)``."""
        return self._on_levels(self.head.pre_logits, _vectors(feats))

    def loss(
        self, feats: tuple[Signal, ...], data_samples: list[DataSample], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return the losses of the head for the combined logits."""
        logits = self(feats)
        losses = self.head._get_loss(logits, data_samples, **kwargs)
        if getattr(self.head, 'cal_acc', False):
            # The head ignores logits below 0, which logarithms of probabilities always are.
            target = torch.cat([sample.gt_label for sample in data_samples])
            parts = Accuracy.calculate(logits, target, topk=self.head.topk, thrs=(None,))
            losses |= {f'accuracy_top-{k}': part for k, part in zip(self.head.topk, parts)}
        return losses

    def predict(
        self, feats: tuple[Signal, ...], data_samples: list[DataSample] | None = None
    ) -> list[DataSample]:
        """Return the predictions of the head, with the most important level of each.

        Returns:
            list[DataSample]: ``pred_level`` is the level with the largest contribution to the
            predicted label, counted from the finest level, ``(1,)``. ``pred_level_score`` is its
            share among all levels; in a mixture this is its probability, given image and label. A
            multi-label head gives both for each class, ``(num_classes,)``.
        """
        scores, log_weights = self._ask(feats)
        samples = self.head._get_predictions(self._combine(scores, log_weights), data_samples)
        shares, levels = self._answers(scores, log_weights).softmax(1).max(1)
        for sample, share, level in zip(samples, shares, levels, strict=True):
            chosen = slice(None) if self.multi_label else sample.pred_label
            sample.pred_level, sample.pred_level_score = level[chosen], share[chosen]
        return samples

    def _on_levels(self, run, vectors: Tensor) -> Tensor:
        """Run all levels as one batch: ``(N, S, C)`` to ``(N, S, K)``."""
        return run((vectors.flatten(0, 1),)).unflatten(0, (-1, vectors.shape[1]))

    def _ask(self, feats: tuple[Signal, ...]) -> tuple[Tensor, Tensor]:
        """Return logits ``(N, S, K)`` and log weights ``(N, S, 1)`` of the levels."""
        vectors = _vectors(feats)
        asked = getattr(self.head, 'in_channels', vectors.shape[2])
        if asked != vectors.shape[2]:
            raise ValueError(
                f'in_channels must be {vectors.shape[2]}, the size of the vectors, got {asked}'
            )
        scores = self._on_levels(self.head, vectors)
        # Half precision has too few digits for a sum of logarithms.
        dtype = torch.promote_types(scores.dtype, torch.float32)
        scores = scores.to(dtype)
        if self.gate is None:
            weights = scores.new_zeros(*scores.shape[:2], 1)
        else:
            weights = self.gate(vectors).to(dtype)
        if self.training and self.scale_dropout and scores.shape[1] > 1:
            kept = draw_levels(*scores.shape[1::-1], self.scale_dropout, scores.device)
            weights = weights.masked_fill(~kept.T[..., None], -math.inf)
        return scores, weights.log_softmax(1)

    def _answers(self, scores: Tensor, log_weights: Tensor) -> Tensor:
        """Return weighted scores of levels, ``(N, S, K)``: ``log(pi_k p_k(y))`` in a mixture."""
        if self.pool in MIXTURES:
            scores = F.logsigmoid(scores) if self.sigmoid else scores.log_softmax(2)
        return scores + log_weights

    def _combine(self, scores: Tensor, log_weights: Tensor) -> Tensor:
        if scores.shape[1] == 1:
            # The log weight is 0. The sum keeps the gate in the graph, because
            # DistributedDataParallel waits for its gradient.
            return (scores + log_weights)[:, 0]
        if self.pool == 'max':
            return scores.masked_fill(log_weights == -math.inf, -math.inf).amax(1)
        if self.pool == 'mean':
            return (log_weights.exp() * scores).sum(1)
        combined = self._answers(scores, log_weights).logsumexp(1)
        if self.pool in MIXTURES and self.sigmoid:
            combined = combined - self._answers(-scores, log_weights).logsumexp(1)
        return combined

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # Checkpoints of ordinary classifiers name the weights of the head without `head.`.
        plain = [
            key
            for key in state_dict
            if key.startswith(prefix) and not key.startswith((f'{prefix}head.', f'{prefix}gate.'))
        ]
        for key in plain:
            state_dict[f'{prefix}head.{key.removeprefix(prefix)}'] = state_dict.pop(key)
        if plain and self.gate is not None:
            state_dict[f'{prefix}gate.weight'] = torch.zeros_like(self.gate.weight)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _answers_as(head: nn.Module, kind: type) -> bool:
    """Tell whether a head inherits losses and predictions from ``kind``."""
    return isinstance(head, kind) and all(
        getattr(type(head), name) is getattr(kind, name)
        for name in ('loss', '_get_loss', 'predict', '_get_predictions')
    )


def _has_sigmoid(loss: nn.Module) -> bool:
    return any(
        isinstance(part, FocalLoss) or getattr(part, 'use_sigmoid', False)
        for part in loss.modules()
    )


def _vectors(feats: tuple[Signal, ...]) -> Tensor:
    """Return the vectors of the levels, ``(N, S, C)``."""
    x = feats[-1]
    if is_pyramid(x) or x.ndim != 5 or x.shape[3:] != (1, 1):
        found = f'the shape {tuple(x.shape)}' if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            'expected one vector per level, (N, C, S, 1, 1), from the neck '
            f"dict(type='mmscale.ScaleGlobalPooling', scale='none'), got {found}"
        )
    return x[..., 0, 0].mT
