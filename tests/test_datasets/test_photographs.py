# Copyright (c) mmscale contributors.
import numpy as np
import pytest
import torch
from mmcv import imwrite
from sklearn.datasets import load_sample_images

from mmscale.datasets.images import photograph_crops


def test_crops_are_parts_of_the_photographs_in_turn():
    crops = photograph_crops(4, 64, seed=3)
    assert crops.shape == (4, 3, 64, 64) and crops.dtype == torch.float64
    for i, crop in enumerate(crops):
        photo = torch.from_numpy(load_sample_images().images[i % 2]).permute(2, 0, 1)
        windows = photo.unfold(1, 64, 1).unfold(2, 64, 1)[:, :, :, ::63, ::63]
        corners = (crop[:, ::63, ::63] * 255).round().to(photo.dtype)
        places = (windows == corners[:, None, None]).all(0).all(-1).all(-1).nonzero()
        top, left = places[0]
        found = photo[:, top : top + 64, left : left + 64].double() / 255
        assert torch.equal(found, crop)
    assert torch.equal(photograph_crops(4, 64, seed=3), crops)
    assert not torch.equal(photograph_crops(4, 64, seed=4), crops)


def test_crops_of_a_folder(tmp_path):
    draw = np.random.default_rng(0)
    small, large = (draw.integers(0, 256, (side, side, 3), np.uint8) for side in (20, 40))
    imwrite(small[..., ::-1], str(tmp_path / 'a.png'))
    imwrite(large[..., ::-1], str(tmp_path / 'b.png'))
    crops = photograph_crops(2, 40, folder=tmp_path)
    expected = torch.from_numpy(large).permute(2, 0, 1).double() / 255
    assert torch.equal(crops, torch.stack([expected, expected]))
    with pytest.raises(ValueError, match='no image of at least 41x41 pixels in'):
        photograph_crops(2, 41, folder=tmp_path)
