# Copyright (c) mmscale contributors.
"""Rotation of images and fields, counter-clockwise as displayed; written apart from the layers."""

import math

import torch
from scipy.ndimage import map_coordinates

from mmscale.models.layers.so2 import SO2BatchNorm, SO2NormReLU


def turn_pairs(x, max_order, degrees):
    """Turns the pairs of order m by m times the angle, in place: e^(i m a) as a complex number."""
    channels = x.shape[1] // (1 + 2 * max_order)
    parts = [x[:, :channels]]
    for m in range(1, max_order + 1):
        real, imaginary = x[:, (2 * m - 1) * channels :].split(channels, 1)[:2]
        turned = torch.complex(real, imaginary) * complex(
            math.cos(m * math.radians(degrees)), math.sin(m * math.radians(degrees))
        )
        parts += [turned.real, turned.imag]
    return torch.cat(parts, 1)


def quarter_turn(x):
    """An image or a map of invariants, turned by 90 degrees."""
    return torch.rot90(x, 1, (-2, -1))


def quarter_turn_field(x, max_order):
    """A field turned by 90 degrees: its pixels move and its pairs turn."""
    return turn_pairs(quarter_turn(x), max_order, 90)


def _turned_back(size, degrees):
    """Where the pixels of a turned square [-1, 1]^2 come from, as (x, y) with y up."""
    positions = torch.linspace(-1, 1, size, dtype=torch.float64)
    y, x = torch.meshgrid(-positions, positions, indexing='ij')
    angle = math.radians(degrees)
    return (
        math.cos(angle) * x + math.sin(angle) * y,
        -math.sin(angle) * x + math.cos(angle) * y,
    )


def smooth_image(size, degrees=0.0):
    """Waves under a Gaussian, a function of the plane, turned and then sampled: no interpolation.

    Every size samples the same function, and hardly anything of it is left at the border.
    """
    generator = torch.Generator().manual_seed(1)
    shape = (2, 1, 6, 1, 1)
    across, up, phase = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    x, y = _turned_back(size, degrees)
    waves = torch.cos(2.5 * across * x + 2.5 * up * y + 6 * phase).sum(2)
    return waves * torch.exp(-(x**2 + y**2) / (2 * 0.3**2))


def turn_map(x, degrees):
    """A smooth map of invariants turned by any angle, read by quintic splines."""
    across, up = _turned_back(x.shape[-1], degrees)
    centre = (x.shape[-1] - 1) / 2
    positions = torch.stack((centre - centre * up, centre + centre * across)).numpy()
    planes = [
        torch.from_numpy(map_coordinates(plane.numpy(), positions, order=5, mode='nearest'))
        for plane in x.detach().flatten(0, 1)
    ]
    return torch.stack(planes).view_as(x)


def error_inside(expected, found, radius=0.7):
    """Root of the mean square difference, relative to what is expected, inside a disc."""
    positions = torch.linspace(-1, 1, expected.shape[-1], dtype=torch.float64)
    inside = positions[:, None] ** 2 + positions**2 < radius**2
    difference = (expected - found)[..., inside].square().sum()
    return (difference / expected[..., inside].square().sum()).sqrt().item()


def turning_errors(network, angles, sizes):
    """The errors of a network whose output is only moved by rotation, a row an angle."""
    rows = [[] for _ in angles]
    with torch.no_grad():
        for size in sizes:
            upright = network(smooth_image(size))
            for row, degrees in zip(rows, angles, strict=True):
                turned = network(smooth_image(size, degrees))
                row.append(error_inside(turn_map(upright, degrees), turned))
    return rows


def as_if_trained_so2(model, seed=0):
    """Gives norms and nonlinearities statistics, scales and biases of their own; eval, float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.double().eval().modules():
            if not isinstance(module, SO2BatchNorm | SO2NormReLU):
                continue
            for name, tensor in module.state_dict().items():
                if not tensor.is_floating_point():
                    continue
                noise = torch.rand(tensor.shape, generator=generator)
                # Variances, powers and scales are positive; biases and means of either sign.
                is_positive = name in ('weight', 'running_var')
                tensor.copy_(noise + 0.5 if is_positive else 0.4 * (noise - 0.5))
    return model


def with_statistics_of(model, images):
    """Gives all batch norms the statistics of some images; eval."""
    norms = [module for module in model.modules() if hasattr(module, 'momentum')]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()
