# Copyright (c) mmscale contributors.
"""The forms of a scale-space signal at the edges of networks.

*Dense*: a tensor ``(N, C, S, H, W)``, every level at full resolution. *Pyramid*: a tuple of S
tensors ``(N, C, H_k, W_k)``, level ``k`` sampled at ``base**k`` times the distance of level 0, from
the origin pixel.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

TAKERS = (
    'first the neck ScaleGlobalPooling, ScalePooling or ScaleFPN, or scale_pooling=dict() of the '
    'backbone, makes ordinary maps of it'
)


class Pyramid(tuple):
    """The maps of a pyramid; an ordinary layer that takes it for a tensor is told what is missing.

    Raises:
        TypeError: In functions of tensors.
        AttributeError: For attributes that tuples do not have.
    """

    def __getattr__(self, name: str):
        raise AttributeError(f'a pyramid of {len(self)} levels has no {name!r}: {TAKERS}')

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        name = getattr(func, '__name__', func)
        raise TypeError(f'a pyramid cannot go into {name}: {TAKERS}')


register_pytree_node(Pyramid, lambda x: (list(x), None), lambda maps, _: Pyramid(maps))


def split_levels(x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The levels of a signal, each ``(N, C, H_k, W_k)``; ``ValueError`` if it is not one."""
    pyramid = isinstance(x, tuple | list)
    form, ndim, tensors = 'a dense tensor (N, C, S, H, W)', 5, (x,)
    if pyramid:
        form, ndim, tensors = 'a pyramid of tensors (N, C, H_k, W_k)', 4, tuple(x)
    for tensor in tensors:
        if tensor.ndim != ndim:
            raise ValueError(f'a scale-space signal is {form}, got the shape {tuple(tensor.shape)}')
    if pyramid:
        return tensors
    # Not unbind, whose views no in-place layer may change.
    return (x[:, :, 0],) if x.shape[2] == 1 else x.unbind(2)


def stack_levels(levels: Sequence[Tensor]) -> Tensor:
    """A dense signal ``(N, C, S, H, W)``, level-major in memory, from levels of equal size."""
    levels = tuple(levels)
    maps = levels[0] if len(levels) == 1 else torch.cat(levels)
    return maps.unflatten(0, (len(levels), -1)).permute(1, 2, 0, 3, 4)
