# Copyright (c) mmscale contributors.
r"""Bases of the kernels of scale convolutions.

The kernel of level ``k`` is :math:`\kappa_k = \sum_f w_f \psi_f^k`: all levels share the weights
:math:`w`, and each level has its table :math:`\psi^k`. A basis has one method, ``tables(grid)``.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch

from mmscale.checks import check_choice

from .gaussian import discrete_gaussian
from .grid import ScaleGrid
from .resample import _bicubic

IMAGES = ('white', '1/f')


class KernelTable(NamedTuple):
    """The functions of one level, ``(F, n, n)`` in float64, n odd, and the distance of their taps.

    The distance is in samples of the level; only dilated kernels have a distance above 1.
    """

    functions: np.ndarray
    distance: int = 1


def _check(basis, odd: tuple = (), counts: tuple = (), above: tuple = ()) -> None:
    """Raise ``ValueError`` unless arguments are odd, integers, and numbers above a limit."""
    for name in (*odd, *counts):
        value = getattr(basis, name)
        if not isinstance(value, int) or value < 0 or (name in odd and value % 2 == 0):
            kind = 'an odd integer' if name in odd else 'an integer of at least 0'
            raise ValueError(f'{name} must be {kind}, got {value!r}')
    for name, smallest in above:
        if not smallest < getattr(basis, name) < math.inf:
            raise ValueError(
                f'{name} must be a number greater than {smallest}, got {getattr(basis, name)!r}'
            )


def _factors(grid: ScaleGrid) -> dict[int, float]:
    """Return ``base**k`` of the levels of a grid and of level 0, which pyramids use."""
    return dict(zip(grid.levels, grid.factors)) | {0: 1}


def _products(columns: list, orders: list) -> np.ndarray:
    """Return products ``(F, n, n)`` of a function of y and a function of x, for each order."""
    return np.stack([np.outer(columns[y], columns[x]) for y, x in orders])


def _jet(max_order: int) -> list[tuple[int, int]]:
    """Return the orders (y, x) of total at most ``max_order``, in raster order."""
    return [(y, x) for y in range(max_order + 1) for x in range(max_order + 1 - y)]


def _hermite(places: np.ndarray, width: float, order: int) -> np.ndarray:
    """Return the probabilists' polynomial ``He_n(x / width)`` times a Gaussian of that width."""
    x = places / width
    return np.polynomial.hermite_e.hermeval(x, [0] * order + [1]) * np.exp(-(x**2) / 2) / width


