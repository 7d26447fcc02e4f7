# Copyright (c) mmscale contributors.
"""The layers written out as the sums that define them: loops over pixels, NumPy, nothing shared.

A signal is a list of levels, each an array ``(N, C, H_k, W_k)``.
"""

import itertools
import math

import numpy as np
import torch


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


def to_levels(x):
    """Float64 arrays of the levels of a dense signal or a pyramid."""
    levels = x if isinstance(x, tuple) else x.unbind(2)
    return [level.detach().double().numpy() for level in levels]


def scale_conv(levels, weight, bias=None, stride=(1, 1), dilation=(1, 1), groups=1, *, base,
               first_level=0, pyramid=False, dilations=None):  # fmt: skip
    """y(o, k, z) = sum over l, c, u of w(o, c, l, u) x(c, k + l, z + a^k u), term by term."""
    out_channels, per_group, interaction, kh, kw = weight.shape
    outputs = []
    for k, level in enumerate(levels):
        batch, _, height, width = level.shape
        factor = 1 if pyramid else base ** (first_level + k)
        if dilations is not None and not pyramid:
            factor = dilations[k]
        rows, columns = range(0, height, stride[0]), range(0, width, stride[1])
        y = np.zeros((batch, out_channels, len(rows), len(columns)))
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            for shift, u, v in itertools.product(range(interaction), range(kh), range(kw)):
                if k + shift >= len(levels):
                    continue
                at = (
                    row + factor * dilation[0] * (u - kh // 2),
                    column + factor * dilation[1] * (v - kw // 2),
                )
                if not pyramid:
                    value = read(levels[k + shift], *at)
                elif 0 <= at[0] < height and 0 <= at[1] < width:
                    finer = base**-shift
                    value = read(levels[k + shift], at[0] * finer, at[1] * finer, 'border')
                else:
                    continue
                for o in range(out_channels):
                    first = o // (out_channels // groups) * per_group
                    y[:, o, i, j] += value[:, first : first + per_group] @ weight[o, :, shift, u, v]
        if bias is not None:
            y += bias[:, None, None]
        outputs.append(y)
    return outputs


def basis_scale_conv(levels, weight, tables, bias=None, stride=(1, 1), dilation=(1, 1), groups=1, *,
                     base=2, pyramid=False):  # fmt: skip
    """y(o, k, z) = sum over l, c, u of kappa_k(o, c, l, u) x(c, k + l, z + u), term by term.

    ``tables`` has of each level the functions, and the distance of their taps.
    """
    outputs = []
    for k, level in enumerate(levels):
        functions, distance = tables[k]
        kernel = np.einsum('oclf,fuv->ocluv', weight, functions)
        if pyramid:
            seen = [level]
            for shift in range(1, min(weight.shape[2], len(levels) - k)):
                finer = base**-shift
                rows = [
                    [
                        read(levels[k + shift], y * finer, x * finer, 'border')
                        for x in range(level.shape[3])
                    ]
                    for y in range(level.shape[2])
                ]
                seen.append(np.moveaxis(np.array(rows), (0, 1), (2, 3)))
        else:
            seen = levels[k:]
        (y,) = scale_conv([np.zeros_like(level)], kernel[:, :, :1], bias, stride, groups=groups,
                          base=base)  # fmt: skip
        spread = [distance * step for step in dilation]
        for shift in range(min(weight.shape[2], len(seen))):
            y = y + scale_conv([seen[shift]], kernel[:, :, shift : shift + 1], None, stride, spread,
                               groups, base=base)[0]  # fmt: skip
        outputs.append(y)
    return outputs


def deform_scale_conv(levels, offsets, weight, bias=None, stride=(1, 1), dilation=(1, 1), groups=1,
                      modulations=None, *, base, first_level=0, pyramid=False):  # fmt: skip
    """The same with taps at z + a^k (u + offset(k, z, u)), each times its modulation."""
    out_channels, per_group, interaction, kh, kw = weight.shape
    outputs = []
    for k, level in enumerate(levels):
        batch, channels, height, width = level.shape
        factor = 1 if pyramid else base ** (first_level + k)
        deform_groups = offsets[k].shape[1] // (2 * kh * kw)
        block = channels // deform_groups
        sources = [levels[k]]
        for shift in range(1, min(interaction, len(levels) - k)):
            source = levels[k + shift]
            if pyramid:
                finer = base**-shift
                source = np.stack(
                    [
                        [read(source, y * finer, x * finer, 'border') for x in range(width)]
                        for y in range(height)
                    ]
                )
                source = np.moveaxis(source, (0, 1), (2, 3))
            sources.append(source)
        rows, columns = range(0, height, stride[0]), range(0, width, stride[1])
        y = np.zeros((batch, out_channels, len(rows), len(columns)))
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            for n, c, u, v in itertools.product(
                range(batch), range(channels), range(kh), range(kw)
            ):
                tap = ((c // block) * kh + u) * kw + v
                dy, dx = offsets[k][n, 2 * tap : 2 * tap + 2, i, j]
                at = (
                    row + factor * (dilation[0] * (u - kh // 2) + dy),
                    column + factor * (dilation[1] * (v - kw // 2) + dx),
                )
                term = 1 if modulations is None else modulations[k][n, tap, i, j]
                group = c // per_group
                first = group * (out_channels // groups)
                for o in range(first, first + out_channels // groups):
                    for shift, source in enumerate(sources):
                        value = term * read(source[n, c], *at)
                        y[n, o, i, j] += value * weight[o, c - group * per_group, shift, u, v]
        if bias is not None:
            y += bias[:, None, None]
        outputs.append(y)
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


def scale_blur(levels, taps, stride, *, factors):
    """Sum of h(u) h(v) x(k, s j + a^k (u, v)), zeros outside the level, term by term."""
    radius, outputs = len(taps) // 2, []
    for level, factor in zip(levels, factors):
        height, width = level.shape[-2:]
        rows, columns = range(0, height, stride[0]), range(0, width, stride[1])
        y = np.zeros((*level.shape[:2], len(rows), len(columns)))
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            for u, v in itertools.product(range(len(taps)), repeat=2):
                at = row + factor * (u - radius), column + factor * (v - radius)
                y[:, :, i, j] += taps[u] * taps[v] * read(level, *at)
        outputs.append(y)
    return outputs


def scaled(x, base, shift, first_level=0):
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
