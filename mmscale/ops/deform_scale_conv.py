# Copyright (c) mmscale contributors.
"""Deformable scale convolution as a function."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmscale.checks import check_choice
from mmscale.scale_space import DenseLevels, Levels, ScaleGrid, Signal, check_signal, is_pyramid
from mmscale.scale_space.resample import full_precision

from .scale_conv import check_convolution, coarser_levels, kernels_of, tap_distances

BACKENDS = ('auto', 'mmcv', 'native')
# Bytes that the native path samples at a time on CPU; they must fit into the cache.
PART_BYTES = 8 * 2**20


def deform_scale_conv2d(
    x: Signal,
    offset: Signal,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    modulation: Signal | None = None,
    backend: str = 'auto',
    *,
    scale_space: dict | ScaleGrid,
) -> Signal:
    r"""Convolve a scale space with taps that are displaced by offsets in tap units.

    .. math::
        y(o, k, z) = \sum_{l<K} \sum_c \sum_u
            w(o, c, l, u) \, m(k, z, u) \, x(c, k + l, z + a^k (u + \Delta(k, z, u)))

    Taps sample the signal by bilinear interpolation, with zeros outside the image. Offsets are
    multiplied by :math:`a^k` like the taps, because only then does the layer commute with scaling.
    In a pyramid, level ``k + l`` is first resampled to the grid of level ``k``, whose samples are
    the unit. With offsets of 0 and without a modulation the result equals
    :func:`mmscale.ops.scale_conv2d`; with ``num_scales=1`` it equals deformable convolution.
    Sources: Dai et al., Deformable Convolutional Networks, ICCV 2017; Zhu et al., Deformable
    ConvNets v2, CVPR 2019 (the modulation); Worrall & Welling, Deep Scale-Spaces, NeurIPS 2019.

    Sampling runs in float32 (float64 for float64 signals), also under autocast: half precision
    cannot distinguish neighbouring positions in a large image. There is no second derivative.

    The sampled values are ``kh kw`` times as large as the signal. On CPU the native path therefore
    processes a few samples of the batch at a time (8 MiB, at least one sample a thread) and samples
    again in the backward pass. Traced, exported and compiled graphs process the batch at once.

    Args:
        x (Tensor | tuple[Tensor, ...]): Dense ``(N, C_in, S, H, W)`` or a pyramid of S tensors
            ``(N, C_in, H_k, W_k)``.
        offset (Tensor | tuple[Tensor, ...]): The same form, ``2 kh kw G`` channels, each side
            ``ceil(size / stride)``. Each of the G deformable groups lists its taps row by row, dy
            before dx. Group ``g`` moves the ``g``-th block of ``C_in / G`` channels.
        weight (Tensor): ``(C_out, C_in / groups, K, kh, kw)``, ``kh`` and ``kw`` odd.
        bias (Tensor, optional): ``(C_out,)``.
        stride (int | tuple[int, int]): Distance of the outputs, in samples of their level.
        dilation (int | tuple[int, int]): Distance of the taps, multiplied by :math:`a^k`. It does
            not multiply the offsets.
        groups (int): Number of groups of channels, as in ``torch.nn.Conv2d``.
        modulation (Tensor | tuple[Tensor, ...], optional): Factor of each tap, ``kh kw G``
            channels, in the form and size of ``offset``.
        backend (str): ``'mmcv'`` for the compiled ops of MMCV, ``'native'`` for ``grid_sample`` and
            a matrix product, or ``'auto'``, see :func:`choose_backend`.
        scale_space (dict | ScaleGrid): The levels.

    Returns:
        Tensor | tuple[Tensor, ...]: The same form, ``C_out`` channels, each side
        ``ceil(size / stride)``.

    Raises:
        ValueError: If an argument is out of range, or arguments do not fit each other.
        RuntimeError: If ``backend='mmcv'`` and MMCV was installed without compiled ops.
    """
    grid = ScaleGrid.build(scale_space)
    stride, dilation = check_convolution(x, weight, stride, dilation, groups, grid)
    num_taps = weight.shape[3] * weight.shape[4]
    deform_groups = _check_offset('offset', offset, x, stride, 2 * num_taps, grid)
    if modulation is not None:
        found = _check_offset('modulation', modulation, x, stride, num_taps, grid)
        if found != deform_groups:
            raise ValueError(f'modulation has {found} deformable groups, offset {deform_groups}')
    levels, where = Levels.of(x), Levels.of(offset)
    conv = _conv_mmcv if choose_backend(backend, levels.device) == 'mmcv' else _conv_native
    taps = tap_distances(levels, grid)
    signals = [where.map_maps(lambda y, a: _displace(y, weight.shape[3:], dilation, a), taps)]
    if modulation is not None:
        signals.append(Levels.of(modulation))
    y = None
    for shift, kernel in enumerate(kernels_of(weight)[: len(levels)]):
        seen = [coarser_levels(levels, shift, grid), *signals]
        term = _conv_levels(conv, seen, kernel, stride, groups)
        y = term if y is None else y.add_finest(term)
    if bias is not None:
        y = y.map(lambda pixels: pixels + bias.to(pixels.dtype).view(-1, *[1] * (pixels.ndim - 2)))
    return y if isinstance(x, Levels) else y.to_signal()


def choose_backend(backend: str, device: torch.device) -> str:
    """Return ``'mmcv'`` or ``'native'``.

    Args:
        backend (str): ``'mmcv'``, ``'native'`` or ``'auto'``, which takes MMCV's ops on CUDA if
            they are compiled for it. Otherwise it takes the native path, which is faster on CPU.
        device (torch.device): Device of the signal.
    """
    check_choice('backend', backend, BACKENDS)
    if backend == 'auto':
        return 'mmcv' if device.type == 'cuda' and 'cuda' in _compiled_ops() else 'native'
    if backend == 'mmcv' and not _compiled_ops():
        raise RuntimeError(
            "backend='mmcv' needs MMCV with compiled ops, and this one has none: install the full "
            "MMCV, or use 'native' or 'auto'"
        )
    return backend


@cache
def _compiled_ops() -> tuple[str, ...]:
    """Return the devices that MMCV's ops were compiled for; mmcv-lite has none."""
    try:
        from mmcv.ops import deform_conv2d, get_compiling_cuda_version  # noqa: F401
    except ImportError:
        return ()
    return ('cpu',) if get_compiling_cuda_version() == 'not available' else ('cpu', 'cuda')


