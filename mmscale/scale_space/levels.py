# Copyright (c) mmscale contributors.
"""Signals between the lift and the outputs of a backbone."""

from collections.abc import Callable, Iterator, Sequence
from functools import partialmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from .grid import ScaleGrid
from .signals import Pyramid, split_levels, stack_levels


class Levels(tuple):
    """A signal as one matrix, whose rows are the pixels of all levels.

    Pointwise layers (1x1 convolutions, norms, activations, sums) run once on the rows of all
    levels. Layers that see a neighbourhood run on the maps of the levels, which are views of the
    rows. A single level stays a map ``(N, C, H, W)``, as in an ordinary network.

    The class is a tuple of the maps, so that tools that inspect the outputs of layers find them:
    ``len``, iteration and indices give maps ``(N, C, H_k, W_k)``, channels last in memory.
    Activations, ``BatchNorm``, ``SyncBatchNorm``, ``GroupNorm``, ``+`` and ``*`` take it directly.
    PyTorch passes the gradient of each map to full backward hooks.

    Args:
        maps (Tensor): The level maps, finest first, each ``(N, C, H_k, W_k)``.

    Attributes:
        dense (bool): Whether all levels have the resolution of the image (:class:`DenseLevels`).
        batch_size (int): Samples N.
        sizes (tuple[tuple[int, int], ...]): Height and width of each level, in samples.

    Example:
        >>> levels = Levels(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 4, 4))
        >>> levels.rows.shape
        torch.Size([80, 3])
        >>> levels.map(torch.relu)[1].shape
        torch.Size([1, 3, 4, 4])
    """

    dense = False
    batch_size: int
    sizes: tuple[tuple[int, int], ...]

    def __new__(cls, *maps: Tensor) -> 'Levels':
        sizes = tuple([tuple(level.shape[-2:]) for level in maps])
        return cls._make(maps, None, maps[0].shape[0], sizes)

    @classmethod
    def _make(cls, maps, rows, batch_size, sizes) -> 'Levels':
        self = tuple.__new__(cls, ())
        # The first use of the pixels joins the maps.
        self._maps, self._pixels = maps, rows
        if maps is not None and len(maps) == 1:
            self._pixels = maps[0]
        self.batch_size, self.sizes = batch_size, sizes
        return self

    @staticmethod
    def of(x: 'Signal') -> 'Levels':
        """Convert a signal in any form to levels."""
        if isinstance(x, Levels):
            return x
        maps = split_levels(x)
        if not maps:
            raise ValueError('a signal has at least one level, got an empty tuple')
        return (Levels if is_pyramid(x) else DenseLevels)(*maps)

    def to_signal(self) -> 'Tensor | tuple[Tensor, ...]':
        """Return the dense tensor, or the pyramid as a tuple of maps that share no memory."""
        if not self.dense:
            # Autograd would forbid in-place layers behind several views of one tensor.
            maps = self._maps or [level.clone() for level in self]
            # Graphs hold plain tuples.
            plain = torch.compiler.is_compiling() or torch._C._is_tracing()
            return (tuple if plain else Pyramid)(maps)
        if self._maps is not None:
            return stack_levels(self._maps)
        rows = self._pixels.view(len(self), self.batch_size, *self.sizes[0], self.channels)
        return rows.permute(1, 4, 0, 2, 3)

    @property
    def pixels(self) -> Tensor:
        """The rows, or the map ``(N, C, H, W)`` of a single level; axis 1 is the channels."""
        if self._pixels is None:
            self._pixels, self._maps = torch.cat([_as_rows(level) for level in self._maps]), None
        return self._pixels

    @property
    def rows(self) -> Tensor:
        """The pixels of all levels, ``(P, C)``: finest level first, then by sample and row."""
        pixels = self.pixels
        return pixels if pixels.ndim == 2 else _as_rows(pixels)

    def map(self, fn: Callable[..., Tensor], *others: 'Levels') -> 'Levels':
        """Apply a pointwise function, such as an activation, to all levels at once.

        Args:
            fn (Callable): Function from tensors to a tensor whose axis 1 is the channels:
                ``(P, C)``, or ``(N, C, H, W)`` for one level. It may change the number of channels.
            others (Levels): Further arguments of ``fn``.

        Raises:
            ValueError: If the signals differ in form, or in the number or size of their levels; if
                ``fn`` changes the number of pixels.
        """
        pixels = self.pixels if self._pixels is None else self._pixels
        for other in others:
            if self.dense != other.dense or self.sizes != other.sizes:
                forms = [(x.dense, x.sizes) for x in (self, other)]
                raise ValueError(f'signals must have levels of the same sizes, got {forms}')
        y = fn(pixels, *[other.pixels for other in others]) if others else fn(pixels)
        new = tuple.__new__(type(self), ())
        new._pixels, new.batch_size = y, self.batch_size
        if self._maps is not None:  # one level
            new._maps, new.sizes = (y,), (tuple(y.shape[2:]),)
        elif y.shape[0] == pixels.shape[0]:
            new._maps, new.sizes = None, self.sizes
        else:
            raise ValueError(f'fn must return {pixels.shape[0]} pixels, got {y.shape[0]}')
        return new

    def map_maps(
        self,
        fn: Callable[[Tensor, float], Tensor],
        factors: Sequence[float],
        num_coarse: int = 0,
        coarse: Callable[[Tensor, tuple], tuple[Tensor, tuple]] | None = None,
    ) -> 'Levels':
        """Apply a function of maps, such as a convolution, to every level.

        Args:
            fn (Callable): Function of maps ``(M, C, H, W)`` and a factor that does not mix samples.
                Neighbouring levels of equal size and factor, frequent among the coarse levels of
                a pyramid, form one batch of M = 2N, 3N, ... maps.
            factors (Sequence[float]): A number for each level, such as its dilation.
            num_coarse (int): Number of coarsest levels for which ``coarse`` replaces ``fn``.
            coarse (Callable, optional): The same function of the rows and sizes of these levels;
                it returns rows and sizes.
        """
        if len(factors) < len(self.sizes):
            raise ValueError(f'{len(self.sizes)} levels need as many factors, got {factors}')
        runs, fine = [], len(self.sizes) - num_coarse
        for size, factor in zip(self.sizes[:fine], factors):  # torch.compile rejects groupby
            if runs and runs[-1][0] == size and runs[-1][1] == factor:
                runs[-1][2] += 1
            else:
                runs.append([size, factor, 1])
        if self._maps is not None and len(runs) == len(self.sizes):
            return type(self)(*[fn(x, factor) for x, factor in zip(self._maps, factors)])
        *maps, rest = self._split([(size, count) for size, _, count in runs])
        results, sizes = [], []
        for x, (_, factor, count) in zip(maps, runs, strict=True):
            y = fn(x, factor)
            results.append(_as_rows(y))
            sizes += [tuple(y.shape[-2:])] * count
        if num_coarse:
            rows, coarse_sizes = coarse(rest, self.sizes[fine:])
            results.append(rows)
            sizes += coarse_sizes
        rows = results[0] if len(results) == 1 else torch.cat(results)
        return self._make(None, rows, self.batch_size, tuple(sizes))

    def map_samples(self, fn: Callable[[Tensor], Tensor]) -> 'Levels':
        """Apply a function of all pixels of a sample, ``(N, C, P / N)``, such as GroupNorm."""
        if len(self.sizes) == 1:
            return type(self)(fn(self._maps[0]))
        y = fn(torch.cat([level.flatten(2) for level in self], dim=2))
        parts = y.split([height * width for height, width in self.sizes], dim=2)
        return type(self)(*[part.unflatten(2, size) for part, size in zip(parts, self.sizes)])

    def per_sample(self, values: Tensor) -> Tensor:
        """Repeat values ``(N, C)`` of samples for each of their pixels, for use in :meth:`map`."""
        if len(self.sizes) == 1:
            return values[:, :, None, None]
        pixels = [values.repeat_interleave(height * width, 0) for height, width in self.sizes]
        return torch.cat(pixels)

    def drop_finest(self, count: int) -> 'Levels':
        """Return the signal without its ``count`` finest levels."""
        if self._maps is not None or len(self.sizes) - count == 1:
            return type(self)(*self[count:])
        first = sum(self.batch_size * height * width for height, width in self.sizes[:count])
        return self._make(None, self._pixels[first:], self.batch_size, self.sizes[count:])

    def add_finest(self, other: 'Levels') -> 'Levels':
        """Return the sum with a signal of only the finest levels; this may overwrite ``self``."""
        if self._maps is not None and other._maps is not None:
            sums = [x.add_(y) for x, y in zip(self._maps, other._maps)]
            return type(self)(*sums, *self._maps[len(sums) :])
        missing = self.rows.shape[0] - other.rows.shape[0]
        return self.map(lambda rows: rows + F.pad(other.rows, (0, 0, 0, missing)))

    def _split(self, runs) -> list[Tensor]:
        """Return runs of levels of equal size as batches of maps, and the remaining rows."""
        pixels = [self.batch_size * count * height * width for (height, width), count in runs]
        rows = self.rows
        *parts, rest = rows.split([*pixels, rows.shape[0] - sum(pixels)])
        shapes = [(self.batch_size * count, *size, rows.shape[1]) for size, count in runs]
        maps = [part.view(shape).permute(0, 3, 1, 2) for part, shape in zip(parts, shapes)]
        return [*maps, rest]

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Tensor]:
        if self._maps is not None:
            return iter(self._maps)
        return iter(self._split([(size, 1) for size in self.sizes])[:-1])

    def __getitem__(self, index: int | slice) -> Tensor | tuple[Tensor, ...]:
        return tuple(iter(self))[index]

    def _combine(self, fn: Callable[..., Tensor], other: 'Levels | float') -> 'Levels':
        if isinstance(other, Levels):
            return self.map(fn, other)
        return self.map(lambda pixels: fn(pixels, other))

    __add__ = __radd__ = partialmethod(_combine, torch.add)
    __mul__ = __rmul__ = partialmethod(_combine, torch.mul)
    __truediv__ = partialmethod(_combine, torch.div)

    def __iadd__(self, other: 'Levels') -> 'Levels':
        return self.map(torch.add if self._costly_in_place else Tensor.add_, other)

    @property
    def _costly_in_place(self) -> bool:
        """Whether the pixels are a view, whose gradient in-place operations would copy."""
        pixels = self._pixels
        if pixels is None or not pixels.requires_grad or torch.compiler.is_compiling():
            return False  # compilers remove in-place operations
        return pixels._is_view()

    def clamp_(self, *limits: float) -> 'Levels':
        """Clamp all pixels, as ``Tensor.clamp_`` does."""
        return self.map(lambda pixels: pixels.clamp_(*limits))

    # A comparison of tuples would compare tensors.
    __eq__, __ne__, __hash__ = object.__eq__, object.__ne__, object.__hash__

    def __reduce__(self) -> tuple[type, tuple[Tensor, ...]]:
        return type(self), tuple(self)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.batch_size} x {self.channels}, sizes={self.sizes})'

    @property
    def _any(self) -> Tensor:
        return self._pixels if self._maps is None else self._maps[0]

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self._any.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of all levels."""
        return self._any.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of all levels."""
        return self._any.dtype

    @property
    def requires_grad(self) -> bool:
        """Whether any level requires a gradient."""
        if self._pixels is not None:
            return self._pixels.requires_grad
        return any(level.requires_grad for level in self._maps)

    def dim(self) -> int:
        """Return the number of axes of the rows, 2."""
        return 2

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Return the size of the rows, ``(P, C)``."""
        return self.rows.size() if dim is None else self.rows.size(dim)

    def register_hook(
        self, hook: Callable[['Levels'], 'Levels | None']
    ) -> torch.utils.hooks.RemovableHandle:
        """Call ``hook`` with the gradient of the signal, as ``Tensor.register_hook`` does."""

        def of_pixels(grad: Tensor) -> Tensor | None:
            result = hook(self.map(lambda _: grad))
            return None if result is None else result.pixels

        return self.pixels.register_hook(of_pixels)

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> 'Levels':
        x, *rest = args
        if func in _OF_PIXELS:
            if kwargs and 'inplace' in kwargs and x._costly_in_place:
                kwargs = dict(kwargs, inplace=False)
            return x.map(lambda pixels: func(pixels, *rest, **kwargs or {}))
        if func is F.group_norm:
            return x.map_samples(lambda maps: func(maps, *rest, **kwargs or {}))
        name = getattr(func, '__name__', func)
        raise TypeError(
            f'Levels cannot go into {name}: use levels.map(fn) for a function of single pixels, '
            'or iterate over the maps of the levels'
        )


class DenseLevels(Levels):
    """Levels of a dense signal, which all have the resolution of the image."""

    dense = True

    @classmethod
    def of_batch(cls, maps: Tensor, num_levels: int) -> 'DenseLevels':
        """Split a batch of maps, ``(S N, C, H, W)``, finest level first, into levels."""
        if num_levels == 1:
            return cls(maps)
        sizes = (tuple(maps.shape[-2:]),) * num_levels
        return cls._make(None, _as_rows(maps), maps.shape[0] // num_levels, sizes)

    def as_batch(self) -> Tensor:
        """Return all levels as one batch of maps, ``(S N, C, H, W)``, finest level first."""
        if self._maps is not None:
            return self._maps[0] if len(self) == 1 else torch.cat(self._maps)
        return self._split([(self.sizes[0], len(self))])[0]


# The pointwise functions that the activations of PyTorch and MMCV call.
_OF_PIXELS = {
    F.batch_norm, F.celu, F.elu, F.gelu, F.hardsigmoid, F.hardswish, F.hardtanh, F.leaky_relu,
    F.logsigmoid, F.mish, F.prelu, F.relu, F.relu6, F.rrelu, F.selu, F.silu, F.softplus,
    F.threshold, torch.clamp, torch.relu, torch.sigmoid, torch.tanh,
}  # fmt: skip

Signal = Tensor | tuple[Tensor, ...] | Levels


def _as_rows(maps: Tensor) -> Tensor:
    """Reshape ``(N, C, H, W)`` to ``(N H W, C)``, a view of channels-last maps."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def is_pyramid(x: Signal) -> bool:
    """Tell whether a signal is a pyramid rather than dense."""
    return isinstance(x, tuple | list) and not isinstance(x, DenseLevels)


