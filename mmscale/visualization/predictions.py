# Copyright (c) mmscale contributors.
"""What a detector or segmentor finds in one image of its test data, made smaller and smaller."""

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

# From here on a box is right, if its class is.
OVERLAP = 0.5


@dataclass(frozen=True)
class Seen:
    """One image at one factor, and what was found in it.

    Attributes:
        picture (np.ndarray): What the network has seen, ``(H, W, 3)`` from 0 to 1, without padding.
        shape (tuple[int, int]): Height and width of the image on disk, to which the others belong.
        boxes (Tensor | None): ``(D, 4)``, left, top, right, bottom in pixels of the image on disk;
            None of a segmentor.
        labels (Tensor | None): ``(D,)``, classes of the boxes.
        right (Tensor | None): ``(D,)``, which boxes are those of an object.
        missed (Tensor | None): ``(M, 4)``, boxes of the objects that none of them is of.
        segments (Tensor | None): ``(H, W)``, classes of pixels; None of a detector.
        classes (tuple[str, ...]): Their names, numbers where the dataset has none.
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
    """Runs a detector of boxes or a segmentor on image ``index`` of its test data at each factor.

    The image is made so many times smaller behind the pipeline; ``threshold`` is the least score
    of a box. ValueError is raised if there is no such image, or the model finds neither boxes nor
    segments.
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
        # Where the preprocessor does not turn them, channels are as MMCV has read them.
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
    """The number of the object of each box, ``(D,)``, -1 for none.

    It is of its class and overlaps it by half of the union or more. As in COCO, boxes choose in the
    order of their scores, each the free object that it overlaps most. There are ``(D, 4)`` boxes
    with ``(D,)`` scores and labels, and ``(M, 4)`` objects of ``(M,)`` classes.
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
