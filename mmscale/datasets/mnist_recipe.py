# Copyright (c) mmscale contributors.
"""Make MNIST-Scale by the published recipe, in pure functions on arrays.

Source: Sosnovik, Szmaja & Smeulders, *Scale-Equivariant Steerable Networks*, ICLR 2020. Their data
preparation follows Kanazawa et al. 2014. They drew from the global generators of NumPy and Python,
both seeded with the number of the realization. The functions draw the same streams from local
generators.
"""

import random
from collections.abc import Sequence

import numpy as np

from .rescaling import rescale

SPLIT_SIZES = {'train': 10000, 'val': 2000, 'test': 50000}
PUBLISHED_RANGE = (0.3, 1.0)
# The published centre is w / 2 + 1 / 2, half a pixel off the middle.
CENTER = (14.5, 14.5)


def split_pool(
    labels: np.ndarray, realization: int, sizes: dict[str, int] = SPLIT_SIZES
) -> dict[str, np.ndarray]:
    """Draw the splits of a realization, as indices into the training images, then test images."""
    return split_stratified(labels, sizes, np.random.RandomState(realization))


def split_stratified(
    labels: np.ndarray, sizes: dict[str, int], random_state: int | np.random.RandomState
) -> dict[str, np.ndarray]:
    """Draw the indices of stratified splits by scikit-learn, first of the test images."""
    from sklearn.model_selection import train_test_split  # a slow import, only if needed

    train_val, test = train_test_split(
        np.arange(len(labels)),
        train_size=sizes['train'] + sizes['val'],
        test_size=sizes['test'],
        stratify=labels,
        random_state=random_state,
    )
    train, val = train_test_split(
        train_val,
        train_size=sizes['train'],
        test_size=sizes['val'],
        stratify=labels[train_val],
        random_state=random_state,
    )
    return {'train': train, 'val': val, 'test': test}


def draw_split_factors(
    seed: int, scale_range: Sequence[float] = PUBLISHED_RANGE, sizes: dict[str, int] = SPLIT_SIZES
) -> dict[str, np.ndarray]:
    """Draw the scale factors of each split, float64, uniform in ``scale_range``."""
    rng, factors = random.Random(seed), {}
    for split in ('train', 'test', 'val'):  # the published order
        drawn = []
        for _ in range(sizes[split]):
            rng.uniform(0.0, 0.0)  # the angle of the published affine map, always zero
            drawn.append(rng.uniform(*scale_range))
        factors[split] = np.array(drawn)
    return factors


def rescale_digits(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Rescale each uint8 digit ``(n, 28, 28)`` about (14.5, 14.5), bicubic, not anti-aliased."""
    pairs = zip(images, factors)
    return np.stack([rescale(i, factor, center=CENTER, antialias=False) for i, factor in pairs])


def double(images: np.ndarray) -> np.ndarray:
    """Double height and width by nearest-neighbour interpolation, as in the 56x56 experiments."""
    return images.repeat(2, axis=1).repeat(2, axis=2)
