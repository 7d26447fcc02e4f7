# Copyright (c) mmscale contributors.
"""Every argument of the datasets and transforms, out of range or of another type.

Each gives one line that names the argument and what it was, before a file is read or written.
"""

import numpy as np
import pytest

from mmscale.datasets import FixedRescale, RandomRescale, ScaleCIFAR10, ScaleDigits, ScaleMNIST

from .synthetic import write_cifar10

NAN, INF = float('nan'), float('inf')
NO_FACTORS = [0, -1, 0.04, 21, NAN, INF, '0.5', True, [0.5]]
NO_RANGES = [
    (1.0, 0.3),
    (0.3,),
    (0.3, 0.5, 1),
    (0, 1),
    (0.3, 30),
    (0.3, NAN),
    (0.3, '1'),
    0.5,
    'ab',
]
NO_RANGES += [None, {0.3: 1}]
NO_SEEDS = [-1, 1.0, 2**32, '0', True, [1]]
NO_FLAGS = ['no', 'False', 0, 1, None, []]
NO_FOLDERS = ['', None, 3, b'data', ['data']]
NO_PADDINGS = ['wrap', None, 0, ['zeros']]
NO_CENTERS = [3, 'ab', (1,), (1, 2, 3), (NAN, 1), (INF, 1), (-1, 1), (True, 1), ('1', 2)]

RESCALED = dict(
    split=['valid', 'Train', '', None, 0, ['train'], {}],
    scale=NO_FACTORS,
    scale_range=NO_RANGES,
    seed=NO_SEEDS,
    test_mode=['no', 1],
    pipeline=['PackInputs', None, dict(type='PackInputs')],
    indices=[0, [], 2.5, 'a', True, [0, 1.5]],
)
TRANSFORM = dict(padding=NO_PADDINGS, center=NO_CENTERS, antialias=NO_FLAGS)
CASES = {
    ScaleDigits: dict(
        RESCALED,
        scale=[*NO_FACTORS, 6.1],
        scale_range=[*NO_RANGES, (0.3, 6.1)],
        seed=[*NO_SEEDS, None],
    ),
    ScaleMNIST: dict(
        RESCALED,
        data_root=NO_FOLDERS,
        realization=[-1, 6, 1.0, '0', True, None],
        image_size=[32, 0, '28', None],
        cache_dir=NO_FOLDERS[2:],
        download=NO_FLAGS,
    ),
    ScaleCIFAR10: dict(
        RESCALED,
        data_root=NO_FOLDERS,
        seed=[*NO_SEEDS, None],
        padding=NO_PADDINGS,
        val_size=[-1, 5.0, '5', True, None],
        check_integrity=NO_FLAGS,
        download=NO_FLAGS,
    ),
    FixedRescale: dict(TRANSFORM, scale=[*NO_FACTORS, None]),
    RandomRescale: dict(
        TRANSFORM, scale_range=NO_RANGES, distribution=['normal', None, 0], seed=NO_SEEDS
    ),
}
REQUIRED = {
    ScaleDigits: {},
    ScaleMNIST: dict(data_root='data'),
    ScaleCIFAR10: dict(data_root='data'),
    FixedRescale: dict(scale=0.5),
    RandomRescale: {},
}


def line_of(make, error=ValueError):
    with pytest.raises(error) as caught:
        make()
    assert caught.type is error
    line = str(caught.value)
    assert '\n' not in line
    return line


@pytest.mark.parametrize(
    'make, name',
    [(make, name) for make, arguments in CASES.items() for name in arguments],
    ids=lambda value: getattr(value, '__name__', value),
)
def test_out_of_range(make, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in CASES[make][name]:
        arguments = {**REQUIRED[make], name: value}
        line = line_of(lambda arguments=arguments: make(**arguments))
        # a range is judged by its members
        shown = [value, *value] if isinstance(value, (tuple, list)) else [value]
        assert line.startswith(f'{name} must ')
        assert any(line.endswith(f'got {each!r}') for each in shown), line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('make', [ScaleDigits, ScaleMNIST, ScaleCIFAR10])
def test_annotation_files(make):
    for name in ('ann_file', 'data_prefix'):
        arguments = {**REQUIRED[make], name: 'train'}
        line = line_of(lambda arguments=arguments: make(**arguments), TypeError)
        assert line == f"{make.__name__} has no {name}, got 'train'"


def test_accepted_at_the_edges():
    ScaleDigits('val', scale_range=[0.05, 6], seed=2**32 - 1, indices=range(3))
    ScaleDigits('val', scale=np.float32(0.5), seed=np.int64(3), indices=-3, test_mode=False)
    FixedRescale(20, center=[0, 3.5])
    RandomRescale((1, 1), seed=0, antialias=False)


@pytest.mark.parametrize('index', [297, -298])
def test_indices_beyond_the_split(index):
    line = line_of(lambda: ScaleDigits('val', indices=[0, index]))
    assert line == (f"indices must be from 0 to 296 for the 297 images of split 'val', got {index}")


@pytest.mark.parametrize('count', [298, -298])
def test_more_images_than_the_split_has(count):
    line = line_of(lambda: ScaleDigits('val', indices=count))
    assert line == f"indices must be at most 297, the number of images of split 'val', got {count}"


@pytest.mark.parametrize('val_size', [1, 9, 191, 199, 200, 5000])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_validation_split_that_does_not_fit_the_copy(tmp_path, val_size, split):
    write_cifar10(tmp_path)
    options = dict(check_integrity=False, download=False)
    line = line_of(lambda: ScaleCIFAR10(str(tmp_path), split, val_size=val_size, **options))
    assert line.startswith(
        'val_size must be 0, or from 10 to 190 for the 200 training images, 10 classes, of '
        f'{tmp_path}, got {val_size} ('
    )
    for size in (10, 190):
        assert len(ScaleCIFAR10(str(tmp_path), 'val', val_size=size, **options)) == size
