# Copyright (c) mmscale contributors.
"""Checks of the arguments that backbones share."""

from collections.abc import Mapping, Sequence

from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _NormBase

from mmscale.checks import is_integer
from mmscale.models.layers import ScaleBN
from mmscale.registry import MODELS, find_class


def norm_of_all_levels(norm_cfg: dict) -> dict:
    """Replace ``BN``, the norm of ordinary backbones, by :class:`ScaleBN`."""
    ordinary = isinstance(norm_cfg, Mapping) and find_class(norm_cfg.get('type'), MODELS)
    return dict(norm_cfg, type='mmscale.ScaleBN') if ordinary is nn.BatchNorm2d else norm_cfg


def check_norms(backbone: nn.Module) -> None:
    """Raise ``ValueError`` if a norm does not share its statistics over all levels."""
    norms = [module for module in backbone.modules() if isinstance(module, _NormBase)]
    if not all(isinstance(norm, ScaleBN | SyncBatchNorm) for norm in norms):
        raise ValueError(
            f'norm_cfg={backbone.norm_cfg} does not fit scale spaces: use '
            "dict(type='mmscale.ScaleBN'), which has the same parameters"
        )


def per_stage(name: str, value: int | Sequence[int], num_stages: int) -> tuple[int, ...]:
    """Return one integer of at least 1 for each stage, or raise ``ValueError``."""
    values = (value,) * num_stages if is_integer(value) else value
    sound = isinstance(values, Sequence) and len(values) == num_stages
    if not sound or not all(is_integer(v) and v >= 1 for v in values):
        raise ValueError(
            f'{name} must be an integer of at least 1, or one for each of the {num_stages} stages, '
            f'got {value!r}'
        )
    return tuple(values)


def check_channels(channels: Sequence[int]) -> None:
    """Raise ``ValueError`` unless ``channels`` is a sequence of integers of at least 1."""
    sound = isinstance(channels, Sequence) and channels
    if not sound or not all(is_integer(width) and width >= 1 for width in channels):
        raise ValueError(f'channels must be one integer a stage, at least one, got {channels}')


def check_out_indices(out_indices: Sequence[int], num_stages: int) -> tuple[int, ...]:
    """Return ``out_indices`` as a tuple of stages, or raise ``ValueError``."""
    sound = isinstance(out_indices, Sequence) and out_indices
    if not sound or not all(is_integer(i) and i in range(num_stages) for i in out_indices):
        raise ValueError(
            f'out_indices must be a sequence of stages from 0 to {num_stages - 1}, '
            f'got {out_indices!r}'
        )
    return tuple(out_indices)


def deform_per_stage(
    deform: Mapping | None, num_stages: int, kernel: Mapping | None
) -> tuple[dict | None, ...]:
    """Return the config of each stage's deformable layer or None, or raise ``ValueError``."""
    if deform is None:
        return (None,) * num_stages
    if kernel is not None:
        raise ValueError(f'kernel and deform exclude each other, got {kernel!r} and {deform!r}')
    if not isinstance(deform, Mapping) or not {'type', 'stages'} <= set(deform):
        raise ValueError(f'deform must be None or dict(type=..., stages=(...)), got {deform!r}')
    layer = dict(deform)
    stages = layer.pop('stages')
    sound = isinstance(stages, Sequence) and len(stages) == num_stages
    if not sound or not all(isinstance(stage, bool) for stage in stages):
        raise ValueError(
            f'deform.stages must be one bool for each of the {num_stages} stages, got {stages!r}'
        )
    return tuple(layer if stage else None for stage in stages)
