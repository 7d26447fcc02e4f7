# Copyright (c) mmscale contributors.
"""Base classes of the backbones, which check checkpoints and freeze stages."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from mmengine.model import BaseModule, PretrainedInit, constant_init
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmscale.models.layers import DeformScaleConv, ScaleConv
from mmscale.registry import is_kind

from .arguments import check_out_indices


class Backbone(BaseModule):
    """A backbone that rejects incomplete checkpoints by default.

    Args:
        init_cfg (dict | list[dict], optional): Initialisation.
        partial_pretrained (bool): Whether a checkpoint may leave weights random.
    """

    def __init__(self, init_cfg: dict | list[dict] | None, partial_pretrained: bool):
        super().__init__(init_cfg)
        self.partial_pretrained = partial_pretrained

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says; offset branches that no checkpoint has start at 0.

        Raises:
            ValueError: If a checkpoint lacks weights, or has them in other shapes, and
                ``partial_pretrained`` is False.
        """
        misfits = []

        def before(state_dict, prefix, *_) -> None:
            misfits.extend(_misfits(self, state_dict, prefix))

        def after(_, keys) -> None:
            init_offsets(self, keys.missing_keys)
            own = self.state_dict()
            absent = [key for key in (*keys.missing_keys, *misfits) if key in own]
            absent = [key for key in absent if not re.search('conv_offset|num_batches_', key)]
            if absent and not self.partial_pretrained:
                raise ValueError(
                    f'init_cfg={self.init_cfg}: the checkpoint has no values, or values of other '
                    f'shapes, for {len(absent)} of {len(own)} weights, {absent[0]} among them, '
                    'which would stay random. Set prefix= in init_cfg if the keys need it, or set '
                    'partial_pretrained=True to accept random weights'
                )

        hooks = [
            self._register_load_state_dict_pre_hook(before),
            self.register_load_state_dict_post_hook(after),
        ]
        try:
            super().init_weights()
        finally:
            for hook in hooks:
                hook.remove()
        if not is_pretrained(self.init_cfg):
            init_offsets(self)  # an init_cfg for convolutions has drawn their weights


class StagedBackbone(Backbone):
    """A backbone of stages ``layer1``, ``layer2``, ... of blocks, like a ResNet.

    Arguments are those of :class:`ScaleResNet`; ``depths`` are the accepted values of ``depth``.
    """

    def __init__(
        self,
        depth: int,
        depths: Collection[int],
        num_stages: int,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        zero_init_residual: bool,
        init_cfg: dict | list[dict] | None,
        partial_pretrained: bool,
    ):
        super().__init__(init_cfg, partial_pretrained)
        if depth not in depths:
            raise ValueError(f'depth must be one of {tuple(depths)}, got {depth}')
        if num_stages not in range(1, 5):
            raise ValueError(f'num_stages must be from 1 to 4, got {num_stages}')
        if frozen_stages not in range(-1, num_stages + 1):
            raise ValueError(
                f'frozen_stages must be from -1 to num_stages={num_stages}, got {frozen_stages}'
            )
        self.depth, self.out_indices = depth, check_out_indices(out_indices, num_stages)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self.zero_init_residual = zero_init_residual
        self.res_layers = [f'layer{i + 1}' for i in range(num_stages)]

    def init_weights(self) -> None:
        super().init_weights()
        if self.zero_init_residual and not is_pretrained(self.init_cfg):
            for name in self.res_layers:
                for block in getattr(self, name):
                    constant_init(block.last_norm, 0)

    def _freeze_stages(self) -> None:
        layers = self.res_layers[: max(self.frozen_stages, 0)]
        modules = self._stem_layers() + [getattr(self, name) for name in layers]
        for module in modules if self.frozen_stages >= 0 else ():
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'StagedBackbone':
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def is_pretrained(init_cfg: dict | Sequence[dict] | None) -> bool:
    """Tell whether an ``init_cfg`` loads a checkpoint; its type may be a name or a class."""
    entries = [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg or []
    return any(is_kind(entry['type'], PretrainedInit, WEIGHT_INITIALIZERS) for entry in entries)


def init_offsets(model: nn.Module, missing_keys: Sequence[str] | None = None) -> None:
    """Set offset branches to 0: all, or only the branches among ``missing_keys``."""
    for name, module in model.named_modules():
        if isinstance(module, DeformScaleConv):
            if missing_keys is None or f'{name}.conv_offset.weight' in missing_keys:
                module.init_offset()


def _misfits(backbone: nn.Module, state_dict: dict, prefix: str) -> Iterator[str]:
    """Yield the names of the weights that have another shape in a checkpoint."""
    for name, own in backbone.state_dict().items():
        given, (owner, _, kind) = state_dict.get(prefix + name), name.rpartition('.')
        if isinstance(given, Tensor):
            layer = backbone.get_submodule(owner)
            if kind == 'weight' and isinstance(layer, ScaleConv):
                given = layer.inflate(given)  # the weight of an ordinary convolution fits, too
            if given.shape != own.shape:
                yield name
