# Copyright (c) mmscale contributors.
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models import ClsDataPreprocessor

from mmscale.registry import MODELS

NORM = dict(mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 2.0], to_rgb=True)


def preprocessor(sizes):
    return MODELS.build(dict(type='mmscale.MultiScaleClsDataPreprocessor', sizes=sizes, **NORM))


def test_training_batches_are_antialiased_to_each_size_and_test_batches_keep_theirs():
    inputs = torch.rand(2, 3, 24, 24) * 255
    plain = ClsDataPreprocessor(**NORM)(dict(inputs=inputs))['inputs']
    resized = preprocessor([6, 12, 36])
    torch.manual_seed(0)
    seen = {}
    for _ in range(30):
        found = resized(dict(inputs=inputs), training=True)['inputs']
        seen.setdefault(found.shape[-1], found)
    assert sorted(seen) == [6, 12, 36]
    for side, found in seen.items():
        expected = F.interpolate(plain, (side, side), mode='bicubic', antialias=True)
        assert torch.equal(found, expected)
    assert torch.equal(resized(dict(inputs=inputs))['inputs'], plain)
    # A checkerboard of single pixels has nothing below the coarser grid's limit.
    board = (torch.arange(24)[:, None] + torch.arange(24)) % 2 * 255.0
    small = preprocessor([6])(dict(inputs=board.expand(1, 3, 24, 24)), training=True)['inputs']
    assert small[..., 1:-1, 1:-1].std((2, 3)).max() < 0.02 * board.std()


@pytest.mark.parametrize('sizes', [[], [0], [32, -1], [32.0], ['32']])
def test_sizes_that_are_no_sizes_are_named(sizes):
    with pytest.raises(ValueError, match='sizes must be positive integers, got'):
        preprocessor(sizes)
