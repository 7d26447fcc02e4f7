# Copyright (c) mmscale contributors.
"""The two forms of scale spaces at the inputs and outputs of networks.

A *dense* signal is a tensor ``(N, C, S, H, W)`` with every level at full resolution. A *pyramid*
is a tuple of S tensors ``(N, C, H_k, W_k)``. From the origin pixel on, the samples of its level
``k`` are ``base**k`` pixels apart.
"""

from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

TAKERS = (
    'add the neck ScaleGlobalPooling, ScalePooling or ScaleFPN, or scale_pooling=dict() of the '
    'backbone, to get ordinary maps'
)


class Pyramid(tuple):
    """The maps of a pyramid, with clear errors in layers that expect one tensor.

    Raises:
        TypeError: In functions of tensors.
        AttributeError: For attributes that tuples do not have.
    """

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f'a pyramid of {len(self)} levels has no {name!r}: {TAKERS}')

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> NoReturn:
        name = getattr(func, '__name__', func)
        raise TypeError(f'a pyramid cannot go into {name}: {TAKERS}')


register_pytree_node(Pyramid, lambda x: (list(x), None), lambda maps, _: Pyramid(maps))


def split_levels(x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the levels ``(N, C, H_k, W_k)`` of a signal, or raise ``ValueError``."""
    pyramid = isinstance(x, tuple | list)
    form, ndim, tensors = 'a dense tensor (N, C, S, H, W)', 5, (x,)
    if pyramid:
        form, ndim, tensors = 'a pyramid of tensors (N, C, H_k, W_k)', 4, tuple(x)
    for tensor in tensors:
        if tensor.ndim != ndim:
            raise ValueError(f'a scale-space signal is {form}, got the shape {tuple(tensor.shape)}')
    if pyramid:
        return tensors
    # Not unbind: autograd forbids in-place layers on its views.
    return (x[:, :, 0],) if x.shape[2] == 1 else x.unbind(2)


def stack_levels(levels: Sequence[Tensor]) -> Tensor:
    """Stack levels of equal size to a dense signal ``(N, C, S, H, W)``, level-major in memory."""
    levels = tuple(levels)
    maps = levels[0] if len(levels) == 1 else torch.cat(levels)
    return maps.unflatten(0, (len(levels), -1)).permute(1, 2, 0, 3, 4)
