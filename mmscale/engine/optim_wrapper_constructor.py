# Copyright (c) mmscale contributors.
"""Has the options of ``paramwise_cfg`` mean for our layers what they mean for ordinary ones."""

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmscale.models.layers import DeformScaleConv, ScaleConv
from mmscale.models.layers.so2 import SO2Conv
from mmscale.models.layers.so2_basis import field_size


def counterpart(module: nn.Module) -> nn.Module:
    """A module of the class that MMEngine's rules know, with the parameters and children of ours.

    Deformable layers are no ordinary convolutions to MMEngine either: they stay as they are.
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


# MMEngine goes by class, and its constructor cannot be told of other classes: so its name stands
# for this one, which treats all other modules as before.
@OPTIM_WRAPPER_CONSTRUCTORS.register_module('DefaultOptimWrapperConstructor', force=True)
class OptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor, with eyes for the layers of this package.

    Of ``paramwise_cfg``, ``dcn_offset_lr_mult`` and the exceptions for offsets hold for the offset
    branches of deformable scale convolutions (with MMCV's ops or without), ``dwconv_decay_mult``
    for depthwise scale convolutions. Whoever names MMEngine's class itself as ``constructor``, and
    not by a string, has none of that.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._offset_branches: set[nn.Module] = set()

    def add_params(self, params, module, prefix='', is_dcn_module=None) -> None:
        if isinstance(module, DeformScaleConv):
            self._offset_branches.add(module.conv_offset)
        is_dcn_module = is_dcn_module or module in self._offset_branches
        super().add_params(params, counterpart(module), prefix, is_dcn_module)
