# Copyright (c) mmscale contributors.
"""What networks are measured with before anything is trained: photographs and calibrated norms."""

from pathlib import Path

import mmcv
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def photograph_crops(count: int, size: int, seed: int = 0, folder: Path | None = None) -> Tensor:
    """Random crops of photographs.

    Args:
        count (int): Number of crops; they are taken of the photographs in turn.
        size (int): Side of a crop, in pixels.
        seed (int): Of their places.
        folder (Path, optional): Images to take; smaller ones, and what is no image, are left out.
            Defaults to the two photographs of scikit-learn, 427x640.

    Returns:
        Tensor: ``(count, 3, size, size)``, float64, in [0, 1].

    Raises:
        ValueError: If no image is large enough.
    """
    if folder is None:
        from sklearn.datasets import load_sample_images  # takes a second: only if it is needed

        photos = load_sample_images().images
    else:
        photos = [_read(path) for path in sorted(folder.iterdir()) if path.is_file()]
    photos = [photo for photo in photos if photo is not None and min(photo.shape[:2]) >= size]
    if not photos:
        raise ValueError(f'no image of at least {size}x{size} pixels in {folder or "scikit-learn"}')
    draw, crops = np.random.default_rng(seed), []
    for i in range(count):
        photo = photos[i % len(photos)]
        top, left = (draw.integers(0, side - size + 1) for side in photo.shape[:2])
        crops.append(photo[top : top + size, left : left + size])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).double() / 255


def _read(path: Path) -> np.ndarray | None:
    """An image; None where a file is none."""
    try:
        return mmcv.imread(str(path))
    except Exception:  # of whichever library reads this kind of file
        return None


@torch.no_grad()
def calibrate_norms(network: nn.Module, images: Tensor) -> nn.Module:
    """Gives the batch norms of a network the statistics of images, and puts it into eval mode.

    The features of random weights otherwise grow or vanish with the depth. Scales become 1, shifts
    0: a residual branch whose last norm starts at 0 would be measured as the identity.

    Args:
        network (nn.Module): Changed in place.
        images (Tensor): ``(N, C, H, W)``, passed through it once.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # of this batch alone
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    network.train()
    network(images)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return network.eval()
