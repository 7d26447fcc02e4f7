# Copyright (c) mmscale contributors.
"""Checkpoints of other ResNets in ScaleResNet.

Parameters have the names of MMPretrain's ResNet, which are torchvision's and MMDetection's, too.
MMSegmentation and timm name the layers of a deep stem in other ways.
"""

from itertools import chain

from torch import Tensor, nn

from mmscale.models.layers import DeformScaleConv, ScaleConv


def rename_keys(backbone: nn.Module, state_dict: dict, prefix: str) -> None:
    """Gives what timm and MMSegmentation name otherwise the names that it has here.

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


def misfits(backbone: nn.Module, state_dict: dict, prefix: str) -> list[str]:
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


def check_loaded(backbone: nn.Module, keys) -> None:
    """Raises ``ValueError`` if a checkpoint has no values for what is not zero at first.

    A hook of ``register_load_state_dict_post_hook``, which gives the incompatible ``keys``.
    """
    reset_offsets(backbone, keys)
    own = backbone.state_dict()
    absent = [*keys.missing_keys, *backbone.misfits]
    missing = [key for key in absent if key in own and 'conv_offset' not in key]
    missing = [key for key in missing if not key.endswith('num_batches_tracked')]
    if missing and not backbone.partial_pretrained:
        raise ValueError(
            f'init_cfg={backbone.init_cfg}: the checkpoint has no values, or of other shapes, for '
            f'{len(missing)} of {len(own)} weights, {missing[0]} among them, which would stay '
            'random. Its keys may need a prefix= in init_cfg; partial_pretrained=True leaves them '
            'random'
        )


def reset_offsets(backbone: nn.Module, keys) -> None:
    """Sets offset branches to 0 that a checkpoint does not have: another ``init_cfg`` drew them."""
    for name, module in backbone.named_modules():
        if (
            isinstance(module, DeformScaleConv)
            and f'{name}.conv_offset.weight' in keys.missing_keys
        ):
            module.init_offset()
