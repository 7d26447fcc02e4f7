# Copyright (c) mmscale contributors.
"""Names of the parameters of ResNet in checkpoints of other toolboxes.

The package uses the names of MMPretrain, torchvision and MMDetection. MMSegmentation and timm name
the layers of a deep stem in other ways.
"""

from torch import nn


def rename_keys(backbone: nn.Module, state_dict: dict, prefix: str) -> None:
    """Rename the keys of checkpoints of timm and MMSegmentation in place, behind ``prefix``."""
    known = {name.removeprefix(prefix) for name in state_dict if name.startswith(prefix)}
    for old, new in _names_elsewhere(backbone, known).items():
        for name in [name for name in state_dict if name.startswith(f'{prefix}{old}.')]:
            rest = name.removeprefix(f'{prefix}{old}.')
            if '.' not in rest:  # otherwise `old` names a container of this backbone
                state_dict[f'{prefix}{new}.{rest}'] = state_dict.pop(name)


def _names_elsewhere(backbone: nn.Module, known: set[str]) -> dict[str, str]:
    """Map the names of layers in timm or MMSegmentation to their names here."""
    names, in_timm = {}, 'conv1.0.weight' in known
    for i, module in enumerate(backbone.stem if backbone.deep_stem else ()):
        conv, norm, *_ = [f'stem.{i}.{name}' for name, _ in module.named_children()]
        stem = 'conv1' if in_timm else 'stem'
        names[f'{stem}.{3 * i}'] = conv
        names['bn1' if in_timm and i == 2 else f'{stem}.{3 * i + 1}'] = norm
    for layer in backbone.res_layers if in_timm else ():
        shortcut = getattr(backbone, layer)[0].downsample
        first = f'{layer}.0.downsample'
        # timm's shortcut (ResNet-D) counts a pooling layer even if its stride is 1.
        if shortcut is not None and len(shortcut) == 2 and f'{first}.2.weight' in known:
            names |= {f'{first}.1': f'{first}.0', f'{first}.2': f'{first}.1'}
    return names
