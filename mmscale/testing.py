# Copyright (c) mmscale contributors.
"""Assertions for tests of scale-equivariant layers."""

from collections.abc import Callable

import torch

from mmscale.scale_space import ScaleGrid, Signal, scale_scale_space, split_levels


@torch.no_grad()
def assert_scale_equivariant(
    fn: Callable[[Signal], Signal],
    signal: Signal,
    factor: float,
    scale_space: dict | ScaleGrid,
    atol: float = 1e-12,
) -> None:
    """Assert that a function of scale spaces commutes with scaling at every remaining level.

    The function compares ``fn(L_s F)`` with ``L_s fn(F)``, where ``(L_s F)(k, z) = F(k +
    log_base(s), s z)`` has ``log_base(s)`` fewer levels. With an integer base, layers of any stride
    and interaction pass up to rounding for powers of the base.

    Args:
        fn (Callable): Function from scale space to scale space: a layer in eval mode, or the body
            of a network.
        signal (Tensor | tuple[Tensor, ...]): Dense ``(N, C, S, H, W)`` or a pyramid; random values
            are the strongest test. The default tolerance is for float64; float32 needs 1e-5.
        factor (float): ``s``, a power of the base greater than 1.
        scale_space (dict | ScaleGrid): The levels of the signal.
        atol (float): Largest difference allowed, relative to the largest value of the output.

    Raises:
        AssertionError: If the results differ; the message names the level that differs most.
        ValueError: If ``factor`` is no power of the base greater than 1, or leaves no level.

    Example:
        >>> import torch
        >>> from mmscale.models import ScaleConv
        >>> from mmscale.testing import assert_scale_equivariant
        >>> grid = dict(base=2, num_scales=3)
        >>> conv = ScaleConv(4, 8, 3, stride=2, padding=1, interaction=2, scale_space=grid)
        >>> signal = torch.randn(1, 4, 3, 17, 23, dtype=torch.float64)
        >>> assert_scale_equivariant(conv.double(), signal, 2, grid)
    """
    grid = ScaleGrid.build(scale_space)
    shift = grid.shift(factor)
    if shift < 1 or shift != int(shift):
        raise ValueError(
            f'factor must be a power of the base {grid.base} greater than 1, got {factor}'
        )
    expected = split_levels(scale_scale_space(fn(signal), factor, grid))
    found = split_levels(fn(scale_scale_space(signal, factor, grid)))
    shapes = [[tuple(level.shape) for level in levels] for levels in (expected, found)]
    if shapes[0] != shapes[1]:
        raise AssertionError(
            f'factor {factor}: L_s fn(F) has levels of shape {shapes[0]}, fn(L_s F) of {shapes[1]}'
        )
    largest = max(level.abs().max().item() for level in expected)
    if not 0 < largest < float('inf'):
        raise AssertionError(f'the output is zero or not finite (largest value {largest})')
    errors = [(a - b).abs().max().item() / largest for a, b in zip(expected, found)]
    if not all(error <= atol for error in errors):
        worst = max(range(len(errors)), key=lambda k: (errors[k] != errors[k], errors[k]))
        raise AssertionError(
            f'not scale-equivariant at factor {factor}: level {grid.levels[worst]} differs by '
            f'{errors[worst]:.3g} of the largest value, allowed {atol:.3g} (all levels: {errors})'
        )