def check_signal(x: Signal, grid: ScaleGrid, channels: int | None = None) -> None:
    """Raise ``ValueError`` unless ``x`` is a dense or pyramid signal on ``grid``.

    A signal may lack the coarsest levels of the grid. The levels of a pyramid must come from one
    image: there must be a real number ``side`` so that each has ``ceil(side / base**k)`` samples.
    """
    made = isinstance(x, Levels)
    levels = x if made else split_levels(x)
    if not 1 <= len(levels) <= grid.num_scales:
        raise ValueError(
            f'the signal has {len(levels)} levels, but the scale space has '
            f'num_scales={grid.num_scales}'
        )
    for found in (x.channels,) if made else [level.shape[1] for level in levels]:
        if channels is not None and found != channels:
            raise ValueError(f'the signal has {found} channels, expected {channels}')
    if made or not is_pyramid(x) or torch.jit.is_tracing():
        return  # the code that made the levels has checked their sizes
    for axis, name in ((-2, 'heights'), (-1, 'widths')):
        sides = [level.shape[axis] for level in levels]
        largest = min(side * factor for side, factor in zip(sides, grid.factors))
        if not all((side - 1) * factor < largest for side, factor in zip(sides, grid.factors)):
            raise ValueError(
                f'the levels of a pyramid of base {grid.base} cannot have the {name} {sides}'
            )


def map_levels(fn: Callable[..., Tensor], *signals: Signal) -> Signal:
    """Apply a pointwise function to one or several signals of the same form.

    Args:
        fn (Callable): The function, see :meth:`Levels.map`.
        signals (Tensor | tuple[Tensor, ...] | Levels): Arguments of ``fn``.

    Raises:
        ValueError: If the signals differ in form, or in the number or size of their levels.
    """
    levels, *others = (Levels.of(x) for x in signals)
    y = levels.map(fn, *others)
    return y if isinstance(signals[0], Levels) else y.to_signal()
