# Copyright (c) mmscale contributors.
"""Runs the layers of a network on a signal in any form, so that hooks see signals as documented."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.modules.batchnorm import _BatchNorm

from mmscale.scale_space import PackedLevels, Signal, apply_jointly, map_levels, on_packed

Run = Callable[[Callable, PackedLevels], PackedLevels]


class Pyramid(tuple):
    """The levels of a pyramid as hooks see them: a tuple that can be hooked as a tensor can.

    Grad-CAM and others ask an output whether it has a gradient, and to be told of it. It is made
    of its levels one by one, as PyTorch's backward hooks make a named tuple anew.
    """

    def __new__(cls, *levels: Tensor) -> 'Pyramid':
        return super().__new__(cls, levels)

    def __getnewargs__(self) -> tuple[Tensor, ...]:
        return tuple(self)

    @property
    def requires_grad(self) -> bool:
        return any(level.requires_grad for level in self)

    def register_hook(self, hook: Callable[['Pyramid'], None]):
        """Calls ``hook`` with the gradients of all levels, zeros where nothing depends on one."""

        def of_all_levels(grads: Sequence[Tensor | None]) -> None:
            pairs = zip(self, grads, strict=True)
            hook(Pyramid(*(torch.zeros_like(x) if grad is None else grad for x, grad in pairs)))

        return torch.autograd.graph.register_multi_grad_hook(self, of_all_levels)


def run_whole(forward: Callable[[Signal], Signal], x: PackedLevels) -> PackedLevels:
    """Runs what takes a signal in any form and knows its levels."""
    return PackedLevels.pack(forward(x))


def run_layer(layer: nn.Module, x: PackedLevels, run: Run = run_whole) -> PackedLevels:
    """Runs one layer of a network.

    Hooks of the layer, forward and backward, are called once and see the signal as a dense
    tensor or as a tuple of levels (:class:`Pyramid`); the layer computes what it computes without
    them.

    Args:
        layer (nn.Module): The layer.
        x (PackedLevels): What it is given.
        run (Callable): How a function of the kind of the layer's ``forward`` runs on a signal:
            :func:`run_whole`, ``map_levels`` or ``apply_jointly``.
    """
    if not _has_hooks(layer):
        y = run(layer, x)
        if 'forward' in vars(layer):  # someone has put another there
            _check_gradient(layer, x, y)
        return y
    own, forward = vars(layer).get('forward'), layer.forward

    def forward_signal(signal):
        return as_hooked(run(forward, PackedLevels.pack(signal)))

    # `Module.__call__` calls the hooks, and gives them what it gives to `forward`.
    layer.forward = forward_signal
    try:
        y = layer(as_hooked(x))
    finally:
        if own is None:
            del layer.forward
        else:
            layer.forward = own
    return PackedLevels.pack(y)


def _check_gradient(layer: nn.Module, x: PackedLevels, y: PackedLevels) -> None:
    """Raises ``RuntimeError`` if what replaced a layer's ``forward`` has cut off the gradient."""
    before = [*x.unpack(), *layer.parameters()]
    needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in before)
    if needed and not any(level.requires_grad for level in y.unpack()):
        raise RuntimeError(
            f'no gradient comes through {type(layer).__name__}, whose forward was replaced: '
            'activation_checkpointing of MMEngine knows no scale spaces; give the backbone '
            'with_cp=True in its place'
        )


def as_hooked(x: PackedLevels) -> Tensor | Pyramid:
    """A signal as hooks see it."""
    return x.unpack() if x.dense else Pyramid(*x.unpack())


def _has_hooks(layer: nn.Module) -> bool:
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or torch_module._has_any_global_hook()
    )


def run_layers(layers: Iterable[nn.Module], x: PackedLevels) -> PackedLevels:
    """Runs layers in turn.

    Those with an attribute ``knows_levels``, ours, take a signal in any form; others, such as a
    SyncBN, see the pixels of all levels at once.
    """
    for layer in layers:
        if getattr(layer, 'knows_levels', False):
            x = run_layer(layer, x)
        elif isinstance(layer, _BatchNorm):
            x = run_layer(layer, x, map_levels)
        else:
            x = run_layer(layer, x, apply_jointly)
    return x


def activate(layer: nn.Module, x: PackedLevels) -> PackedLevels:
    """Runs a layer of single pixels, such as an activation."""
    return run_layer(layer, x, map_levels)


class ScaleSequential(nn.Sequential):
    """``torch.nn.Sequential`` of layers and blocks for signals in any form.

    Layers of scale spaces see the signal; others, which must be of single pixels, such as an
    activation or a SyncBN, see the pixels of all levels at once.
    """

    knows_levels = True

    def forward(self, x: Signal) -> Signal:
        return on_packed(lambda levels: run_layers(self, levels), x)
