# Copyright (c) mmscale contributors.
"""Register the classifiers of ``model-index.yml`` with MMPretrain by name."""

import warnings
from functools import cache
from pathlib import Path

from mmpretrain.apis.model import ModelHub
from modelindex.load_model_index import load

PACKAGE_ROOT = Path(__file__).resolve().parent


def find_model_index() -> Path | None:
    """Find the model index: in ``.mim`` of an installed package, or beside it in a checkout."""
    for root in (PACKAGE_ROOT / '.mim', PACKAGE_ROOT.parent):
        if (root / 'model-index.yml').is_file() and (root / 'configs').is_dir():
            return root / 'model-index.yml'
    return None


@cache  # the hub refuses a second registration
def register_model_index() -> None:
    """Register the classifiers of this package with MMPretrain's hub, once.

    Afterwards ``mmpretrain.list_models('*scale*')``, ``mmpretrain.get_model(name)`` and the
    inferencers know the classifiers.
    """
    path = find_model_index()
    if path is None:
        warnings.warn(
            f'mmscale finds no model-index.yml in {PACKAGE_ROOT / ".mim"} nor in '
            f'{PACKAGE_ROOT.parent}, so MMPretrain will not know its models by name. '
            'Install mmscale again from its source folder: pip install -e .',
            stacklevel=2,
        )
        return
    ModelHub.register_model_index(path, config_prefix=path.parent)
    # The hub takes all models for models of MMPretrain, and weights for links.
    for model in load(str(path)).models:
        if model.results[0].task != 'Image Classification':
            del ModelHub._models_dict[model.name.lower()]
            continue
        known = ModelHub._models_dict[model.name.lower()]
        if known.weights and '://' not in known.weights:
            known.weights = str(path.parent / known.weights)
