# Copyright (c) mmscale contributors.
"""Find images in folders, read their pixels as 8 bits, and crop photographs."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')


def is_image(path: PurePath) -> bool:
    """Tell whether a relative path is an image; ``._a.png`` and ``__MACOSX/...`` are none."""
    hidden = any(part.startswith('.') or part == '__MACOSX' for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the relative paths of all files below a folder, through symbolic links, too."""
    for root, folders, files in os.walk(folder, followlinks=True):
        here = os.path.realpath(root)
        inside = [os.path.realpath(os.path.join(root, name)) for name in folders]
        # A link to a folder above itself would never end.
        folders[:] = [
            name for name, path in zip(folders, inside) if os.path.commonpath([path, here]) != path
        ]
        yield from (Path(root, name).relative_to(folder) for name in files)


def images_below(folder: Path) -> list[Path]:
    """Return the paths of images below a folder, sorted; raise ValueError if there are none."""
    paths = sorted(folder / path for path in files_below(folder) if is_image(path))
    if not paths:
        raise ValueError(
            f'{folder} holds no images, which are files that end in {", ".join(SUFFIXES)}'
        )
    return paths


def read_rgb(file: Path | IO[bytes], name: str) -> np.ndarray:
    """Read the pixels of an image file.

    16 bits are converted to 8, palettes to their colours, grey to three equal channels.

    Args:
        file (Path | IO): Path, or the opened file.
        name (str): The name of the image in messages.

    Returns:
        np.ndarray: uint8 ``(H, W, 3)``.

    Raises:
        ValueError: If the file cannot be read, or 8 bits of red, green and blue cannot hold its
            pixels: other bit depths, other colour spaces, transparent pixels.
    """
    try:
        with Image.open(file) as image:
            mode = image.mode
            # Older versions of Pillow give grey files of 16 bits the mode I.
            if mode.startswith('I;16') or (mode == 'I' and image.format in ('PNG', 'PPM')):
                grey = np.asarray(image).astype(np.float64) / 257
                return np.rint(grey).astype(np.uint8)[..., None].repeat(3, 2)
            pixels = np.asarray(image.convert('RGBA'))
    except Exception as error:  # a damaged image or archive can raise nearly anything
        raise ValueError(f'{name}: cannot be read ({type(error).__name__}: {error})') from error
    if mode not in ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'YCbCr'):
        raise ValueError(
            f"{name}: Pillow's mode {mode} has no exact form in 8 bits of red, green and blue: "
            'convert it to an RGB image first'
        )
    if pixels[..., 3].min() < 255:
        raise ValueError(
            f'{name}: some of its pixels are transparent: put it on a background first'
        )
    return pixels[..., :3]


def read_photographs(folder: Path | None = None) -> list[np.ndarray]:
    """Read the images below a folder, or the two photographs of scikit-learn, each ``(H, W, 3)``.

    ValueError is raised if there are none, or if one cannot be read.
    """
    if folder is None:
        from sklearn.datasets import load_sample_images  # a slow import, only if needed

        return load_sample_images().images
    return [read_rgb(path, str(path)) for path in images_below(folder)]


def photograph_crops(count: int, size: int, seed: int = 0, folder: Path | None = None) -> Tensor:
    """Draw random crops of photographs, float64 ``(count, 3, size, size)`` in [0, 1].

    The crops are taken in turn from the images below a folder, or from the two photographs of
    scikit-learn, 427x640. Images smaller than ``size`` pixels are left out; ValueError is raised if
    none remains. ``seed`` sets the places of the crops.
    """
    photos = [photo for photo in read_photographs(folder) if min(photo.shape[:2]) >= size]
    if not photos:
        raise ValueError(f'no image of at least {size}x{size} pixels in {folder or "scikit-learn"}')
    draw, crops = np.random.default_rng(seed), []
    for i in range(count):
        photo = photos[i % len(photos)]
        top, left = (draw.integers(0, side - size + 1) for side in photo.shape[:2])
        crops.append(photo[top : top + size, left : left + size])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).double() / 255
