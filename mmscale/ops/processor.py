# Copyright (c) mmscale contributors.
"""Fast convolutions of levels, all behind :func:`conv_levels`.

The formula is ``y(o, k, z) = sum_c sum_u w(o, c, u) x(c, k, z + step_k dilation u)`` with zeros
outside the image. The functions compute it faster than one ``F.conv2d`` per level, or in cases that
``F.conv2d`` does not support.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmscale.scale_space import Levels
from mmscale.scale_space.resample import keep_constants, resampling_matrix

# Fractional taps are splatted onto a larger integer kernel. If that kernel has more than so many
# times the taps, interpolating the image instead is faster on a CPU, forward and backward.
MOST_SPREAD = 4
# From so many taps a side oneDNN (3.10) may compute the gradient of a channels-last kernel by its
# reference implementation, up to 70 times slower than that of a contiguous one.
WIDE_KERNEL = 15


def conv_levels(
    x: Levels,
    kernel: Tensor | tuple[Tensor, ...],
    bias: Tensor | None,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    steps: Sequence[float],
) -> Levels:
    """Convolve each level separately, with one kernel for all levels or one kernel per level.

    Args:
        kernel (Tensor | tuple[Tensor, ...]): ``(C_out, C_in / groups, kh, kw)``, odd sides; or a
            tuple of a kernel for each level.
        stride (tuple[int, int]): Stride in samples.
        dilation (tuple[int, int]): Dilation of all levels, in taps.
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
        # A matrix product of the rows. oneDNN's 1x1 convolution (3.10) is up to four times slower
        # if the number of pixels has a large prime factor, as sums over levels often do.
        if stride != (1, 1):
            x = x.map_maps(lambda level, _: level[:, :, :: stride[0], :: stride[1]], steps)
        return x.map(lambda rows: F.linear(rows, kernel.flatten(1), bias))
    # Channels last once, not at each level: the maps of levels have this memory format, and
    # convolutions on a CPU are fastest with it.
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    num_coarse = 0
    # A stored graph must not be specialised to sizes.
    if not x.dense and groups == 1 and not _stores_graph():
        # Loading a kernel costs more than the work of so small a level: load it once for all of
        # them. Training steps of ResNets on images of 64x64 pixels take 30 to 40 % less time.
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


def _stores_graph() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _conv_level(level, weight, bias, stride, dilation, groups, step) -> Tensor:
    """Convolve the maps of one level with taps ``step * dilation`` samples apart."""
    distance = step * dilation[0], step * dilation[1]
    if distance[0] % 1 or distance[1] % 1:
        if _spread(weight.shape[-2:], distance) > MOST_SPREAD:
            return _conv_between_pixels(level, weight, bias, stride, distance, groups)
        weight, distance = splat_kernel(weight, distance), (1, 1)
    distance, padding = (int(distance[0]), int(distance[1])), 0
    if weight.shape[2:] != (1, 1):
        weight, padding = _crop_unseen(weight, distance, level.shape[-2:])
    if stride != (1, 1) and weight.shape[2:] == (1, 1):
        # oneDNN's strided 1x1 convolution (3.10) writes outside of channels-last gradients.
        level, stride = level[:, :, :: stride[0], :: stride[1]], 1
    wide = max(weight.shape[2:]) >= WIDE_KERNEL and weight.requires_grad and not level.is_cuda
    if wide and not torch.is_autocast_enabled('cpu') and not _stores_graph():
        return _WideConv.apply(level, weight, bias, stride, padding, distance, groups)
    return F.conv2d(level, weight, bias, stride, padding, distance, groups)


