# Copyright (c) mmscale contributors.
"""Measure how far a network is from commuting with scaling."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mmscale.checks import check_choice, check_count
from mmscale.scale_space import ScaleGrid, Signal, is_pyramid, split_levels
from mmscale.scale_space.action import BETWEEN_LEVELS

from .features import Features, find_grid, modules_of
from .scaling import RESAMPLINGS, Scaling, has_levels

FACTORS = (1.0, 1.1, 1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class EquivarianceError:
    """The equivariance errors of one network.

    Attributes:
        factors (tuple[float, ...]): The F scale factors.
        per_sample (Tensor): ``(F, N)``, the errors over the valid levels; nan if no level is valid
            or the feature is zero.
        truncated (Tensor): ``(F, N)``, the errors over the levels whose sources were cut off at the
            coarse end, nan if there are none. Ordinary feature maps and vectors have none.
    """

    factors: tuple[float, ...]
    per_sample: Tensor
    truncated: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean over samples, ``(F,)``."""
        return self.per_sample.nanmean(1)

    @property
    def standard_error(self) -> Tensor:
        """Standard error of the mean over samples, ``(F,)``."""
        count = (~self.per_sample.isnan()).sum(1)
        squares = (self.per_sample - self.mean[:, None]).square().nansum(1)
        return (squares / (count - 1) / count).sqrt()


@torch.no_grad()
def equivariance_error(
    phi: Callable[[Signal], Signal],
    images: Signal | Iterable[Signal],
    factors: Sequence[float] = FACTORS,
    *,
    layers: Sequence[str] | None = None,
    scale_space: dict | ScaleGrid | None = None,
    zero_scale: float = 0.5,
    canvas: str = 'shrink',
    resampling: str = 'matched',
    between_levels: str = 'cubic',
    border: int = 0,
    squared: bool = True,
    truncation: int | None = None,
    batch_size: int = 32,
) -> EquivarianceError | tuple[EquivarianceError, ...] | dict[str, EquivarianceError]:
    r"""Measure how far ``phi``, or each of its layers, is from commuting with scaling.

    .. math:: \Delta(s) = \|L_s \Phi(f) - \Phi(L_s f)\|^2 / \|L_s \Phi(f)\|^2

    The norms are taken per sample, over the valid levels of a scale space: on either side, a valid
    level sees no level beyond the coarsest. The error is nan, with a warning, at a factor that
    leaves no valid level or makes the images too small for the network. For vectors, and for maps
    whose size does not follow the image's, ``L_s`` is the identity: the invariance error.

    Args:
        phi (Callable): From images (or a scale space) to feature maps, scale spaces, vectors or
            tuples of them. A module, or the module of a method, is put into eval mode and back.
        images (Tensor | tuple[Tensor, ...] | Iterable): ``(N, C, H, W)``; or a scale space, to
            measure the body of a network without its lift; or a list or an iterator of such
            batches. An iterator needs memory for one batch only.
        factors (Sequence[float]): The factors ``s``, each at least 1.
        layers (Sequence[str], optional): Names of submodules of ``phi``. Their outputs are measured
            in place of the output of ``phi``.
        scale_space (dict | ScaleGrid, optional): The levels of the scale spaces that occur.
            Defaults to the grid of the layers of the network.
        zero_scale (float): Assumed blur of images and ordinary feature maps, a standard deviation
            in their pixels. A scale space has its own.
        canvas (str): With ``'shrink'``, scaled images are smaller, aligned at the origin pixel.
            With ``'keep'``, they keep their size, aligned at the centre and filled with zeros.
            Features are compared where the scaled image lies, not where the zeros around it lie.
        resampling (str): ``'matched'``, ``'gaussian'``, ``'bilinear'``, ``'bicubic'`` or
            ``'ideal'``, for images and features, see :func:`scale_signal`.
        between_levels (str): Interpolation of features between the levels of a scale space, at
            factors that are no power of its base: ``'linear'`` or ``'cubic'``, see
            :func:`mmscale.scale_space.action.level_weights`. Valid levels are interpolated from
            valid levels alone.
        border (int): Number of samples to leave out along each side of every level.
        squared (bool): Whether the error has squared norms. If not, it is the square root.
        truncation (int, optional): Number of levels that the interactions of the network spoil.
            Defaults to the sum of ``interaction - 1`` over the scale convolutions that ran before
            the output, and to 0 for a function. If the input is a scale space, at powers of the
            base both sides are cut alike and no level is spoiled.
        batch_size (int): Number of samples measured at a time.

    Returns:
        EquivarianceError | tuple | dict: The errors per factor and sample; a tuple of errors if
        ``phi`` has several outputs; a dict by name if ``layers`` are given.

    Raises:
        ValueError: If an argument is out of range, a layer does not exist, an image is too small
            for all factors, features are not finite, or the size of a feature map follows the
            image's size only in part.
    """
    factors = check_factors(factors)
    grid = find_grid(phi) if scale_space is None else ScaleGrid.build(scale_space)
    zero_scale = zero_scale if grid is None else grid.zero_scale
    check_choice('resampling', resampling, RESAMPLINGS)
    check_choice('between_levels', between_levels, BETWEEN_LEVELS)
    check_count('border', border, 0)
    features = Features(phi, layers, grid)
    parts: dict[str, list] = {}
    with eval_mode(phi):
        for batch in split_batches(images, batch_size):
            scale = Scaling(grid, zero_scale, canvas, resampling, between_levels, batch)
            found = _measure(features, batch, factors, scale, border, truncation)
            for name, errors in found.items():
                parts.setdefault(name, []).append(errors if squared else errors.sqrt())
    results = {
        name: EquivarianceError(factors, *torch.cat(errors, 2)) for name, errors in parts.items()
    }
    if not results:
        raise ValueError('images must hold at least one image, got none')
    if layers is not None:
        return results
    return results[''] if '' in results else tuple(results.values())


