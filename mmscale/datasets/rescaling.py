# Copyright (c) mmscale contributors.
"""Rescale the content of an image on a canvas that keeps its size.

Positions are continuous, as in Pillow, in pixels from the upper left corner. Pixel ``i`` covers
``[i, i + 1)``. An image of width ``w`` has its centre at ``w / 2``.
"""

import math
import numbers
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image

from mmscale.checks import check_choice, check_flag, is_integer

_BORDERS = {
    'zeros': cv2.BORDER_CONSTANT,
    'reflect': cv2.BORDER_REFLECT_101,
    'replicate': cv2.BORDER_REPLICATE,
}
PADDINGS = tuple(_BORDERS)

# Beyond these factors an image is a dot, or one pixel fills the canvas. The padded source of an
# anti-aliased shrink grows without bound as the factor goes to 0.
SMALLEST_FACTOR, LARGEST_FACTOR = 0.05, 20.0

LARGEST_SEED = 2**32 - 1

# Reach of a bicubic kernel, in pixels of the coarser of the two grids.
_KERNEL_REACH = 2


def rescale(
    image: np.ndarray,
    factor: float,
    canvas: tuple[int, int] | None = None,
    center: tuple[float, float] | None = None,
    padding: str = 'zeros',
    antialias: bool = True,
) -> np.ndarray:
    """Rescale the content of an image by ``factor``, about ``center``, in one bicubic resampling.

    The canvas keeps its size: content shrunk by ``factor < 1`` is surrounded by ``padding``,
    content grown by ``factor > 1`` is cropped. Nothing is rounded to whole pixels: an object of
    ``n`` pixels at ``z`` gets ``factor * n`` pixels at ``center + factor * (z - center)``.

    With ``antialias`` the kernel widens by ``1 / factor`` when the content shrinks, as in
    ``PIL.Image.Image.resize`` and as in a camera farther away. Without ``antialias`` the kernel is
    narrow at every factor, as in ``PIL.Image.Image.transform``, and fine detail aliases. The
    published MNIST-Scale was made without (about ``center=(14.5, 14.5)``).

    Args:
        image (np.ndarray): ``(H, W)`` or ``(H, W, C)``, uint8 or float32.
        factor (float): Size of the content afterwards relative to before, 0.05 to 20.
        canvas (tuple[int, int], optional): Height and width of the result, at least those of the
            image. The image is first laid in the middle of the canvas. Defaults to the image's
            size.
        center (tuple[float, float], optional): The fixed point, x then y, within the image.
            Defaults to the middle, ``(W / 2, H / 2)``.
        padding (str): Values around the image: 'zeros', 'reflect' (without repeating the edge
            pixel) or 'replicate'.
        antialias (bool): Whether to low-pass when the content shrinks.

    Returns:
        np.ndarray: The image on its canvas, of the input's dtype and number of channels.

    Raises:
        ValueError: For an argument that is not as described.
        TypeError: For another dtype.
    """
    check_factor('factor', factor)
    check_choice('padding', padding, PADDINGS)
    check_flag('antialias', antialias)
    if image.dtype not in (np.uint8, np.float32):
        raise TypeError(f'image must be uint8 or float32, got {image.dtype}')
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f'image must be (H, W) or (H, W, C) and not empty, got {image.shape}')
    height, width = image.shape[:2]
    if canvas is not None and not _is_pair(canvas, is_integer):
        raise ValueError(f'canvas must be two integers (height, width) or None, got {canvas!r}')
    rows, cols = (height, width) if canvas is None else canvas
    if rows < height or cols < width:
        raise ValueError(
            f'canvas must be at least as large as the image ({height}, {width}), '
            f'got ({rows}, {cols})'
        )
    check_center(center)
    center_x, center_y = (width / 2, height / 2) if center is None else center
    if center_x > width or center_y > height:
        raise ValueError(
            f'center must be an (x, y) within the image of width {width} and height '
            f'{height}, got {tuple(center)}'
        )

    axes = (width, cols, float(center_x)), (height, rows, float(center_y))
    return (_resize if antialias else _sample)(image, factor, *axes, padding)


def draw_factors(
    count: int, scale_range: Sequence[float], scale: float | None, rng: np.random.Generator
) -> np.ndarray:
    """Return factors ``(count, )``: ``scale``, or if it is None, uniform in ``scale_range``."""
    if scale is not None:
        return np.full(count, float(scale))
    return rng.uniform(*scale_range, size=count)


def check_factor(name: str, value: float, largest: float = LARGEST_FACTOR) -> None:
    """Raise ValueError unless ``value`` is a number that :func:`rescale` takes as a factor."""
    if not _is_number(value) or not SMALLEST_FACTOR <= value <= largest:
        raise ValueError(
            f'{name} must be a number from {SMALLEST_FACTOR} to {largest}, got {value!r}'
        )


