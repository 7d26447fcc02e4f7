# Copyright (c) mmscale contributors.
"""A visualizer of predictions, which needs MMPretrain."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from mmpretrain.visualization.utils import get_adaptive_scale

from mmscale.registry import VISUALIZERS


@VISUALIZERS.register_module()
class ScaleVisualizer(UniversalVisualizer):
    """A ``UniversalVisualizer`` that also names the level of each prediction.

    A level with a large share is an estimate of the size of the object. The visualizer writes the
    level, counted from the finest level, and its share of the prediction into the lower left corner
    of the image. :class:`~mmscale.models.ScaleClsHead` predicts levels; a data sample without them
    is drawn as by ``UniversalVisualizer``.
    """

    _note: str | None = None

    def visualize_cls(
        self,
        image: np.ndarray,
        data_sample: DataSample,
        classes: Sequence[str] | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> np.ndarray | None:
        """Draw an image, its labels and its level; arguments of ``UniversalVisualizer``."""
        if draw_pred and 'pred_level' in data_sample:
            self._note = _describe_levels(data_sample)
        try:
            return super().visualize_cls(
                image, data_sample, classes, draw_gt, draw_pred, *args, **kwargs
            )
        finally:
            self._note = None

    def set_image(self, image: np.ndarray) -> None:
        """Draw an image and, during ``visualize_cls``, its level."""
        # ``visualize_cls`` resizes the image before this call, and writes the labels and saves the
        # picture behind it.
        super().set_image(image)
        if self._note:
            scale = get_adaptive_scale(image.shape[:2])
            style = dict(self.DEFAULT_TEXT_CFG, verticalalignment='bottom', size=int(scale * 7))
            self.ax_save.text(scale * 5, image.shape[0] - scale * 5, self._note, **style)


def _describe_levels(sample: DataSample) -> str:
    """Return a line for each predicted label, with its level and the share of the level."""
    levels, shares = sample.pred_level, sample.pred_level_score
    if len(levels) == 1:
        return f'Level: {levels[0]}, {shares[0]:.2f}'
    # A multi-label head has a level for each class.
    labels = sample.pred_label.tolist()
    return '\n'.join(f'Level of {k}: {levels[k]}, {shares[k]:.2f}' for k in labels)
