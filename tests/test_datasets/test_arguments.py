# Copyright (c) mmscale contributors.
"""Arguments of the datasets and transforms, out of range or of another type.

Each gives one line that names the argument and what it was, before a file is read or written.
"""

import numpy as np
import pytest

from mmscale.datasets import (
    STIR,
    FixedRescale,
    RandomRescale,
    ScaleCIFAR10,
    ScaleDigits,
    ScaleMNIST,
    rescale,
)

from .synthetic import write_cifar10

NAN, INF = float('nan'), float('inf')
NO_FACTORS = [0, 0.04, 21, NAN, '0.5', True, [0.5]]
NO_RANGES = [(1.0, 0.3), (0.3,), (0, 1), (0.3, 30), (0.3, NAN), (0.3, '1'), 'ab', None]
NO_SEEDS = [-1, 1.0, 2**32, '0', True]
NO_FLAGS = ['no', 0, None]
NO_FOLDERS = ['', None, 3, b'data']
NO_PADDINGS = ['wrap', None, ['zeros']]
NO_CENTERS = [3, 'ab', (1,), (NAN, 1), (INF, 1), (-1, 1), (True, 1)]
TRANSFORM = dict(padding=NO_PADDINGS, center=NO_CENTERS, antialias=NO_FLAGS)
CASES = {
    ScaleDigits: dict(
        split=['valid', 'Train', '', None, ['train'], {}],
        scale=[*NO_FACTORS, 6.1],
        scale_range=[*NO_RANGES, (0.3, 6.1)],
        seed=[*NO_SEEDS, None],
        test_mode=['no', 1],
        pipeline=['PackInputs', None, dict(type='PackInputs')],
        indices=[0, [], 2.5, 'a', True, [0, 1.5], [0, 297], [-298], 298, -298],
    ),
    ScaleMNIST: dict(
        data_root=NO_FOLDERS,
        realization=[-1, 6, 1.0, '0', True, None],
        image_size=[32, '28', None],
        seed=NO_SEEDS,
        cache_dir=NO_FOLDERS[2:],
        download=NO_FLAGS,
    ),
    ScaleCIFAR10: dict(
        data_root=NO_FOLDERS,
        padding=NO_PADDINGS,
        val_size=[-1, 0, 5.0, '5', True, None],
        check_integrity=NO_FLAGS,
        download=NO_FLAGS,
    ),
    STIR: dict(data_root=NO_FOLDERS, sizes=[(16, 64), (40, 30), 32], scale=[0.2, 1.5]),
    FixedRescale: dict(TRANSFORM, scale=[*NO_FACTORS, None]),
    RandomRescale: dict(
        TRANSFORM, scale_range=NO_RANGES, distribution=['normal', None], seed=NO_SEEDS
    ),
    rescale: dict(
        TRANSFORM,
        factor=NO_FACTORS,
        canvas=[(7, 8), 8, (8.0, 8)],
        center=[*NO_CENTERS, (9, 4)],
        image=[np.zeros((8, 8)), np.zeros(8, np.uint8), np.zeros((0, 8), np.uint8)],
    ),
}
REQUIRED = {
    ScaleDigits: dict(split='val'),
    ScaleMNIST: dict(data_root='data'),
    ScaleCIFAR10: dict(data_root='data', split='val'),
    STIR: dict(data_root='data'),
    FixedRescale: dict(scale=0.5),
    rescale: dict(image=np.zeros((8, 8), np.uint8), factor=0.5),
}


@pytest.mark.parametrize(
    'make, name',
    [(make, name) for make, arguments in CASES.items() for name in arguments],
    ids=lambda value: getattr(value, '__name__', value),
)
def test_out_of_range(make, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in CASES[make][name]:
        with pytest.raises((ValueError, TypeError)) as caught:
            make(**{**REQUIRED.get(make, {}), name: value})
        line = str(caught.value)
        assert line.startswith(f'{name} must ') and '\n' not in line, (value, line)
        if name == 'image':
            value = value.dtype if value.size == 64 else value.shape
        # a range is judged by its members
        shown = [value, *value] if isinstance(value, (tuple, list)) else [value]
        assert any(f'got {each!r}' in line or f'got {each}' in line for each in shown), line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['ann_file', 'data_prefix'])
def test_annotation_files(name):
    with pytest.raises(TypeError, match=f"ScaleDigits has no {name}, got 'train'"):
        ScaleDigits(**{name: 'train'})


def test_accepted_at_the_edges():
    ScaleDigits('val', scale_range=[0.05, 6], seed=2**32 - 1, indices=range(3))
    ScaleDigits('val', scale=np.float32(0.5), seed=np.int64(3), indices=-297, test_mode=False)
    FixedRescale(20, center=[0, 3.5])
    RandomRescale((1, 1), seed=0, antialias=False)


@pytest.mark.parametrize('val_size, fits', [(9, False), (10, True), (190, True), (191, False)])
def test_validation_split_that_does_not_fit_the_copy(tmp_path, val_size, fits):
    write_cifar10(tmp_path)
    options = dict(val_size=val_size, check_integrity=False, download=False)
    if fits:
        assert len(ScaleCIFAR10(str(tmp_path), 'val', **options)) == val_size
        return
    with pytest.raises(ValueError, match=f'val_size must be .* from 10 to 190 .* got {val_size}'):
        ScaleCIFAR10(str(tmp_path), 'train', **options)
