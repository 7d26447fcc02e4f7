# Copyright (c) mmscale contributors.
"""Scale convolution as a function of tensors."""

import math
from collections.abc import Sequence
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from mmscale.scale_space import (
    PackedLevels,
    ScaleGrid,
    Signal,
    check_signal,
    on_packed,
    resample_level,
)
from mmscale.scale_space.resample import keep_constants, resampling_matrix

# Of a kernel that is spread over more than so many times its taps, the image is read between its
# pixels instead: then the faster, forward and backward, on a CPU.
MOST_SPREAD = 4


def as_pair(name: str, value) -> tuple[int, int]:
    """An integer, or two of them, as (height, width)."""
    pair = (value, value) if isinstance(value, Integral) else value
    sound = isinstance(pair, Sequence) and len(pair) == 2
    if not sound or not all(isinstance(size, Integral) for size in pair):
        raise ValueError(f'{name} must be an integer or two of them, got {value!r}')
    return tuple(pair)


def check_window(kernel_size, stride, padding, dilation) -> None:
    """Raises ``ValueError`` unless a centred window keeps all levels aligned.

    All arguments are pairs (height, width), in taps; ``stride`` in samples.
    """
    for axis, (kernel, step, pad, dil) in enumerate(
        zip(kernel_size, stride, padding, dilation, strict=True)
    ):
        name = ('height', 'width')[axis]
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel} ({name})')
        if step < 1:
            raise ValueError(f'stride must be at least 1, got {step} ({name})')
        if dil < 1:
            raise ValueError(f'dilation must be at least 1, got {dil} ({name})')
        if pad != dil * (kernel // 2):
            raise ValueError(
                f'padding must be dilation * (kernel_size // 2) = {dil * (kernel // 2)}, got '
                f'{pad} ({name}): any other padding moves the levels against each other'
            )


def check_convolution(
    x: Signal, weight: Tensor, stride, dilation, groups: int, grid: ScaleGrid
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Raises ``ValueError`` unless signal and weight fit; returns stride and dilation as pairs."""
    if weight.ndim != 5:
        raise ValueError(
            f'weight must be (C_out, C_in / groups, K, kh, kw), got the shape {tuple(weight.shape)}'
        )
    stride, dilation = as_pair('stride', stride), as_pair('dilation', dilation)
    padding = tuple(d * (n // 2) for d, n in zip(dilation, weight.shape[3:], strict=True))
    check_window(weight.shape[3:], stride, padding, dilation)
    check_signal(x, grid, weight.shape[1] * groups)
    return stride, dilation


def scale_conv2d(
    x: Signal,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    scale_space: dict | ScaleGrid,
) -> Signal:
    r"""Convolves a scale space with one kernel whose taps grow with the level.

    .. math::
        y(o, k, z) = \sum_{l<K} \sum_c \sum_u w(o, c, l, u) \, x(c, k + l, z + a^k u)

    with the terms of levels above the coarsest one left out and zeros outside the image. In a
    pyramid the samples are :math:`a^k` apart already; level ``k + l`` is first read at the grid of
    level ``k`` by bilinear interpolation, its border repeated. Where :math:`a^k` is no integer, a
    dense signal is read between its pixels by bilinear interpolation; where the taps lie far apart,
    a training then keeps ``kh kw`` maps of such a level in memory. 1x1 kernels are pointwise.
    Source: Worrall & Welling, Deep Scale-Spaces, NeurIPS 2019; fractional bases are read where
    the published code truncates :math:`a^k` (``ScaleGrid(truncate_dilation=True)``).

    Several levels are convolved, and returned, channels last in memory; on a scale space of one
    level this is ``torch.nn.functional.conv2d``, bit for bit. Dense results are views: an
    activation that works in place makes autograd copy them.

    Args:
        x (Tensor | tuple[Tensor, ...]): Dense ``(N, C_in, S, H, W)`` or a pyramid of S tensors
            ``(N, C_in, H_k, W_k)``. S may be less than ``num_scales``: the finest levels.
        weight (Tensor): ``(C_out, C_in / groups, K, kh, kw)``, ``kh`` and ``kw`` odd.
        bias (Tensor, optional): ``(C_out,)``.
        stride (int | tuple[int, int]): Distance of the outputs, in samples of their level.
        dilation (int | tuple[int, int]): Distance of the taps, multiplied by :math:`a^k`.
        groups (int): Blocked connections from inputs to outputs, as in ``torch.nn.Conv2d``.
        scale_space (dict | ScaleGrid): The levels.

    Returns:
        Tensor | tuple[Tensor, ...]: The same form, ``C_out`` channels, each side
        ``ceil(size / stride)``.

    Raises:
        ValueError: If an argument is out of range, or the signal does not fit the weight or the
            grid.
    """
    grid = ScaleGrid.build(scale_space)
    stride, dilation = check_convolution(x, weight, stride, dilation, groups, grid)
    # Not weight[:, :, 0], whose gradient autograd would copy into zeros.
    kernels = weight.unbind(2) if weight.shape[2] > 1 else [weight.flatten(1, 2)]
    kernels = [_in_order(kernel, grid) for kernel in kernels]  # once, not at each level anew
    return on_packed(
        lambda levels: _conv_interacting(levels, kernels, bias, stride, dilation, groups, grid), x
    )


def _in_order(x: Tensor, grid: ScaleGrid) -> Tensor:
    """Channels last in memory, which convolutions of a CPU take best; one level stays as it is."""
    return x.to(memory_format=torch.channels_last) if grid.num_scales > 1 else x


def _conv_interacting(x, kernels, bias, stride, dilation, groups, grid) -> PackedLevels:
    factors = grid.dilations if x.dense else (1,) * grid.num_scales
    y = _conv_alone(x, kernels[0], bias, stride, dilation, groups, factors, grid)
    for shift, kernel in enumerate(kernels[1 : len(x)], start=1):
        coarser = coarser_levels(x, shift, grid)
        term = _conv_alone(coarser, kernel, None, stride, dilation, groups, factors, grid)
        y = y.add_finest(term)
    return y


def coarser_levels(x: PackedLevels, shift: int, grid: ScaleGrid) -> PackedLevels:
    """Level ``k + shift`` at the grid of level ``k``, for every ``k`` that has one."""
    if x.dense:
        return x.drop_finest(shift)
    pairs = zip(list(x)[shift:], grid.factors[shift:], x.sizes, grid.factors)
    return PackedLevels.pack(
        tuple(resample_level(level, factor / own, size) for level, own, size, factor in pairs)
    )


def _conv_alone(x, weight, bias, stride, dilation, groups, factors, grid) -> PackedLevels:
    """Interaction 1: no level sees another one."""
    if weight.shape[2:] == (1, 1) and (x.joined or len(x) > 1):
        if stride != (1, 1):
            x = x.map_images(lambda level, _: level[:, :, :: stride[0], :: stride[1]], factors)
        return x.map(lambda pixels: _mix_channels(pixels, weight, bias, groups))
    num_coarse = 0
    # What is specialised to sizes does not belong in a graph that is kept.
    kept = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if not x.dense and groups == 1 and len(x) > 1 and not kept:
        # Moving a kernel costs more than such a level's own work does: once for all of them.
        num_coarse = sum(x.batch_size * h * w < x.channels for h, w in x.sizes)
    return x.map_images(
        lambda level, factor: _conv_level(
            _in_order(level, grid), weight, bias, stride, dilation, groups, factor
        ),
        factors,
        num_coarse,
        lambda levels: _conv_gathered(levels, weight, bias, stride, dilation),
    )


def _conv_level(level, weight, bias, stride, dilation, groups, factor) -> Tensor:
    """The maps of one level, whose taps lie ``factor * dilation`` samples apart."""
    distance = tuple(factor * d for d in dilation)
    if all(d == int(d) for d in distance):
        distance = tuple(int(d) for d in distance)
    elif _spread(weight.shape[-2:], distance) > MOST_SPREAD:
        return _conv_between_pixels(level, weight, bias, stride, distance, groups)
    else:
        weight, distance = splat_kernel(weight, distance), (1, 1)
    weight, padding = _crop_unseen(weight, distance, level.shape[-2:])
    if weight.shape[2:] == (1, 1):
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
    rows, columns = [
        _reading(*axis, level.dtype, level.device)
        for axis in zip(sizes, weight.shape[-2:], distance, stride)
    ]
    read = (rows.flatten(0, 1) @ level.contiguous()).unflatten(2, rows.shape[:2]).flatten(1, 2)
    y = None
    for kernel, column in zip(weight.unbind(-1), columns):
        seen, kernel = read @ column.mT, kernel.flatten(1)[..., None, None]
        if y is None:
            y = F.conv2d(seen, kernel, bias, groups=groups)
        else:
            y = y + F.conv2d(seen, kernel, groups=groups)
    order = torch.channels_last if level.is_contiguous(memory_format=torch.channels_last) else None
    return y if order is None else y.contiguous(memory_format=order)


@keep_constants
def _reading(size, count, distance, stride, dtype, device) -> Tensor:
    """For each of ``count`` taps the matrix that reads an axis where it lies."""
    places = [distance * (i - count // 2) for i in range(count)]
    return torch.stack(
        [
            resampling_matrix(
                size, tuple(z + place for z in range(0, size, stride)), dtype=dtype, device=device
            )
            for place in places
        ]
    )


def _crop_unseen(weight, distance, size) -> tuple[Tensor, tuple[int, int]]:
    """Leaves out the taps that lie outside of the image wherever the kernel is; with the padding.

    On maps of few pixels that is most of a kernel, above all at the coarse levels.
    """
    padding = []
    for axis in (-2, -1):
        radius, step = weight.shape[axis] // 2, distance[axis]
        seen = min(radius, (size[axis] - 1) // step)
        if seen < radius:
            weight = weight.narrow(axis, radius - seen, 2 * seen + 1)
        padding.append(step * seen)
    return weight, tuple(padding)


def _mix_channels(pixels, weight, bias, groups) -> Tensor:
    """A 1x1 convolution as a matrix product.

    oneDNN's own (3.10) takes up to four times as long where the number of pixels has a large prime
    factor, which the sum over the levels of a pyramid often has.
    """
    rows, weight = pixels.permute(0, 2, 3, 1), weight.flatten(1)
    if groups == 1:
        return F.linear(rows, weight, bias).permute(0, 3, 1, 2)
    rows, weight = rows.unflatten(-1, (groups, -1)), weight.unflatten(0, (groups, -1))
    y = torch.einsum('nhwgc,goc->nhwgo', rows, weight).flatten(-2)
    return (y if bias is None else y + bias).permute(0, 3, 1, 2)


def _conv_gathered(x, weight, bias, stride, dilation) -> PackedLevels:
    """Convolution of all levels as one matrix product."""
    args = x.batch_size, x.sizes, tuple(weight.shape[2:]), stride, dilation, x.pixels.device
    channels = x.pixels.shape[1]
    rows = F.pad(x.pixels.permute(0, 2, 3, 1).reshape(-1, channels), (0, 0, 0, 1))
    seen = rows.index_select(0, _seen_pixels(*args)).view(-1, weight[0].numel())
    y = F.linear(seen, weight.permute(0, 2, 3, 1).flatten(1), bias)
    sizes = [tuple(-(-n // step) for n, step in zip(size, stride)) for size in x.sizes]
    pixels = y.view(1, -1, 1, y.shape[1]).permute(0, 3, 1, 2)
    return PackedLevels(pixels, x.batch_size, sizes, x.dense)


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
    the transpose of spreading the weight over those pixels.

    Args:
        weight (Tensor): ``(..., kh, kw)``, odd sizes.
        distance (tuple[float, float]): Distance of neighbouring taps, in pixels.

    Returns:
        Tensor: ``(..., 2 ceil(distance (kh // 2)) + 1, likewise)``.
    """
    matrices = []
    for count, step in zip(weight.shape[-2:], distance, strict=True):
        radius = math.ceil(step * (count // 2) - 1e-9)
        positions = tuple(step * (i - count // 2) + radius for i in range(count))
        matrices.append(
            resampling_matrix(
                2 * radius + 1, positions, 0.0, 'bilinear', 'zeros', weight.dtype, weight.device
            )
        )
    return matrices[0].mT @ weight @ matrices[1]
