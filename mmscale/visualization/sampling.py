# Copyright (c) mmscale contributors.
"""Find the positions at which the layers of a network read the image."""

import difflib
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mmscale.evaluation.scaling import find_stride
from mmscale.models import DeformScaleConv, ModulatedDeformScaleConv, ScaleConv
from mmscale.scale_space import ScaleGrid, Signal, is_pyramid, split_levels

from .network import Network

# The usual strides divide this side, so the size of a map determines the stride.
PROBE_SIZE = 128


@torch.no_grad()
def stride_before(network: Network, layer: nn.Module | None = None) -> int:
    """Return the stride of the input of a layer, in samples of its level.

    A run on a blank image shows the stride. Without a layer, the backbone's last output counts. A
    ValueError is raised if the layer does not run, or its input is no feature map.
    """
    grid = getattr(network.backbone, 'grid', None)
    side = PROBE_SIZE if grid is None else max(PROBE_SIZE, math.ceil(grid.factors[-1]))
    seen = []
    watched = layer or nn.Identity()
    with watched.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        outputs = network.backbone(torch.zeros(1, network.in_channels, side, side))
        if layer is None:
            watched(outputs[-1])
    if not seen:
        raise ValueError('--layer: the backbone does not run it')
    (x,) = seen
    if is_pyramid(x):
        side = grid.level_size(side, grid.levels[0])
    level = x[0] if isinstance(x, tuple) else x
    if level.ndim not in (4, 5):
        raise ValueError(f'{type(network.backbone).__name__} has no feature map there')
    return find_stride(side, level.shape[-1])


@dataclass(frozen=True)
class Reading:
    """The positions that one output of a layer reads at one level, (row, column) in pixels.

    Attributes:
        origin (np.ndarray): ``(2,)``, the position of the output.
        taps (np.ndarray): ``(taps, 2)``, the positions of the taps without offsets.
        moved (np.ndarray | None): ``(G, taps, 2)``, with the offsets of G deformable groups.
        modulation (np.ndarray | None): ``(G, taps)``, the modulation of the taps.
    """

    origin: np.ndarray
    taps: np.ndarray
    moved: np.ndarray | None = None
    modulation: np.ndarray | None = None


def find_layer(network: Network, name: str | None) -> tuple[str, ScaleConv]:
    """Find a scale convolution by name; by default the last deformable, else the first not 1x1."""
    modules = dict(network.backbone.named_modules(prefix='backbone'))
    layers = {key: module for key, module in modules.items() if isinstance(module, ScaleConv)}
    if name is None:
        deformable = [key for key, layer in layers.items() if isinstance(layer, DeformScaleConv)]
        wide = [key for key, layer in layers.items() if layer.kernel_size != (1, 1)]
        if not deformable and not wide:
            raise ValueError('--layer: the backbone has no scale convolution of several taps')
        name = deformable[-1] if deformable else wide[0]
    if name not in layers:
        why = f'is a {type(modules[name]).__name__}' if name in modules else 'does not exist'
        near = difflib.get_close_matches(name, layers, n=3, cutoff=0) or list(layers)[:3]
        raise ValueError(f'--layer: {name} {why}; the scale convolutions nearest by name are '
                         f'{", ".join(near)}')  # fmt: skip
    return name, layers[name]


@torch.no_grad()
def watch(backbone: nn.Module, layer: ScaleConv, x: Signal) -> tuple[Signal, Signal | None]:
    """Return the output of a layer for an input, and the output of its offset branch or None."""
    seen, branch = {}, getattr(layer, 'conv_offset', None)
    with ExitStack() as hooks:
        for module in (layer, branch):
            if module is not None:
                hook = module.register_forward_hook(lambda m, _, output: seen.update({m: output}))
                hooks.enter_context(hook)
        backbone(x)
    return seen[layer], seen.get(branch)


def read_layer(
    backbone: nn.Module, layer: ScaleConv, stride: int, x: Signal, point: tuple[int, int]
) -> list[Reading]:
    """Return the positions that the output of a layer nearest to a pixel reads, level by level.

    ``stride`` is the stride of the layer's input (:func:`stride_before`), ``x`` an input of the
    backbone for one image, and ``point`` row and column of the pixel. The layer may be the
    backbone itself.
    """
    output, predicted = watch(backbone, layer, x)
    readings = []
    for k, level in enumerate(split_levels(output)):
        sample, tap = distances(layer.grid, k, stride, is_pyramid(output))
        at, origin = nearest(point, [sample * step for step in layer.stride], level.shape[-2:])
        steps = regular_taps(layer.kernel_size) * layer.dilation
        reading = dict(origin=origin, taps=origin + tap * steps)
        if predicted is not None:
            values = split_levels(predicted)[k][0, :, at[0], at[1]].double().numpy()
            offsets = values[: 2 * layer.num_offsets].reshape(layer.deform_groups, -1, 2)
            reading['moved'] = origin + tap * (steps + offsets)
            if isinstance(layer, ModulatedDeformScaleConv):
                logits = values[2 * layer.num_offsets :].reshape(layer.deform_groups, -1)
                reading['modulation'] = 1 / (1 + np.exp(-logits))
        readings.append(Reading(**reading))
    return readings


def distances(grid: ScaleGrid, k: int, stride: int, pyramid: bool) -> tuple[float, float]:
    """Return the distances of a level's samples and of its taps, in pixels of the image."""
    if pyramid:
        return stride * grid.factors[k], stride * grid.factors[k]
    return stride, stride * grid.dilations[k]


def nearest(point: Sequence, steps: Sequence, size: Sequence) -> tuple[list[int], np.ndarray]:
    """Return index and position, in pixels of the image, of the output nearest to a pixel."""
    at = [min(round(p / step), count - 1) for p, step, count in zip(point, steps, size)]
    return at, np.multiply(at, steps).astype(float)


def regular_taps(kernel_size: tuple[int, int]) -> np.ndarray:
    """Return the positions of taps around the centre, ``(taps, 2)``, row by row."""
    rows, columns = (np.arange(n) - n // 2 for n in kernel_size)
    return np.stack(np.meshgrid(rows, columns, indexing='ij'), axis=-1).reshape(-1, 2)
