# Copyright (c) mmscale contributors.
"""Compare features of a transformed image with the transformed features of the image."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmscale.evaluation import equivariance_error, scale_signal
from mmscale.evaluation.scaling import has_levels
from mmscale.scale_space import ScaleGrid, Signal, is_pyramid, split_levels

from .network import Network
from .sampling import stride_before


@dataclass(frozen=True)
class Pair:
    """The features of an image and a network under one transformation.

    Attributes:
        found (Tensor): ``(C, H, W)``, the features of the transformed image; nan where they are
            not compared.
        expected (Tensor): ``(C, H, W)``, the transformed features of the image.
        error (float): Squared norm of the difference over the squared norm of ``expected``, of all
            channels.
    """

    found: Tensor
    expected: Tensor
    error: float


def common_side(networks: list[Network], image: np.ndarray) -> int:
    """Return the largest side with the middle of the image on a sample of every feature map.

    Maps of strided layers are aligned at the origin pixel or at the middle. Both are equal if the
    side is one more than a multiple of the stride.
    """
    strides = [stride_before(network) for network in networks]
    step, shorter = math.lcm(*strides), min(image.shape[:2])
    side = (shorter - 1) // step * step + 1
    if side < 2 * step + 1:
        raise ValueError(
            f'IMAGE: {image.shape[0]}x{image.shape[1]} pixels are too few for feature maps of '
            f'stride {step}: each side needs {2 * step + 1}; see --size'
        )
    return side


def crop(image: np.ndarray, side: int) -> np.ndarray:
    """Crop the square in the middle of an image (H, W, C), of ``side`` pixels."""
    top, left = ((size - side) // 2 for size in image.shape[:2])
    return image[top : top + side, left : left + side]


def disc(side: int, middle: float, radius: float, edge: float = 0.0) -> Tensor:
    """Return 1 within a circle, with a smooth fall to 0 over its last ``edge`` pixels, (H, W)."""
    positions = torch.arange(side, dtype=torch.float64) - middle
    distance = (positions[:, None] ** 2 + positions**2).sqrt()
    if edge == 0:
        return (distance <= radius + 1e-6).double()
    return 0.5 - 0.5 * torch.cos(math.pi * ((radius - distance) / edge).clamp(0, 1))


def rotate(x: Tensor, angle: float, middle: float) -> Tensor:
    """Rotate squares ``(N, C, H, H)`` counterclockwise by ``angle`` degrees, in float64.

    ``middle`` is row and column of the fixed point, in samples. The interpolation is bicubic, with
    zeros outside. Quarter turns are exact.
    """
    side = x.shape[-1]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    positions = torch.arange(side, dtype=torch.float64) - middle
    rows, columns = torch.meshgrid(positions, positions, indexing='ij')
    read = torch.stack([cos * columns - sin * rows, cos * rows + sin * columns], dim=-1) + middle
    where = (2 * read + 1) / side - 1  # grid_sample has pixel centres at (2 i + 1) / side - 1
    return F.grid_sample(x.double(), where.expand(len(x), -1, -1, -1), 'bicubic',
                         padding_mode='zeros', align_corners=False)  # fmt: skip


class LastOutput(nn.Module):
    """A backbone with its last output alone; a scale space of one level is an ordinary map."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        grid = getattr(backbone, 'grid', None)
        self.grid: ScaleGrid | None = None if grid is None or grid.num_scales == 1 else grid

    def forward(self, image: Tensor) -> Signal:
        output = self.backbone(image)[-1]
        return split_levels(output)[0] if has_levels(output) and self.grid is None else output


def finest(x: Signal) -> Tensor:
    """Return the finest level of a scale space, or a map itself, ``(C, H, W)``, of one image."""
    return (split_levels(x)[0] if has_levels(x) else x)[0].double()


@torch.no_grad()
def scaled_pair(phi: LastOutput, x: Tensor, factor: float) -> Pair:
    """Compare features under scaling: maps of the finest level, the error of all valid levels."""
    zero_scale = 0.5 if phi.grid is None else phi.grid.zero_scale
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the figure says that an error is undefined
        result = equivariance_error(phi, x, [factor], scale_space=phi.grid)
    found = phi(scale_signal(x, factor, zero_scale=zero_scale))
    expected = scale_signal(phi(x), factor, phi.grid, zero_scale)
    return Pair(finest(found), finest(expected), result.mean.item())


@torch.no_grad()
def rotated_pair(phi: LastOutput, x: Tensor, angle: float, stride: int) -> Pair:
    """Compare features under rotation, within the disc of the finest level that stays on it."""
    signal = phi(x)
    distance = stride * (phi.grid.factors[0] if is_pyramid(signal) else 1)
    middle = (x.shape[-1] - 1) / 2
    found = finest(phi(rotate(x, angle, middle).to(x.dtype)))
    middle = middle / distance
    expected = rotate(finest(signal)[None], angle, middle)[0]
    side = expected.shape[-1]
    outside = disc(side, middle, min(middle, side - 1 - middle)) == 0
    found, expected = (part.masked_fill(outside, math.nan) for part in (found, expected))
    norms = [part.square().nansum() for part in (found - expected, expected)]
    return Pair(found, expected, (norms[0] / norms[1]).item())
