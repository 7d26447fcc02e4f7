# Copyright (c) mmscale contributors.
"""Bases of kernels: the published formulas, and the optimality of discrete kernels."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from naive import largest_difference, randn
from scipy.special import ive

from mmscale.models import ScaleConv
from mmscale.scale_space import (
    DiscreteBasis,
    GaussianDerivativeBasis,
    HermiteBasis,
    KernelTable,
    ScaleGrid,
    bilinear_pyramid_lift,
    gaussian_lift,
    gaussian_pyramid_lift,
    repeat_lift,
    scale_scale_space,
)
from mmscale.testing import assert_scale_equivariant

THIRD = ScaleGrid(base=2 ** (1 / 3), num_scales=4)
ROOT = ScaleGrid(base=2**0.5, num_scales=3)


# ---- SESN


def hermite_polynomial(n, x):
    """Compute the Hermite polynomial by its recursion."""
    before, value = np.zeros_like(x), np.ones_like(x)
    for m in range(n):
        before, value = value, x * value - m * before
    return value


def published_basis(size, scales, effective_size, max_order=None, mult=1.4):
    """Build (F, S, size, size) by a loop over scales, widths and orders."""
    count = effective_size**2
    basis = np.zeros((count, len(scales), size, size))
    for s, scale in enumerate(scales):
        side = int(size * scale / max(scales) + 1e-9) // 2 * 2 + 1
        first, x = (size - side) // 2, np.linspace(-(side // 2), side // 2, side)
        f, n, top = 0, 0, effective_size - 1 if max_order is None else max_order
        while f < count:
            sigma = scale / mult**n
            for order_y, order_x in itertools.product(range(top + 1), repeat=2):
                if f == count or (max_order is not None and order_y + order_x > max_order):
                    continue
                of_y, of_x = (
                    hermite_polynomial(order, x / sigma) * np.exp(-(x**2) / (2 * sigma**2)) / sigma
                    for order in (order_y, order_x)
                )
                inside = slice(first, first + side)
                basis[f, s, inside, inside] = of_y[:, None] * of_x[None]
                f += 1
            n += 1
    return basis / np.sqrt((basis[:, :1] ** 2).sum((2, 3), keepdims=True))


@given(
    size=st.sampled_from([5, 9, 13]),
    effective_size=st.sampled_from([1, 3, 5]),
    base=st.sampled_from([2, 1.5, 2**0.5, 2**0.25]),
    num_scales=st.integers(1, 4),
    max_order=st.sampled_from([None, 1, 3]),
    mult=st.sampled_from([1.2, 1.4]),
    width=st.sampled_from([0.9, 1.0, 1.5]),
)
@settings(deadline=None, max_examples=40)
def test_hermite_tables_are_the_published_ones_without_the_zeros_around(
    size, effective_size, base, num_scales, max_order, mult, width
):
    grid = ScaleGrid(base, num_scales)
    assume(size / grid.factors[-1] >= 3)
    tables = HermiteBasis(size, effective_size, max_order, mult, width).tables(grid)
    scales = [width * factor for factor in grid.factors]
    expected = published_basis(size, scales, effective_size, max_order, mult)
    for k, (functions, distance) in tables.items():
        around = (size - functions.shape[-1]) // 2
        whole = np.pad(functions, [(0, 0), (around, around), (around, around)])
        np.testing.assert_allclose(whole, expected[:, k], rtol=1e-11, atol=1e-12)
        assert distance == 1 and functions.dtype == np.float64


# ---- derivatives of Gaussians


def gaussian(x, sigma):
    return math.exp(-(x**2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)


@pytest.mark.parametrize('base, level', [(2, 0), (2**0.5, 1)])
def test_sampled_derivatives_are_those_of_the_gaussian(base, level):
    sigma = 1.1 * base**level
    derivatives = [
        lambda x: gaussian(x, sigma),
        lambda x: -x / sigma**2 * gaussian(x, sigma),
        lambda x: (x**2 - sigma**2) / sigma**4 * gaussian(x, sigma),
    ]
    basis = GaussianDerivativeBasis(max_order=2, width=1.1)
    functions, distance = basis.tables(ScaleGrid(base, 3))[level]
    radius = math.ceil(3 * sigma)
    orders = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]
    assert functions.shape == (6, 2 * radius + 1, 2 * radius + 1) and distance == 1
    for f, (m, n) in enumerate(orders):
        for i, j in itertools.product(range(2 * radius + 1), repeat=2):
            # A layer correlates: the sample at +u is multiplied by the derivative at -u.
            expected = derivatives[m](radius - i) * derivatives[n](radius - j)
            assert functions[f, i, j] == pytest.approx(sigma ** (m + n) * expected, abs=1e-14)


def test_differences_of_the_discrete_gaussian_differentiate_the_blurred_image():
    sigma, radius = 1.5, 6
    basis = GaussianDerivativeBasis(max_order=3, width=1.5, truncate=4, discrete=True)
    functions = basis.tables(ScaleGrid(2, 2))[0].functions
    side = functions.shape[-1]
    assert side == 2 * (radius + 2) + 1
    image = np.random.default_rng(0).normal(size=(side + 8, side + 8))
    taps = ive(np.abs(np.arange(-radius, radius + 1)), sigma**2)
    taps /= taps.sum()

    def along_both(image, of_y, of_x):
        return np.apply_along_axis(of_x, 1, np.apply_along_axis(of_y, 0, image))

    def blur(line):
        return np.convolve(line, taps, 'valid')

    blurred = along_both(image, blur, blur)
    steps = [
        lambda v: v[2:-2],
        lambda v: (v[3:-1] - v[1:-3]) / 2,
        lambda v: v[3:-1] - 2 * v[2:-2] + v[1:-3],
        lambda v: (v[4:] - 2 * v[3:-1] + 2 * v[1:-3] - v[:-4]) / 2,
    ]
    windows = np.lib.stride_tricks.sliding_window_view(image, (side, side))
    orders = [(y, x) for y in range(4) for x in range(4 - y)]
    for table, (m, n) in zip(functions, orders, strict=True):
        expected = along_both(blurred, steps[m], steps[n]) * sigma ** (m + n)
        found = np.einsum('yxuv,uv->yx', windows, table)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


# ---- discrete kernels


@pytest.mark.parametrize('base, num_scales', [(2, 3), (3, 2), (2**0.5, 5), (2 ** (1 / 3), 5)])
def test_discrete_kernels_are_dilated_where_the_ratio_of_levels_is_an_integer(base, num_scales):
    grid = ScaleGrid(base, num_scales)
    tables = DiscreteBasis(3).tables(grid)
    np.testing.assert_array_equal(tables[0].functions, np.eye(9).reshape(9, 3, 3))
    for i, j in itertools.combinations(grid.levels, 2):
        ratio = round(base ** (j - i), 9)
        if ratio == int(ratio):
            assert tables[j].distance == ratio * tables[i].distance
            np.testing.assert_array_equal(tables[j].functions, tables[i].functions)


@pytest.mark.parametrize(
    'form', [gaussian_lift, gaussian_pyramid_lift, bilinear_pyramid_lift, repeat_lift]
)
@pytest.mark.parametrize(
    'kernel, base, num_scales, factors',
    [
        (None, 2, 3, (2, 4)),
        (DiscreteBasis(3), 3, 3, (3, 9)),
        (DiscreteBasis(3), 2 ** (1 / 3), 5, (2,)),
    ],
    ids=['dilated', 'discrete', 'fractional'],
)
def test_layers_commute_with_scaling_behind_any_lift(form, kernel, base, num_scales, factors):
    grid = ScaleGrid(base, num_scales)
    signal = form(randn(1, 2, 28, 31), grid)
    # Levels of a pyramid of such a base need interpolation.
    interaction = 1 if isinstance(signal, tuple) and base < 2 else 2
    conv = ScaleConv(2, 3, 3, 2, 1, interaction=interaction, kernel=kernel, scale_space=grid)
    for factor in factors:
        assert_scale_equivariant(conv.double(), signal, factor, grid)


@pytest.mark.parametrize('lift', [gaussian_lift, gaussian_pyramid_lift])
def test_dilated_and_discrete_kernels_are_the_same_layer_on_an_integer_base(lift):
    options = dict(padding=1, interaction=2, scale_space=ScaleGrid(2, 3))
    dilated = ScaleConv(2, 3, 3, **options).double()
    discrete = ScaleConv(2, 3, 3, kernel=DiscreteBasis(3), **options).double()
    discrete.load_state_dict(dict(weight=dilated.weight.detach().flatten(3), bias=dilated.bias))
    signal = lift(randn(1, 2, 17, 14), ScaleGrid(2, 3))
    assert largest_difference(discrete(signal), dilated(signal)) < 1e-12


def photographs():
    """Two grey photographs of unit variance, ``(2, 1, 200, 200)``."""
    found = pytest.importorskip('sklearn.datasets').load_sample_images().images
    images = torch.tensor(np.stack(found)[:, None, :200, 200:400]).double().mean(-1)
    return (images - images.mean()) / images.std()


def noise():
    return randn(2, 1, 200, 200)


def error(conv, images, factor, grid, border=32):
    """Return the equivariance error of a layer away from the border."""
    signal = gaussian_lift(images, grid, 'reflect')
    with torch.no_grad():
        expected = scale_scale_space(conv(signal), factor, grid)
        found = conv(scale_scale_space(signal, factor, grid))
    expected, found = (y[..., border:-border, border:-border] for y in (expected, found))
    return ((expected - found).square().sum() / expected.square().sum()).item()


@dataclass(frozen=True)
class BicubicBasis:
    """A basis that rescales a kernel like an image, and a user's own basis."""

    side: int

    def tables(self, grid):
        found, taps = {}, np.arange(self.side) - self.side // 2
        for k, factor in zip(grid.levels, grid.factors):
            reach = math.ceil(factor * (self.side // 2 + 1))
            d = np.abs(np.arange(-reach, reach + 1)[:, None] / factor - taps)
            keys = np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1,
                            np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))  # fmt: skip
            keys = keys / factor
            functions = np.einsum('ya,xb->abyx', keys, keys)
            found[k] = KernelTable(functions.reshape(-1, 2 * reach + 1, 2 * reach + 1))
        return found


