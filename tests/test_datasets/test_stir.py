# Copyright (c) mmscale contributors.
"""STIR: the published images, and which of them a split has."""

import io
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmscale.datasets import STIR, stir

from .synthetic import expect_synthetic_mnist, write_mnist


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Data root with images of STIR that were made before; each is its size, digit and number."""
    images = np.zeros((48, 10, 50, 64, 64), np.uint8)
    images[..., 0, 0] = np.arange(64, 16, -1)[:, None, None]
    images[..., 0, 1] = np.arange(10)[:, None]
    images[..., 0, 2] = np.arange(50)
    monkeypatch.setattr(stir, 'load_or_build', lambda path, build, published: dict(images=images))
    return str(tmp_path)


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_the_published_images(split, shared_data, tmp_path):
    """Their digests are checked whenever they are made."""
    dataset = STIR(str(shared_data / 'mnist'), split, cache_dir=str(tmp_path), download=False)
    assert len(dataset) == 24000
    again = STIR(str(tmp_path / 'nothing'), split, cache_dir=str(tmp_path), download=False)
    assert np.array_equal(again[-1]['img'], dataset[-1]['img'])


@pytest.mark.parametrize(
    'kwargs, sizes',
    [
        (dict(), range(64, 16, -1)),
        (dict(sizes=(17, 32)), range(32, 16, -1)),
        (dict(sizes=(49, 64)), range(64, 48, -1)),
        (dict(scale=0.5), [32]),
        (dict(scale=1 / 1.5, sizes=(17, 32)), [43]),
        (dict(scale=17 / 64), [17]),
    ],
)
def test_sizes(root, kwargs, sizes):
    dataset = STIR(root, 'test', **kwargs)
    expected = [(size, digit, n) for size in sizes for digit in range(10) for n in range(50)]
    items = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [tuple(item['img'][0, :3]) for item in items] == expected
    assert [item['gt_label'] for item in items] == [digit for _, digit, _ in expected]
    assert [item['rescale_factor'] for item in items] == [size / 64 for size, _, _ in expected]
    assert f'{sizes[-1]} to {sizes[0]} pixels' in repr(dataset)


def test_other_digits_are_not_taken_for_the_published_ones(tmp_path, monkeypatch):
    expect_synthetic_mnist(monkeypatch)
    write_mnist(tmp_path)
    monkeypatch.setattr(stir, 'TRAINING_IMAGES', 500)
    monkeypatch.setattr(stir, 'INSTANCES', 1)
    with pytest.raises(RuntimeError, match='differ from the published ones'):
        STIR(str(tmp_path), 'val', download=False)


@pytest.fixture
def icons(tmp_path):
    """Root of an icon font whose emoji are discs with a hole, each of another size."""
    folder = tmp_path / 'font' / 'svgs' / 'regular'
    folder.mkdir(parents=True)
    for i, name in enumerate(stir.EMOJI):
        path = f'M8 256a240 240 0 0 0 480 0a240 240 0 0 0-480 0z M{60 + 9 * i} 99h40v{99 + i}h-40z'
        svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 496 512"><path d="{}"/></svg>'
        (folder / f'{name}.svg').write_text(svg.format(path))
    return tmp_path / 'font'


@pytest.mark.parametrize('split', ['train', 'test'])
def test_emoji_are_made_by_the_published_recipe(icons, split):
    """It composes images of Pillow, and draws the positions one after the other."""
    cairosvg = pytest.importorskip('cairosvg', exc_type=(ImportError, OSError))
    dataset = STIR(str(icons), split, objects='emoji')
    rng = np.random.RandomState(42)
    black, white = (Image.new('RGBA', (64, 64), colour) for colour in ('#000', '#fff'))
    for label, name in enumerate(stir.EMOJI):
        for place, size in enumerate(range(64, 16, -1)):
            for other in ('train', 'val', 'test'):
                corner = rng.randint(0, 64 - size + 1, 2)
                if other != split or label % 7:
                    continue
                icon = icons / 'svgs' / 'regular' / f'{name}.svg'
                png = cairosvg.svg2png(url=str(icon), parent_width=size, parent_height=size)
                mask = Image.new('RGBA', (64, 64), '#0000')
                mask.paste(Image.open(io.BytesIO(png)), box=tuple(corner))
                expected = ImageOps.grayscale(Image.composite(white, black, mask))
                found = dataset.get_data_info(36 * place + label)
                assert np.array_equal(found['img'], expected)
                assert (found['gt_label'], found['rescale_factor']) == (label, size / 64)
    assert len(dataset) == 48 * 36 and dataset.metainfo['classes'] == stir.EMOJI


def test_emoji_that_cannot_be_made(icons, monkeypatch):
    monkeypatch.setitem(sys.modules, 'cairosvg', None)
    with pytest.raises(ImportError, match='pip install cairosvg'):
        STIR(str(icons), 'val', objects='emoji')
    (icons / 'svgs' / 'regular' / 'dizzy.svg').unlink()
    with pytest.raises(FileNotFoundError, match='no .*dizzy.svg: data_root must be the folder of'):
        STIR(str(icons), 'val', objects='emoji')
    with pytest.raises(ValueError, match="objects must be one of .*, got 'icons'"):
        STIR(str(icons), 'val', objects='icons')
