# Copyright (c) mmscale contributors.
"""Layers for deformable scale convolution."""

from torch import nn

from mmscale.checks import is_integer
from mmscale.ops import choose_backend, deform_scale_conv2d
from mmscale.registry import MODELS
from mmscale.scale_space import ScaleGrid, Signal, map_levels

from .scale_conv import ScaleConv


@MODELS.register_module()
class DeformScaleConv(ScaleConv):
    """Deformable scale convolution, :func:`mmscale.ops.deform_scale_conv2d`.

    A parallel scale convolution, ``conv_offset``, predicts the offset of each tap in tap units. It
    starts at 0, where the layer equals its scale convolution. Parameters have the names of MMCV's
    ``DeformConv2dPack``, so that checkpoints of deformable ResNets load. Use the layer as a
    ``conv_cfg``, like :class:`ScaleConv`.
    Sources: Dai et al., Deformable Convolutional Networks, ICCV 2017; Worrall & Welling, Deep
    Scale-Spaces, NeurIPS 2019.

    Args:
        in_channels, ..., interaction, scale_space: See :class:`ScaleConv`; both convolutions have
            the same ``interaction``.
        deform_groups (int): Number of groups of input channels with separate offsets.
        backend (str): ``'auto'``, ``'mmcv'`` or ``'native'``, see
            :func:`mmscale.ops.choose_backend`.

    Shape:
        See :class:`ScaleConv`.

    Raises:
        RuntimeError: If ``backend='mmcv'`` and MMCV was installed without compiled ops.
    """

    # dy and dx.
    outputs_per_tap = 2

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
        deform_groups: int = 1,
        backend: str = 'auto',
        *,
        scale_space: dict | ScaleGrid,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                         bias, interaction, scale_space=scale_space)  # fmt: skip
        if not is_integer(deform_groups) or deform_groups < 1 or in_channels % deform_groups:
            raise ValueError(
                f'deform_groups must divide in_channels={in_channels}, got {deform_groups}'
            )
        self.deform_groups, self.backend = deform_groups, backend
        choose_backend(backend, self.weight.device)
        self.num_offsets = deform_groups * self.kernel_size[0] * self.kernel_size[1]
        outputs = self.outputs_per_tap * self.num_offsets
        self.conv_offset = ScaleConv(in_channels, outputs, kernel_size, stride, padding, dilation,
                                     interaction=interaction, scale_space=self.grid)  # fmt: skip
        self.init_offset()

    def init_offset(self) -> None:
        """Set the offset branch to 0; ``ScaleResNet`` calls it again after its ``init_cfg``."""
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Signal) -> Signal:
        return self._deform(x, self.conv_offset(x))

    def _deform(self, x: Signal, offset: Signal, modulation: Signal | None = None) -> Signal:
        return deform_scale_conv2d(
            x, offset, self.weight, self.bias, self.stride, self.dilation, self.groups,
            modulation, self.backend, scale_space=self.grid,
        )  # fmt: skip

    def extra_repr(self) -> str:
        chosen = choose_backend(self.backend, self.weight.device)
        backend = f"'auto' ('{chosen}' here)" if self.backend == 'auto' else repr(self.backend)
        return f'{super().extra_repr()}, deform_groups={self.deform_groups}, backend={backend}'


@MODELS.register_module()
class ModulatedDeformScaleConv(DeformScaleConv):
    """Deformable scale convolution with a modulation of its taps, a sigmoid that starts at 0.5.

    At the start the output is half of the output of its scale convolution. Arguments, shapes and
    errors are those of :class:`DeformScaleConv`. Parameters have the names of MMCV's
    ``ModulatedDeformConv2dPack``.
    Source: Zhu et al., Deformable ConvNets v2, CVPR 2019.
    """

    # dy, dx and the modulation: all offsets first, then all modulations.
    outputs_per_tap = 3

    def forward(self, x: Signal) -> Signal:
        predicted, count = self.conv_offset(x), 2 * self.num_offsets
        offset = map_levels(lambda pixels: pixels[:, :count], predicted)
        modulation = map_levels(lambda pixels: pixels[:, count:].sigmoid(), predicted)
        return self._deform(x, offset, modulation)
