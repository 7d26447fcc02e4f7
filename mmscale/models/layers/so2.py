# Copyright (c) mmscale contributors.
"""Layers that commute with rotation.

All layers take and return *fields*: tensors ``(N, C * (1 + 2 * M), H, W)`` that hold C channels of
each order 0, ..., M. The component is the slower index: C channels of order 0 come first, then C
real and C imaginary parts of order 1, then C real and C imaginary parts of order 2, and so on.
:mod:`mmscale.models.layers.so2_basis` defines orders.
"""

import math
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmscale.checks import check_count, is_integer
from mmscale.ops import binomial

from .so2_basis import basis_elements, field_size, sampled_basis

# Added to |f|^2, so that the root has a gradient where a feature is zero.
EPS = 1e-6


def split_orders(x: Tensor, max_order: int) -> tuple[Tensor, Tensor]:
    """Return views: order 0 ``(N, C, H, W)`` and the other orders' pairs ``(N, M, 2, C, H, W)``."""
    size = 1 + 2 * max_order
    if x.ndim != 4 or x.shape[1] % size:
        raise ValueError(
            f'a field of max_order={max_order} is (N, {size} * C, H, W), '
            f'got the shape {tuple(x.shape)}'
        )
    channels = x.shape[1] // size
    return x[:, :channels], x[:, channels:].unflatten(1, (max_order, 2, channels))


def join_orders(scalars: Tensor, pairs: Tensor) -> Tensor:
    """Join order 0 and pairs to a field, the inverse of :func:`split_orders`."""
    return torch.cat((scalars, pairs.flatten(1, 3)), 1)


def _pair_magnitudes(pairs: Tensor) -> Tensor:
    """Return the lengths ``(N, M, C, H, W)``; squares would overflow in half precision."""
    exact = pairs.to(torch.promote_types(pairs.dtype, torch.float32))
    return (exact.square().sum(2) + EPS).sqrt()


def so2_magnitudes(x: Tensor, max_order: int) -> Tensor:
    """Return the values that rotation only moves: order 0, and the length of every pair.

    The field ``(N, C * (1 + 2 * max_order), H, W)`` gives ``(N, C * (1 + max_order), H, W)``. A
    length is ``sqrt(re^2 + im^2 + 1e-6)``, which has a gradient everywhere.
    """
    scalars, pairs = split_orders(x, max_order)
    return torch.cat((scalars, _pair_magnitudes(pairs).to(x.dtype).flatten(1, 2)), 1)


def blur_pool(x: Tensor) -> Tensor:
    """Halve the resolution by binomial blur and decimation, centred on the image.

    An odd side is blurred by (1, 2, 1)/4 and sampled at 0, 2, 4, .... An even side is blurred by
    (1, 3, 3, 1)/8 and sampled between the pixels, at 0.5, 2.5, 4.5, .... So the operation commutes
    with quarter turns for all sizes; a stride of 2 alone does so for odd sizes only. Padding
    replicates the border. ``(N, C, H, W)`` gives ``(N, C, ceil(H / 2), ceil(W / 2))``.
    Source of the blur: Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019.
    """
    rows, columns = (binomial(3 if size % 2 else 4).to(x) for size in x.shape[-2:])
    channels = x.shape[1]
    kernel = torch.outer(rows, columns).expand(channels, 1, -1, -1)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode='replicate'), kernel, stride=2, groups=channels)