class _WideConv(torch.autograd.Function):
    """``F.conv2d`` whose weight gets its gradient in contiguous memory."""

    generate_vmap_rule = True

    @staticmethod
    def forward(level: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        return F.conv2d(level, weight, bias, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        level, weight, bias, *ctx.geometry = inputs
        ctx.bias_size = None if bias is None else bias.shape
        ctx.save_for_backward(level, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        def gradients(*tensors, needed):
            *places, groups = ctx.geometry
            places = *places, False, (0, 0), groups
            return torch.ops.aten.convolution_backward(*tensors, ctx.bias_size, *places, needed)

        level, weight = ctx.saved_tensors
        of_level, of_weight, of_bias = ctx.needs_input_grad[:3]
        x, _, bias = gradients(grad, level, weight, needed=(of_level, False, of_bias))
        contiguous = [tensor.contiguous() for tensor in (grad, level, weight)]
        _, w, _ = gradients(*contiguous, needed=(False, of_weight, False))
        return x, w, bias, None, None, None, None


def _spread(kernel_size, distance) -> float:
    """Return the factor by which splatting onto integer positions multiplies the taps."""
    height, width = [2 * math.ceil(d * (n // 2) - 1e-9) + 1 for n, d in zip(kernel_size, distance)]
    return height * width / (kernel_size[0] * kernel_size[1])


def _conv_between_pixels(level, weight, bias, stride, distance, groups) -> Tensor:
    """Interpolate the image at the taps, first along its columns and then along its rows."""
    sizes = [int(size) for size in level.shape[-2:]]
    for axis, size in zip((-2, -1), sizes):  # drop taps that never see the image
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


def tap_positions(
    size: int, count: int, stride: int, padding: int, distance: float
) -> list[tuple[float, ...]]:
    """Return the positions that each tap of a window samples on an axis of ``size`` samples."""
    origins = range(0, size, stride)
    return [tuple(z + distance * (i - padding) for z in origins) for i in range(count)]


def tap_matrices(
    size: int, count: int, stride: int, padding: int, distance: float, outside: str = 'zeros',
    dtype: torch.dtype = torch.float64, device: torch.device | str = 'cpu',
) -> Tensor:  # fmt: skip
    """Return a matrix for each tap that samples an axis at it, ``(count, outputs, size)``."""
    positions = tap_positions(size, count, stride, padding, distance)
    args = 0.0, 'bilinear', outside, dtype, device
    return torch.stack([resampling_matrix(size, tap, *args) for tap in positions])


_kept_tap_matrices = keep_constants(tap_matrices)


def _crop_unseen(weight, distance, size) -> tuple[Tensor, list[int]]:
    """Crop taps that lie outside the image for every output; return the padding, too.

    On small maps, above all at the coarse levels, these are most taps of a kernel.
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
    """Convolve all levels as one matrix product; return the rows of the result and its sizes."""
    args = batch_size, sizes, tuple(weight.shape[2:]), stride, dilation, rows.device
    rows = F.pad(rows, (0, 0, 0, 1))
    seen = rows.index_select(0, _seen_pixels(*args)).view(-1, weight[0].numel())
    y = F.linear(seen, weight.permute(0, 2, 3, 1).flatten(1), bias)
    return y, tuple([(-(-h // stride[0]), -(-w // stride[1])) for h, w in sizes])


@keep_constants
def _seen_pixels(batch_size, sizes, kernel_size, stride, dilation, device) -> Tensor:
    """Return the indices of the pixels that the taps of each output pixel see.

    Taps outside the image have the index behind the last pixel.
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
    """Splat a kernel with taps at real distances onto an equivalent integer kernel.

    Splatting the weight ``(..., kh, kw)`` is the transpose of bilinear interpolation of the image.
    Each side becomes ``2 ceil(distance (k // 2)) + 1``.
    """
    matrices = []
    for count, step in zip(weight.shape[-2:], distance, strict=True):
        radius = math.ceil(step * (count // 2) - 1e-9)
        positions = tuple(step * (i - count // 2) + radius for i in range(count))
        args = 0.0, 'bilinear', 'zeros', weight.dtype, weight.device
        matrices.append(resampling_matrix(2 * radius + 1, positions, *args))
    return matrices[0].mT @ weight @ matrices[1]
