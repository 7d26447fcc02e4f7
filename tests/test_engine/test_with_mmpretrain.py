# Copyright (c) mmscale contributors.
"""What MMPretrain and MMEngine offer for their own networks, with ours."""

from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmpretrain import FeatureExtractor, ImageClassificationInferencer
from naive import largest_difference

from mmscale.scale_space import split_levels

ROOT = Path(__file__).resolve().parents[2]
CIFAR_CONFIGS = (
    'dss/scaleresnet18-s3-w16_1xb128-30e_scalecifar10',
    'aa_pyramid/scaleresnet18-economical-up1-w16_1xb128-30e_scalecifar10',
)


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


def test_a_model_of_one_channel_is_given_one(tmp_path):
    """MMPretrain reads files in colour, so who has one reads it; colour says what is wrong."""
    (colour,) = pictures(1, 28, 28, 3)
    gray, path = colour[..., 1], str(tmp_path / 'digit.png')
    mmcv.imwrite(gray, path)
    classify = ImageClassificationInferencer('scaleconvnet-s3_1xb128-20e_scalemnist', False)
    first, other = [result['pred_scores'] for result in classify([gray, gray[..., None]])]
    assert np.array_equal(first, other)
    for wrong in (colour, path):
        with pytest.raises(ValueError, match='^the signal has 3 channels, expected 1$'):
            classify(wrong)