def check_factors(factors: Sequence[float]) -> tuple[float, ...]:
    """Return ``factors`` as floats; raise ``ValueError`` if one is below 1 or there are none."""
    factors = tuple(float(factor) for factor in factors)
    for factor in factors:
        if not 1 <= factor < float('inf'):
            raise ValueError(f'factors must be at least 1 and finite, got {factor:g}')
    if not factors:
        raise ValueError('factors must name at least one scale factor, got none')
    return factors


@contextmanager
def eval_mode(phi: Callable) -> Iterator[None]:
    """Put a network into eval mode, and afterwards each of its modules back into its own mode."""
    modules = modules_of(phi)
    modes = [module.training for module in modules]
    if modules:
        modules[0].eval()  # a call, because layers override `train` to drop stored kernels
    try:
        yield
    finally:
        # Modes differ: frozen stages are in eval mode inside of a network in training.
        for module, mode in zip(modules, modes):
            module.training = mode


def split_batches(images: Signal | Iterable[Signal], batch_size: int) -> Iterator[Signal]:
    if batch_size < 1:
        raise ValueError(f'batch_size must be at least 1, got {batch_size}')
    if not isinstance(images, Tensor | tuple):
        if isinstance(images, list):
            sizes = [tuple(x.shape[-2:]) for x in images if isinstance(x, Tensor)]
            if len(set(sizes)) > 1:
                raise ValueError(
                    f'images is a list of tensors of the sizes {sizes}: give a pyramid as a tuple '
                    'of its levels, and batches of different sizes as iter(images)'
                )
        for batch in images:
            yield from split_batches(batch, batch_size)
        return
    count = len(images[0]) if is_pyramid(images) else len(images)
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        yield tuple(level[part] for level in images) if is_pyramid(images) else images[part]


def _title(name: str) -> str:
    return f'layer {name!r}' if name.partition('[')[0] else f'output {name}'.rstrip()


