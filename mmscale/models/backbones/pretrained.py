# Copyright (c) mmscale contributors.
"""Checkpoints that backbones start from, those of other ResNets among them.

Parameters have the names of MMPretrain's ResNet, which are torchvision's and MMDetection's, too.
MMSegmentation and timm name the layers of a deep stem in other ways.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from torch import Tensor, nn

from mmscale.models.layers import DeformScaleConv, ScaleConv


def rename_keys(backbone: nn.Module, state_dict: dict, prefix: str) -> None:
    """Renames the keys of checkpoints of timm and MMSegmentation.

    Args:
        backbone (ScaleResNet): That is to be loaded.
        state_dict (dict): The checkpoint, changed in place.
        prefix (str): What precedes the names of the backbone in it.
    """
    known = {name.removeprefix(prefix) for name in state_dict if name.startswith(prefix)}
    for old, new in _names_elsewhere(backbone, known).items():
        for name in [name for name in state_dict if name.startswith(f'{prefix}{old}.')]:
            rest = name.removeprefix(f'{prefix}{old}.')
            if '.' not in rest:  # else `old` is a module of ours, which holds others
                state_dict[f'{prefix}{new}.{rest}'] = state_dict.pop(name)


def _names_elsewhere(backbone: nn.Module, known: set[str]) -> dict[str, str]:
    """What timm, or MMSegmentation, calls some layers, and their names here."""
    names, in_timm = {}, 'conv1.0.weight' in known
    for i, module in enumerate(backbone.stem if backbone.deep_stem else ()):
        conv, norm = f'stem.{i}.conv', f'stem.{i}.{module.norm_name}'
        stem = 'conv1' if in_timm else 'stem'
        names[f'{stem}.{3 * i}'] = conv
        names['bn1' if in_timm and i == 2 else f'{stem}.{3 * i + 1}'] = norm
    for layer in backbone.res_layers if in_timm else ():
        shortcut = getattr(backbone, layer)[0].downsample
        first = f'{layer}.0.downsample'
        # timm counts the pooling of a shortcut (ResNet-D) where there is nothing to pool, too.
        if shortcut is not None and len(shortcut) == 2 and f'{first}.2.weight' in known:
            names |= {f'{first}.1': f'{first}.0', f'{first}.2': f'{first}.1'}
    return names


def _misfits(backbone: nn.Module, state_dict: dict, prefix: str) -> list[str]:
    """Names of the weights that have another shape in a checkpoint, and are not loaded."""
    found = []
    for name, own in chain(backbone.named_parameters(), backbone.named_buffers()):
        given, owner = state_dict.get(prefix + name, own), name.rpartition('.')
        layer = backbone.get_submodule(owner[0])
        if owner[2] == 'weight' and isinstance(layer, ScaleConv) and isinstance(given, Tensor):
            given = layer.inflate(given)  # that of an ordinary convolution, for the first level
        shape = getattr(given, 'shape', own.shape)
        if tuple(shape) != tuple(own.shape):
            found.append(name)
    return found


@contextmanager
def complete_checkpoint(backbone: nn.Module) -> Iterator[None]:
    """Refuses checkpoints that leave weights as they were drawn, while the block runs.

    Offset branches that a checkpoint lacks are set to 0; another ``init_cfg`` has drawn them.

    Raises:
        ValueError: If a checkpoint lacks other weights, or has them in other shapes, and the
            backbone's ``partial_pretrained`` is False.
    """
    misfits = []

    def before(state_dict, prefix, *_) -> None:
        misfits.extend(_misfits(backbone, state_dict, prefix))

    def after(_, keys) -> None:
        for name, module in backbone.named_modules():
            if isinstance(module, DeformScaleConv):
                if f'{name}.conv_offset.weight' in keys.missing_keys:
                    module.init_offset()
        own = backbone.state_dict()
        absent = [key for key in (*keys.missing_keys, *misfits) if key in own]
        missing = [key for key in absent if not re.search('conv_offset|num_batches_tracked$', key)]
        if missing and not backbone.partial_pretrained:
            raise ValueError(
                f'init_cfg={backbone.init_cfg}: the checkpoint has no values, or of other shapes, '
                f'for {len(missing)} of {len(own)} weights, {missing[0]} among them, which would '
                'stay random. Its keys may need a prefix= in init_cfg; partial_pretrained=True '
                'leaves them random'
            )

    hooks = [
        backbone._register_load_state_dict_pre_hook(before),
        backbone.register_load_state_dict_post_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
