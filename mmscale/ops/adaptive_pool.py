# Copyright (c) mmscale contributors.
"""Pooling to a given size that compiled and exported graphs support."""

import torch
import torch.nn.functional as F
from torch import Tensor


def adaptive_pool2d(x: Tensor, size: int | tuple[int, int], mode: str) -> Tensor:
    """Pool ``(N, C, H, W)`` to ``size``, as ``F.adaptive_max_pool2d`` (mode ``'max'``) or
    ``F.adaptive_avg_pool2d`` (``'avg'``) does.

    Cell ``i`` of ``out`` covers the samples from ``floor(i n / out)`` to ``ceil((i + 1) n / out)``.
    ONNX has no such operator. Compiled and exported graphs therefore pool one axis at a time: a
    maximum takes cells of equal length, in which samples repeat, and a mean is a matrix product.
    """
    if not torch.compiler.is_compiling():  # traced graphs support PyTorch's functions
        pool = F.adaptive_max_pool2d if mode == 'max' else F.adaptive_avg_pool2d
        return pool(x, size)
    height, width = (size, size) if isinstance(size, int) else size
    pool = _max_of_cells if mode == 'max' else _mean_of_cells
    return pool(pool(x, int(width)).mT, int(height)).mT


def _cells(length: int, count: int) -> list[range]:
    return [range(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def _max_of_cells(x: Tensor, count: int) -> Tensor:
    """Return the maximum of each cell of the last axis."""
    cells = _cells(int(x.shape[-1]), count)
    longest = max(map(len, cells))
    seen = [[*cell, *[cell[-1]] * (longest - len(cell))] for cell in cells]
    index = torch.tensor(seen, device=x.device).flatten()
    return x.index_select(-1, index).unflatten(-1, (count, longest)).amax(-1)


def _mean_of_cells(x: Tensor, count: int) -> Tensor:
    """Return the mean of each cell of the last axis."""
    cells = _cells(int(x.shape[-1]), count)
    shares = [[(k in cell) / len(cell) for cell in cells] for k in range(int(x.shape[-1]))]
    return x @ torch.tensor(shares, dtype=x.dtype, device=x.device)