class SO2Conv(nn.Module):
    """Convolution that commutes with rotation, from orders 0..``in_order`` to 0..``out_order``.

    Its kernel is a learned sum of the fixed kernels of :func:`~.so2_basis.basis_elements`. The
    convolution has stride 1, and zero padding keeps the size. It commutes with quarter turns up to
    rounding; the error at other angles decreases with the smoothness of the image on its pixels. A
    stride would move the centre of images of even size: :func:`blur_pool` halves the resolution.
    At the start, independent inputs of variance 1 give outputs of variance 1.

    Args:
        in_channels (int): Channels of each order of the input.
        out_channels (int): Channels of each order of the output.
        kernel_size (int): Taps of a side, odd.
        in_order (int): Largest order of the input, 0 for images.
        out_order (int): Largest order of the output.
        bias (bool): Whether to add a learned bias to order 0, the only order that may have a bias.

    Shape:
        - Input: ``(N, in_channels * (1 + 2 * in_order), H, W)``.
        - Output: ``(N, out_channels * (1 + 2 * out_order), H, W)``.
        - ``weight``: ``(out_channels, in_channels, B)``; the B elements of the basis are sorted
          by output order, then input order.

    Raises:
        ValueError: If an argument is out of range, or the kernel is too small for an order.
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
        # A buffer moves with the layer; checkpoints do not need the constant.
        device = None if self.weight.is_meta else self.weight.device
        basis = self._exact_basis().to(device=device, dtype=self.weight.dtype)
        self.register_buffer('basis', basis, persistent=False)
        self.reset_parameters()

    @property
    def _orders(self) -> list[tuple[int, int]]:
        """Output order n and input order m of each block of the kernel."""
        return list(product(range(self.out_order + 1), range(self.in_order + 1)))

    def _exact_basis(self) -> Tensor:
        """Return the kernels of all blocks, flat, in float64."""
        return torch.cat([sampled_basis(self.kernel_size, m, n).flatten() for n, m in self._orders])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'SO2Conv':
        super()._apply(fn, recurse)
        # `to_empty` leaves memory uninitialised, and checkpoints do not hold the basis.
        if not self.basis.is_meta:
            with torch.no_grad():
                self.basis.copy_(self._exact_basis())
        return self

    def _blocks(self):
        """Yield the output order n, the weights and the basis of each block of the kernel."""
        sides = self.kernel_size, self.kernel_size
        shapes = [(self.basis_sizes[n][m], field_size(n), field_size(m), *sides)
                  for n, m in self._orders]  # fmt: skip
        weights = self.weight.split([shape[0] for shape in shapes], 2)
        bases = self.basis.split([math.prod(shape) for shape in shapes])
        for (n, _), shape, weight, basis in zip(self._orders, shapes, weights, bases, strict=True):
            yield n, weight, basis.view(shape)

    def reset_parameters(self) -> None:
        """Draw the weights from a normal distribution; set the bias to 0."""
        # Variance of one component of each order for weights 1 and independent inputs.
        powers = [0.0] * (self.out_order + 1)
        for n, _, basis in self._blocks():
            powers[n] += self.in_channels * basis.square().sum() / field_size(n)
        with torch.no_grad():
            for n, weight, _ in self._blocks():
                weight.normal_().mul_(powers[n].rsqrt())
            if self.bias is not None:
                self.bias.zero_()

    def kernel(self) -> Tensor:
        """Return the kernel in the layout of ``torch.nn.Conv2d``."""
        rows = [[] for _ in range(self.out_order + 1)]
        for n, weight, basis in self._blocks():
            # Not einsum: counters of operations would count it, although no image takes part.
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


class SO2NormReLU(nn.Module):
    """A norm nonlinearity, which does not turn pairs: ``f -> relu(|f| + b) f / |f|``.

    Each channel and order has one bias b. It starts at 0, where pairs pass unchanged. Order 0
    passes through an ordinary ReLU. Lengths are those of :func:`so2_magnitudes`.

    Args:
        channels (int): Channels of each order.
        max_order (int): The largest order.

    Shape:
        - Input and output: ``(N, channels * (1 + 2 * max_order), H, W)``.
        - ``bias``: ``(max_order * channels,)``, flat because optimizers expect flat biases; the
          order is the slower index.
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

    def extra_repr(self) -> str:
        return f'{self.channels}, max_order={self.max_order}'


class SO2BatchNorm(_BatchNorm):
    """Batch normalisation that commutes with rotation.

    Order 0 has an ordinary batch norm. Pairs are divided by the root of the batch's mean of
    ``|f|^2`` and multiplied by a learned scale, one per channel and order; a shift would not turn
    with the image. Each process has its own statistics, as with ``torch.nn.BatchNorm2d``. A
    conversion to ``torch.nn.SyncBatchNorm``, which knows no pairs, raises an error.

    Args:
        channels (int): Channels of each order.
        max_order (int): The largest order.
        momentum (float, optional): Share of a batch in the running statistics; None averages over
            all batches.
        eps (float): Added to variances and mean squares.

    Shape:
        - Input and output: ``(N, channels * (1 + 2 * max_order), H, W)``.
        - ``weight``: ``((1 + max_order) * channels,)``, flat because optimizers expect flat
          weights of norms; the order is the slower index.
        - ``bias``: ``(channels,)``, of order 0.
        - ``running_mean``, ``running_var``: ``((1 + max_order) * channels,)``, mean and variance
          of order 0, then 0 and the mean of ``|f|^2``.
    """

    def __init__(
        self, channels: int, max_order: int = 2, momentum: float | None = 0.1, eps: float = 1e-5
    ):
        check_count('channels', channels, 1)
        check_count('max_order', max_order, 0)
        super().__init__((1 + max_order) * channels, eps, momentum)
        self.max_order = max_order
        self.bias = nn.Parameter(torch.zeros(channels))
        del self.affine  # only the conversion to SyncBatchNorm reads it

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        if name == 'affine':
            raise AttributeError(
                'SO2BatchNorm cannot be converted to SyncBatchNorm, which knows no pairs: leave '
                'out sync_bn'
            )
        return super().__getattr__(name)

    def reset_parameters(self) -> None:
        """Set scales and variances to 1, biases and means to 0."""
        self.reset_running_stats()
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        scalars, pairs = split_orders(x, self.max_order)
        channels = scalars.shape[1]
        weight = self.weight.view(1 + self.max_order, -1)
        mean, var = self.running_mean, self.running_var
        keeps = mean is not None  # torch.func can remove the running statistics
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
        # An empty batch has no mean: PyTorch's norms keep their statistics then, too.
        if power is None or (self.training and len(x)):
            running, exact = power, pairs.to(torch.promote_types(pairs.dtype, torch.float32))
            power = exact.square().mean((0, 4, 5)).sum(1)
            if keeps:
                # Through `data`: the norm of order 0 saves the same buffer for its gradient.
                running.data.lerp_(power.detach().to(running.dtype), momentum)
        scales = weight[1:] * (power + self.eps).rsqrt()
        return join_orders(scalars, pairs * scales.to(x.dtype)[:, None, :, None, None])

    def extra_repr(self) -> str:
        return (
            f'{len(self.bias)}, max_order={self.max_order}, momentum={self.momentum}, '
            f'eps={self.eps}'
        )