def layer_of(kernels, basis, grid):
    """Make a layer whose level 0 has the given kernels, ``(O, n, n)``."""
    side = kernels.shape[-1]
    conv = ScaleConv(1, len(kernels), side, padding=side // 2, bias=False, kernel=basis,
                     scale_space=grid).double()  # fmt: skip
    if basis is None:
        conv.weight.data = kernels[:, None, None]
        return conv
    functions = torch.from_numpy(basis.tables(grid)[0].functions)
    cut = (functions.shape[-1] - side) // 2
    functions = functions[:, cut : cut + side, cut : cut + side].flatten(1)
    weights = torch.linalg.solve(functions.T, kernels.flatten(1).T).T
    torch.testing.assert_close(weights @ functions, kernels.flatten(1))
    conv.weight.data = weights[:, None, None]
    return conv


@pytest.mark.parametrize(
    'images, spectrum, side, hermite',
    [(noise, 'white', 3, HermiteBasis(7, 3)), (photographs, '1/f', 7, HermiteBasis(15, 7))],
)
def test_discrete_kernels_commute_best_at_half_way_scales(images, spectrum, side, hermite):
    kernels = randn(8, side, side, seed=1)
    discrete, *others = (
        error(layer_of(kernels, basis, ROOT), images(), 2**0.5, ROOT)
        for basis in (DiscreteBasis(side, spectrum), None, hermite, BicubicBasis(side))
    )
    assert discrete < 0.75 * min(others)


