# Copyright (c) mmscale contributors.
"""Load models that a command names: ``CONFIG``, ``CONFIG:CHECKPOINT`` or ``NAME``.

A bad model raises a ``ValueError`` or ``FileNotFoundError`` of one line.
"""

import copy
import inspect
import re
import sys
from argparse import ArgumentError, ArgumentParser, Namespace
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch import nn

from mmscale.models.necks.check_neck import check_neck

from . import checkpoints
from .errors import one_line
from .safe_loading import add_trust_option

HELP = 'CONFIG, CONFIG:CHECKPOINT or the NAME of a model that MMPretrain lists'


@dataclass(frozen=True)
class Model:
    """A network in eval mode, with its config and the path of its checkpoint, or None."""

    path: str
    cfg: Config
    checkpoint: str | None
    network: nn.Module

    @property
    def scope(self) -> AbstractContextManager[None]:
        """A context in which registries find the short names of the config."""
        return DefaultScope.overwrite_default_scope(scope_of(self.cfg))


class Settings(DictAction):
    """The action of arguments ``key=value ...``, whose errors name the wrong argument."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: list[str],
        option_string: str | None = None,
    ) -> None:
        for word in values:
            if word.find('=') < 1:
                raise ArgumentError(self, f'{word} is not key=value')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, RecursionError) as error:
            raise ArgumentError(self, one_line(error)) from error


def add_config_options(parser: ArgumentParser, pretrained: bool = False) -> None:
    """Add ``--cfg-options``, ``--trust-checkpoint`` and, with ``pretrained``, ``--pretrained``."""
    if pretrained:
        parser.add_argument('--pretrained', action='store_true', help='load the weights of a NAME')
    add_trust_option(parser)
    add = parser.add_argument
    add('--cfg-options', nargs='+', action=Settings, default={}, metavar='KEY=VALUE',
        help='settings that override the config; nested keys with dots, lists as key="[a,b]" or '
        'key=a,b, without white space')  # fmt: skip


def scope_of(cfg: Config) -> str:
    """Return the registry scope of the short names of a config."""
    return cfg.get('default_scope') or 'mmpretrain'


def split_model(model: str) -> tuple[str, str | None]:
    """Split a model into config or name, and checkpoint (a path or an address) or None."""
    found = re.fullmatch(r'(.+?\.(?:py|ya?ml|json)|[^:/\\]+)(?::(.+))?', model)
    if found is None or found[1].endswith(('.pth', '.pt')):
        raise ValueError(f'config: {model} is not {HELP}')
    return found[1], found[2]


def load_config(path: str) -> Config:
    if not Path(path).is_file():
        raise FileNotFoundError(f'config: there is no file {path}')
    try:
        return Config.fromfile(path)
    except Exception as error:  # the file is a program, which can raise anything
        raise ValueError(f'config: {path} cannot be read: {one_line(error)}') from error


def find_config(name: str) -> tuple[Config, str | None]:
    """Return the config of a file or name, and the address of the released weights or None."""
    if name.endswith('.py') or Path(name).exists():
        return load_config(name), None
    from mmpretrain.apis.model import ModelHub

    try:
        found = ModelHub.get(name)
    except ValueError as error:
        raise ValueError(f'config: {name} is neither a file nor a model by name') from error
    return found.config, found.weights


def check_parts(cfg: Config, path: str, *names: str) -> None:
    """Check that a config has the entries ``names``, each a dict or list."""
    for name in names:
        if not isinstance(cfg.get(name), dict | list):
            raise ValueError(f'config: {path} has no {name}, but {cfg.get(name)!r}')


# Entries that MMEngine, its hooks or the tools read, beside the arguments of a runner.
OTHER_NAMES = {
    'activation_checkpointing', 'auto_scale_lr', 'compile', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'sync_bn', 'tta_model',
    'tta_pipeline',
}  # fmt: skip


def merge_options(cfg: Config, options: dict) -> None:
    """Merge ``--cfg-options`` into a config; raise ``ValueError`` for a name that nothing reads."""
    known = {*cfg, *inspect.signature(Runner).parameters, *OTHER_NAMES}
    for key in options:
        if key.partition('.')[0] not in known:
            raise ValueError(f'--cfg-options: nothing looks for {key}')
    try:
        cfg.merge_from_dict(options)
    except Exception as error:
        raise ValueError(f'--cfg-options: {one_line(error)}') from error


def build_network(cfg: Config, path: str) -> nn.Module:
    """Build the model of a config, untrained and in eval mode; types may be names or classes."""
    check_parts(cfg, path, 'model')
    model = copy.deepcopy(cfg).model
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    try:
        with DefaultScope.overwrite_default_scope(scope_of(cfg)):
            network = MODELS.build(model).eval()
        check_neck(network)
    except Exception as error:  # a layer can raise anything on a bad argument
        said = one_line(error)
        raise ValueError(f'config: the model of {path} cannot be built: {said}') from error
    return network


def load_model(
    model: str, options: dict | None = None, pretrained: bool = False, seed: int = 0
) -> Model:
    """Load the model that a command names.

    Args:
        model (str): ``CONFIG``, ``CONFIG:CHECKPOINT``, ``NAME`` or ``NAME:CHECKPOINT``.
        options (dict, optional): Settings that override the config.
        pretrained (bool): Whether to load the released weights of a name.
        seed (int): The seed of random weights.

    Raises:
        ValueError: If there is no such model, the checkpoint does not fit the model exactly, or no
            weights are released.
    """
    path, checkpoint = split_model(model)
    cfg, weights = find_config(path)
    merge_options(cfg, options or {})
    if checkpoint is None and pretrained:
        if weights is None:
            raise ValueError(f'--pretrained: there are no weights by the name {path}')
        checkpoint = weights
    elif checkpoint is None and weights is not None:
        print(f'{path}: random weights; --pretrained takes those released', file=sys.stderr)
    checkpoints.check_file(checkpoint)
    set_random_seed(seed)
    network = build_network(cfg, path)
    if checkpoint is not None:
        checkpoints.load_weights(network, checkpoint, path)
    return Model(path, cfg, checkpoint, network)


def name_models(models: list[Model], names: list[str] | None) -> list[str]:
    """Return different names for rows and legends: ``names``, or else the stems of the configs."""
    stems = [Path(model.path).stem for model in models]
    if names is None:
        names = [
            f'{stem} (untrained)' if model.checkpoint is None
            else stem if stems.count(stem) == 1
            else f'{stem} {"/".join(Path(model.checkpoint).parts[-2:])}'
            for model, stem in zip(models, stems)
        ]  # fmt: skip
    if len(names) != len(models) or len(set(names)) < len(names):
        raise ValueError(
            f'--names: {len(models)} models need as many different names, got {", ".join(names)}'
        )
    return names
