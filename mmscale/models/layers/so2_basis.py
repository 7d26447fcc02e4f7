# Copyright (c) mmscale contributors.
r"""Kernels that commute with rotation: the basis of SO(2)-steerable convolutions.

A field of order 0 has one number per pixel, a field of order m >= 1 a pair of numbers. A rotation
of an image by the angle a, counter-clockwise as displayed (``torch.rot90``), moves the values of a
field and turns the pairs by ``m a``: :math:`R_m(a)` is the 2x2 rotation by ``m a``, and 1 for order
0. A convolution from order m to order n commutes with the rotation if and only if

.. math:: K(R_a x) = R_n(a) \, K(x) \, R_m(a)^{-1}

The solutions are radial profiles times circular harmonics of order n - m or n + m, in two phases
each. Angles count from the axis of the columns, counter-clockwise (y points up).
Sources: Worrall et al., Harmonic Networks, CVPR 2017; Weiler & Cesa, General E(2)-Equivariant
Steerable CNNs, NeurIPS 2019.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mmscale.scale_space.resample import keep_constants


class Element(NamedTuple):
    """One kernel of the basis from order m to n.

    ``order`` is the order of its harmonic: n + m if the pairs are mirrored (``is_reflection``),
    else n - m. ``phase`` is 0, or 1 for the harmonic turned by a quarter of its period.
    """

    ring: int
    order: int
    is_reflection: bool
    phase: int


def field_size(order: int) -> int:
    """Return the numbers per pixel of a field: 1 for order 0, 2 for the other orders."""
    return 1 if order == 0 else 2


def ring_width(kernel_size: int, ring: int) -> float:
    """Return the standard deviation of a ring's Gaussian profile, in pixels.

    The outermost ring is narrower, because the square of the kernel would cut off its tail.
    """
    return 0.4 if ring == kernel_size // 2 else 0.6


def basis_elements(kernel_size: int, in_order: int, out_order: int) -> list[Element]:
    """Return the basis of the kernels from one order to another, empty for a too small kernel.

    Rings have the radii 0, 1, ..., ``kernel_size // 2``. The ring of radius r carries harmonics up
    to order 2r: higher harmonics depend on lower harmonics, or vanish, on the pixels.
    """
    if in_order and out_order:
        harmonics = ((out_order - in_order, False), (out_order + in_order, True))
    else:
        harmonics = ((out_order + in_order, True),)
    # The second phase of a constant between numbers is zero.
    phases = (0,) if in_order == out_order == 0 else (0, 1)
    return [
        Element(ring, order, is_reflection, phase)
        for order, is_reflection in harmonics
        for ring in range(kernel_size // 2 + 1)
        if abs(order) <= 2 * ring
        for phase in phases
    ]


def harmonic(x: Tensor, y: Tensor, ring: int, order: int, width: float) -> tuple[Tensor, Tensor]:
    """Evaluate the cosine and the sine of a circular harmonic, times the profile of a ring.

    ``x`` points to the right of the centre, ``y`` up.
    """
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    profile = torch.exp(-((radius - ring) ** 2) / (2 * width**2))
    if order:
        profile = profile * (radius > 0)
    return profile * torch.cos(order * angle), profile * torch.sin(order * angle)


def sampled_harmonic(kernel_size: int, ring: int, order: int) -> tuple[Tensor, Tensor]:
    """Sample cosine and sine of a harmonic on a kernel's pixels, without its alias, with norm 1.

    On the square grid order s aliases to order s - 4: plainly sampled harmonics of order 4 respond
    to constants, and harmonics of order 3 to slopes in the wrong direction, even on finer images.
    The function subtracts the multiple of harmonic s - 4 on the same ring that removes the alias.
    Quarter turns stay exact, and the error at other angles vanishes as images get smoother.
    """
    positions = torch.arange(kernel_size, dtype=torch.float64, device='cpu') - kernel_size // 2
    y, x = torch.meshgrid(-positions, positions, indexing='ij')
    width = ring_width(kernel_size, ring)
    size = abs(order)
    cosine, sine = harmonic(x, y, ring, size, width)
    if size >= 2:
        alias_cosine, alias_sine = harmonic(x, y, ring, size - 4, width)
        profile = torch.hypot(cosine, sine) * torch.hypot(x, y) ** abs(size - 4)
        share = (profile * torch.cos(4 * torch.atan2(y, x))).sum() / profile.sum()
        at_centre = (x == 0) & (y == 0)
        cosine = cosine - share * alias_cosine.masked_fill(at_centre, 0)
        sine = sine - share * alias_sine
    norm = (cosine**2 + sine**2).sum().sqrt()
    return cosine / norm, (-sine if order < 0 else sine) / norm


def intertwiner(cosine: Tensor, sine: Tensor, in_order: int, out_order: int, is_reflection: bool,
                phase: int) -> Tensor:  # fmt: skip
    """Return the kernel ``(field_size(n), field_size(m), ...)`` that a harmonic gives."""
    if phase:
        cosine, sine = -sine, cosine
    sign = 1 if is_reflection else -1
    rows = (torch.stack((cosine, sign * sine)), torch.stack((sine, -sign * cosine)))
    return torch.stack(rows)[: field_size(out_order), : field_size(in_order)]


@keep_constants
def sampled_basis(kernel_size: int, in_order: int, out_order: int) -> Tensor:
    """Return the kernels of :func:`basis_elements` on the pixels; do not modify the result.

    Its shape is ``(B, field_size(n), field_size(m), kernel_size, kernel_size)``, in float64.
    """
    kernels = [
        intertwiner(
            *sampled_harmonic(kernel_size, ring, order), in_order, out_order, is_reflection, phase
        )
        for ring, order, is_reflection, phase in basis_elements(kernel_size, in_order, out_order)
    ]
    if kernels:
        return torch.stack(kernels)
    shape = (0, field_size(out_order), field_size(in_order), kernel_size, kernel_size)
    return torch.zeros(shape, dtype=torch.float64, device='cpu')
