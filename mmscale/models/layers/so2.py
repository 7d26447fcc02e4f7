# Copyright (c) mmscale contributors.
"""Layers that commute with rotation.

All of them take and return *fields*: tensors ``(N, C * (1 + 2 * M), H, W)`` that hold C channels of
each order 0, ..., M. The channels of one component lie together, the component being the slower
index: C of order 0, then C real and C imaginary parts of order 1, then those of order 2, and so on.
See :mod:`mmscale.models.layers.so2_basis` for what an order is.
"""

import math
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmscale.ops import binomial
from mmscale.ops.scale_conv import is_integer

from .so2_basis import basis_elements, field_size, sampled_basis

# Added to |f|^2, so that the root has a gradient where a feature is zero.
EPS = 1e-6


def check_count(name: str, value, smallest: int) -> None:
    """Raises ``ValueError`` unless ``value`` is an integer of at least ``smallest``."""
    if not is_integer(value) or value < smallest:
        raise ValueError(f'{name} must be an integer of at least {smallest}, got {value!r}')


def split_orders(x: Tensor, max_order: int) -> tuple[Tensor, Tensor]:
    """Order 0 ``(N, C, H, W)`` and the pairs of the others ``(N, M, 2, C, H, W)``, as views."""
    size = 1 + 2 * max_order
    if x.ndim != 4 or x.shape[1] % size:
        raise ValueError(
            f'a field of max_order={max_order} is (N, {size} * C, H, W), '
            f'got the shape {tuple(x.shape)}'
        )
    channels = x.shape[1] // size
    return x[:, :channels], x[:, channels:].unflatten(1, (max_order, 2, channels))


def join_orders(scalars: Tensor, pairs: Tensor) -> Tensor:
    """The inverse of :func:`split_orders`."""
    return torch.cat((scalars, pairs.flatten(1, 3)), 1)


def _pair_magnitudes(pairs: Tensor) -> Tensor:
    """``(N, M, 2, C, H, W)`` to ``(N, M, C, H, W)``; squares would overflow in half precision."""
    exact = pairs.to(torch.promote_types(pairs.dtype, torch.float32))
    return (exact.square().sum(2) + EPS).sqrt()


def so2_magnitudes(x: Tensor, max_order: int) -> Tensor:
    """What rotation only moves: order 0 as it is, and the length of every pair.

    From a field ``(N, C * (1 + 2 * max_order), H, W)`` to ``(N, C * (1 + max_order), H, W)``. A
    length is ``sqrt(re^2 + im^2 + 1e-6)``, which has a gradient everywhere.
    """
    scalars, pairs = split_orders(x, max_order)
    return torch.cat((scalars, _pair_magnitudes(pairs).to(x.dtype).flatten(1, 2)), 1)


def blur_pool(x: Tensor) -> Tensor:
    """Halves the resolution by binomial blur and decimation, centred on the image.

    An odd side is blurred by (1, 2, 1)/4 and read at 0, 2, 4, ..., an even one by (1, 3, 3, 1)/8
    and read between the pixels, at 0.5, 2.5, 4.5, .... So it commutes with quarter turns for all
    sizes, which a stride of 2 does for odd ones alone. The border is repeated outwards.
    From ``(N, C, H, W)`` to ``(N, C, ceil(H / 2), ceil(W / 2))``.
    Source of the blur: Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019.
    """
    rows, columns = (binomial(3 if size % 2 else 4).to(x) for size in x.shape[-2:])
    channels = x.shape[1]
    kernel = torch.outer(rows, columns).expand(channels, 1, -1, -1)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode='replicate'), kernel, stride=2, groups=channels)


