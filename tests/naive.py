# Copyright (c) mmscale contributors.
"""The layers written out as the sums that define them: loops over pixels, NumPy, nothing shared.

A signal is a list of levels, each an array ``(N, C, H_k, W_k)``.
"""

import itertools
import math

import numpy as np
import torch


def randn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def signal_of(grid, channels, size, pyramid, batch=1, stride=(1, 1), seed=0, dtype=torch.float64):
    """A random signal, or what lies beside the output of a layer of some stride."""
    levels = []
    for k in grid.levels:
        sides = [grid.level_size(side, k) if pyramid else side for side in size]
        sides = [-(-side // step) for side, step in zip(sides, stride)]
        levels.append(randn(batch, channels, *sides, seed=seed + k + 9, dtype=dtype))
    return tuple(levels) if pyramid else torch.stack(levels, 2)


def to_levels(x):
    """Float64 arrays of the levels of a dense signal or a pyramid."""
    levels = x if isinstance(x, tuple) else x.unbind(2)
    return [level.detach().double().numpy() for level in levels]


def read(image, row, column, outside='zeros'):
    """Bilinear read of ``(..., H, W)`` at one real position; outside are zeros or the border."""
    total = np.zeros(image.shape[:-2])
    height, width = image.shape[-2:]
    for y in (math.floor(row), math.floor(row) + 1):
        for x in (math.floor(column), math.floor(column) + 1):
            weight = max(0, 1 - abs(row - y)) * max(0, 1 - abs(column - x))
            if outside == 'border':
                total += weight * image[..., min(max(y, 0), height - 1), min(max(x, 0), width - 1)]
            elif 0 <= y < height and 0 <= x < width:
                total += weight * image[..., y, x]
    return total


def seen_at(k, levels, interaction, base, pyramid):
    """Levels ``k, k + 1, ...`` at the grid of level ``k``, as far as there are any."""
    found = levels[k : k + interaction]
    if not pyramid:
        return found
    height, width = levels[k].shape[2:]
    for shift, level in enumerate(found):
        pixels = [[read(level, y * base**-shift, x * base**-shift, 'border') for x in range(width)]
                  for y in range(height)]  # fmt: skip
        found[shift] = np.moveaxis(np.array(pixels), (0, 1), (2, 3))
    return found


def convolve(sources, weight, factor=1, stride=(1, 1), dilation=(1, 1), groups=1, offset=None,
             modulation=None):  # fmt: skip
    """Sum over l, c, u of w(o, c, l, u) m(z, u) x_l(c, z + factor (dilation u + offset(z, u)))."""
    batch, channels, height, width = sources[0].shape
    out_channels, _, _, kh, kw = weight.shape
    deform_groups = 1 if offset is None else offset.shape[1] // (2 * kh * kw)
    block = channels // deform_groups
    weight = weight[:, :, : len(sources)].reshape(groups, -1, *weight[0, :, : len(sources)].shape)
    rows, columns = range(0, height, stride[0]), range(0, width, stride[1])
    y = np.zeros((batch, out_channels, len(rows), len(columns)))
    seen = np.zeros((batch, channels, len(sources), kh, kw))
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        for n, g, u, v in itertools.product(
            range(batch), range(deform_groups), range(kh), range(kw)
        ):
            tap, own = (g * kh + u) * kw + v, slice(g * block, (g + 1) * block)
            dy, dx = (0, 0) if offset is None else offset[n, 2 * tap : 2 * tap + 2, i, j]
            at = (
                row + factor * (dilation[0] * (u - kh // 2) + dy),
                column + factor * (dilation[1] * (v - kw // 2) + dx),
            )
            term = 1 if modulation is None else modulation[n, tap, i, j]
            for shift, source in enumerate(sources):
                seen[n, own, shift, u, v] = term * read(source[n, own], *at)
        grouped = seen.reshape(batch, groups, -1, *seen.shape[2:])
        y[:, :, i, j] = np.einsum('ngcluv,gocluv->ngo', grouped, weight).reshape(batch, -1)
    return y


def scale_conv(levels, weight, bias=None, stride=(1, 1), dilation=(1, 1), groups=1, offsets=None,
               modulations=None, *, base, first_level=0, pyramid=False):  # fmt: skip
    """y(o, k, z) = sum over l, c, u of w(o, c, l, u) x(c, k + l, z + a^k u); deformable or not."""
    outputs = []
    for k in range(len(levels)):
        factor = 1 if pyramid else base ** (first_level + k)
        sources = seen_at(k, levels, weight.shape[2], base, pyramid)
        moved = [None if parts is None else parts[k] for parts in (offsets, modulations)]
        y = convolve(sources, weight, factor, stride, dilation, groups, *moved)
        outputs.append(y if bias is None else y + bias[:, None, None])
    return outputs


def basis_scale_conv(levels, weight, tables, bias=None, stride=(1, 1), dilation=(1, 1), groups=1, *,
                     base=2, pyramid=False):  # fmt: skip
    """y(o, k, z) = sum over l, c, u of kappa_k(o, c, l, u) x(c, k + l, z + u), term by term.

    ``tables`` has of each level the functions, and the distance of their taps.
    """
    outputs = []
    for k, (functions, distance) in zip(range(len(levels)), tables):
        kernel = np.einsum('oclf,fuv->ocluv', weight, functions)
        sources = seen_at(k, levels, weight.shape[2], base, pyramid)
        y = convolve(sources, kernel, distance, stride, dilation, groups)
        outputs.append(y if bias is None else y + bias[:, None, None])
    return outputs


def scale_pool(levels, kernel, stride, padding, *, factors, reduce):
    """Max or mean over the taps z + a^k u, u = -padding, ..., that lie inside the level."""
    outputs = []
    for level, factor in zip(levels, factors):
        height, width = level.shape[-2:]
        rows, columns = range(0, height, stride[0]), range(0, width, stride[1])
        y = np.zeros((*level.shape[:2], len(rows), len(columns)))
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            values = []
            for u, v in itertools.product(range(kernel[0]), range(kernel[1])):
                at = row + factor * (u - padding[0]), column + factor * (v - padding[1])
                if 0 <= at[0] < height and 0 <= at[1] < width:
                    values.append(read(level, *at, 'border'))
            y[:, :, i, j] = reduce(values, axis=0)
        outputs.append(y)
    return outputs


def scaled(x, base, shift):
    """L_s for s = base**shift by slicing: level k + shift at every base**shift-th pixel."""
    if isinstance(x, tuple):
        return x[shift:]
    step = base**shift
    return x[:, :, shift:, ::step, ::step]


def largest_difference(a, b):
    """The largest absolute difference of two signals or lists of levels of equal shapes."""
    a, b = (x if isinstance(x, tuple | list) else (x,) for x in (a, b))
    assert len(a) == len(b)
    pairs = [[torch.as_tensor(level) for level in pair] for pair in zip(a, b)]
    for left, right in pairs:
        assert left.shape == right.shape, (left.shape, right.shape)
    return max((left - right).abs().max().item() for left, right in pairs)