def test_the_error_of_hermite_kernels_falls_with_their_support():
    """On photographs with base 2, functions that are cut off before they decay do not commute."""
    grid, errors = ScaleGrid(2, 2), []
    for size in (7, 11, 15, 19):
        conv = ScaleConv(1, 16, 7, padding=3, bias=False, kernel=HermiteBasis(size),
                         scale_space=grid).double()  # fmt: skip
        conv.weight.data.normal_(generator=torch.Generator().manual_seed(1))
        errors.append(error(conv, photographs(), 2, grid))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 4 * errors[-1] and errors[2] < 1.1 * errors[3]


@dataclass
class GivenTables:
    found: dict

    def tables(self, grid):
        return self.found


@pytest.mark.parametrize('grid', [ROOT, THIRD], ids=['sqrt 2', 'cbrt 2'])
def test_the_residual_is_the_error_on_images_of_that_spectrum_and_is_the_least(grid):
    basis = DiscreteBasis(3, 'white')
    residual, single_taps = basis.residual(grid), torch.eye(9).double().view(9, 3, 3)

    def measured(tables, i, j):
        """Return the error from level i to j in a grid whose last level is j."""
        short = ScaleGrid(grid.base, j + 1)
        conv = layer_of(single_taps, GivenTables(tables), short)
        signal = gaussian_lift(noise(), short, 'reflect')
        factor = grid.base ** (j - i)
        with torch.no_grad():
            expected = scale_scale_space(conv(signal), factor, short)[:, :, i]
            found = conv(scale_scale_space(signal, factor, short))[:, :, i]
        expected, found = (y[..., 32:-32, 32:-32] for y in (expected, found))
        return ((expected - found).square().sum() / found.square().sum()).item()

    tables = basis.tables(grid)
    for (i, j), expected in residual.items():
        assert measured(tables, i, j) == pytest.approx(expected, rel=0.04)
    fitted = [k for k in grid.levels if tables[k].functions.shape[-1] > 3]
    assert fitted
    rng = np.random.default_rng(0)
    for k in fitted:
        change = 0.05 * rng.normal(size=tables[k].functions.shape)
        for sign in (-1, 1):
            other = tables | {k: KernelTable(tables[k].functions + sign * change)}
            assert sum(measured(other, *pair) for pair in residual) > sum(residual.values())


