# Copyright (c) mmscale contributors.
"""Which files of a folder are images, their pixels as 8 bits, unchanged or refused, and crops."""

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
    """Whether a relative path is that of an image.

    Those are none that systems put beside what the user sees: ``._a.png``, ``__MACOSX/...``.
    """
    hidden = any(part.startswith('.') or part == '__MACOSX' for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def files_below(folder: Path) -> Iterator[Path]:
    """Relative paths of all files below a folder, through symbolic links, too."""
    for root, folders, files in os.walk(folder, followlinks=True):
        here = os.path.realpath(root)
        inside = [os.path.realpath(os.path.join(root, name)) for name in folders]
        # A link to where it is would never end.
        folders[:] = [
            name for name, path in zip(folders, inside) if os.path.commonpath([path, here]) != path
        ]
        yield from (Path(root, name).relative_to(folder) for name in files)


def images_below(folder: Path) -> list[Path]:
    """The images below a folder, in the order of their names; ValueError if there are none."""
    paths = sorted(folder / path for path in files_below(folder) if is_image(path))
    if not paths:
        raise ValueError(
            f'{folder} holds no images, which are files that end in {", ".join(SUFFIXES)}'
        )
    return paths


def read_rgb(file: Path | IO[bytes], name: str) -> np.ndarray:
    """The pixels of an image file.

    16 bits are brought to 8, palettes to their colours, grey to three equal channels. What 8 bits
    of red, green and blue cannot hold is refused: other depths, other colours than these, pixels
    through which one sees.

    Args:
        file (Path | IO): Path, or the opened file.
        name (str): What messages call it.

    Returns:
        np.ndarray: uint8 ``(H, W, 3)``.

    Raises:
        ValueError: If it cannot be read, or is refused.
    """
    try:
        with Image.open(file) as image:
            mode = image.mode
            # Files of 16 bits of grey have the mode I in older versions of Pillow.
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


def photograph_crops(count: int, size: int, seed: int = 0, folder: Path | None = None) -> Tensor:
    """Random crops of photographs, float64 ``(count, 3, size, size)`` in [0, 1].

    They are taken in turn of the images of a folder, those below it too, or of the two photographs
    of scikit-learn, 427x640. Smaller images are left out; ValueError is raised if none is large
    enough. ``seed`` is that of their places.
    """
    if folder is None:
        from sklearn.datasets import load_sample_images  # takes a second: only if it is needed

        photos = load_sample_images().images
    else:
        photos = [read_rgb(path, str(path)) for path in images_below(folder)]
    photos = [photo for photo in photos if min(photo.shape[:2]) >= size]
    if not photos:
        raise ValueError(f'no image of at least {size}x{size} pixels in {folder or "scikit-learn"}')
    draw, crops = np.random.default_rng(seed), []
    for i in range(count):
        photo = photos[i % len(photos)]
        top, left = (draw.integers(0, side - size + 1) for side in photo.shape[:2])
        crops.append(photo[top : top + size, left : left + size])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).double() / 255
