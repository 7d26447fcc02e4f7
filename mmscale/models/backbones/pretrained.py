# Copyright (c) mmscale contributors.
"""Names that other toolboxes give to the parameters of ResNet.

Ours are those of MMPretrain's, which are torchvision's and MMDetection's, too. MMSegmentation and
timm name the layers of a deep stem in other ways.
"""

from torch import nn


def rename_keys(backbone: nn.Module, state_dict: dict, prefix: str) -> None:
    """Renames the keys of checkpoints of timm and MMSegmentation, in place.

    Args:
        backbone (ScaleResNet): That is to be loaded.
        state_dict (dict): The checkpoint.
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
        conv, norm, *_ = [f'stem.{i}.{name}' for name, _ in module.named_children()]
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
