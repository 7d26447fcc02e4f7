# Copyright (c) mmscale contributors.
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image

from mmscale.datasets.images import images_below, is_image, read_rgb

RAMP = np.arange(1024).reshape(32, 32)


def saved(path, pixels, mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def of_palette():
    image = Image.fromarray((RAMP % 4).astype(np.uint8), 'P')
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 200, 210, 220])
    return image


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.pgm'])
def test_16_bits_are_brought_to_8(tmp_path, suffix):
    path = saved(tmp_path / f'a{suffix}', (RAMP * 64).astype(np.uint16))
    found = read_rgb(path, 'a')
    assert found.dtype == np.uint8 and found.shape == (32, 32, 3)
    np.testing.assert_array_equal(found, np.rint(RAMP * 64 / 257)[..., None].repeat(3, 2))


def test_8_bits_stay_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    for mode in ('RGB', 'RGBA'):
        np.testing.assert_array_equal(
            read_rgb(saved(tmp_path / 'a.png', pixels, mode), 'a'), pixels
        )
    grey = read_rgb(saved(tmp_path / 'a.png', pixels[..., 0]), 'a')
    np.testing.assert_array_equal(grey, pixels[..., :1].repeat(3, 2))
    colours = np.array(of_palette().getpalette()).reshape(-1, 3)[RAMP % 4]
    np.testing.assert_array_equal(read_rgb(saved(tmp_path / 'a.png', of_palette()), 'a'), colours)


@pytest.mark.parametrize(
    ('image', 'suffix', 'options', 'message'),
    [
        (RAMP.astype(np.int32), '.tif', {}, 'mode I has no exact form'),
        (RAMP.astype(np.float32), '.tif', {}, 'mode F has no exact form'),
        (Image.new('CMYK', (32, 32)), '.jpg', {}, 'mode CMYK has no exact form'),
        (Image.new('RGBA', (32, 32), (9, 9, 9, 128)), '.png', {}, 'are transparent'),
        (Image.new('LA', (32, 32), (9, 0)), '.png', {}, 'are transparent'),
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
    with pytest.raises(ValueError, match='empty holds no images'):
        (tmp_path / 'empty').mkdir()
        images_below(tmp_path / 'empty')
