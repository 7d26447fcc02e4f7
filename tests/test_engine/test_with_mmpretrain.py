# Copyright (c) mmscale contributors.
"""What MMPretrain and MMEngine offer for their own networks, with ours."""

from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.optim import OptimWrapper
from mmpretrain import FeatureExtractor, ImageClassificationInferencer
from mmpretrain.structures import DataSample
from naive import largest_difference
from networks import small_classifier

from mmscale.models import ScaleConvNet
from mmscale.scale_space import split_levels

ROOT = Path(__file__).resolve().parents[2]
CIFAR_CONFIGS = (
    'dss/scaleresnet18-s3-w16_1xb128-30e_scalecifar10',
    'aa_pyramid/scaleresnet18-economical-up1-w16_1xb128-30e_scalecifar10',
    'deform_dss/scaleresnet18-s3-w15-dcnv1_1xb128-30e_scalecifar10',
)
LIFTS = ('GaussianLift', 'GaussianPyramidLift')


def pictures(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


@pytest.mark.parametrize('config', CIFAR_CONFIGS)
@torch.no_grad()
def test_inferencers_take_a_name_or_a_path(config):
    """The layers are those of the network by itself, on pixels normalised by hand."""
    images, path = pictures(2, 32, 32, 3), ROOT / f'configs/{config}.py'
    scores = []
    for name in (path.stem, str(path)):
        torch.manual_seed(0)
        extract = FeatureExtractor(name)
        classify = ImageClassificationInferencer(extract.model)
        results = classify(list(images), batch_size=2)
        assert [r['pred_class'] for r in results] == [
            classify.classes[r['pred_scores'].argmax()] for r in results
        ]
        scores.append(np.stack([result['pred_scores'] for result in results]))
    assert np.array_equal(*scores) and scores[0].shape == (2, 10)

    model, pixels = extract.model, torch.from_numpy(images).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(extract.config.data_preprocessor[k]) for k in ('mean', 'std'))
    x = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert np.abs(model(x).softmax(1).numpy() - scores[0]).max() < 1e-6
    (expected,) = model.backbone(x)
    found = extract(list(images), batch_size=2, stage='backbone')
    for i, (signal,) in enumerate(found):
        # A pyramid is a tuple of its levels; a dense signal has lost the axis of the images.
        levels = signal if isinstance(signal, tuple) else signal.unbind(1)
        ours = [level[i] for level in split_levels(expected)]
        assert largest_difference(tuple(levels), tuple(ours)) < 1e-5


@pytest.mark.parametrize(
    'name',
    ['scaleconvnet-s3_1xb128-20e_scalemnist', 'scaleconvnet-economical-up1_1xb128-20e_scalemnist'],
)
def test_a_model_of_one_channel_is_given_one(name, tmp_path):
    """MMPretrain reads files in colour, so who has one reads it; colour says what is wrong."""
    (colour,) = pictures(1, 28, 28, 3)
    gray, path = colour[..., 1], str(tmp_path / 'digit.png')
    mmcv.imwrite(gray, path)
    classify = ImageClassificationInferencer(name, pretrained=False)
    images = [gray, gray[..., None], mmcv.imread(path, 'grayscale')]
    first, *others = [result['pred_scores'] for result in classify(images)]
    assert all(np.array_equal(first, other) for other in others)
    for wrong in (colour, path):
        with pytest.raises(ValueError, match='^the signal has 3 channels, expected 1$'):
            classify(wrong)


def multiply_adds(lift: str, deform: dict | None = None) -> int:
    net = ScaleConvNet(dict(base=2, num_scales=2), dict(type=f'mmscale.{lift}'), in_channels=3,
                       channels=(64, 128), kernel_size=5, deform=deform).eval()  # fmt: skip
    return get_model_complexity_info(net, (3, 32, 32), show_table=False, show_arch=False)['flops']


@pytest.mark.parametrize(
    'lift, fine, coarse',
    [('GaussianLift', 2 * 32**2, 2 * 16**2), ('GaussianPyramidLift', 32**2 + 16**2, 16**2 + 8**2)],
)
def test_multiply_adds_are_those_counted_by_hand(lift, fine, coarse):
    """Of two layers on two levels, behind the second's pooling half as large."""
    expected = fine * 25 * 3 * 64 + coarse * 25 * 64 * 128
    assert multiply_adds(lift) == pytest.approx(expected, rel=0.01)

    # Two offsets a tap, then a value of each channel there, each from four pixels.
    expected += coarse * (25 * 64 * 2 * 25 + 25 * 64 * 4)
    deform = dict(type='mmscale.DeformScaleConv', stages=(False, True))
    assert multiply_adds(lift, deform) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize('lift', LIFTS)
def test_accumulated_gradients_are_those_of_the_whole_batch(lift):
    """With norms that keep their statistics: those of two halves are not those of the whole."""
    images = torch.rand(6, 3, 16, 16, dtype=torch.float64)
    samples = [DataSample().set_gt_label(i % 5) for i in range(6)]
    weights = []
    for count in (1, 2):
        model = small_classifier(lift)
        before = [p.detach().clone() for p in model.parameters()]
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0), count)
        wrapper.initialize_count_status(model, 0, count)
        step = len(images) // count
        for i in range(0, len(images), step):
            with wrapper.optim_context(model):
                losses = model(images[i : i + step], samples[i : i + step], mode='loss')
            wrapper.update_params(losses['loss'])
        assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters()))
        weights.append(tuple(model.parameters()))
    assert largest_difference(*weights) < 1e-12