def test_functions_on_the_taps_are_combined_at_every_level():
    """The published form: functions of level 0, of unit norm, are sums of the taps' tables."""
    taps = DiscreteBasis(5).tables(THIRD)
    mixed = DiscreteBasis(5, width=1.9, max_order=4, mult=1.5).tables(THIRD)
    hermite = published_basis(5, [1.9], 5, max_order=4, mult=1.5)[:, 0]
    for k, (functions, distance) in mixed.items():
        expected = np.einsum('fyx,yxuv->fuv', hermite,
                             taps[k].functions.reshape(5, 5, *functions.shape[1:]))  # fmt: skip
        np.testing.assert_allclose(functions, expected, rtol=0, atol=1e-12)
        assert distance == taps[k].distance


def test_levels_finer_than_the_image_have_smaller_kernels():
    grid = ScaleGrid(2**0.5, 4, first_level=-1)
    tables = DiscreteBasis(5).tables(grid)
    assert sorted(tables) == [-1, 0, 1, 2]
    np.testing.assert_array_equal(tables[0].functions, np.eye(25).reshape(25, 5, 5))
    assert tables[-1].functions.shape[-1] == 7 and tables[2].distance == 2
    # A constant image stays constant, whatever its scale.
    for functions, _ in tables.values():
        np.testing.assert_allclose(functions.sum((1, 2)), 1, atol=0.01)


@pytest.mark.parametrize(
    'kind, change, message',
    [
        (HermiteBasis, dict(size=6), 'size must be an odd integer, got 6'),
        (HermiteBasis, dict(size=7, max_order=-1), 'max_order must be an integer .* got -1'),
        (HermiteBasis, dict(size=7, mult=1), 'mult must be a number greater than 1, got 1'),
        (HermiteBasis, dict(size=7, width=0), 'width must be a number greater than 0, got 0'),
        (GaussianDerivativeBasis, dict(max_order=1.5), 'max_order must be an integer .* got 1.5'),
        (GaussianDerivativeBasis, dict(truncate=-1), 'truncate must be .* got -1'),
        (DiscreteBasis, dict(effective_size=4), 'effective_size must be an odd integer, got 4'),
        (DiscreteBasis, dict(images='pink'), "images must be one of 'white', '1/f', got 'pink'"),
        (DiscreteBasis, dict(width=-1), 'width must be a number greater than 0, got -1'),
    ],
)
def test_wrong_arguments_are_named_with_their_value(kind, change, message):
    with pytest.raises(ValueError, match=message):
        kind(**change)


def test_a_support_on_which_a_function_vanishes_is_refused():
    with pytest.raises(ValueError, match='size=3 leaves 1 taps at the finest level'):
        HermiteBasis(3, 3).tables(ScaleGrid(2, 4))
