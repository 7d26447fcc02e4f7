# Copyright (c) mmscale contributors.
"""The two forms of a scale-space signal, and the one that both have inside a network.

*Dense*: a tensor ``(N, C, S, H, W)``, every level at full resolution. Our own layers keep it
level-major in memory, so that one level, and all levels as one batch, are views.

*Pyramid*: a tuple of S tensors ``(N, C, H_k, W_k)``, level ``k`` sampled at ``base**k`` times the
distance of level 0, from the origin pixel.

Layers and functions of signals take either and return the same, and do so at one door,
:func:`on_packed`: behind it, and from layer to layer of a network, either is
:class:`PackedLevels`.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .grid import ScaleGrid
from .resample import grid_positions, resample


class PackedLevels:
    """A signal as the layers of a network hand it on: its levels, dense or a pyramid.

    What works on single pixels, and statistics over all of them, takes all levels in one call:
    asked for :attr:`pixels`, the levels lie one behind the other in memory, and a map of one
    level, ``(N, C, H_k, W_k)`` and channels last in memory, is a view. Until then they are kept as
    they came.

    Args:
        pixels (Tensor): ``(1, C, P, 1)``, channels last: the P pixels of all levels, those of the
            finest one first; in a level, sample by sample and row by row.
        batch_size (int): Samples N.
        sizes (Sequence[tuple[int, int]]): Height and width of each level.
        dense (bool): Whether the signal is dense rather than a pyramid.
    """

    def __init__(
        self, pixels: Tensor, batch_size: int, sizes: Sequence[tuple[int, int]], dense: bool
    ):
        self._pixels, self._maps, self.batch_size = pixels, None, batch_size
        self.sizes, self.dense = tuple(sizes), dense

    @classmethod
    def pack(cls, x: 'Signal') -> 'PackedLevels':
        """A signal in any form; what is packed stays as it is."""
        return x if isinstance(x, cls) else cls._of_maps(split_levels(x), not is_pyramid(x))

    @classmethod
    def _of_maps(cls, maps: Sequence[Tensor], dense: bool) -> 'PackedLevels':
        batch_size = maps[0].shape[0] if maps else 0
        packed = cls(None, batch_size, [level.shape[-2:] for level in maps], dense)
        packed._maps = tuple(maps)
        return packed

    @classmethod
    def of_batch(cls, maps: Tensor, num_levels: int) -> 'PackedLevels':
        """A dense signal from all of its levels as one batch, ``(S N, C, H, W)``."""
        size, batch_size = maps.shape[-2:], maps.shape[0] // num_levels
        return cls(_as_pixels(_as_rows(maps)), batch_size, [size] * num_levels, dense=True)

    def join(self) -> 'PackedLevels':
        """Lays the levels one behind the other; what is made of them lies so, too."""
        if self._maps is not None:
            self._pixels, self._maps = _join(self._maps), None
        return self

    @property
    def pixels(self) -> Tensor:
        """All pixels, ``(1, C, P, 1)``."""
        return self.join()._pixels

    @property
    def joined(self) -> bool:
        """Whether the levels lie one behind the other already."""
        return self._maps is None

    @property
    def channels(self) -> int:
        """C."""
        return (self._pixels if self._maps is None else self._maps[0]).shape[1]

    def unpack(self) -> 'Tensor | tuple[Tensor, ...]':
        """The dense tensor, a view of pixels, or the levels, each with memory of its own.

        Autograd would forbid in-place layers behind several views of one tensor.
        """
        if self._maps is not None:
            return stack_levels(self._maps) if self.dense else self._maps
        if not self.dense:
            return tuple(level.clone() for level in self)
        height, width = self.sizes[0]
        return unfold_levels(_as_maps(_as_rows(self.pixels), (-1, height, width)), len(self))

    def map(self, fn: Callable[..., Tensor], *others: 'PackedLevels') -> 'PackedLevels':
        """Applies a function of all pixels, such as a 1x1 convolution, a norm or an activation."""
        pixels = fn(self.pixels, *(other.pixels for other in others))
        return PackedLevels(pixels, self.batch_size, self.sizes, self.dense)

    def map_images(
        self,
        fn: Callable[[Tensor, float], Tensor],
        factors: Sequence[float],
        num_coarse: int = 0,
        coarse: 'Callable[[PackedLevels], PackedLevels] | None' = None,
    ) -> 'PackedLevels':
        """Applies a function of the maps of a level that treats each sample by itself.

        Args:
            fn (Callable): Takes maps ``(M, C, H, W)`` and a factor. Neighbouring levels of equal
                size and factor come as one batch of M = 2N, 3N, ... maps: among the coarse levels
                of a pyramid many do.
            factors (Sequence[float]): What ``fn`` is told of each level, such as its dilation.
            num_coarse (int): Number of coarse levels that ``coarse`` takes instead.
            coarse (Callable, optional): The same function, of a signal.
        """
        num_fine = len(self) - num_coarse
        runs = []
        for run in zip(self.sizes[:num_fine], factors):
            if runs and runs[-1][0] == run:
                runs[-1][1] += 1
            else:
                runs.append([run, 1])
        if not self.joined and len(runs) == len(self):
            levels = zip(self, factors)
            return PackedLevels._of_maps([fn(x, factor) for x, factor in levels], self.dense)
        *maps, rest = self._split([(size, count) for (size, _), count in runs])
        results, sizes = [], []
        for x, ((_, factor), count) in zip(maps, runs, strict=True):
            results.append(fn(x, factor))
            sizes += [results[-1].shape[-2:]] * count
        if num_coarse:
            rest = PackedLevels(rest, self.batch_size, self.sizes[num_fine:], self.dense)
            result = coarse(rest)
            results.append(result.pixels)
            sizes += result.sizes
        return PackedLevels(_join(results), self.batch_size, sizes, self.dense)

    def drop_finest(self, count: int) -> 'PackedLevels':
        """The signal without its ``count`` finest levels."""
        if self._maps is not None:
            return PackedLevels._of_maps(self._maps[count:], self.dense)
        first = sum(self.batch_size * height * width for height, width in self.sizes[:count])
        pixels = self.pixels[:, :, first:]
        return PackedLevels(pixels, self.batch_size, self.sizes[count:], self.dense)

    def add_finest(self, other: 'PackedLevels') -> 'PackedLevels':
        """The sum with a signal that has only the finest of these levels; this one is used up."""
        if self._maps is not None and other._maps is not None:
            sums = [x.add_(y) for x, y in zip(self._maps, other._maps)]
            return PackedLevels._of_maps((*sums, *self._maps[len(sums) :]), self.dense)
        missing = self.pixels.shape[2] - other.pixels.shape[2]
        return self.map(lambda pixels: pixels + F.pad(other.pixels, (0, 0, 0, missing)))

    def _split(self, runs) -> list[Tensor]:
        """Runs of levels of equal size as batches of maps, and what remains as pixels."""
        shapes = [(self.batch_size * count, *size) for size, count in runs]
        numbers = [number * height * width for number, height, width in shapes]
        rows = _as_rows(self.pixels)
        *parts, rest = rows.split([*numbers, rows.shape[0] - sum(numbers)])
        return [_as_maps(part, shape) for part, shape in zip(parts, shapes)] + [_as_pixels(rest)]

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Tensor]:
        if self._maps is not None:
            return iter(self._maps)
        return iter(self._split([(size, 1) for size in self.sizes])[:-1])


def _as_rows(maps: Tensor) -> Tensor:
    """``(N, C, H, W)`` as ``(N H W, C)``; a view where channels are last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _as_maps(rows: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """``(N H W, C)`` as ``(N, C, H, W)``, for a ``shape`` (N, H, W); always a view."""
    return rows.view(*shape, rows.shape[1]).permute(0, 3, 1, 2)


def _as_pixels(rows: Tensor) -> Tensor:
    return rows[None, :, None].permute(0, 3, 1, 2)


def _join(maps: Sequence[Tensor]) -> Tensor:
    """All pixels of several maps ``(N, C, H, W)`` as ``(1, C, P, 1)``, channels last."""
    return _as_pixels(torch.cat([_as_rows(x) for x in maps]))


Signal = Tensor | tuple[Tensor, ...] | PackedLevels


def is_pyramid(x: Signal) -> bool:
    """Whether a signal is a pyramid rather than dense."""
    return isinstance(x, tuple | list) or (isinstance(x, PackedLevels) and not x.dense)


def on_packed(fn: Callable[..., PackedLevels], *signals: Signal) -> Signal:
    """Applies a function of packed signals to signals in any form; its result has theirs."""
    y = fn(*(PackedLevels.pack(x) for x in signals))
    return y if isinstance(signals[0], PackedLevels) else y.unpack()


def check_signal(x: Signal, grid: ScaleGrid, channels: int | None = None) -> None:
    """Raises ``ValueError`` unless ``x`` is a dense or pyramid signal on (the start of) ``grid``.

    A signal with fewer levels than the grid is one whose coarsest levels were cut off.
    """
    levels = split_levels(x)
    if not 1 <= len(levels) <= grid.num_scales:
        raise ValueError(
            f'the signal has {len(levels)} levels, but the scale space has '
            f'num_scales={grid.num_scales}'
        )
    for level in levels:
        if channels is not None and level.shape[1] != channels:
            raise ValueError(f'the signal has {level.shape[1]} channels, expected {channels}')


def split_levels(x: Signal) -> tuple[Tensor, ...]:
    """The levels of a signal, each ``(N, C, H_k, W_k)``; ``ValueError`` if it is not one."""
    if isinstance(x, PackedLevels):
        return tuple(x)
    if is_pyramid(x):
        form, levels = 'a pyramid of tensors (N, C, H_k, W_k)', tuple(x)
        wrong = [tuple(level.shape) for level in levels if level.ndim != 4]
    else:
        form, levels = 'a dense tensor (N, C, S, H, W)', ()
        wrong = [] if x.ndim == 5 else [tuple(x.shape)]
    if wrong:
        raise ValueError(f'a scale-space signal is {form}, got the shape {wrong[0]}')
    return levels if is_pyramid(x) else x.unbind(2)


def stack_levels(levels: Sequence[Tensor]) -> Tensor:
    """A dense signal, level-major in memory, from levels of equal size."""
    return unfold_levels(torch.cat(tuple(levels)), len(levels))


def fold_levels(x: Tensor) -> Tensor:
    """``(N, C, S, H, W)`` as one batch ``(S N, C, H, W)``; a view where level-major."""
    return x.permute(2, 0, 1, 3, 4).flatten(0, 1)


def unfold_levels(x: Tensor, num_levels: int) -> Tensor:
    """The inverse of :func:`fold_levels`, always a view."""
    return x.unflatten(0, (num_levels, -1)).permute(1, 2, 0, 3, 4)


def map_levels(fn: Callable[..., Tensor], *signals: Signal) -> Signal:
    """Applies a function of single pixels to one or several signals of the same form.

    Raises:
        ValueError: If the signals differ in form, or in the number or size of their levels.
    """
    forms = [(x.dense, x.sizes) for x in map(PackedLevels.pack, signals)]
    if any(form != forms[0] for form in forms):
        raise ValueError(f'signals must have levels of the same sizes, got {forms}')
    return on_packed(lambda x, *others: x.map(fn, *others), *signals)


def apply_jointly(fn: Callable[[Tensor], Tensor], x: Signal) -> Signal:
    """Applies a function that must see all levels at once, such as a norm or stochastic depth.

    Dense signals are passed as ``(N, C, S, H, W)``, pyramids as ``(N, C, sum of H_k W_k)``.
    """

    def apply(levels: PackedLevels) -> PackedLevels:
        if levels.dense:
            return PackedLevels.pack(fn(levels.unpack()))
        y = fn(torch.cat([level.flatten(2) for level in levels], dim=2))
        parts = y.split([height * width for height, width in levels.sizes], dim=2)
        # Copies: autograd forbids in-place layers behind several views of one tensor.
        return PackedLevels.pack(
            tuple(
                part.unflatten(2, size).clone(memory_format=torch.contiguous_format)
                for part, size in zip(parts, levels.sizes, strict=True)
            )
        )

    return on_packed(apply, x)


def resample_level(level: Tensor, factor: float, size: tuple[int, int]) -> Tensor:
    """Reads a pyramid level at the grid of another one, by bilinear interpolation.

    Args:
        level (Tensor): ``(N, C, H, W)``.
        factor (float): Distance of the samples of the other level, in samples of this one: below
            1 for a finer level, above 1 for a coarser one.
        size (tuple[int, int]): Height and width of the other level.

    Returns:
        Tensor: ``(N, C, *size)``. Beyond the last sample the border is repeated.
    """
    rows, columns = (grid_positions(count, factor) for count in size)
    return resample(level, rows, columns, padding='replicate')