def _check_offset(name, offset, x, stride, channels_a_group, grid) -> int:
    """Return the number of deformable groups; raise ``ValueError`` if the signals do not fit."""
    if is_pyramid(offset) != is_pyramid(x):
        raise ValueError(f'{name} and signal must both be dense or both be pyramids')
    check_signal(offset, grid)
    levels, inputs = Levels.of(offset), Levels.of(x)
    if len(levels) != len(inputs):
        raise ValueError(f'{name} has {len(levels)} levels, the signal {len(inputs)}')
    for found, size in zip(levels.sizes, inputs.sizes, strict=True):
        shape = (inputs.batch_size, *(-(-side // step) for side, step in zip(size, stride)))
        if (levels.batch_size, *found) != shape:
            raise ValueError(
                f'{name} must have a level of shape ({shape[0]}, ..., {shape[1]}, {shape[2]}), '
                f'got ({levels.batch_size}, {levels.channels}, {found[0]}, {found[1]})'
            )
    # Sizes are tensors while torch.jit traces.
    deform_groups = int(levels.channels) // int(channels_a_group)
    rest = levels.channels - deform_groups * channels_a_group
    if rest or not deform_groups or inputs.channels % deform_groups:
        raise ValueError(
            f'{name} must have {channels_a_group} channels a deformable group, and the number of '
            f'groups must divide the {inputs.channels} channels of the signal; '
            f'got {levels.channels}'
        )
    return deform_groups


def _conv_levels(conv: Callable, signals, weight, stride, groups) -> Levels:
    """Convolve with interaction 1 on the levels that all signals have.

    Dense levels form one batch, since their positions alone define where the taps sample.
    """
    x = signals[0]
    if not x.dense:
        return Levels(*[conv(maps, weight, stride, groups) for maps in zip(*signals)])
    maps = [signal.as_batch()[: len(x) * x.batch_size] for signal in signals]
    return DenseLevels.of_batch(conv(maps, weight, stride, groups), len(x))


def _displace(offset: Tensor, kernel_size, dilation, factor: float) -> Tensor:
    """Return each tap's distance from its output, in samples, at least in single precision."""
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
    return factor * (_taps(kernel_size, dilation, offset) + offset)


def _taps(kernel_size, dilation, offset: Tensor) -> Tensor:
    """Return the positions of taps around the centre, in the channel layout of an offset."""
    rows, columns = (
        step * (torch.arange(n, device=offset.device) - n // 2)
        for n, step in zip(kernel_size, dilation)
    )
    taps = torch.cartesian_prod(rows, columns).to(offset.dtype).flatten()
    return taps.repeat(offset.shape[1] // len(taps))[:, None, None]


def _conv_native(signals, weight, stride, groups) -> Tensor:
    """Sample the signal at every tap of every output, then multiply by the weights."""
    x, displacement, *modulation = signals
    displacement = displacement.unflatten(1, (-1, weight.shape[2] * weight.shape[3], 2))
    if _is_autocast(x):
        weight = weight.to(torch.get_autocast_dtype(x.device.type))
    weight = weight.reshape(groups, len(weight) // groups, -1)
    signals = (x, displacement, *modulation)
    size = _part_size(x, displacement)
    if size is None or size >= len(x):
        return _read_and_multiply(weight, stride, *signals)
    return _InParts.apply(weight, stride, size, *signals)


def _part_size(x: Tensor, displacement: Tensor) -> int | None:
    """Return the number of samples of a part of the batch; ``None`` for the whole batch."""
    # Graphs must hold for any batch, and only large operations use other devices fully.
    if x.device.type != 'cpu' or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return None
    _, _, num_taps, _, rows, columns = displacement.shape
    read = x.shape[1] * num_taps * rows * columns * displacement.element_size()
    # grid_sample distributes whole samples to its threads.
    threads = torch.get_num_threads()
    return max(1, PART_BYTES // (read * threads)) * threads


class _InParts(torch.autograd.Function):
    """:func:`_read_and_multiply` on parts of the batch, sampled again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, stride: tuple[int, int], size: int, *signals: Tensor
    ) -> Tensor:
        ctx.save_for_backward(weight, *signals)
        ctx.stride, ctx.size = stride, size
        x, displacement = signals[:2]
        y = weight.new_empty(len(x), weight[..., 0].numel(), *displacement.shape[-2:])
        for part in _parts(len(x), size):
            y[part] = _read_and_multiply(weight, stride, *(signal[part] for signal in signals))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *signals = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        # In place: small results between the large results of the parts would fragment memory.
        grad_weight = torch.zeros_like(weight, dtype=signals[1].dtype)
        grads = [torch.empty_like(s) if n else None for s, n in zip(signals, needed, strict=True)]
        wanted = [total for total in grads if total is not None]
        for part in _parts(len(grad), ctx.size):
            inputs = [s[part].detach().requires_grad_(n) for s, n in zip(signals, needed)]
            found = _backward_part(grad[part], weight, ctx.stride, inputs, grad_weight)
            for total, value in zip(wanted, found, strict=True):
                total[part] = value
        return grad_weight.to(weight.dtype), None, None, *grads


def _parts(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]


def _backward_part(grad, weight, stride, signals, grad_weight) -> Sequence[Tensor]:
    """Add to the gradient of the weight; return the gradients of signals that require them."""
    with torch.enable_grad():
        values = _read(stride, *signals)
    grad = grad.flatten(2)
    left, right = (
        t.to(values.dtype).unflatten(1, (len(weight), -1)) for t in (grad, values.detach())
    )
    for group, total in enumerate(grad_weight):
        total.addbmm_(left[:, group], right[:, group].mT)
    wanted = [signal for signal in signals if signal.requires_grad]
    if not wanted:
        return ()
    return torch.autograd.grad(values, wanted, _multiply(weight.mT, grad).to(values.dtype))


def _read_and_multiply(weight, stride, x, displacement, modulation=None) -> Tensor:
    values = _read(stride, x, displacement, modulation)
    return _multiply(weight, values).unflatten(2, displacement.shape[-2:])


def _multiply(weight: Tensor, values: Tensor) -> Tensor:
    """Multiply ``(groups, outputs, inputs)`` by ``(N, groups * inputs, positions)``."""
    groups = len(weight)
    # bmm is faster than a 1x1 convolution, which reorders its input.
    matrices = weight.expand(values.shape[0], -1, -1, -1).flatten(0, 1)
    values = values.to(weight.dtype).unflatten(1, (groups, -1)).flatten(0, 1)
    with full_precision(values):
        return torch.bmm(matrices, values).unflatten(0, (-1, groups)).flatten(1, 2)


def _read(stride, x, displacement, modulation=None) -> Tensor:
    """Sample the signal at every tap of every output, ``(N, C_in * taps, positions)``."""
    deform_groups, num_taps, _, rows, columns = displacement.shape[1:]
    height, width = x.shape[-2:]
    origins = [
        step * torch.arange(count, device=x.device)
        for step, count in zip(stride, (rows, columns), strict=True)
    ]
    positions = (
        # grid_sample expects the centre of pixel i at (2 i + 1) / size - 1.
        (2 * (displacement[:, :, :, 1] + origins[1]) + 1) / width - 1,
        (2 * (displacement[:, :, :, 0] + origins[0][:, None]) + 1) / height - 1,
    )
    # Deformable groups become samples of the batch, taps rows of one image.
    where = torch.stack(positions, dim=-1).flatten(0, 1).flatten(1, 2)
    with full_precision(x):
        image = x.to(where.dtype).unflatten(1, (deform_groups, -1)).flatten(0, 1)
        values = F.grid_sample(image, where, 'bilinear', 'zeros', align_corners=False)
        if modulation is not None:
            factor = modulation.to(where.dtype).unflatten(1, (deform_groups, 1, num_taps))
            values = values * factor.flatten(0, 1).flatten(2, 3)
    return values.reshape(x.shape[0], x.shape[1] * num_taps, rows * columns)


def _conv_mmcv(signals, weight, stride, groups) -> Tensor:
    x, displacement, *modulation = signals
    if not len(x):  # the op cannot divide an empty batch
        return _conv_native(signals, weight, stride, groups)
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d

    # MMCV adds offsets to the taps of an ordinary kernel, with integer dilations only.
    kernel_size = weight.shape[-2:]
    offset = displacement - _taps(kernel_size, (1, 1), displacement)
    padding = tuple(n // 2 for n in kernel_size)
    num_groups = displacement.shape[1] // (2 * kernel_size[0] * kernel_size[1])
    given = torch.get_autocast_dtype(x.device.type) if _is_autocast(x) else x.dtype
    with full_precision(x):
        x, weight, offset = (
            part.to(displacement.dtype).contiguous() for part in (x, weight, offset)
        )
        if not modulation and all(n >= k for n, k in zip(x.shape[-2:], kernel_size)):
            # The op divides the batch into equal parts, by default of 32 samples.
            part = max(n for n in range(1, min(len(x), 32) + 1) if len(x) % n == 0)
            args = stride, padding, 1, groups, num_groups, False, part
            return deform_conv2d(x, offset, weight, *args).to(given)
        # Unlike the plain op, the modulated op accepts images smaller than the kernel.
        ones = offset.new_ones(len(x), offset.shape[1] // 2, *offset.shape[2:])
        modulation = modulation[0].to(offset.dtype).contiguous() if modulation else ones
        args = None, stride, padding, 1, groups, num_groups
        return modulated_deform_conv2d(x, offset, modulation, weight, *args).to(given)


def _is_autocast(x: Tensor) -> bool:
    return x.dtype != torch.float64 and not x.is_meta and torch.is_autocast_enabled(x.device.type)
