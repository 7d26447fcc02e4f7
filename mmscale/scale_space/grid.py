# Copyright (c) mmscale contributors.
"""The grid of the scales of a scale space."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real


def snap(value: float) -> float | int:
    """Return the nearest integer if ``value`` equals it up to rounding, else ``value``."""
    nearest = round(value)
    return nearest if abs(value - nearest) < 1e-9 * max(1.0, abs(value)) else value


@dataclass(frozen=True)
class ScaleGrid:
    """The levels of a discrete scale space.

    Level ``k`` runs over ``first_level, ..., first_level + num_scales - 1`` and has the factor
    ``base**k``: its kernels see objects ``base**k`` times as large as at level 0.

    Args:
        base (float): Ratio between the factors of neighbouring levels, greater than 1.
        num_scales (int): Number of levels, at least 1.
        zero_scale (float): Assumed standard deviation of the image's own blur
            (:math:`\\sigma_0`), in pixels, greater than 0.
        first_level (int): The finest level. Negative levels are finer than the image: they hold
            the interpolated image without blur.
        truncate_dilation (bool): Whether to truncate dilations above 1 to integers, as the code
            published with Deep Scale-Spaces does (1, 1, 1, 2 for base 1.3). Layers are then not
            equivariant; use it only to reproduce published results.

    Attributes:
        factors (tuple[float | int, ...]): ``base**k`` of each level, an ``int`` if it is integral.
        dilations (tuple[float | int, ...]): Distance of neighbouring taps at each level of a dense
            scale space, in pixels.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> grid = ScaleGrid(base=2, num_scales=3, zero_scale=0.5)
        >>> grid.factors
        (1, 2, 4)
        >>> grid.variances
        (0.0, 0.75, 3.75)
    """

    base: float = 2.0
    num_scales: int = 4
    zero_scale: float = 0.5
    first_level: int = 0
    truncate_dilation: bool = False

    def __post_init__(self) -> None:
        for name, kind, word in (
            ('base', Real, 'a number'),
            ('num_scales', Integral, 'an integer'),
            ('zero_scale', Real, 'a number'),
            ('first_level', Integral, 'an integer'),
            ('truncate_dilation', bool, 'a bool'),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
                raise TypeError(f'{name} must be {word}, got {value!r}')
        if not 1 < self.base < math.inf:
            raise ValueError(f'base must be a finite number greater than 1, got {self.base}')
        if self.num_scales < 1:
            raise ValueError(f'num_scales must be at least 1, got {self.num_scales}')
        if not 0 < self.zero_scale < math.inf:
            raise ValueError(
                f'zero_scale must be a finite number greater than 0, got {self.zero_scale}'
            )

        # Here, because each layer reads them in every forward pass.
        self.factors: tuple[float, ...]
        self.dilations: tuple[float, ...]
        powers = tuple(snap(float(self.base) ** k) for k in self.levels)
        truncated = (int(f) if self.truncate_dilation and f > 1 else f for f in powers)
        object.__setattr__(self, 'factors', powers)
        object.__setattr__(self, 'dilations', tuple(truncated))

    @classmethod
    def build(cls, scale_space: 'ScaleGrid | Mapping') -> 'ScaleGrid':
        """Make a grid from the ``scale_space`` of a config.

        Args:
            scale_space (ScaleGrid | Mapping): A grid, which is returned, or arguments for a grid.
        """
        if isinstance(scale_space, cls):
            return scale_space
        if not isinstance(scale_space, Mapping):
            raise TypeError(
                f'scale_space must be a dict or a ScaleGrid, got {type(scale_space).__name__}'
            )
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(scale_space) - set(names))
        if unknown:
            raise ValueError(f'scale_space has no {unknown[0]!r}; its keys are {", ".join(names)}')
        return cls(**scale_space)

    @property
    def levels(self) -> tuple[int, ...]:
        """The level numbers ``k``, finest first."""
        return tuple(range(self.first_level, self.first_level + self.num_scales))

    @property
    def variances(self) -> tuple[float, ...]:
        """Variance of each level's blur of the image, ``zero_scale**2 (base**2k - 1)`` pixels²."""
        return tuple(self.zero_scale**2 * (max(factor, 1.0) ** 2 - 1) for factor in self.factors)

    def shift(self, factor: float) -> float | int:
        """Return the shift in levels of a scaling by ``factor``, ``log_base(factor)``."""
        if not factor > 0:
            raise ValueError(f'factor must be greater than 0, got {factor}')
        return snap(math.log(factor) / math.log(self.base))

    def level_size(self, size: int, level: int) -> int:
        """Return the samples of ``size`` pixels at a pyramid level, ``ceil(size / base**k)``."""
        return math.ceil(size / snap(float(self.base) ** level) - 1e-9)

    def check_image_size(self, height: int, width: int) -> None:
        """Raise ``ValueError`` if an image is smaller than one sample of the coarsest level."""
        coarsest = self.factors[-1]
        if min(height, width) < coarsest:
            raise ValueError(
                f'an image of {height}x{width} pixels is smaller than the coarsest level needs: '
                f'with base={self.base}, num_scales={self.num_scales} and first_level='
                f'{self.first_level} each side must have at least {math.ceil(coarsest)} pixels'
            )
