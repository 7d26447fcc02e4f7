# Copyright (c) mmscale contributors.
"""Objects of many sizes on photographs, for detectors and segmentors."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from test_datasets.synthetic import expect_synthetic_mnist, write_cifar10, write_mnist

from .conftest import exit_message, run_here

SCRIPT = 'tools/dataset_converters/scatter_objects.py'
COUNTS = ('--train', '4', '--val', '2', '--test', '3')
SPLITS = {
    'train': (4, 16, 128),
    'train_medium': (4, 32, 64),
    'val': (2, 16, 128),
    'test': (3, 16, 128),
    'test_small': (3, 16, 32),
    'test_medium': (3, 32, 64),
    'test_large': (3, 64, 128),
}


@pytest.fixture(params=['mnist', 'cifar10'])
def scattered(request, tmp_path, monkeypatch):
    """The arguments, and what was made of them."""
    if request.param == 'mnist':
        write_mnist(tmp_path / 'source')
        expect_synthetic_mnist(monkeypatch)
    else:
        write_cifar10(tmp_path / 'source')
    words = (SCRIPT, request.param, tmp_path / 'source')
    run_here(monkeypatch, *words, tmp_path / 'made', *COUNTS)
    return words, tmp_path / 'made'


def test_boxes_masks_and_sizes_agree(scattered):
    (_, kind, _), folder = scattered
    for split, (count, smallest, largest) in SPLITS.items():
        content = json.loads((folder / 'annotations' / f'{split}.json').read_text())
        assert [image['id'] for image in content['images']] == list(range(count))
        assert len(content['categories']) == 10
        seen = {image['id']: np.zeros((256, 256), int) for image in content['images']}
        for entry in content['annotations']:
            x, y, width, height = entry['bbox']
            assert smallest - 0.5 <= max(width, height) <= largest + 0.5
            assert entry['area'] == width * height and not entry['iscrowd']
            box = seen[entry['image_id']][y : y + height, x : x + width]
            assert box.shape == (height, width) and not box.any()  # inside, none over another
            box[:] = entry['category_id']
        for image in content['images']:
            assert seen[image['id']].any()
            pixels, mask = (
                np.asarray(Image.open(folder / kind / split / image['file_name']))
                for kind in ('images', 'masks')
            )
            assert pixels.shape == (256, 256, 3) and mask.shape == (256, 256)
            # The ink of a digit is a part of its box, an image of CIFAR-10 all of it.
            assert (mask[mask > 0] == seen[image['id']][mask > 0]).all()
            covered = (mask > 0).sum() / (seen[image['id']] > 0).sum()
            assert covered == 1 if kind == 'cifar10' else 0.1 < covered < 0.9


def test_the_same_seed_gives_the_same_files(scattered, tmp_path, monkeypatch):
    words, folder = scattered
    run_here(monkeypatch, *words, tmp_path / 'again', *COUNTS)
    run_here(monkeypatch, *words, tmp_path / 'other', *COUNTS, '--seed', '1')
    files = sorted(path.relative_to(folder) for path in folder.rglob('*.*'))
    assert len(files) == 2 * (2 * 4 + 2 + 4 * 3) + len(SPLITS)
    for name in files:
        assert (folder / name).read_bytes() == (tmp_path / 'again' / name).read_bytes()
        assert (folder / name).read_bytes() != (tmp_path / 'other' / name).read_bytes()


def test_no_object_is_trained_on_and_tested(tmp_path, monkeypatch):
    """Images of one colour each, which they keep at any size."""
    write_cifar10(tmp_path)
    for number, path in enumerate(sorted((tmp_path / 'cifar-10-batches-py').glob('*_batch*'))):
        batch = pickle.loads(path.read_bytes())
        colours = [(5 * i, 40 * number, 200) for i in range(len(batch['data']))]
        batch['data'] = np.array(colours, np.uint8).repeat(1024, 1)
        path.write_bytes(pickle.dumps(batch))
    counts = ('--train', '40', '--val', '20', '--test', '20')
    run_here(monkeypatch, SCRIPT, 'cifar10', tmp_path, tmp_path / 'made', *counts)
    seen = {}
    for split in SPLITS:
        folder = tmp_path / 'made'
        content = json.loads((folder / 'annotations' / f'{split}.json').read_text())
        for entry in content['annotations']:
            name = content['images'][entry['image_id']]['file_name']
            x, y, width, height = entry['bbox']
            pixels = np.asarray(Image.open(folder / 'images' / split / name))
            colour = tuple(pixels[y + height // 2, x + width // 2].tolist())
            assert colour[2] == 200
            seen.setdefault(split.partition('_')[0], set()).add(colour)
    assert all(len(seen[split]) > 10 for split in ('train', 'val', 'test'))
    assert not (seen['train'] & seen['val'] or seen['train'] & seen['test'])
    assert not seen['val'] & seen['test']


def test_what_cannot_be_is_said_at_once(tmp_path, monkeypatch):
    made = tmp_path / 'made'
    for words, message in (
        (('--sizes', '64', '32'), 'MIN < MAX'),
        (('--sizes', '16', '200'), '--sizes'),
        (('--train', '0'), '--train'),
        (('--seed', '-1'), '--seed'),
    ):
        assert message in exit_message(monkeypatch, SCRIPT, 'mnist', tmp_path, made, *words)
    assert 'no batches' in exit_message(monkeypatch, SCRIPT, 'cifar10', tmp_path, made)
    write_cifar10(tmp_path)
    words = (SCRIPT, 'cifar10', tmp_path, made, '--photographs', tmp_path / 'absent')
    assert '--photographs' in exit_message(monkeypatch, *words)
    assert not made.exists()
