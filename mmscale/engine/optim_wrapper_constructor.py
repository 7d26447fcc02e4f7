# Copyright (c) mmscale contributors.
"""Apply the options of ``paramwise_cfg`` to scale-equivariant layers as to ordinary layers."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmscale.models.layers import DeformScaleConv, ScaleConv
from mmscale.models.layers.so2 import SO2Conv
from mmscale.models.layers.so2_basis import field_size


def counterpart(module: nn.Module) -> nn.Module:
    """Return an ordinary convolution with the parameters and children of one of our convolutions.

    MMEngine's rules know only ordinary classes. Other modules, and deformable layers, which are no
    ordinary convolutions to MMEngine, are returned unchanged.
    """
    if isinstance(module, SO2Conv):
        channels = module.in_channels * field_size(module.in_order)
        twin = nn.Conv2d(channels, 1, 1, device='meta')
    elif isinstance(module, ScaleConv) and not isinstance(module, DeformScaleConv):
        groups = module.groups
        twin = nn.Conv2d(module.in_channels, groups, 1, groups=groups, device='meta')
    else:
        return module
    twin._parameters, twin._modules = module._parameters, module._modules
    return twin


# MMEngine's constructor has no argument for further classes, so this class takes its name.
@OPTIM_WRAPPER_CONSTRUCTORS.register_module('DefaultOptimWrapperConstructor', force=True)
class OptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor, extended to the layers of this package.

    Of ``paramwise_cfg``, ``dcn_offset_lr_mult`` and the exceptions for offsets apply to the offset
    branches of deformable scale convolutions (with or without MMCV's ops). ``dwconv_decay_mult``
    applies to depthwise scale convolutions. A config whose ``constructor`` is MMEngine's class
    itself, not its name, does not get the extension.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._offset_branches: set[nn.Module] = set()

    def add_params(
        self, params: list, module: nn.Module, prefix: str = '', is_dcn_module: float | None = None
    ) -> None:
        if isinstance(module, DeformScaleConv):
            self._offset_branches.add(module.conv_offset)
        is_dcn_module = is_dcn_module or module in self._offset_branches
        super().add_params(params, counterpart(module), prefix, is_dcn_module)