def check_scale_range(
    scale_range: Sequence[float], largest: float = LARGEST_FACTOR
) -> tuple[float, float]:
    """Return ``scale_range`` as two floats, or raise ValueError."""
    if not _is_pair(scale_range, _is_number):
        raise ValueError(f'scale_range must be two numbers (lowest, highest), got {scale_range!r}')
    for value in scale_range:
        check_factor('scale_range', value, largest)
    lowest, highest = map(float, scale_range)
    if lowest > highest:
        raise ValueError(f'scale_range must have the lowest factor first, got {scale_range!r}')
    return lowest, highest


def check_center(center: Sequence[float] | None) -> None:
    """Raise ValueError unless ``center`` is None or two numbers that some image holds."""
    if center is None:
        return
    if not _is_pair(center, _is_number) or not all(0 <= x < math.inf for x in center):
        raise ValueError(
            f'center must be two numbers (x, y) of at least 0, or None, got {center!r}'
        )


def check_seed(seed: int) -> None:
    """Raise ValueError unless ``seed`` is an integer that every generator takes."""
    if not is_integer(seed) or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f'seed must be an integer from 0 to {LARGEST_SEED}, got {seed!r}')


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_pair(value, kind: Callable) -> bool:
    sound = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    return sound and all(map(kind, value))


def _resize(image, factor, x_axis, y_axis, padding):
    """Resize a fractional box of the padded image with Pillow, anti-aliased."""
    (left, right), x_pad, x_box = _window(*x_axis, factor, padding)
    (top, bottom), y_pad, y_box = _window(*y_axis, factor, padding)
    box = (x_box[0], y_box[0], x_box[1], y_box[1])
    options = dict(size=(right - left, bottom - top), resample=Image.Resampling.BICUBIC, box=box)
    padded = _pad(image, y_pad, x_pad, padding)
    result = np.zeros((y_axis[1], x_axis[1]) + image.shape[2:], image.dtype)
    result[top:bottom, left:right] = _by_pillow(padded, Image.Image.resize, **options)
    return result


def _sample(image, factor, x_axis, y_axis, padding):
    """Transform the image with Pillow, not anti-aliased; Pillow pads with zeros."""
    x_pad = y_pad = (0, 0)
    if padding != 'zeros':
        x_pad = _window(*x_axis, factor, padding)[1]
        y_pad = _window(*y_axis, factor, padding)[1]
        image = _pad(image, y_pad, x_pad, padding)
    step = 1.0 / factor
    # The pixels of the published MNIST-Scale depend on the last bit of these sums, in this order.
    x_shift = step * -_on_canvas(*x_axis) + x_axis[2] + x_pad[0]
    y_shift = step * -_on_canvas(*y_axis) + y_axis[2] + y_pad[0]
    options = dict(
        size=(x_axis[1], y_axis[1]),
        method=Image.Transform.AFFINE,
        data=(step, 0.0, x_shift, 0.0, step, y_shift),
        resample=Image.Resampling.BICUBIC,
    )
    return _by_pillow(image, Image.Image.transform, **options)


def _on_canvas(size: int, canvas: int, center: float) -> float:
    """Return the position of the fixed point on the canvas, with the image in the middle."""
    return center + (canvas - size) / 2


def _window(size: int, canvas: int, center: float, factor: float, padding: str):
    """Return, for one axis, the output pixels ``(start, stop)`` to compute, the pixels of padding
    before and after the image, and the box of the padded image that the output pixels show.
    """
    target = _on_canvas(size, canvas, center)
    reach = _KERNEL_REACH * max(1.0, 1.0 / factor)
    start, stop = 0, canvas
    if padding == 'zeros':
        # Beyond the reach of the kernel around the content there are only zeros.
        start = max(0, math.floor(target - factor * (center + reach)))
        stop = min(canvas, math.ceil(target + factor * (size - center + reach)))
    low = (start - target) / factor + center
    high = (stop - target) / factor + center
    # Pillow renormalises kernels at a border, so the kernel must not reach the padded image's.
    before = max(0, math.ceil(reach - low))
    after = max(0, math.ceil(high + reach - size))
    return (start, stop), (before, after), (low + before, high + before)


def _pad(
    image: np.ndarray, rows: tuple[int, int], cols: tuple[int, int], padding: str
) -> np.ndarray:
    padded = cv2.copyMakeBorder(image, *rows, *cols, _BORDERS[padding], value=0)
    return padded.reshape(padded.shape[:2] + image.shape[2:])  # OpenCV drops a single channel


def _by_pillow(image: np.ndarray, operation: Callable[..., Image.Image], **options) -> np.ndarray:
    if image.ndim == 2 or (image.dtype == np.uint8 and image.shape[2] == 3):
        return np.array(operation(Image.fromarray(image), **options))
    # Pillow has no other suitable mode of several channels: RGBA weighs colours by their alpha.
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(operation(plane, **options)) for plane in planes], axis=-1)
