# Copyright (c) mmscale contributors.
"""How processors want a convolution of levels, all behind :func:`conv_levels`.

The formula is ``y(o, k, z) = sum_c sum_u w(o, c, u) x(c, k, z + step_k dilation u)`` with zeros
outside the image. The functions here compute it faster than one ``F.conv2d`` a level, or where that
has no form for it; each says what it gains.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmscale.scale_space import Levels
from mmscale.scale_space.resample import keep_constants, resampling_matrix

# Of a kernel that is spread over more than so many times its taps, the image is read between its
# pixels instead: then the faster, forward and backward, on a CPU.
MOST_SPREAD = 4


def conv_levels(
    x: Levels,
    kernel: Tensor | tuple[Tensor, ...],
    bias: Tensor | None,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    steps: Sequence[float],
) -> Levels:
    """Convolves every level by itself with one kernel, or with its own.

    Args:
        kernel (Tensor | tuple[Tensor, ...]): ``(C_out, C_in / groups, kh, kw)``, odd sides; or
            one for each level.
        stride (tuple[int, int]): In samples.
        dilation (tuple[int, int]): Of all levels, in taps.
        steps (Sequence[float]): Distance of neighbouring taps at each level, in samples.
    """
    if isinstance(kernel, tuple):
        return x.map_maps(
            lambda level, k: _conv_level(
                level.contiguous(memory_format=torch.channels_last),
                kernel[k], bias, stride, dilation, groups, steps[k],
            ),
            range(len(x.sizes)),
        )  # fmt: skip
    if len(x.sizes) == 1:
        return x.map(
            lambda level: _conv_level(level, kernel, bias, stride, dilation, groups, steps[0])
        )
    if kernel.shape[2] == kernel.shape[3] == groups == 1:
        # A matrix product of the rows. oneDNN's own (3.10) takes up to four times as long where the
        # number of pixels has a large prime factor, which the sum over levels often has.
        if stride != (1, 1):
            x = x.map_maps(lambda level, _: level[:, :, :: stride[0], :: stride[1]], steps)
        return x.map(lambda rows: F.linear(rows, kernel.flatten(1), bias))
    # Channels last, once and not at each level anew: convolutions of a CPU take that order best,
    # and the maps of levels have it.
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    num_coarse = 0
    # What is specialised to sizes does not belong in a graph that is kept.
    kept = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if not x.dense and groups == 1 and not kept:
        # Moving a kernel costs more than such a level's own work does: once for all of them.
        # Steps of training of ResNets on images of 64x64 pixels then take 30 to 40 % less time.
        for height, width in x.sizes:
            num_coarse += x.batch_size * height * width < kernel.shape[1]
    return x.map_maps(
        lambda level, step: _conv_level(
            level.contiguous(memory_format=torch.channels_last),
            kernel, bias, stride, dilation, groups, step,
        ),
        steps,
        num_coarse,
        lambda rows, sizes: _conv_gathered(
            rows, x.batch_size, sizes, kernel, bias, stride, dilation
        ),
    )  # fmt: skip


def _conv_level(level, weight, bias, stride, dilation, groups, step) -> Tensor:
    """The maps of one level, whose taps lie ``step * dilation`` samples apart."""
    distance = step * dilation[0], step * dilation[1]
    if distance[0] % 1 or distance[1] % 1:
        if _spread(weight.shape[-2:], distance) > MOST_SPREAD:
            return _conv_between_pixels(level, weight, bias, stride, distance, groups)
        weight, distance = splat_kernel(weight, distance), (1, 1)
    distance, padding = (int(distance[0]), int(distance[1])), 0
    if weight.shape[2:] != (1, 1):
        weight, padding = _crop_unseen(weight, distance, level.shape[-2:])
    if stride != (1, 1) and weight.shape[2:] == (1, 1):
        # oneDNN's (3.10) strided 1x1 convolution writes outside of channels-last gradients.
        level, stride = level[:, :, :: stride[0], :: stride[1]], 1
    return F.conv2d(level, weight, bias, stride, padding, distance, groups)


def _spread(kernel_size, distance) -> float:
    """How many times as many taps a kernel has once it is spread over whole pixels."""
    height, width = [2 * math.ceil(d * (n // 2) - 1e-9) + 1 for n, d in zip(kernel_size, distance)]
    return height * width / (kernel_size[0] * kernel_size[1])


def _conv_between_pixels(level, weight, bias, stride, distance, groups) -> Tensor:
    """The image is read where the taps lie, first along its columns and then along its rows."""
    sizes = [int(size) for size in level.shape[-2:]]
    for axis, size in zip((-2, -1), sizes):  # the taps that see the image from anywhere
        radius = weight.shape[axis] // 2
        seen = min(radius, math.ceil(size / distance[axis]) - 1)
        weight = weight.narrow(axis, radius - seen, 2 * seen + 1)
    rows, columns = (
        _kept_tap_matrices(size, n, step, n // 2, apart, 'zeros', level.dtype, level.device)
        for size, n, step, apart in zip(sizes, weight.shape[-2:], stride, distance)
    )
    read = (rows.flatten(0, 1) @ level.contiguous()).unflatten(2, rows.shape[:2]).flatten(1, 2)
    y = None
    for kernel, column in zip(weight.unbind(-1), columns):
        term = F.conv2d(read @ column.mT, kernel.flatten(1)[..., None, None], bias, groups=groups)
        y, bias = term if y is None else y + term, None
    last = level.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last) if last else y


def tap_positions(size, count, stride, padding, distance) -> list[tuple[float, ...]]:
    """Where each tap of a window reads an axis of ``size`` samples: one tuple a tap."""
    origins = range(0, size, stride)
    return [tuple(z + distance * (i - padding) for z in origins) for i in range(count)]


def tap_matrices(
    size, count, stride, padding, distance, outside='zeros', dtype=torch.float64, device='cpu'
) -> Tensor:
    """For each tap the matrix that reads an axis where it lies, ``(count, outputs, size)``."""
    positions = tap_positions(size, count, stride, padding, distance)
    args = 0.0, 'bilinear', outside, dtype, device
    return torch.stack([resampling_matrix(size, tap, *args) for tap in positions])


_kept_tap_matrices = keep_constants(tap_matrices)


def _crop_unseen(weight, distance, size) -> tuple[Tensor, list[int]]:
    """Leaves out the taps that lie outside of the image wherever the kernel is; with the padding.

    On maps of few pixels that is most of a kernel, above all at the coarse levels.
    """
    padding = [0, 0]
    for axis in (0, 1):
        radius, step = weight.shape[axis - 2] // 2, distance[axis]
        seen = (size[axis] - 1) // step
        if seen < radius:
            weight = weight.narrow(axis - 2, radius - seen, 2 * seen + 1)
            radius = seen
        padding[axis] = step * radius
    return weight, padding


def _conv_gathered(rows, batch_size, sizes, weight, bias, stride, dilation):
    """Convolution of all levels as one matrix product; the rows of the result, and its sizes."""
    args = batch_size, sizes, tuple(weight.shape[2:]), stride, dilation, rows.device
    rows = F.pad(rows, (0, 0, 0, 1))
    seen = rows.index_select(0, _seen_pixels(*args)).view(-1, weight[0].numel())
    y = F.linear(seen, weight.permute(0, 2, 3, 1).flatten(1), bias)
    return y, tuple([(-(-h // stride[0]), -(-w // stride[1])) for h, w in sizes])


@keep_constants
def _seen_pixels(batch_size, sizes, kernel_size, stride, dilation, device) -> Tensor:
    """For each pixel of the output, in their order, the pixels that its taps see.

    Those outside of the image are the one behind the last.
    """
    outside = batch_size * sum(height * width for height, width in sizes)
    first, seen = 0, []
    for height, width in sizes:
        rows, columns = (
            torch.arange(0, size, step)[:, None] + dil * (torch.arange(count) - count // 2)
            for size, step, count, dil in zip((height, width), stride, kernel_size, dilation)
        )
        rows, columns = rows[:, None, :, None], columns[None, :, None, :]
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        image = torch.where(inside, rows * width + columns, outside)
        samples = first + height * width * torch.arange(batch_size).view(-1, 1, 1, 1, 1)
        seen.append((samples + image).clamp(max=outside).flatten())
        first += batch_size * height * width
    return torch.cat(seen).to(device)


def splat_kernel(weight: Tensor, distance: tuple[float, float]) -> Tensor:
    """Spreads taps at real distances onto the integer kernel that reads the same values.

    Reading an image between its pixels by bilinear interpolation and weighting what was read is
    the transpose of spreading the weight ``(..., kh, kw)`` over those pixels: each side becomes
    ``2 ceil(distance (k // 2)) + 1``.
    """
    matrices = []
    for count, step in zip(weight.shape[-2:], distance, strict=True):
        radius = math.ceil(step * (count // 2) - 1e-9)
        positions = tuple(step * (i - count // 2) + radius for i in range(count))
        args = 0.0, 'bilinear', 'zeros', weight.dtype, weight.device
        matrices.append(resampling_matrix(2 * radius + 1, positions, *args))
    return matrices[0].mT @ weight @ matrices[1]
