# Copyright (c) mmscale contributors.
"""Scale convolution as a layer."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from mmscale.checks import is_integer
from mmscale.ops import as_pair, check_window
from mmscale.ops.scale_conv import convolve, kernels_of, synthesise_kernels
from mmscale.registry import MODELS
from mmscale.scale_space import (
    DiscreteBasis,
    GaussianDerivativeBasis,
    HermiteBasis,
    Levels,
    ScaleGrid,
    Signal,
    check_signal,
)

for _kind in (HermiteBasis, GaussianDerivativeBasis, DiscreteBasis):
    MODELS.register_module(module=_kind)


@MODELS.register_module()
class ScaleConv(nn.Module):
    """Scale convolution with learned weights, see :func:`mmscale.ops.scale_conv2d`.

    Use it as a ``conv_cfg`` of MMCV:
    ``conv_cfg=dict(type='mmscale.ScaleConv', scale_space=dict(base=2, num_scales=4))``. MMCV's
    ``ConvModule`` then takes dense scale spaces, and pyramids if it has no activation.
    Source: Worrall & Welling, Deep Scale-Spaces, NeurIPS 2019.

    The 4-D weight of an ordinary convolution loads as ``l = 0``, with zeros for all other ``l``.
    ImageNet checkpoints of ResNet therefore load into ScaleResNet for any K.

    With a ``kernel`` basis the kernel of level ``k`` is ``sum_f w(o, c, l, f) psi_f^k``, sampled
    by the basis. On pyramids all levels use the kernel of level 0. 1x1 convolutions ignore the
    basis; all others take their size and padding from it, not from the arguments. A 4-D weight
    loads if its taps are those of level 0 (:class:`~mmscale.scale_space.DiscreteBasis`). In eval
    mode and without gradients the kernels are cached. PyTorch does not count writes through
    ``weight.data``: call ``eval()`` after such a write.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        kernel_size (int | tuple[int, int]): Taps, odd.
        stride (int | tuple[int, int]): Distance of the outputs, in samples of their level.
        padding (int | tuple[int, int]): Padding in taps, ``dilation * (kernel_size // 2)``. Any
            other padding would shift the levels relative to each other.
        dilation (int | tuple[int, int]): Distance of the taps, multiplied by ``base**k``.
        groups (int): Number of groups of channels, as in ``torch.nn.Conv2d``.
        bias (bool): Whether to add a learned bias per channel.
        interaction (int): K, the number of levels that one output level sees, from 1 to
            ``num_scales``.
        kernel (dict, optional): The basis of the kernels, as ``dict(type='mmscale.HermiteBasis',
            size=15)``, ``'mmscale.GaussianDerivativeBasis'`` or ``'mmscale.DiscreteBasis'``; or
            any object with ``tables(grid)``. Defaults to taps dilated by ``base**k``.
        scale_space (dict | ScaleGrid): The levels.

    Shape:
        - Input: dense ``(N, in_channels, S, H, W)`` or a pyramid of S tensors
          ``(N, in_channels, H_k, W_k)``.
        - Output: the same form, ``out_channels`` channels, each side ``ceil(size / stride)``.
        - ``weight``: ``(out_channels, in_channels / groups, K, kh, kw)``, or with a basis
          ``(out_channels, in_channels / groups, K, F)``.

    Raises:
        ValueError: If an argument is out of range.
    """

    # The cache of `_kernels`: a key and the kernels.
    _views = None
    # mmcv.cnn.ConvModule reads these attributes.
    transposed = False
    output_padding = (0, 0)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        interaction: int = 1,
        kernel: dict | None = None,
        *,
        scale_space: dict | ScaleGrid,
    ):
        super().__init__()
        self.grid = ScaleGrid.build(scale_space)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = as_pair('kernel_size', kernel_size)
        self.stride, self.padding = as_pair('stride', stride), as_pair('padding', padding)
        self.dilation = as_pair('dilation', dilation)
        self.interaction = interaction
        for name in ('in_channels', 'out_channels'):
            channels = getattr(self, name)
            if channels < 1 or groups < 1 or channels % groups:
                raise ValueError(
                    f'{name} must be a multiple of groups={groups} and both at least 1, '
                    f'got {channels}'
                )
        check_window(self.kernel_size, self.stride, self.padding, self.dilation)
        if not is_integer(interaction) or not 1 <= interaction <= self.grid.num_scales:
            raise ValueError(
                f'interaction must be an integer from 1 to num_scales={self.grid.num_scales}, '
                f'got {interaction}'
            )
        taps, self.kernel = self.kernel_size, None
        if kernel is not None and taps != (1, 1):
            self.kernel = MODELS.build(kernel) if isinstance(kernel, Mapping) else kernel
            if not hasattr(self.kernel, 'tables'):
                raise ValueError(f'kernel must be a basis of kernels or its config, got {kernel!r}')
            taps = (len(self.kernel.tables(self.grid)[0].functions),)
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, interaction, *taps)
        )
        self._make_tables()
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as ``torch.nn.Conv2d`` does; the fan-in counts all K levels."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Signal) -> Signal:
        if not isinstance(x, Levels):
            check_signal(x, self.grid, self.in_channels)
            return self.forward(Levels.of(x)).to_signal()
        steps = None if self.kernel is None else self._tables[x.dense][2]
        kernels, args = self._kernels(x.dense), (self.bias, self.stride, self.dilation, self.groups)
        return convolve(x, kernels, *args, self.grid, steps)

    def _kernels(self, dense: bool) -> Sequence[Tensor | tuple[Tensor, ...]]:
        """Return the kernel of each ``l``, cached where gradients are off.

        Making a view costs the host as much as a small layer. In-place changes of the weight reach
        its views; a new tensor in the weight's place has another address. The kernels of a basis
        are copies. They are cached in eval mode only, and by the version of the weight, too.
        """
        weight, basis = self.weight, self.kernel is not None
        if (
            torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or torch._C._is_tracing()
            or type(weight) is not nn.Parameter
            or (basis and (self.training or weight.is_inference()))  # has no version
        ):
            return self._synthesise(weight, dense)
        key = (weight.data_ptr(), weight._version, dense) if basis else weight.data_ptr()
        views = self._views
        if views is None or views[0] != key:
            # Detached, because autograd forbids the use of views made without gradients after an
            # in-place change of the weight with gradients.
            with torch.inference_mode(False):
                self._views = views = key, self._synthesise(weight.detach(), dense)
        return views[1]

    def _make_tables(self) -> None:
        """Make functions, sides and distances for pyramids [False] and dense signals [True].

        Every cast or move of the weight makes them again from float64.
        """
        self._views = None
        if self.kernel is None:
            return
        tables, count = self.kernel.tables(self.grid), self.grid.num_scales
        device = None if self.weight.is_meta else self.weight.device
        with torch.inference_mode(False):
            self._tables = {
                dense: (
                    torch.cat([torch.from_numpy(found.functions).flatten(1) for found in levels], 1)
                    .to(device=device, dtype=self.weight.dtype),
                    [found.functions.shape[-1] for found in levels],
                    [found.distance for found in levels] * (count // len(levels)),
                )
                for dense, levels in (
                    (False, [tables[0]]), (True, [tables[k] for k in self.grid.levels])
                )
            }  # fmt: skip

    def _synthesise(self, weight: Tensor, dense: bool) -> Sequence[Tensor | tuple[Tensor, ...]]:
        if self.kernel is None:
            return kernels_of(weight)
        functions, sides, _ = self._tables[dense]
        if functions.dtype != weight.dtype or functions.device != weight.device:
            functions = functions.to(weight)
        kernels = synthesise_kernels(weight, functions, sides)
        return kernels if dense else [kernel for (kernel,) in kernels]

    def train(self, mode: bool = True) -> 'ScaleConv':
        self._views = None
        return super().train(mode)

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_views': None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'ScaleConv':
        # `to(memory_format=torch.channels_last)` takes 4-D tensors only: join levels and rows.
        def apply_to_maps(x: Tensor) -> Tensor:
            try:
                return fn(x)
            except RuntimeError:
                if x.ndim != 5:
                    raise
                return fn(x.flatten(2, 3)).unflatten(2, x.shape[2:4])

        super()._apply(apply_to_maps, recurse)
        self._make_tables()
        return self

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        weight = state_dict.get(prefix + 'weight')
        if isinstance(weight, Tensor):
            state_dict[prefix + 'weight'] = self.inflate(weight)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def inflate(self, weight: Tensor) -> Tensor:
        """Convert the weight of an ordinary convolution, or return it as is if it does not fit."""
        if weight.ndim != 4 or weight.shape == self.weight.shape:
            return weight
        if self.kernel is not None:
            if weight.shape[2:] != getattr(self.kernel, 'taps', None):
                return weight
            weight = weight.flatten(2)
        inflated = weight.new_zeros(*weight.shape[:2], self.interaction, *weight.shape[2:])
        inflated[:, :, 0] = weight
        return inflated

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, '
            f'stride={self.stride}, padding={self.padding}, dilation={self.dilation}, '
            f'groups={self.groups}, bias={self.bias is not None}, '
            f'interaction={self.interaction}, {self.grid}'
            + ('' if self.kernel is None else f', kernel={self.kernel}')
        )