def _measure(features: Features, batch, factors, scale: Scaling, border, truncation):
    """Return the errors of a batch by name, each ``(2, F, N)``: of valid and truncated levels."""
    before = features(batch)
    truncations = features.truncation  # later runs can end early
    pooled = _pooled(features, batch, before, factors, scale)
    before = _flatten(before, pooled)
    _check_finite(before, 1.0)
    errors = {name: [] for name in before}
    refusals, measured = [], False
    for factor in factors:
        whole = scale.leaves_a_level(batch, factor)
        left = [name for name, x in before.items() if whole and scale.leaves_a_level(x, factor)]
        after = before if factor == 1 else {}
        if factor > 1 and left:
            try:
                after = _flatten(_run_scaled(features, scale(batch, factor), factor), pooled)
                measured = True
            except ValueError as error:
                refusals.append(error)
                warnings.warn(f'{error}: the error there is nan', stacklevel=4)
        _check_finite(after, factor)
        for name, feature in before.items():
            if name not in left:
                warnings.warn(
                    f'no level is left of {_title(name)} at factor {factor:g}, which shifts by '
                    f'{scale.grid.shift(factor):.3g} levels: its error is nan',
                    stacklevel=4,
                )
            if name not in left or name not in after:
                count = len(levels_of(feature)[0])
                missing = torch.full((2, count), torch.nan, dtype=torch.float64, device='cpu')
                errors[name].append(missing)
                continue
            # At powers of the base, a scale space as input ends at the same level on both sides.
            cut = not has_levels(batch) or not scale.is_whole(factor)
            spoiled = truncations[name] if cut else 0
            if truncation is not None and has_levels(feature):
                spoiled = truncation
            ratios = _compare(name, scale, feature, after[name], factor, spoiled, border)
            errors[name].append(ratios)
    if refusals and not measured:
        raise refusals[0]
    return {name: torch.stack(rows, 1) for name, rows in errors.items()}


def _compare(name, scale: Scaling, feature, found, factor, spoiled, border) -> Tensor:
    """Return the errors of the valid and of the truncated levels, ``(2, N)``."""
    expected = scale_levels(scale, feature, factor, spoiled)
    valid = len(expected) - spoiled
    if valid < 1:
        warnings.warn(
            f'no level is valid at factor {factor:g}: {len(expected)} remain, and the '
            f'interactions of the network spoil {spoiled}',
            stacklevel=5,
        )
    frames = _frames(scale, feature, factor, spoiled)
    sums = torch.zeros(2, 2, len(expected[0]), dtype=torch.float64, device='cpu')
    for k, (a, b) in enumerate(zip(expected, levels_of(found))):
        if frames is not None:
            rows, columns = frames[k]
            a, b = a[..., rows, columns], b[..., rows, columns]
            if 0 in (*a.shape[2:], *b.shape[2:]):
                continue  # the map is too small to have a sample there
        size = [min(sides) for sides in zip(a.shape[2:], b.shape[2:])]
        a, b = (crop_border(part.double().cpu(), size, border) for part in (a, b))
        terms = [part.flatten(1).square().sum(1) for part in (a - b, a)]
        sums[int(k >= valid)] += torch.stack(terms)
    difference, reference = sums.unbind(1)
    ratios = (difference / reference).where(reference > 0, torch.nan)
    if valid >= 1 and ratios[0].isnan().any():
        warnings.warn(f'{_title(name)} is zero for a sample: its error is nan', stacklevel=5)
    return ratios


def _pooled(features: Features, batch, before: dict, factors, scale: Scaling) -> set[str]:
    """Return the names of the feature maps whose size does not follow the size of the image.

    A run on a smaller image shows them. Maps of a single sample always belong to them.
    """
    maps = {name: x.shape[2:] for name, x in before.items() if not is_pyramid(x) and x.ndim == 4}
    pooled = {name for name, size in maps.items() if max(size) == 1}
    one = next(split_batches(batch, 1), None)
    for factor in (2.0, *sorted(factors, reverse=True)):
        if one is None or len(pooled) == len(maps) or not scale.leaves_a_level(one, factor):
            continue
        try:
            smaller = features(scale(one, factor, canvas='shrink'))
        except (AssertionError, RuntimeError, ValueError):  # the image is too small
            continue
        for name, size in maps.items():
            sizes = list(zip(size, smaller[name].shape[2:]))
            # A single sample beside a side of many, as an image of this shape would not have it.
            (rows, columns), (height, width) = size, scale.size
            lone = (rows == 1 and height * (columns - 1) >= width,
                    columns == 1 and width * (rows - 1) >= height)  # fmt: skip
            stay = {one or m == n > math.ceil(n / factor) for one, (n, m) in zip(lone, sizes)}
            near = all(abs(m - n / factor) <= max(1, abs(m - n)) for n, m in sizes)
            if stay == {True}:
                pooled.add(name)
            elif len(stay) > 1 or not near:
                was, now = ('x'.join(map(str, side)) for side in zip(*sizes))
                raise ValueError(
                    f"the size of {_title(name)} does not follow the image's, and cannot be "
                    f'compared: {was}, and {now} of an image {factor:g} times smaller'
                )
        break
    return pooled


