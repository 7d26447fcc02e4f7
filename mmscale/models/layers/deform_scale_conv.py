# Copyright (c) mmscale contributors.
"""Deformable scale convolution as layers."""

from torch import nn

from mmscale.ops import choose_backend, deform_scale_conv2d
from mmscale.ops.scale_conv import is_integer
from mmscale.registry import MODELS
from mmscale.scale_space import ScaleGrid, Signal, map_levels

from .scale_conv import ScaleConv


@MODELS.register_module()
class DeformScaleConv(ScaleConv):
    """Deformable scale convolution, :func:`mmscale.ops.deform_scale_conv2d`.

    A parallel scale convolution, ``conv_offset``, predicts where each tap reads, in tap units. It
    starts at 0, and the layer as its scale convolution. The names of its parameters are those of
    MMCV's ``DeformConv2dPack``, so that the checkpoints of deformable ResNets load. Use it as a
    ``conv_cfg``, as :class:`ScaleConv`.
    Sources: Dai et al., Deformable Convolutional Networks, ICCV 2017; Worrall & Welling, Deep
    Scale-Spaces, NeurIPS 2019.

    Args:
        in_channels, ..., interaction, scale_space: As of :class:`ScaleConv`; both convolutions have
            the same ``interaction``.
        deform_groups (int): Blocks of input channels that have offsets of their own.
        backend (str): ``'auto'``, ``'mmcv'`` or ``'native'``, see
            :func:`mmscale.ops.choose_backend`.

    Shape:
        As of :class:`ScaleConv`.

    Raises:
        RuntimeError: If ``backend='mmcv'`` and MMCV was installed without compiled ops.
    """

    # What conv_offset predicts for a tap: dy and dx.
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
        """Sets the offset branch to 0; ``ScaleResNet`` does so again after its own ``init_cfg``."""
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
    """Deformable scale convolution whose taps are also weighted, by a sigmoid that starts at 0.5.

    At the start it is half of its scale convolution. Arguments, shapes and what is raised are
    those of :class:`DeformScaleConv`; the names of the parameters are those of MMCV's
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