class SO2Conv(nn.Module):
    """Convolution that commutes with rotation, from orders 0..``in_order`` to 0..``out_order``.

    Its kernel is a learned sum of the fixed kernels of :func:`~.so2_basis.basis_elements`, applied
    as one ordinary convolution of stride 1, padded with zeros to keep the size. It commutes with
    quarter turns to rounding, and with other angles as far as the image is smooth on the pixels. A
    stride would move the centre of images of even size: :func:`blur_pool` halves the resolution.
    Weights start such that independent values of variance 1 give outputs of variance 1.

    Args:
        in_channels (int): Channels of each order of the input.
        out_channels (int): Channels of each order of the output.
        kernel_size (int): Taps of a side, odd.
        in_order (int): Largest order of the input, 0 for images.
        out_order (int): Largest order of the output.
        bias (bool): Whether to add a learned bias to order 0, the only one that may have one.

    Shape:
        - Input: ``(N, in_channels * (1 + 2 * in_order), H, W)``.
        - Output: ``(N, out_channels * (1 + 2 * out_order), H, W)``.
        - ``weight``: ``(out_channels, in_channels, B)``, the basis ordered by output order, then
          input order.

    Raises:
        ValueError: If an argument is out of range, or the kernel is too small to make an order.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        in_order: int = 2,
        out_order: int = 2,
        bias: bool = True,
    ):
        super().__init__()
        check_count('in_channels', in_channels, 1)
        check_count('out_channels', out_channels, 1)
        check_count('in_order', in_order, 0)
        check_count('out_order', out_order, 0)
        if not is_integer(kernel_size) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be an odd integer, got {kernel_size!r}')
        self.in_channels, self.out_channels = in_channels, out_channels
        self.in_order, self.out_order = in_order, out_order
        self.kernel_size = kernel_size
        # The number of kernels from order m to order n, at [n][m].
        self.basis_sizes = [
            [len(basis_elements(kernel_size, m, n)) for m in range(in_order + 1)]
            for n in range(out_order + 1)
        ]
        for n, sizes in enumerate(self.basis_sizes):
            if not any(sizes):
                raise ValueError(
                    f'out_order must be less than {n} with kernel_size={kernel_size} and '
                    f'in_order={in_order}, which cannot make that order, got {out_order}'
                )
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, sum(map(sum, self.basis_sizes)))
        )
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        # A constant that moves with the layer, and no part of checkpoints.
        device = None if self.weight.is_meta else self.weight.device
        basis = self._exact_basis().to(device=device, dtype=self.weight.dtype)
        self.register_buffer('basis', basis, persistent=False)
        self.reset_parameters()

    @property
    def _orders(self) -> list[tuple[int, int]]:
        """The orders n of the output and m of the input of each block of the kernel."""
        return list(product(range(self.out_order + 1), range(self.in_order + 1)))

    def _exact_basis(self) -> Tensor:
        """The kernels of all blocks, flat, in float64."""
        return torch.cat([sampled_basis(self.kernel_size, m, n).flatten() for n, m in self._orders])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'SO2Conv':
        super()._apply(fn, recurse)
        # `to_empty` gives memory as it was, and checkpoints do not hold what is no parameter.
        if not self.basis.is_meta:
            with torch.no_grad():
                self.basis.copy_(self._exact_basis())
        return self

    def _blocks(self):
        """The order n of the output, the weights and the basis of each block of the kernel."""
        sides = self.kernel_size, self.kernel_size
        shapes = [(self.basis_sizes[n][m], field_size(n), field_size(m), *sides)
                  for n, m in self._orders]  # fmt: skip
        weights = self.weight.split([shape[0] for shape in shapes], 2)
        bases = self.basis.split([math.prod(shape) for shape in shapes])
        for (n, _), shape, weight, basis in zip(self._orders, shapes, weights, bases, strict=True):
            yield n, weight, basis.view(shape)

    def reset_parameters(self) -> None:
        """Draws the weights anew; the bias starts at 0."""
        # What one component of each order sums up if all weights are 1 and inputs independent.
        powers = [0.0] * (self.out_order + 1)
        for n, _, basis in self._blocks():
            powers[n] += self.in_channels * basis.square().sum() / field_size(n)
        with torch.no_grad():
            for n, weight, _ in self._blocks():
                weight.normal_().mul_(powers[n].rsqrt())
            if self.bias is not None:
                self.bias.zero_()

    def kernel(self) -> Tensor:
        """The ordinary kernel that the weights make, as ``torch.nn.Conv2d`` takes it."""
        rows = [[] for _ in range(self.out_order + 1)]
        for n, weight, basis in self._blocks():
            # Not einsum: counters of operations would count what no image takes part in.
            block = torch.tensordot(weight, basis, 1).permute(2, 0, 3, 1, 4, 5)
            rows[n].append(block.flatten(0, 1).flatten(1, 2))
        return torch.cat([torch.cat(row, 1) for row in rows])

    def forward(self, x: Tensor) -> Tensor:
        channels = self.in_channels * (1 + 2 * self.in_order)
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(
                f'expected in_channels={self.in_channels} of each order up to '
                f'in_order={self.in_order}, (N, {channels}, H, W), got the shape {tuple(x.shape)}'
            )
        bias = self.bias
        if bias is not None:
            bias = F.pad(bias, (0, 2 * self.out_order * self.out_channels))
        return F.conv2d(x, self.kernel(), bias, padding=self.kernel_size // 2)

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, '
            f'in_order={self.in_order}, out_order={self.out_order}, bias={self.bias is not None}'
        )


def _flatten_saved(state_dict: dict, key: str) -> None:
    """Flattens a parameter of a checkpoint that was saved as ``(orders, channels)``."""
    value = state_dict.get(key)
    if isinstance(value, Tensor) and value.ndim == 2:
        state_dict[key] = value.flatten()


class SO2NormReLU(nn.Module):
    """Shortens or lengthens pairs without turning them: ``f -> relu(|f| + b) f / |f|``.

    The bias b, one a channel and order, starts at 0, where pairs pass unchanged. Order 0 takes an
    ordinary ReLU. Lengths are those of :func:`so2_magnitudes`.

    Args:
        channels (int): Channels of each order.
        max_order (int): The largest order.

    Shape:
        - Input and output: ``(N, channels * (1 + 2 * max_order), H, W)``.
        - ``bias``: ``(max_order * channels,)``, flat as optimizers take biases to be, the order
          being the slower index. ``(max_order, channels)`` of older checkpoints loads too.
    """

    def __init__(self, channels: int, max_order: int = 2):
        super().__init__()
        check_count('channels', channels, 1)
        check_count('max_order', max_order, 0)
        self.channels, self.max_order = channels, max_order
        self.bias = nn.Parameter(torch.zeros(max_order * channels))

    def forward(self, x: Tensor) -> Tensor:
        scalars, pairs = split_orders(x, self.max_order)
        lengths = _pair_magnitudes(pairs)
        bias = self.bias.view(self.max_order, self.channels, 1, 1)
        factors = F.relu(lengths + bias) / lengths
        return join_orders(F.relu(scalars), pairs * factors.to(x.dtype).unsqueeze(2))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        _flatten_saved(state_dict, prefix + 'bias')
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f'{self.channels}, max_order={self.max_order}'


class SO2BatchNorm(_BatchNorm):
    """Batch normalisation that commutes with rotation.

    Order 0 has an ordinary batch norm. Pairs are divided by the root of the batch's mean of
    ``|f|^2`` and multiplied by a learned scale, one a channel and order; a shift would not turn
    with the image. Like ``torch.nn.BatchNorm2d``, each process has statistics of its own; a
    conversion to ``torch.nn.SyncBatchNorm``, which knows no pairs, is refused.

    Args:
        channels (int): Channels of each order.
        max_order (int): The largest order.
        momentum (float, optional): Share of a batch in the running statistics; None for their mean
            over all batches.
        eps (float): Added to variances and mean squares.

    Shape:
        - Input and output: ``(N, channels * (1 + 2 * max_order), H, W)``.
        - ``weight``: ``((1 + max_order) * channels,)``, flat as optimizers take the weights of
          norms to be, the order being the slower index. ``(1 + max_order, channels)`` of older
          checkpoints loads too.
        - ``bias``: ``(channels,)``, of order 0.
        - ``running_mean``, ``running_var``: ``((1 + max_order) * channels,)``, of order 0; then 0
          and the mean of ``|f|^2``. Those of older checkpoints, apart as ``running_power``, load
          too.
    """

    def __init__(
        self, channels: int, max_order: int = 2, momentum: float | None = 0.1, eps: float = 1e-5
    ):
        check_count('channels', channels, 1)
        check_count('max_order', max_order, 0)
        super().__init__((1 + max_order) * channels, eps, momentum)
        self.max_order = max_order
        self.bias = nn.Parameter(torch.zeros(channels))
        del self.affine  # SyncBatchNorm's conversion asks for it, and nothing else

    def __getattr__(self, name: str):
        if name == 'affine':
            raise AttributeError(
                'SO2BatchNorm cannot be converted to SyncBatchNorm, which knows no pairs: leave '
                'out sync_bn'
            )
        return super().__getattr__(name)

    def reset_parameters(self) -> None:
        """Begins anew: scales 1, biases and means 0, variances 1."""
        self.reset_running_stats()
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        scalars, pairs = split_orders(x, self.max_order)
        channels = scalars.shape[1]
        weight = self.weight.view(1 + self.max_order, -1)
        mean, var = self.running_mean, self.running_var
        keeps = mean is not None  # functions of torch.func take them away
        momentum = self.momentum
        if self.training and keeps:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1 / self.num_batches_tracked.item()
        scalars = F.batch_norm(
            scalars,
            mean[:channels] if keeps else None,
            var[:channels] if keeps else None,
            weight[0],
            self.bias,
            self.training or not keeps,
            momentum or 0.0,
            self.eps,
        )
        power = var[channels:].view(self.max_order, channels) if keeps else None
        # No pixel has no mean: PyTorch's norms then keep theirs, too.
        if power is None or (self.training and len(x)):
            running, exact = power, pairs.to(torch.promote_types(pairs.dtype, torch.float32))
            power = exact.square().mean((0, 4, 5)).sum(1)
            if keeps:
                # As data: the norm of order 0 keeps the same buffer for its gradient.
                running.data.lerp_(power.detach().to(running.dtype), momentum)
        scales = weight[1:] * (power + self.eps).rsqrt()
        return join_orders(scalars, pairs * scales.to(x.dtype)[:, None, :, None, None])

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        _flatten_saved(state_dict, prefix + 'weight')
        power = state_dict.pop(prefix + 'running_power', None)
        if power is not None:
            parts = dict(running_mean=torch.zeros_like(power), running_var=power)
            for name, part in parts.items():
                saved = state_dict[prefix + name]
                state_dict[prefix + name] = torch.cat([saved, part.flatten()])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return (
            f'{len(self.bias)}, max_order={self.max_order}, momentum={self.momentum}, '
            f'eps={self.eps}'
        )