def _flatten(maps: dict[str, Signal], pooled: set[str]) -> dict[str, Signal]:
    return {name: x.flatten(1) if name in pooled else x for name, x in maps.items()}


def _run_scaled(features: Features, scaled: Signal, factor: float) -> dict[str, Signal]:
    try:
        return features(scaled)
    except (ValueError, RuntimeError) as error:
        size = 'x'.join(map(str, (scaled[0] if is_pyramid(scaled) else scaled).shape[-2:]))
        raise ValueError(
            f'at factor {factor:g} the network does not take the scaled images of {size} '
            f'pixels: use larger images, smaller factors or canvas="keep" ({error})'
        ) from error


def _check_finite(features: dict[str, Signal], factor: float) -> None:
    for name, feature in features.items():
        if not all(level.isfinite().all() for level in levels_of(feature)):
            raise ValueError(
                f'{_title(name)} is not finite at factor {factor:g}: check the weights and the '
                'normalisation of the images'
            )


def levels_of(x: Signal) -> list[Tensor]:
    """Return the levels ``(N, C, H, W)`` of a scale space, or a list of any other signal."""
    return list(split_levels(x)) if has_levels(x) else [x]


def scale_levels(
    scale: Callable[[Signal, float], Signal], feature: Signal, factor: float, spoiled: int
) -> list[Tensor]:
    """Return the levels of ``L_s Phi(f)``; no valid level is read from a spoiled level."""
    levels = levels_of(scale(feature, factor))
    valid = len(levels) - spoiled
    if spoiled > 0 and valid > 0:
        rest = feature[:-spoiled] if is_pyramid(feature) else feature[:, :, :-spoiled]
        levels[:valid] = levels_of(scale(rest, factor))
    return levels


def _frames(scale: Scaling, feature: Signal, factor: float, spoiled: int) -> list | None:
    """Return the rows and columns at which each level of ``L_s Phi(f)`` reads only ``Phi(f)``.

    None stands for all rows and columns of all levels.
    """
    finest = feature[0] if is_pyramid(feature) else feature
    if scale.arguments['canvas'] == 'shrink' or finest.ndim < 4:
        return None
    levels = feature if is_pyramid(feature) else (feature,)
    ones = tuple(torch.ones_like(level[:1, :1], dtype=torch.float64) for level in levels)
    ones = ones if is_pyramid(feature) else ones[0]
    # Zeros lie around the ones: bilinear reading gives 1 where it reads no zero.
    within = scale_levels(partial(scale, resampling='bilinear'), ones, factor, spoiled)
    inside = [(level[0, 0] - 1).abs() < 1e-9 for level in within]
    return [(_span(level.any(1)), _span(level.any(0))) for level in inside]


def _span(chosen: Tensor) -> slice:
    places = chosen.nonzero().flatten().tolist() or [0, -1]
    return slice(places[0], places[-1] + 1)


def crop_border(x: Tensor, size: Sequence[int], border: int) -> Tensor:
    if x.ndim < 4:
        return x
    height, width = size
    if min(height, width) <= 2 * border:
        raise ValueError(
            f'border={border} leaves nothing of a feature map of {height}x{width}: use a smaller '
            'border or larger images'
        )
    return x[..., border : height - border, border : width - border]
