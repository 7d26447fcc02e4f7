# Copyright (c) mmscale contributors.
"""Run a network on a batch and return its outputs, or the outputs of its layers, by name."""

import difflib
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from mmengine.model import BaseModel
from torch import Tensor, nn

from mmscale.models.layers import DeformScaleConv, ScaleConv
from mmscale.models.necks import ScaleFPN, ScaleGlobalPooling, ScaleLevels, ScalePooling
from mmscale.scale_space import Levels, ScaleGrid, Signal, is_pyramid

from .scaling import has_levels

SCALE_POOLINGS = (ScalePooling, ScaleGlobalPooling, ScaleLevels)


def modules_of(phi: Callable) -> list[nn.Module]:
    """Return the modules of a network, also of a network given as its method; else no modules."""
    owner = phi if isinstance(phi, nn.Module) else getattr(phi, '__self__', None)
    return list(owner.modules()) if isinstance(owner, nn.Module) else []


def find_grid(phi: Callable) -> ScaleGrid | None:
    """Return the scale grid that all layers of a network share, None if there is none.

    Raises:
        ValueError: If layers have different grids.
    """
    found = (getattr(module, 'grid', None) for module in modules_of(phi))
    grids = {grid for grid in found if isinstance(grid, ScaleGrid)}
    if len(grids) > 1:
        raise ValueError(
            f'the layers have {len(grids)} different scale grids, give the grid of the outputs as '
            f'scale_space: {", ".join(map(str, grids))}'
        )
    return next(iter(grids), None)


def check_layers(phi: Callable, layers: Sequence[str]) -> None:
    """Raise ``ValueError`` for a layer that a module does not have, with the nearest names."""
    if isinstance(layers, str) or not layers:
        raise ValueError(f'layers must be a sequence of names of layers, got {layers!r}')
    if not isinstance(phi, nn.Module):
        raise ValueError('layers can be named in a module only, and phi is a function')
    names = [name for name, _ in phi.named_modules() if name]
    for layer in layers:
        if layer not in names:
            near = difflib.get_close_matches(layer, names, n=3, cutoff=0.4) or names[:3]
            raise ValueError(
                f'there is no layer {layer!r}; the nearest names are {", ".join(near)}'
            )


def images_of(batch: Tensor | dict | Sequence) -> Tensor:
    """Return the images ``(N, C, H, W)`` of a preprocessed batch, or raise ``ValueError``."""
    inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if isinstance(inputs, dict):
        inputs = inputs.get('inputs')
    if not isinstance(inputs, Tensor) or inputs.ndim != 4:
        shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(
            f'the inputs of the data preprocessor must be a tensor (N, C, H, W), got {shape}'
        )
    return inputs


