# Copyright (c) mmscale contributors.
"""Run a detector or segmentor on one image of its test data at several sizes."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import Subset
from torchvision.ops import box_iou

from mmscale.engine.accuracy import shrink, told
from mmscale.engine.models import Model
from mmscale.engine.study import batches, build_test_data, check_test_classes

from .network import undo

# Least intersection over union of a right box and an object of its class.
OVERLAP = 0.5


@dataclass(frozen=True)
class Seen:
    """One image at one factor, and the predictions for it.

    Attributes:
        picture (np.ndarray): The network's input, ``(H, W, 3)`` from 0 to 1, without padding.
        shape (tuple[int, int]): Height and width of the image on disk. Boxes and segments are in
            its pixels.
        boxes (Tensor | None): ``(D, 4)``, left, top, right, bottom; None for a segmentor.
        labels (Tensor | None): ``(D,)``, classes of the boxes.
        right (Tensor | None): ``(D,)``, whether a box matches an object.
        missed (Tensor | None): ``(M, 4)``, boxes of the objects that no box matches.
        segments (Tensor | None): ``(H, W)``, classes of pixels; None for a detector.
        classes (tuple[str, ...]): Names of the classes, or numbers if the dataset has no names.
    """

    picture: np.ndarray
    shape: tuple[int, int]
    boxes: Tensor | None = None
    labels: Tensor | None = None
    right: Tensor | None = None
    missed: Tensor | None = None
    segments: Tensor | None = None
    classes: tuple[str, ...] = ()


@torch.no_grad()
def predict_over_scale(
    model: Model, index: int, factors: Sequence[float], threshold: float = 0.3
) -> list[Seen]:
    """Run a detector of boxes or a segmentor on image ``index`` of its test data at each factor.

    The image is shrunk behind the pipeline. ``threshold`` is the least score of a box. A ValueError
    is raised if there is no such image, or the model finds neither boxes nor segments.
    """
    dataset = build_test_data(model)
    check_test_classes(model, dataset)
    if not 0 <= index < len(dataset):
        raise ValueError(f'--index: the test data have images 0 to {len(dataset) - 1}, got {index}')
    (batch,) = batches(model, Subset(dataset, [index]), 1)
    (sample,) = batch['data_samples']
    found = []
    for factor in factors:
        inputs = shrink(batch['inputs'], factor, 'matched')
        known = told(copy.deepcopy(sample), factor, inputs.shape[-2:])
        height, width = known.metainfo.get('img_shape', inputs.shape[-2:])[:2]
        (result,) = model.network(inputs, [known], mode='predict')
        parts = _read(result, dataset.get_data_info(index), threshold)
        if parts is None:
            raise ValueError(
                f'{model.path} finds neither boxes (pred_instances) nor segments (pred_sem_seg)'
            )
        preprocessor = model.network.data_preprocessor
        # If the preprocessor does not convert channels, they have MMCV's order.
        is_bgr = not getattr(preprocessor, '_channel_conversion', True)
        picture = undo(inputs[0, :, :height, :width], preprocessor, is_bgr)
        classes = tuple(dataset.metainfo.get('classes') or map(str, range(256)))
        shape = tuple(sample.metainfo['ori_shape'][:2])
        found.append(Seen(picture, shape, classes=classes, **parts))
    return found


def _read(result: BaseDataElement, info: dict, threshold: float) -> dict | None:
    if 'pred_sem_seg' in result:
        return dict(segments=result.pred_sem_seg.data[0].cpu())
    if 'pred_instances' not in result:
        return None
    boxes = result.pred_instances[result.pred_instances.scores >= threshold].to('cpu')
    objects = [found for found in info.get('instances', ()) if not found.get('ignore_flag')]
    at = torch.tensor([found['bbox'] for found in objects], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([found['bbox_label'] for found in objects], dtype=torch.long)
    owner = match(boxes.bboxes.float(), boxes.scores, boxes.labels, at, labels)
    missed = torch.ones(len(at), dtype=torch.bool)
    missed[owner[owner >= 0]] = False
    return dict(boxes=boxes.bboxes, labels=boxes.labels, right=owner >= 0, missed=at[missed])


def match(
    boxes: Tensor, scores: Tensor, labels: Tensor, objects: Tensor, classes: Tensor
) -> Tensor:
    """Return the number of the object that each box matches, ``(D,)``, -1 for none.

    A box matches an object of its class with an intersection over union of at least ``OVERLAP``. As
    in COCO, boxes choose in the order of their scores, each the free object of largest overlap.
    Boxes are ``(D, 4)``, scores and labels ``(D,)``, objects ``(M, 4)`` and classes ``(M,)``.
    """
    overlap = box_iou(boxes, objects)
    overlap[labels[:, None] != classes] = 0
    owner = torch.full((len(boxes),), -1)
    for place in scores.argsort(descending=True).tolist() if len(objects) else ():
        best = int(overlap[place].argmax())
        if overlap[place, best] >= OVERLAP:
            owner[place] = best
            overlap[:, best] = 0
    return owner
