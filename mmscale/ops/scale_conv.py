# Copyright (c) mmscale contributors.
"""Scale convolution as a function."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmscale.checks import is_integer
from mmscale.scale_space import Levels, ScaleGrid, Signal, check_signal, resample_level
from mmscale.scale_space.resample import full_precision

from .processor import conv_levels


def as_pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Return one or two integers as (height, width)."""
    pair = (value, value) if is_integer(value) else value
    sound = isinstance(pair, Sequence) and len(pair) == 2
    if not sound or not all(map(is_integer, pair)):
        raise ValueError(f'{name} must be an integer or two integers, got {value!r}')
    return tuple(pair)


def check_window(
    kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> None:  # fmt: skip
    """Raise ``ValueError`` unless a centred window keeps all levels aligned.

    All arguments are pairs (height, width), in taps; ``stride`` is in samples.
    """
    axes = ('height', 'width'), kernel_size, stride, padding, dilation
    for name, kernel, step, pad, dil in zip(*axes, strict=True):
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel} ({name})')
        if step < 1:
            raise ValueError(f'stride must be at least 1, got {step} ({name})')
        if dil < 1:
            raise ValueError(f'dilation must be at least 1, got {dil} ({name})')
        if pad != dil * (kernel // 2):
            raise ValueError(
                f'padding must be dilation * (kernel_size // 2) = {dil * (kernel // 2)}, got '
                f'{pad} ({name}): any other padding moves the levels against each other'
            )


def check_convolution(
    x: Signal, weight: Tensor, stride: int | tuple[int, int], dilation: int | tuple[int, int],
    groups: int, grid: ScaleGrid,
) -> tuple[tuple[int, int], tuple[int, int]]:  # fmt: skip
    """Raise ``ValueError`` unless signal and weight fit; return stride and dilation as pairs."""
    if weight.ndim != 5:
        raise ValueError(
            f'weight must be (C_out, C_in / groups, K, kh, kw), got the shape {tuple(weight.shape)}'
        )
    stride, dilation = as_pair('stride', stride), as_pair('dilation', dilation)
    padding = tuple(d * (n // 2) for d, n in zip(dilation, weight.shape[3:], strict=True))
    check_window(weight.shape[3:], stride, padding, dilation)
    check_signal(x, grid, weight.shape[1] * groups)
    return stride, dilation


def scale_conv2d(
    x: Signal,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    scale_space: dict | ScaleGrid,
) -> Signal:
    r"""Convolve a scale space with one kernel whose taps grow with the level.

    .. math::
        y(o, k, z) = \sum_{l<K} \sum_c \sum_u w(o, c, l, u) \, x(c, k + l, z + a^k u)

    The sum omits levels above the coarsest level, and the signal is 0 outside the image. In a
    pyramid the samples are already :math:`a^k` apart; level ``k + l`` is first resampled to the
    grid of level ``k`` by bilinear interpolation with a replicated border. If :math:`a^k` is no
    integer, taps sample dense signals by bilinear interpolation; if the taps are also far apart,
    training stores ``kh kw`` maps of such a level. 1x1 kernels are pointwise.
    Source: Worrall & Welling, Deep Scale-Spaces, NeurIPS 2019. Their published code truncates
    fractional :math:`a^k` (``ScaleGrid(truncate_dilation=True)``).

    Results of several levels are channels last in memory. On a scale space of one level the result
    equals ``torch.nn.functional.conv2d`` bit for bit. Dense results are views: in-place activations
    make autograd copy them.

    Args:
        x (Tensor | tuple[Tensor, ...] | Levels): Dense ``(N, C_in, S, H, W)`` or a pyramid of S
            tensors ``(N, C_in, H_k, W_k)``. The coarsest levels of the grid may be missing.
        weight (Tensor): ``(C_out, C_in / groups, K, kh, kw)``, ``kh`` and ``kw`` odd.
        bias (Tensor, optional): ``(C_out,)``.
        stride (int | tuple[int, int]): Distance of the outputs, in samples of their level.
        dilation (int | tuple[int, int]): Distance of the taps, multiplied by :math:`a^k`.
        groups (int): Number of groups of channels, as in ``torch.nn.Conv2d``.
        scale_space (dict | ScaleGrid): The levels.

    Returns:
        Tensor | tuple[Tensor, ...] | Levels: The same form, ``C_out`` channels, each side
        ``ceil(size / stride)``.

    Raises:
        ValueError: If an argument is out of range, or the signal does not fit the weight or the
            grid.
    """
    grid = ScaleGrid.build(scale_space)
    stride, dilation = check_convolution(x, weight, stride, dilation, groups, grid)
    y = convolve(Levels.of(x), kernels_of(weight), bias, stride, dilation, groups, grid)
    return y if isinstance(x, Levels) else y.to_signal()


def kernels_of(weight: Tensor) -> Sequence[Tensor]:
    """Return the kernel ``(C_out, C_in / groups, kh, kw)`` of each ``l``, views of the weight."""
    # Not weight[:, :, 0]: autograd would copy its gradient into zeros.
    return weight.unbind(2) if weight.shape[2] > 1 else (weight.flatten(1, 2),)


def synthesise_kernels(
    weight: Tensor, functions: Tensor, sides: Sequence[int]
) -> list[tuple[Tensor, ...]]:
    """Return, for each ``l``, the kernels ``(C_out, C_in / groups, n_k, n_k)`` of all levels.

    The weights are ``(C_out, C_in / groups, K, F)``. The functions of all levels lie side by side,
    ``(F, sum of n_k**2)``; ``sides`` are ``n_k``. The kernels are channels last.
    """
    # The taps come first, so that each level has its own rows. Autocast would round the sum, and
    # counters of operations would count an einsum, although no image takes part.
    with full_precision(weight):
        kernels = torch.tensordot(functions, weight.movedim(2, 0), ([0], [3]))
    levels = [
        taps.unflatten(0, (side, side)).permute(2, 3, 4, 0, 1)
        for taps, side in zip(kernels.split([side**2 for side in sides]), sides)
    ]
    return [
        tuple([level[shift].contiguous(memory_format=torch.channels_last) for level in levels])
        for shift in range(weight.shape[2])
    ]


def convolve(
    x: Levels,
    kernels: Sequence[Tensor | tuple[Tensor, ...]],
    bias: Tensor | None,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    grid: ScaleGrid,
    steps: Sequence[float] | None = None,
) -> Levels:
    """Apply :func:`scale_conv2d` to levels, with a kernel for each ``l`` and checked arguments.

    A kernel may be a tuple of kernels of the levels; their taps are ``steps`` apart.
    """
    steps = tap_distances(x, grid) if steps is None else steps
    y = conv_levels(x, kernels[0], bias, stride, dilation, groups, steps)
    for shift, kernel in enumerate(kernels[1 : len(x.sizes)], start=1):
        term = coarser_levels(x, shift, grid)
        y = y.add_finest(conv_levels(term, kernel, None, stride, dilation, groups, steps))
    return y


def tap_distances(x: Levels, grid: ScaleGrid) -> Sequence[float]:
    """Return the distance of neighbouring taps at each level, in samples."""
    return grid.dilations if x.dense else (1,) * len(x.sizes)


def coarser_levels(x: Levels, shift: int, grid: ScaleGrid) -> Levels:
    """Resample level ``k + shift`` to the grid of level ``k``, for each ``k`` that has one."""
    if x.dense:
        return x.drop_finest(shift)
    pairs = zip(x[shift:], grid.factors[shift:], x.sizes, grid.factors)
    return Levels(
        *[resample_level(level, factor / own, size) for level, own, size, factor in pairs]
    )
