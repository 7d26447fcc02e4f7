# Copyright (c) mmscale contributors.
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmscale.models.layers.so2_basis import (
    basis_elements,
    harmonic,
    intertwiner,
    ring_width,
    sampled_basis,
    sampled_harmonic,
)

orders = pytest.mark.parametrize(
    'in_order, out_order', [(m, n) for m in range(4) for n in range(4)]
)
kernels = pytest.mark.parametrize('kernel_size', [1, 3, 5, 7, 9])


def rotation(order, angle):
    """Return R_m(a), independently of the package."""
    if order == 0:
        return torch.ones(1, 1, dtype=torch.float64)
    cosine, sine = math.cos(order * angle), math.sin(order * angle)
    return torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)


def turned_values(kernel, in_order, out_order, angle):
    """Return R_n(a) K R_m(a)^-1 at every pixel of (..., p, q, h, w) or (p, q, points)."""
    letters = 'np,...pqxy,mq->...nmxy' if kernel.ndim > 3 else 'np,pqx,mq->nmx'
    # R_m(a)^-1 is its transpose.
    return torch.einsum(letters, rotation(out_order, angle), kernel, rotation(in_order, angle))


@orders
def test_complete_on_every_ring_that_resolves_all_orders(in_order, out_order):
    """The value at one point determines a solution: there are as many solutions as entries."""
    ring = 3
    x, y = (torch.tensor([value], dtype=torch.float64) for value in (2.0, 2.2))
    values = torch.stack([
        intertwiner(*harmonic(x, y, ring, order, 0.6), in_order, out_order, mirrored, phase)
        for r, order, mirrored, phase in basis_elements(7, in_order, out_order) if r == ring
    ])  # fmt: skip
    entries = (1 if in_order == 0 else 2) * (1 if out_order == 0 else 2)
    assert len(values) == entries
    assert torch.linalg.matrix_rank(values.flatten(1)) == entries


@orders
@settings(max_examples=30, deadline=None)
@given(angle=st.floats(-7, 7), seed=st.integers(0, 99))
def test_the_continuous_kernels_turn_by_any_angle(in_order, out_order, angle, seed):
    """K(R_a x) = R_n(a) K(x) R_m(a)^-1."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 5, generator=generator, dtype=torch.float64) * 6 - 3
    turned = rotation(1, angle) @ torch.stack((x, y))
    for ring, order, mirrored, phase in basis_elements(7, in_order, out_order):
        width = ring_width(7, ring)
        here, there = (
            intertwiner(
                *harmonic(*at, ring, order, width), in_order, out_order, mirrored, phase
            )
            for at in ((x, y), turned)
        )  # fmt: skip
        expected = turned_values(here, in_order, out_order, angle)
        assert (there - expected).abs().max() < 1e-12


@orders
@kernels
def test_the_sampled_kernels_turn_by_quarters(kernel_size, in_order, out_order):
    """The error is rounding in float64, also if the layer was in float32 before."""
    basis = sampled_basis(kernel_size, in_order, out_order)
    for sampled in (basis, basis.float().double()):
        for quarters in (1, 2, 3):
            # The pixel that moves to R_a x holds K(R_a x): the kernel turns backwards.
            found = torch.rot90(sampled, -quarters, (-2, -1))
            expected = turned_values(sampled, in_order, out_order, quarters * math.pi / 2)
            assert (found - expected).abs().sum() < 1e-12


@orders
@pytest.mark.parametrize('kernel_size', [3, 5, 7])
def test_the_sampled_kernels_are_independent(kernel_size, in_order, out_order):
    """The pixels of a ring distinguish all orders of the basis."""
    basis = sampled_basis(kernel_size, in_order, out_order)
    if len(basis):
        values = torch.linalg.svdvals(basis.flatten(1))
        assert values.min() > 0.05 * values.max()


@kernels
def test_harmonics_have_norm_1_and_vanish_at_the_centre(kernel_size):
    centre = kernel_size // 2
    for ring in range(kernel_size // 2 + 1):
        for order in range(-2 * ring, 2 * ring + 1):
            cosine, sine = sampled_harmonic(kernel_size, ring, order)
            assert (cosine**2 + sine**2).sum().item() == pytest.approx(1)
            if order:
                assert cosine[centre, centre] == sine[centre, centre] == 0


def grid(kernel_size):
    positions = torch.arange(kernel_size, dtype=torch.float64) - kernel_size // 2
    y, x = torch.meshgrid(-positions, positions, indexing='ij')
    return x, y


def response(parts, polynomial):
    """Return the response of a kernel with these parts to a polynomial image."""
    return sum(part.mul(polynomial).sum() * unit for part, unit in zip(parts, (1, 1j)))


@pytest.mark.parametrize('kernel_size', [3, 5, 7])
@pytest.mark.parametrize('order', [2, 3, 4])
def test_no_order_answers_in_the_place_of_its_alias(kernel_size, order):
    """Plain samples respond to slopes or constants; the basis removes this response.

    Order s must not respond to the polynomial (x + iy)^(4 - s), or (x - iy)^(s - 4): for order 4
    a constant, for order 3 a slope, for order 2 the curvature in the wrong direction.
    """
    x, y = grid(kernel_size)
    power = torch.complex(x, y) ** (4 - order)
    for ring in range(math.ceil(order / 2), kernel_size // 2 + 1):
        width = ring_width(kernel_size, ring)
        plain, ours = harmonic(x, y, ring, order, width), sampled_harmonic(kernel_size, ring, order)
        answers = [
            abs(response(parts, power.real) + 1j * response(parts, power.imag))
            / math.sqrt(sum(part.square().sum() for part in parts))
            for parts in (plain, ours)
        ]
        assert answers[1] < 1e-12 < 1e-4 < answers[0]


@pytest.mark.parametrize('kernel_size', [3, 5, 7])
def test_both_phases_of_order_2_answer_alike(kernel_size):
    """The sine responds to 2xy as the cosine to x^2 - y^2; quarter turns do not ensure this."""
    x, y = grid(kernel_size)
    for ring in range(1, kernel_size // 2 + 1):
        cosine, sine = sampled_harmonic(kernel_size, ring, 2)
        straight, diagonal = (cosine * (x**2 - y**2)).sum(), (sine * 2 * x * y).sum()
        assert straight.item() == pytest.approx(diagonal.item(), rel=1e-12)