def hermite_functions(
    side: int, width: float, effective_size: int, max_order: int | None, mult: float
) -> np.ndarray:
    """Return the functions of :class:`HermiteBasis` on a square of ``side`` taps."""
    places, count = np.arange(side) - side // 2.0, effective_size**2
    top = effective_size - 1 if max_order is None else max_order
    orders = [(y, x) for y in range(top + 1) for x in range(top + 1)]
    orders = orders if max_order is None else _jet(top)
    found = []
    for n in range(-(-count // len(orders))):
        columns = [_hermite(places, width / mult**n, order) for order in range(top + 1)]
        found.append(_products(columns, orders))
    return np.concatenate(found)[:count]


@dataclass(frozen=True)
class HermiteBasis:
    r"""Hermite polynomials with a Gaussian envelope, the basis of steerable networks (SESN).

    A function is :math:`He_m(y / \sigma) He_n(x / \sigma) e^{-(x^2 + y^2) / 2\sigma^2} /
    \sigma^2`, divided by its norm at the finest level. The basis has ``effective_size**2``
    functions, in raster order (y, x). Without ``max_order`` it has all orders up to
    ``effective_size - 1`` in y and in x, at the width ``width * base**k``. With ``max_order`` it
    has the orders of total at most ``max_order``, at this width divided by 1, ``mult``,
    ``mult**2``, .... Source: Sosnovik et al., Scale-Equivariant Steerable Networks, ICLR 2020.

    Args:
        size (int): Odd support at the coarsest level, in samples. Level ``k`` has the support
            ``int(size * base**k / base**k_max) // 2 * 2 + 1``.
        effective_size (int): Root of the number of functions, odd.
        max_order (int, optional): Largest total order at each of several widths.
        mult (float): Ratio of neighbouring widths, greater than 1.
        width (float): :math:`\sigma` of level 0, in samples.

    Raises:
        ValueError: If an argument is out of range.
    """

    size: int
    effective_size: int = 7
    max_order: int | None = None
    mult: float = 1.4
    width: float = 1.0

    def __post_init__(self) -> None:
        orders = () if self.max_order is None else ('max_order',)
        _check(self, ('size', 'effective_size'), orders, (('mult', 1), ('width', 0)))

    @lru_cache(maxsize=64)  # noqa: B019  (networks have few bases, which compare by value)
    def tables(self, grid: ScaleGrid) -> dict[int, KernelTable]:
        """Return the tables of the levels of ``grid`` and of level 0, by number of the level."""
        factors = _factors(grid)
        largest, found = grid.factors[-1], {}
        for k, factor in factors.items():
            side = int(self.size * factor / largest + 1e-9) // 2 * 2 + 1
            args = self.effective_size, self.max_order, self.mult
            found[k] = hermite_functions(side, self.width * factor, *args)
        norms = np.sqrt((found[min(factors)] ** 2).sum((1, 2), keepdims=True))
        if not norms.all():
            raise ValueError(
                f'size={self.size} leaves {found[min(factors)].shape[-1]} taps at the finest '
                'level, where a function is 0 at all taps: give a larger size'
            )
        return {k: KernelTable(functions / norms) for k, functions in found.items()}


@dataclass(frozen=True)
class GaussianDerivativeBasis:
    r"""The N-jet, scale-normalised derivatives of a Gaussian up to a total order.

    Level ``k`` has :math:`\sigma^{m+n} \partial_y^m \partial_x^n` of the image blurred by a
    Gaussian of :math:`\sigma` = ``width * base**k``. It has ``(N + 1) (N + 2) / 2`` functions, in
    raster order of (m, n), on ``ceil(truncate * sigma)`` samples on each side. Source: Lindeberg,
    Scale-covariant and scale-invariant Gaussian derivative networks, J. Math. Imaging Vis. 2022.

    Args:
        max_order (int): Largest total order N.
        width (float): :math:`\sigma` of level 0, in samples.
        truncate (float): Radius of the support, in :math:`\sigma`.
        discrete (bool): Whether to take central differences of the discrete Gaussian
            (:func:`~mmscale.scale_space.discrete_gaussian`) instead of sampled derivatives. The
            radius grows by ``(max_order + 1) // 2`` samples.

    Raises:
        ValueError: If an argument is out of range.
    """

    max_order: int = 2
    width: float = 1.0
    truncate: float = 3.0
    discrete: bool = False

    def __post_init__(self) -> None:
        _check(self, (), ('max_order',), (('width', 0), ('truncate', 0)))

    @lru_cache(maxsize=64)  # noqa: B019
    def tables(self, grid: ScaleGrid) -> dict[int, KernelTable]:
        """Return the tables of the levels of ``grid`` and of level 0, by number of the level."""
        orders = _jet(self.max_order)
        return {
            k: KernelTable(_products(self._derivatives(self.width * factor), orders))
            for k, factor in _factors(grid).items()
        }

    def _derivatives(self, sigma: float) -> list[np.ndarray]:
        """Return the weights of ``x(z + u)`` in each derivative along an axis."""
        radius = math.ceil(self.truncate * sigma - 1e-9)
        places = np.arange(-radius, radius + 1.0)
        if not self.discrete:
            # g'(-u) = u / sigma^2 g(u): in a correlation all orders have the sign of He_n.
            scale = 1 / math.sqrt(2 * math.pi)
            return [scale * _hermite(places, sigma, n) for n in range(self.max_order + 1)]
        with torch.inference_mode(False), torch.device('cpu'):
            blur = discrete_gaussian(sigma**2, radius).numpy()
        found = []
        for n in range(self.max_order + 1):
            taps = sigma**n * blur
            for step in [[1, -2, 1]] * (n // 2) + [[-0.5, 0, 0.5]] * (n % 2):
                taps = np.convolve(taps, step)
            found.append(np.pad(taps, (self.max_order + 1) // 2 - (n + 1) // 2))
        return found


@dataclass(frozen=True)
class DiscreteBasis:
    r"""Kernels on pixels with the smallest error of commuting with scaling (DISCO).

    Level 0 has the taps of an ordinary kernel. If the ratio of two levels is an integer, the
    coarser level dilates the taps of the finer level, which is exact. The other tables :math:`\psi`
    minimise, for all levels ``i < j``, :math:`s = a^{j-i}`, and images f, the mean square of

    .. math:: \sum_v \psi^j(v) f_j(s z + v) - \sum_v \psi^i(v) f_j(s (z + v))

    relative to the mean square of either sum. Here :math:`f_j` is the image with the blur of level
    j under bicubic interpolation. The normal equations are sums over frequencies; their solution
    has no randomness and takes a second. Source: Sosnovik, Moskalev & Smeulders, DISCO: accurate
    Discrete Scale Convolutions, BMVC 2021, who fit the tables by gradient descent on noise.

    Args:
        effective_size (int): Taps of a side of level 0, odd.
        images (str): Spectrum of the images: ``'white'`` or ``'1/f'`` (amplitudes of photographs).
        margin (int): Samples on each side of a fitted table beyond the place of the outermost tap.
        width (float, optional): Width of the functions of :class:`HermiteBasis` that replace the
            single taps, as in the paper; ``max_order`` and ``mult`` are arguments of that basis.

    Raises:
        ValueError: If an argument is out of range.
    """

    effective_size: int = 7
    images: str = '1/f'
    margin: int = 1
    width: float | None = None
    max_order: int | None = None
    mult: float = 1.4

    def __post_init__(self) -> None:
        _check(self, ('effective_size',), ('margin',))
        check_choice('images', self.images, IMAGES)
        if self.width is not None:
            side = self.effective_size
            HermiteBasis(side, side, self.max_order, self.mult, self.width)

    @property
    def taps(self) -> tuple[int, int] | None:
        """Height and width of the ordinary kernels that level 0 can load, or None."""
        return (self.effective_size,) * 2 if self.width is None else None

    @lru_cache(maxsize=64)  # noqa: B019
    def tables(self, grid: ScaleGrid) -> dict[int, KernelTable]:
        """Return the tables of the levels of ``grid`` and of level 0, by number of the level."""
        layout, functions, _ = self._fit(grid)
        if self.width is not None:
            side = self.effective_size
            mixed = hermite_functions(side, self.width, side, self.max_order, self.mult)
            mixed = mixed.reshape(len(mixed), -1)
            functions = {k: np.tensordot(mixed, taps, 1) for k, taps in functions.items()}
            norms = np.sqrt((functions[layout[min(layout)][0]] ** 2).sum((1, 2), keepdims=True))
            functions = {k: found / norms for k, found in functions.items()}
        return {k: KernelTable(functions[root], step) for k, (root, step) in layout.items()}

    def residual(self, grid: ScaleGrid) -> dict[tuple[int, int], float]:
        """Return the relative mean square error of each pair of levels ``(i, j)``, over taps."""
        return self._fit(grid)[2]

    @lru_cache(maxsize=64)  # noqa: B019
    def _fit(self, grid: ScaleGrid):
        """Return each level's source of taps and their distance; the taps; the residuals."""
        factors, layout, radii = _factors(grid), {}, {0: self.effective_size // 2}
        for k in sorted(factors):
            finer = {j: factors[k] / factors[j] for j in sorted({0, k, *layout}) if 0 <= j <= k}
            root = next((j for j, ratio in finer.items() if _is_whole(ratio)), k)
            layout[k] = root, round(factors[k] / factors[root])
            radii.setdefault(root, math.ceil(factors[root] * radii[0] - 1e-9) + self.margin)
        sides = [2 * radius + 1 for radius in radii.values()]
        starts = dict(zip(radii, np.cumsum([0] + [side**2 for side in sides])))
        matrix, pairs = np.zeros((sum(side**2 for side in sides),) * 2), []
        for i, j in combinations(sorted(factors), 2):
            ratio = factors[j] / factors[i]
            if i >= 0 and _is_whole(ratio):
                continue  # exact
            places, where = [], []
            for (root, distance), step in ((layout[j], 1), (layout[i], ratio)):
                places.append(step * distance * np.arange(-radii[root], radii[root] + 1.0))
                where.append(starts[root] + np.arange(len(places[-1]) ** 2))
            variance = grid.zero_scale**2 * (max(factors[j], 1) ** 2 - 1)
            part = _covariance(*places, ratio, variance, self.images)
            signs = np.repeat([1, -1], [len(index) for index in where])
            index = np.concatenate(where)
            matrix[np.ix_(index, index)] += np.outer(signs, signs) * part
            pairs.append((i, j, index, signs, part))
        count = sides[0] ** 2  # number of known taps
        solved = np.linalg.solve(matrix[count:, count:], -matrix[count:, :count])
        taps = np.concatenate([np.eye(count), solved])
        residual = {}
        for i, j, index, signs, part in pairs:
            both = signs[:, None] * taps[index]
            of_finer = np.where(signs[:, None] < 0, both, 0)
            residual[i, j] = (both * (part @ both)).sum() / (of_finer * (part @ of_finer)).sum()
        own = {
            k: taps[starts[k] : starts[k] + side**2].T.reshape(count, side, side)
            for k, side in zip(radii, sides)
        }
        return layout, own, residual


def _is_whole(ratio: float) -> bool:
    return abs(ratio - round(ratio)) < 1e-9


def _covariance(fine, coarse, factor: float, variance: float, images: str) -> np.ndarray:
    """Return covariances of an image at ``factor z + place``, averaged over the integers z.

    ``fine`` and ``coarse`` are coordinates along an axis, in pixels. The places are the square grid
    of ``fine``, then the square grid of ``coarse``. The mean variance over all places is 1.
    """
    count, phases = 128, factor * np.arange(64) % 1
    waves = 2 * math.pi * np.fft.fftfreq(count)
    axis = np.concatenate([fine, coarse])
    places = phases[:, None] + axis
    pixels = np.floor(places)[..., None] + np.arange(-1, 3)
    weights = _bicubic(torch.from_numpy(places[..., None] - pixels)).numpy()
    read = (weights[..., None] * np.exp(1j * pixels[..., None] * waves)).sum(2)
    read *= np.exp(variance * (np.cos(waves) - 1))
    products = np.einsum('pyw,pzw->wyz', read, read.conj()).reshape(count, -1)
    power = np.ones((count, count))
    if images == '1/f':
        square = waves[:, None] ** 2 + waves**2
        square[0, 0] = square[0, 1]  # the mean gets the power of the slowest wave
        power = 1 / square
    found = (products.T @ power @ products).real.reshape((len(axis),) * 4)
    found = found.transpose(0, 2, 1, 3).reshape((len(axis) ** 2,) * 2)
    squares, n = np.arange(len(axis) ** 2).reshape((len(axis),) * 2), len(fine)
    index = np.concatenate([squares[:n, :n].ravel(), squares[n:, n:].ravel()])
    found = found[np.ix_(index, index)]
    return found / found.diagonal().mean()
