# Copyright (c) mmscale contributors.
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from mmscale.datasets.images import images_below, is_image, photograph_crops, read_rgb

RAMP = np.arange(1024).reshape(32, 32)
COLOURS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def saved(path, pixels, **options):
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def of_palette():
    image = Image.fromarray((RAMP % 4).astype(np.uint8), 'P')
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 200, 210, 220])
    return image


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.pgm'])
def test_16_bits_are_brought_to_8(tmp_path, suffix):
    found = read_rgb(saved(tmp_path / f'a{suffix}', (RAMP * 64).astype(np.uint16)), 'a')
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.rint(RAMP * 64 / 257)[..., None].repeat(3, 2))


def test_8_bits_stay_as_they_are(tmp_path):
    palette = np.array(of_palette().getpalette()).reshape(-1, 3)
    for image, expected in (
        (COLOURS, COLOURS),
        (Image.fromarray(COLOURS).convert('RGBA'), COLOURS),
        (COLOURS[..., 0], COLOURS[..., :1].repeat(3, 2)),
        (of_palette(), palette[RAMP % 4]),
    ):
        np.testing.assert_array_equal(read_rgb(saved(tmp_path / 'a.png', image), 'a'), expected)


@pytest.mark.parametrize(
    'image, suffix, options, message',
    [
        (RAMP.astype(np.int32), '.tif', {}, 'mode I has no exact form'),
        (Image.new('CMYK', (32, 32)), '.jpg', {}, 'mode CMYK has no exact form'),
        (Image.new('RGBA', (32, 32), (9, 9, 9, 128)), '.png', {}, 'are transparent'),
        (of_palette(), '.png', dict(transparency=2), 'are transparent'),
    ],
)
def test_what_8_bits_cannot_hold_is_refused(image, suffix, options, message, tmp_path):
    path = saved(tmp_path / f'a{suffix}', image, **options)
    with pytest.raises(ValueError, match=f'^the name: .*{message}'):
        read_rgb(path, 'the name')


def test_folders_are_read_through_links_and_hidden_files_are_none(tmp_path):
    for name in ('in/a/1.png', 'in/._2.png', 'in/.b/3.png', 'in/4.txt', 'elsewhere/5.JPG'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'in' / 'link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'in' / 'a' / 'round').symlink_to(tmp_path / 'in')
    found = [path.relative_to(tmp_path / 'in').as_posix() for path in images_below(tmp_path / 'in')]
    assert found == ['a/1.png', 'link/5.JPG']
    assert not is_image(PurePosixPath('__MACOSX/train/cat/1.png'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty holds no images'):
        images_below(tmp_path / 'empty')


def test_crops_are_parts_of_the_photographs_in_turn():
    crops = photograph_crops(4, 64, seed=3)
    assert crops.shape == (4, 3, 64, 64) and crops.dtype == torch.float64
    for i, crop in enumerate(crops):
        photo = torch.from_numpy(load_sample_images().images[i % 2]).permute(2, 0, 1)
        windows = photo.unfold(1, 64, 1).unfold(2, 64, 1)[:, :, :, ::63, ::63]
        corners = (crop[:, ::63, ::63] * 255).round().to(photo.dtype)
        top, left = (windows == corners[:, None, None]).all(0).all(-1).all(-1).nonzero()[0]
        assert torch.equal(photo[:, top : top + 64, left : left + 64].double() / 255, crop)
    assert torch.equal(photograph_crops(4, 64, seed=3), crops)
    assert not torch.equal(photograph_crops(4, 64, seed=4), crops)


def test_crops_of_a_folder_are_of_images_that_are_large_enough(tmp_path):
    saved(tmp_path / 'a.png', COLOURS[:20, :20])
    saved(tmp_path / 'b.png', COLOURS)
    expected = torch.from_numpy(COLOURS).permute(2, 0, 1).double() / 255
    found = photograph_crops(2, 32, folder=tmp_path)
    assert torch.equal(found, torch.stack([expected, expected]))
    with pytest.raises(ValueError, match='no image of at least 33x33 pixels in'):
        photograph_crops(2, 33, folder=tmp_path)