class Features:
    """A runner of a network that returns the outputs of the network, or of its layers, by name.

    Each signal of an output with several signals has an entry, ``'name[0]'``, ``'name[1]'`` and so
    on. If there is a grid, a tuple of maps ``(N, C, H_k, W_k)`` of equal channels, at most as many
    as the grid has levels, is one pyramid, until a module pools over scale. The maps of the levels
    of a :class:`~mmscale.models.ScaleFPN` are a pyramid; its other maps are left out. If a layer
    runs several times, its last output counts.
    A model of MMEngine that needs data samples, as two-stage detectors do, stops without them. The
    outputs of layers that ran before, such as layers of the backbone, are returned.

    Attributes:
        truncation (dict[str, int]): After a run, for each signal the number of coarse levels that
            interactions spoiled. Each scale convolution of interaction K adds K - 1. Parallel
            branches add up, too, which can only overestimate. A signal without levels has 0:
            behind a pooling over scale the error includes the spoiled levels.

    Args:
        phi (Callable): The network, or any function of a batch.
        layers (Sequence[str], optional): Names of layers, as in ``phi.named_modules()``. Defaults
            to the outputs of the network, under the name ``''``.
        grid (ScaleGrid, optional): The scale grid of the signals.
    """

    def __init__(
        self,
        phi: Callable,
        layers: Sequence[str] | None = None,
        grid: ScaleGrid | None = None,
    ) -> None:
        if layers is not None:
            check_layers(phi, layers)
        self.phi, self.layers, self.grid = phi, layers, grid
        self.truncation: dict[str, int] = {}

    def __call__(self, batch: Signal) -> dict[str, Signal]:
        outputs, self.truncation = {}, {}
        spoiled, self._pooled = 0, False

        def count(module, args, output):
            nonlocal spoiled
            spoiled += module.interaction - 1

        def end(module, args, output):
            self._pooled = True

        def capture(name):
            def hook(module, args, output):
                if isinstance(module, ScaleFPN):
                    output = output[: module.grid.num_scales]
                self._add(outputs, name, output, spoiled)

            return hook

        stop = None
        with _hooks(self.phi, count, end, {name: capture(name) for name in self.layers or ()}):
            try:
                result = self.phi(batch)
            except (AssertionError, AttributeError, KeyError, TypeError) as error:
                if not isinstance(self.phi, BaseModel):
                    raise
                stop = error
        if self.layers is None and stop is None:
            self._add(outputs, '', result, spoiled)
        ran = {name.partition('[')[0] for name in outputs}
        for name in ('',) if self.layers is None else self.layers:
            if name in ran:
                continue
            if stop is None:
                raise ValueError(f'the layer {name!r} did not run')
            raise ValueError(
                'the model does not run on images alone, without data samples '
                f'({type(stop).__name__}: {stop}), and stops before '
                f'{f"the layer {name!r}" if name else "its output"}: name layers that run before, '
                'such as layers of the backbone'
            ) from stop
        return outputs

    def _add(self, outputs: dict, name: str, output, spoiled: int) -> None:
        signals = self._signals(output)
        names = [name] if len(signals) == 1 else [f'{name}[{i}]' for i in range(len(signals))]
        for key, signal in zip(names, signals, strict=True):
            outputs[key], self.truncation[key] = signal, spoiled if has_levels(signal) else 0

    def _signals(self, output) -> list[Signal]:
        if isinstance(output, Levels):
            # Outputs are copied, because a later layer may work in place.
            return [output.map(Tensor.clone).to_signal()]
        if isinstance(output, Tensor):
            return [output.clone()]
        if not is_pyramid(output) or not output:
            raise ValueError(
                f'outputs are tensors or tuples of them, got {type(output).__name__}: name layers'
            )
        if len(output) == 1:
            return self._signals(output[0]) if is_pyramid(output[0]) else [output[0]]
        if all(isinstance(part, Tensor) for part in output):
            maps = all(part.ndim == 4 for part in output)
            same = len({part.shape[1] for part in output}) == 1
            levels = 0 if self.grid is None or self._pooled else self.grid.num_scales
            if maps and same and len(output) <= levels:
                return [tuple(output)]
            return list(output)
        return [signal for part in output for signal in self._signals(part)]


def _hooks(phi, count: Callable, end: Callable, captures: dict[str, Callable]) -> ExitStack:
    modules = modules_of(phi)
    # An offset branch reads the same levels as its convolution, so it spoils no further levels.
    beside = {module.conv_offset for module in modules if isinstance(module, DeformScaleConv)}
    with ExitStack() as hooks:
        for module in modules:
            if isinstance(module, ScaleConv) and module.interaction > 1 and module not in beside:
                hooks.enter_context(module.register_forward_hook(count))
            if isinstance(module, SCALE_POOLINGS):
                hooks.enter_context(module.register_forward_hook(end))
        for name, hook in captures.items():
            hooks.enter_context(phi.get_submodule(name).register_forward_hook(hook))
        # They outlive this block, unless one of them could not be registered.
        return hooks.pop_all()
