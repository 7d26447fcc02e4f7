# Copyright (c) mmscale contributors.
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn.functional import interpolate

from mmscale.engine import accuracy
from mmscale.engine.accuracy import _main_metric, shrink, told
from mmscale.engine.models import Model
from mmscale.engine.study import Settings


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_images_shrink_as_boxes_do(height, width, factor):
    """Aligned at the corner, as PyTorch interpolates without align_corners, and not at a pixel."""
    images = torch.rand(2, 3, factor * height, factor * width, dtype=torch.float64)
    found = shrink(images, factor, 'bilinear')
    expected = interpolate(images, (height, width), mode='bilinear', align_corners=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('factor', [1.0, 1.1, 2.0, 3.0])
@pytest.mark.parametrize('resampling', ['matched', 'ideal'])
def test_a_blob_is_where_its_box_is(factor, resampling):
    side, centre = 96, torch.tensor([40.0, 61.0])  # in pixels from the corner
    axis = torch.arange(side, dtype=torch.float64) + 0.5
    rows, columns = (torch.exp(-((axis - c) ** 2) / 72) for c in centre)
    small = shrink((rows[:, None] * columns)[None, None], factor, resampling)[0, 0]
    for dim, c in enumerate(centre):
        places = torch.arange(small.shape[dim], dtype=torch.float64) + 0.5
        mean = (small.sum(1 - dim) * places).sum() / small.sum()
        assert abs(mean - c / factor) < 1e-3


def test_sizes_are_told():
    meta = dict(
        img_id=7, ori_shape=(300, 400), img_shape=(150, 200), scale_factor=(0.5, 0.5),
        pad_shape=(160, 224), batch_input_shape=(160, 224), padding_size=[0, 24, 0, 10],
    )  # fmt: skip
    sample = told(BaseDataElement(metainfo=meta), 2.0, torch.Size((80, 112)))
    assert sample.metainfo == dict(
        img_id=7, ori_shape=(300, 400), img_shape=(75, 100), scale_factor=(0.25, 0.25),
        pad_shape=(80, 112), batch_input_shape=(80, 112), padding_size=[0, 12, 0, 5],
    )  # fmt: skip
    # A pipeline that has not resized says nothing of it; to the heads that is a factor of 1.
    sample = told(BaseDataElement(metainfo=dict(ori_shape=(9, 9))), 2.0, torch.Size((4, 4)))
    assert sample.metainfo == dict(ori_shape=(9, 9), scale_factor=(0.5, 0.5))


def test_the_metric_by_which_a_task_is_known():
    coco = ['coco/bbox_mAP_50', 'coco/bbox_mAP', 'coco/segm_mAP']
    assert _main_metric(coco, None) == 'coco/bbox_mAP'
    assert _main_metric(coco, 'coco/bbox_mAP_50') == 'coco/bbox_mAP_50'
    assert _main_metric(['aAcc', 'mIoU', 'mAcc'], None) == 'mIoU'
    assert _main_metric(['NME', 'PCK'], None) == 'NME'
    with pytest.raises(ValueError, match='^--metric: must be one of NME, got PCK$'):
        _main_metric(['NME'], 'PCK')


@METRICS.register_module()
class _NothingAtTwo(BaseMetric):
    """Has no figure the second time, as MMDetection's for COCO where nothing was detected."""

    def __init__(self, ever=True):
        super().__init__()
        self.ever, self.rounds = ever, 0

    def process(self, data_batch, data_samples):
        self.results += [1] * len(data_samples)

    def compute_metrics(self, results):
        self.rounds += 1
        found = dict(round=self.rounds, count=len(results), mAP_s=-1.0 if self.rounds == 3 else 0.5)
        return {} if self.rounds == 2 or not self.ever else found


def test_a_factor_without_a_figure_moves_no_other(monkeypatch):
    class Network(nn.Module):
        def forward(self, inputs, samples, mode):
            assert mode == 'predict'
            return samples

    def batches_of(model, dataset, batch_size):
        yield dict(inputs=torch.rand(2, 1, 8, 8), data_samples=[BaseDataElement() for _ in '12'])

    monkeypatch.setattr(accuracy, 'batches', batches_of)
    monkeypatch.setattr(accuracy, 'build_test_data', lambda model: range(2))
    cfg = Config(dict(default_scope='mmengine', test_evaluator=dict(type='_NothingAtTwo')))
    settings = Settings((1, 2, 3), (), 2, None, 2, 'shrink', 'matched', 0, True, 2)
    found = accuracy.measure_accuracy(Model('a.py', cfg, 'a.pth', Network()), settings)
    assert found['metrics']['round']['mean'] == [1, None, 3]
    assert found['metrics']['count']['mean'] == [2, None, 2]
    assert found['metrics']['mAP_s']['mean'] == [0.5, None, None]  # -1: there are no such objects
    assert found['accuracy']['metric'] == 'round'
    cfg.test_evaluator.ever = False
    found = accuracy.measure_accuracy(Model('a.py', cfg, 'a.pth', Network()), settings)
    assert found['accuracy'] is None and 'is nothing detected?' in found['accuracy_note']
    none = Model('a.py', Config(dict(test_evaluator=None)), 'a.pth', Network())
    assert 'no test_evaluator' in accuracy.measure_accuracy(none, settings)['accuracy_note']
