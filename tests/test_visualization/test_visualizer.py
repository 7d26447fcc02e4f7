# Copyright (c) mmscale contributors.
"""The level of a prediction in the pictures of MMPretrain's visualizer."""

import numpy as np
import pytest
import torch
from mmengine.registry import VISUALIZERS
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def make_sample(labels, levels, shares):
    sample = DataSample().set_gt_label(1).set_pred_score(torch.tensor([0.1, 0.7, 0.2]))
    sample.set_pred_label(torch.tensor(labels, dtype=torch.long))
    sample.pred_level, sample.pred_level_score = torch.tensor(levels), torch.tensor(shares)
    return sample


def draw(visualizer, sample, **kwargs):
    """Return the picture, and the texts in it."""
    picture = visualizer.visualize_cls(IMAGE, sample, classes=['a', 'b', 'c'], **kwargs)
    return picture, [text.get_text() for text in visualizer.ax_save.texts]


@pytest.fixture
def visualizer():
    return VISUALIZERS.build(dict(type='mmscale.ScaleVisualizer', name='scale'))


@pytest.mark.parametrize(
    ('labels', 'levels', 'shares', 'note'),
    [
        ([1], [2], [0.934], 'Level: 2, 0.93'),
        ([0, 2], [3, 1, 0], [0.5, 0.8, 0.64], 'Level of 0: 3, 0.50\nLevel of 2: 0, 0.64'),
        ([0, 1, 2], [3, 1, 0], [0.5, 0.8, 0.64],
         'Level of 0: 3, 0.50\nLevel of 1: 1, 0.80\nLevel of 2: 0, 0.64'),
        ([], [3, 1, 0], [0.5, 0.8, 0.64], None),
    ],
)  # fmt: skip
def test_each_label_has_its_level(labels, levels, shares, note, visualizer):
    sample = make_sample(labels, levels, shares)
    picture, texts = draw(visualizer, sample)
    plain, labels_alone = draw(UniversalVisualizer(), sample)
    assert texts == [*([note] if note else []), *labels_alone]
    assert np.array_equal(picture, plain) == (note is None)
    assert np.array_equal(picture[:20], plain[:20])  # the upper half of the picture


def test_the_level_is_written_into_the_resized_picture(visualizer):
    picture, _ = draw(visualizer, make_sample([1], [2], [0.9]), resize=240)
    plain, _ = draw(UniversalVisualizer(), make_sample([1], [2], [0.9]), resize=240)
    changed = np.flatnonzero((picture != plain).any((1, 2)))
    assert picture.shape == (240, 360, 3) and changed.min() > 200 and changed.max() < 240


def test_without_a_level_the_picture_is_that_of_mmpretrain(visualizer):
    draw(visualizer, make_sample([1], [2], [0.9]))  # leaves nothing behind
    bare = DataSample().set_gt_label(1).set_pred_label(1)
    for sample, shown in ((bare, {}), (make_sample([1], [2], [0.9]), dict(draw_pred=False))):
        picture, _ = draw(visualizer, sample, **shown)
        assert np.array_equal(picture, draw(UniversalVisualizer(), sample, **shown)[0])
