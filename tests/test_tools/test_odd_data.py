# Copyright (c) mmscale contributors.
"""Images, folders, data and metrics that are odd: the right number, or one line that says why not.

What is odd is drawn at random; seeds name what fails.
"""

import json
import math
import os
import pickle
import random
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from PIL import Image

from .conftest import CONFIG, ROOT, SMALL
from .test_misuse import last_line

NETWORK = str(ROOT / 'configs/resnet/resnet18-w16_1xb128-30e_scalecifar10.py')
CLASSES = ('airplane', 'cat', 'dog')


def pixels(seed: int) -> np.ndarray:
    """An image of 16 colours, which every format holds exactly."""
    draw = np.random.default_rng(seed)
    colours = draw.integers(0, 256, (16, 3), dtype=np.uint8)
    return colours[draw.integers(0, 16, (8, 8)).repeat(4, 0).repeat(4, 1)]


def write(path, image, form):
    """Writes an image in a form that holds it, or does not."""
    picture = Image.fromarray(image)
    if form == '16 bits':
        cv2.imwrite(str(path), image[..., ::-1].astype(np.uint16) * 257)
    elif form == 'palette':
        picture.quantize(16, dither=Image.Dither.NONE).save(path)
    elif form == 'opaque':
        picture.convert('RGBA').save(path)
    elif form == 'transparent':
        picture.putalpha(100)
        picture.save(path)
    elif form == 'cut off':
        picture.save(path)
        path.write_bytes(path.read_bytes()[:60])
    elif form == 'no image':
        path.write_text('x', encoding='utf-8')
    elif form == 'CMYK':
        picture.convert('CMYK').save(path, format='TIFF')
    elif form == 'link':
        picture.save(path.with_name('hidden'), format='PNG')
        path.with_name('hidden').rename(path.parents[3] / f'{path.parent.name}-{path.name}')
        os.symlink(path.parents[3] / f'{path.parent.name}-{path.name}', path)
    elif form == 'upper case':
        picture.save(path.with_name(path.name.upper()))
    elif form == 'hidden neighbour':
        picture.save(path)
        path.with_name(f'._{path.name}').write_text('x', encoding='utf-8')
    else:
        picture.save(path)


EXACT = ('plain', 'palette', 'opaque', 'link', 'upper case', 'hidden neighbour')
# What may be refused: 16 bits of three colours are what Pillow cannot read.
ODD = (*EXACT, '16 bits', 'transparent', 'cut off', 'no image', 'CMYK')


def write_folders(folder, draw, odd=True):
    for k, name in enumerate(CLASSES):
        for i in range(3):
            path = folder / 'train' / name / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, pixels(10 * k + i), draw.choice(ODD if odd else EXACT[:1]))
    if odd and draw.random() < 0.3:
        os.symlink(folder / 'train', folder / 'train' / 'cat' / 'loop')
    if odd and draw.random() < 0.3:
        (folder / 'train' / 'empty').mkdir()


def convert(folder, target, monkeypatch, files):
    words = ('tools/dataset_converters/images_to_cifar10.py', str(folder), str(target))
    line, found = last_line(monkeypatch, words, files, target), {}
    for path in sorted(target.glob('cifar-10-batches-py/*')):
        batch = pickle.loads(path.read_bytes())
        for data, label in zip(batch['data'], batch['labels']):
            found[data.tobytes()] = label
    return line, found


def measure(folder, out, monkeypatch, files):
    words = ('tools/equivariance.py', NETWORK, '--images', str(folder), '--num-images', '9',
             '--factors', '1.5', '2', '--no-accuracy', '--out', str(out))  # fmt: skip
    line = last_line(monkeypatch, words, files, out)
    if line is not None:
        return line, None
    found = json.loads((out / 'equivariance.json').read_text(encoding='utf-8'))
    return None, found['models'][0]['layers']


@pytest.fixture
def files(tmp_path):
    torch.save(dict(weight=torch.zeros(3)), tmp_path / 'whole.pth')
    return tmp_path


@pytest.mark.parametrize('seed', range(8))
def test_odd_images_and_folders(seed, files, tmp_path, monkeypatch):
    draw = random.Random(seed)
    write_folders(tmp_path / 'plain' / 'data', draw, odd=False)
    write_folders(tmp_path / 'odd' / 'data', draw)
    for run in (convert, measure):
        results = []
        for kind in ('plain', 'odd'):
            out = tmp_path / f'{run.__name__}-{kind}'
            out.mkdir()
            results.append(run(tmp_path / kind / 'data', out, monkeypatch, files))
        (line, expected), (refused, found) = results
        assert line is None and expected
        assert found == expected or (refused is not None and '.png' in refused), (refused, seed)


def test_changed_images_are_measured_again(files, tmp_path, monkeypatch):
    write_folders(tmp_path / 'data', random.Random(0), odd=False)
    for out in ('a', 'b'):
        (tmp_path / out).mkdir()
    _, before = measure(tmp_path / 'data', tmp_path / 'a', monkeypatch, files)
    changed = random.Random(1).choice(sorted(tmp_path.glob('data/*/*/*.png')))
    shutil.copy(tmp_path / 'data/train/dog/0.png', tmp_path / 'spare.png')
    write(changed, pixels(99), 'plain')
    _, again = measure(tmp_path / 'data', tmp_path / 'a', monkeypatch, files)
    _, fresh = measure(tmp_path / 'data', tmp_path / 'b', monkeypatch, files)
    assert again == fresh != before


VALUES = {
    'undefined': math.nan,
    'infinite': -math.inf,
    'NumPy': np.float32(0.25),
    'array': np.arange(3.0),
    'tensor': torch.tensor(0.5),
    'nothing': None,
    'text': 'x',
    'nested': dict(a=[1, math.nan]),
    'set': {1, 2},
    'large': 10**400,
}


@METRICS.register_module()
class OddMetric(BaseMetric):
    def __init__(self, kind: str, **_):
        super().__init__()
        self.kind = kind

    def process(self, data_batch, data_samples):
        self.results += [1] * len(data_samples)

    def compute_metrics(self, results):
        return dict(value=VALUES[self.kind], sound=0.5)


@pytest.mark.parametrize('kind', VALUES)
def test_odd_metrics(kind, trained, files, tmp_path, monkeypatch):
    def refuse(constant):
        raise ValueError(constant)

    words = ('tools/test.py', CONFIG, str(trained / 'epoch_1.pth'), '--work-dir',
             str(tmp_path / 'work'), '--out', str(tmp_path / 'out'), '--cfg-options', *SMALL,
             'test_evaluator.type=mmengine.OddMetric',
             f'test_evaluator.kind={kind}')  # fmt: skip
    line = last_line(monkeypatch, words, files, tmp_path)
    assert line is None, line
    (path,) = (tmp_path / 'out').glob('*.json')
    found = json.loads(path.read_text(encoding='utf-8'), parse_constant=refuse)
    assert found['sound'] == 0.5
    if kind in ('NumPy', 'tensor'):
        assert found['value'] == float(VALUES[kind])
