# Copyright (c) mmscale contributors.
"""Which boxes are right."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import nn
from torchvision.ops import box_iou

from mmscale.engine.models import Model
from mmscale.visualization import predictions
from mmscale.visualization.predictions import Seen, match, predict_over_scale

ROOT = Path(__file__).resolve().parents[2]


def boxes_of(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


@given(st.integers(0, 8), st.integers(0, 6), st.integers(0, 10_000))
def test_boxes_choose_in_the_order_of_their_scores(found, count, seed):
    """Each the free object of its class that it overlaps most, by half at least."""
    generator = torch.Generator().manual_seed(seed)

    def draw(number):
        corners = 6 * torch.rand(number, 2, generator=generator)
        labels = torch.randint(2, (number,), generator=generator)
        return torch.cat([corners, corners + 6], 1), labels

    (boxes, labels), (objects, classes) = draw(found), draw(count)
    scores = torch.rand(found, generator=generator)
    owner = match(boxes, scores, labels, objects, classes).tolist()
    overlap, free = box_iou(boxes, objects), set(range(count))
    for box in scores.argsort(descending=True).tolist():
        suited = {o for o in free if labels[box] == classes[o] and overlap[box, o] >= 0.5}
        best = max(suited, key=lambda o: overlap[box, o], default=-1)
        assert owner[box] == best
        free -= {best}


class Found(nn.Module):
    """Finds one object of 8 pixels at (4, 4), as the image on disk has it, or its pixels."""

    data_preprocessor = None

    def __init__(self, kind):
        super().__init__()
        self.kind, self.seen = kind, []

    def forward(self, inputs, samples, mode):
        (sample,) = samples
        self.seen.append((inputs.shape[-1], sample.metainfo['scale_factor'][0]))
        if self.kind == 'boxes':
            bboxes, scores = boxes_of([[4, 4, 12, 12], [0, 0, 9, 9]]), torch.tensor([0.9, 0.1])
            sample.pred_instances = InstanceData(
                bboxes=bboxes, scores=scores, labels=torch.tensor([3, 3])
            )
        elif self.kind == 'segments':
            sample.pred_sem_seg = PixelData(data=torch.ones(1, 16, 16, dtype=torch.long))
        return samples


class Data(list):
    metainfo = dict(classes=('background', 'one'))

    def get_data_info(self, index):
        return dict(instances=[
            dict(bbox=[4, 4, 12, 12], bbox_label=3, ignore_flag=0),
            dict(bbox=[0, 0, 3, 3], bbox_label=1, ignore_flag=0),
            dict(bbox=[9, 9, 16, 16], bbox_label=1, ignore_flag=1),
        ])  # fmt: skip


@pytest.fixture
def model_of(monkeypatch):
    meta = dict(ori_shape=(16, 16), img_shape=(16, 16), scale_factor=(1.0, 1.0))

    def batches_of(model, dataset, batch_size):
        yield dict(
            inputs=torch.rand(1, 3, 16, 16) * 255, data_samples=[BaseDataElement(metainfo=meta)]
        )

    monkeypatch.setattr(predictions, 'batches', batches_of)
    monkeypatch.setattr(predictions, 'build_test_data', lambda model: Data('ab'))
    return lambda kind: Model('a.py', Config(), 'a.pth', Found(kind))


def test_what_is_found_belongs_to_the_image_on_disk(model_of):
    model = model_of('boxes')
    found = predict_over_scale(model, 1, [1, 2], threshold=0.3)
    assert model.network.seen == [(16, 1.0), (8, 0.5)]
    assert [seen.picture.shape for seen in found] == [(16, 16, 3), (8, 8, 3)]
    for seen in found:
        assert seen.shape == (16, 16) and seen.boxes.tolist() == [[4, 4, 12, 12]]
        # What is to be ignored is not missed.
        assert seen.right.tolist() == [True] and seen.missed.tolist() == [[0, 0, 3, 3]]
    (seen,) = predict_over_scale(model, 1, [1], threshold=0.0)
    assert seen.right.tolist() == [True, False]
    (seen,) = predict_over_scale(model_of('segments'), 0, [2])
    assert seen.boxes is None and seen.segments.shape == (16, 16)
    assert seen.classes == ('background', 'one')


def test_what_cannot_be_drawn_is_said(model_of):
    with pytest.raises(ValueError, match='--index: the test data have images 0 to 1, got 2'):
        predict_over_scale(model_of('boxes'), 2, [1])
    with pytest.raises(ValueError, match='a.py finds neither boxes .* nor segments'):
        predict_over_scale(model_of('labels'), 0, [1])


@pytest.mark.parametrize('first', ['background', 'road'])
def test_segments_have_the_names_of_their_classes(first):
    """The class 0 of a mask is the background where the dataset calls it so, and there alone."""
    draw = runpy.run_path(str(ROOT / 'tools/visualize_predictions.py'))['draw']
    segments = torch.tensor([[0, 0], [2, 3]])
    classes = (first, 'sign', 'car', 'sky')
    seen = Seen(np.zeros((2, 2, 3)), (2, 2), segments=segments, classes=classes)
    figure = draw({'a': [seen]}, [1.0], 'title')
    (legend,) = figure.legends
    found = [first, 'car', 'sky'] if first == 'road' else ['car', 'sky']
    assert [text.get_text() for text in legend.get_texts()] == found
    _, image = figure.axes[0].images
    blank = image.get_array().mask
    assert blank.sum() == (2 if first == 'background' else 0)
    car, sky = [patch.get_facecolor()[:3] for patch in legend.get_patches()][-2:]
    drawn = image.to_rgba(image.get_array())[1, :, :3]
    assert car == pytest.approx(drawn[0]) and sky == pytest.approx(drawn[1]) and car != sky
