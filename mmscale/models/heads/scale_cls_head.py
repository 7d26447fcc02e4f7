# Copyright (c) mmscale contributors.
"""Classification that pools the answers of the levels rather than their features."""

import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.evaluation import Accuracy
from mmpretrain.models.heads import ClsHead, MultiLabelClsHead
from mmpretrain.models.losses import FocalLoss
from torch import Tensor, nn

from mmscale.models.necks.scale_pooling import check_scale_dropout, draw_levels
from mmscale.registry import MODELS
from mmscale.scale_space import Signal, is_pyramid
from mmscale.scale_space.resample import check_choice

MIXTURES = ('gate', 'prob')
POOLS = (*MIXTURES, 'max', 'mean', 'logsumexp')


@MODELS.register_module()
class ScaleClsHead(BaseModule):
    """Runs a classification head on each level's own vector and combines what the levels answer.

    A maximum of features over levels makes a chimera of them. Here each level answers by itself,
    with one set of weights, and the answer is that of a mixture, ``p(y) = sum_k pi_k p_k(y)``. The
    weights ``pi`` are a softmax over the levels of one linear unit of the same vectors, so an
    object of another size gets the same answer from another level. The unit starts at 0, where all
    levels weigh the same.

    The output is logits, of which the head makes losses and predictions as of its own: the
    logarithm of the mixture where it has a softmax, ``log p - log(1 - p)`` of each label where it
    or its loss has a sigmoid. One level gives the logits of the head itself.

    It has the parameters of the head, with ``pool='gate'`` ``in_channels`` more. Checkpoints of the
    head behind :class:`~mmscale.models.ScaleGlobalPooling` load; a gate that they lack is 0.

    Sources: Jacobs et al., Adaptive Mixtures of Local Experts, Neural Computation 1991 (the gate
    and the loss of the mixture); Jansson & Lindeberg, Scale-invariant scale-channel networks, J.
    Math. Imaging Vis. 2022 (pooling what the channels answer by maximum, mean or logsumexp).

    Args:
        pool (str): How answers are combined: ``'gate'``; ``'prob'``, the mixture with equal
            weights; ``'max'``, ``'mean'`` or ``'logsumexp'`` of the logits of each class
            (logsumexp less the logarithm of the number of levels, so that levels that agree are
            answered as one).
        scale_dropout (float): In training, each level is left out with this probability, drawn for
            each sample; at least one stays.
        head_type (str): The head: one of vectors, with the ``loss`` and the predictions of
            ``ClsHead`` or ``MultiLabelClsHead``.
        **kwargs: Of the head: ``num_classes``, ``in_channels``, ``loss``, ``topk``, ....

    Shape:
        - Input: a tuple, of which the last is of ``ScaleGlobalPooling(scale='none')``,
          ``(N, in_channels, S, 1, 1)``.
        - Output: logits ``(N, num_classes)``, float32 or wider.

    Raises:
        ValueError: For a head that has a loss or predictions of its own, or an input of another
            shape.
    """

    def __init__(
        self,
        pool: str = 'gate',
        scale_dropout: float = 0.0,
        head_type: str = 'mmpretrain.LinearClsHead',
        init_cfg: dict | list[dict] | None = None,
        **kwargs,
    ):
        super().__init__(init_cfg)
        check_choice('pool', pool, POOLS)
        check_scale_dropout(scale_dropout)
        self.pool, self.scale_dropout = pool, scale_dropout
        self.head = MODELS.build(dict(kwargs, type=head_type))
        kinds = [kind for kind in (ClsHead, MultiLabelClsHead) if _answers_as(self.head, kind)]
        if not kinds:
            raise ValueError(
                'head_type must be a head with the loss and the predictions of ClsHead or '
                f'MultiLabelClsHead, such as mmpretrain.LinearClsHead, got {head_type}'
            )
        self.multi_label = kinds == [MultiLabelClsHead]
        self.sigmoid = self.multi_label or _has_sigmoid(self.head.loss_module)
        self.num_classes = getattr(self.head, 'num_classes', None)
        self.gate = None
        if pool == 'gate':
            if not hasattr(self.head, 'in_channels'):
                raise ValueError(f"pool='gate' needs in_channels, and {head_type} has none")
            # A bias would be the same for all levels, and cancel.
            self.gate = nn.Linear(self.head.in_channels, 1, bias=False)
            nn.init.zeros_(self.gate.weight)

    def forward(self, feats: tuple[Signal, ...]) -> Tensor:
        return self._combine(*self._ask(feats))

    def pre_logits(self, feats: tuple[Signal, ...]) -> Tensor:
        """What the last linear layer sees, ``(N, S, C)``."""
        return self._on_levels(self.head.pre_logits, _vectors(feats))

    def loss(self, feats: tuple[Signal, ...], data_samples: list, **kwargs) -> dict:
        """The losses of the head, of the combined answer."""
        logits = self(feats)
        losses = self.head._get_loss(logits, data_samples, **kwargs)
        if getattr(self.head, 'cal_acc', False):
            # The head takes logits below 0 for no answer, and logarithms of probabilities are.
            target = torch.cat([sample.gt_label for sample in data_samples])
            parts = Accuracy.calculate(logits, target, topk=self.head.topk, thrs=(None,))
            losses |= {f'accuracy_top-{k}': part for k, part in zip(self.head.topk, parts)}
        return losses

    def predict(self, feats: tuple[Signal, ...], data_samples: list | None = None) -> list:
        """The predictions of the head, and the level that each is from.

        Returns:
            list[DataSample]: With ``pred_level``, the level that says most for the predicted label,
            counted from the finest, ``(1,)``, and ``pred_level_score``, its share among all levels:
            of a mixture its probability, given image and label. Of a multi-label head both are
            those of each class, ``(num_classes,)``.
        """
        scores, log_weights = self._ask(feats)
        samples = self.head._get_predictions(self._combine(scores, log_weights), data_samples)
        shares, levels = self._answers(scores, log_weights).softmax(1).max(1)
        for sample, share, level in zip(samples, shares, levels, strict=True):
            chosen = slice(None) if self.multi_label else sample.pred_label
            sample.pred_level, sample.pred_level_score = level[chosen], share[chosen]
        return samples

    def _on_levels(self, run, vectors: Tensor) -> Tensor:
        """All levels as one batch: ``(N, S, C)`` to ``(N, S, K)``."""
        return run((vectors.flatten(0, 1),)).unflatten(0, (-1, vectors.shape[1]))

    def _ask(self, feats: tuple[Signal, ...]) -> tuple[Tensor, Tensor]:
        """Logits of each level, ``(N, S, K)``, and logarithms of their weights, ``(N, S, 1)``."""
        vectors = _vectors(feats)
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
        """What each level says for each label, ``(N, S, K)``: ``log(pi_k p_k(y))`` of mixtures."""
        if self.pool in MIXTURES:
            scores = F.logsigmoid(scores) if self.sigmoid else scores.log_softmax(2)
        return scores + log_weights

    def _combine(self, scores: Tensor, log_weights: Tensor) -> Tensor:
        if scores.shape[1] == 1:
            # The head's own logits. The weight is 1, and the gate stays in the graph, where
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
        # Checkpoints of ordinary classifiers have the weights of the head where this module is.
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
    """Whether losses and predictions of a head are those of a kind of head, made of its logits."""
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
    """Of each level, ``(N, S, C)``."""
    x = feats[-1]
    if is_pyramid(x) or x.ndim != 5 or x.shape[3:] != (1, 1):
        found = f'the shape {tuple(x.shape)}' if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            'expected one vector of each level, (N, C, S, 1, 1), of the neck '
            f"dict(type='mmscale.ScaleGlobalPooling', scale='none'), got {found}"
        )
    return x[..., 0, 0].mT
