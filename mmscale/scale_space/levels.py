# Copyright (c) mmscale contributors.
"""The two forms of a scale-space signal, and what works level by level on both.

*Dense*: a tensor ``(N, C, S, H, W)``, every level at full resolution. Our own layers keep it
level-major in memory, so that one level, and all levels as one batch, are views.

*Pyramid*: a tuple of S tensors ``(N, C, H_k, W_k)``, level ``k`` sampled at ``base**k`` times the
distance of level 0, from the origin pixel.

Between the layers of a backbone either is held as :class:`PackedLevels`.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .grid import ScaleGrid
from .resample import grid_positions, resample


class PackedLevels:
    """A signal whose levels lie one behind the other in memory, pixel by pixel.

    What works on single pixels, and statistics over all of them, then takes all levels in one
    call, and a map of one level, ``(N, C, H_k, W_k)`` and channels last in memory, is a view.

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
        self.pixels, self.batch_size = pixels, batch_size
        self.sizes, self.dense = tuple(sizes), dense

    @classmethod
    def pack(cls, x: 'Signal') -> 'PackedLevels':
        """Packs a dense signal or a pyramid."""
        levels = split_levels(x)
        sizes = [level.shape[-2:] for level in levels]
        return cls(_join(levels), levels[0].shape[0], sizes, not is_pyramid(x))

    def unpack(self) -> 'Tensor | tuple[Tensor, ...]':
        """The dense tensor, a view, or the levels, each with memory of its own.

        Autograd would forbid in-place layers behind several views of one tensor.
        """
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
        first = sum(self.batch_size * height * width for height, width in self.sizes[:count])
        pixels = self.pixels[:, :, first:]
        return PackedLevels(pixels, self.batch_size, self.sizes[count:], self.dense)

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


def unpack(x: Signal) -> Tensor | tuple[Tensor, ...]:
    """A signal as a dense tensor or a tuple of levels; what is neither stays as it is."""
    return x.unpack() if isinstance(x, PackedLevels) else x


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
    """Applies a pointwise function of one or several signals of the same form."""
    if isinstance(signals[0], PackedLevels):
        return signals[0].map(fn, *signals[1:])
    if not is_pyramid(signals[0]):
        return fn(*signals)
    return tuple(fn(*levels) for levels in zip(*signals, strict=True))


def apply_jointly(fn: Callable[[Tensor], Tensor], x: Signal) -> Signal:
    """Applies a function that must see all levels at once, such as a norm or stochastic depth.

    Dense signals are passed as they are, pyramids as ``(N, C, sum of H_k W_k)``.
    """
    if isinstance(x, PackedLevels):
        return PackedLevels.pack(apply_jointly(fn, x.unpack()))
    if not is_pyramid(x):
        return fn(x)
    y = fn(torch.cat([level.flatten(2) for level in x], dim=2))
    parts = y.split([level[0, 0].numel() for level in x], dim=2)
    # Copies: autograd forbids in-place layers behind views of one tensor, and convolutions would
    # copy these strides anyway.
    return tuple(
        part.unflatten(2, level.shape[2:]).clone(memory_format=torch.contiguous_format)
        for part, level in zip(parts, x, strict=True)
    )


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
