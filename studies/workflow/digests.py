# Copyright (c) mmscale contributors.
"""Compute digests of code, configs and data, to know whether old numbers are still valid."""

import ast
import json
import numbers
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import Dataset

from mmscale import registry
from mmscale.engine.errors import one_line
from mmscale.engine.study import digest

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
SAMPLES = 256  # samples of a dataset, spread evenly, in its digest


def of_config(cfg: Config) -> str:
    """Return the SHA-256 of a config with all that it inherits."""
    return digest([json.dumps(cfg.to_dict(), default=str, sort_keys=True).encode()])


def of_code(cfg: Config, *modules: str) -> str:
    """Return the SHA-256 of the package's code that a config and these modules use.

    Comments and docstrings do not count. Types of the config are looked up in all registries.
    """
    used = modules_used([*modules, *_homes(_words(cfg.to_dict()))])
    return digest(_statements(_path(name)).encode() for name in sorted(used))


def modules_used(names: Iterable[str]) -> set[str]:
    """Return these modules, and recursively the package's modules that they import or name."""
    found, todo = set(), list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += _needs(name)
    return found


def _path(name: str) -> Path:
    return Path(find_spec(name).origin)


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(_path(name).read_text(encoding='utf-8'))


@cache
def _needs(name: str) -> list[str]:
    nodes = list(ast.walk(_tree(name)))
    words = (node.value for node in nodes if isinstance(node, ast.Constant))
    found = list(_homes(word for word in words if isinstance(word, str)))
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith('mmscale.')]
        elif isinstance(node, ast.ImportFrom):
            found += [_home(source, alias.name) for source, alias in _imported(node, name)]
    return found


def _imported(node: ast.ImportFrom, name: str) -> Iterator[tuple[str, ast.alias]]:
    """Yield the imports from the package of a statement in the module ``name``."""
    source = resolve_name('.' * node.level + (node.module or ''), find_spec(name).parent)
    if source.partition('.')[0] == 'mmscale':
        yield from ((source, alias) for alias in node.names)


def _home(source: str, name: str) -> str:
    """Return the module that defines a name that a package re-exports."""
    if find_spec(source).submodule_search_locations and find_spec(f'{source}.{name}'):
        return f'{source}.{name}'
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.ImportFrom):
            for origin, alias in _imported(node, source):
                if name == (alias.asname or alias.name):
                    return _home(origin, alias.name)
    return source


def _homes(words: Iterable[str]) -> Iterator[str]:
    """Yield the modules of the classes with these names in the registries of the package."""
    known = {
        name: kind.__module__
        for one in vars(registry)['_CHILDREN'].values()
        for name, kind in one.module_dict.items()
    }
    homes = (known.get(word.removeprefix('mmscale.'), '') for word in words)
    yield from (home for home in homes if home.startswith('mmscale.'))


def _words(part) -> Iterator[str]:
    """Yield all strings and names of classes in a config."""
    if isinstance(part, dict | list | tuple):
        for value in part.values() if isinstance(part, dict) else part:
            yield from _words(value)
    elif isinstance(part, str | type):
        yield part if isinstance(part, str) else part.__name__


@cache
def _statements(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding='utf-8'))
    for node in ast.walk(tree):
        body = getattr(node, 'body', None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                del body[0]
        if isinstance(node, ast.JoinedStr):  # 3.12 ends a format that is an expression with ''
            node.values = [v for v in node.values if getattr(v, 'value', None) != '']
    # One text in every Python: 3.12 gave definitions type_params, 3.13 leaves out empty lists.
    shown = dict(show_empty=True) if sys.version_info >= (3, 13) else {}
    return ast.dump(tree, **shown).replace(', type_params=[]', '')


def of_data(cfg: Config) -> str:
    """Return the SHA-256 of some samples of each split of a config's data, before pipelines.

    Raises:
        ValueError: If the data are missing, or cannot be read.
    """
    scope = cfg.get('default_scope') or 'mmpretrain'
    datasets = (cfg[loader].dataset.to_dict() for loader in LOADERS if cfg.get(loader))
    found = [_of_dataset(json.dumps(one, sort_keys=True), scope) for one in datasets]
    for error in found:
        if isinstance(error, Exception):
            raise ValueError(one_line(error)) from error
    return digest(one.encode() for one in found)


@cache
def _of_dataset(dataset: str, scope: str) -> str | Exception:
    """Return a dataset's digest, or its error; cached, because many configs share a dataset."""
    try:
        with DefaultScope.overwrite_default_scope(scope):
            return of_samples(DATASETS.build(json.loads(dataset)))
    except Exception as error:  # a dataset can raise anything
        return error


def of_samples(dataset: Dataset) -> str:
    """Return the SHA-256 of a dataset's length and some of its samples, before its pipeline.

    If a dataset has no ``get_data_info`` of MMEngine, only its length counts.
    """
    count = min(SAMPLES, len(dataset))
    places = [i * len(dataset) // count for i in range(count)]
    samples = map(getattr(dataset, 'get_data_info', lambda place: {}), places)
    parts = (_bytes(key, sample[key]) for sample in samples for key in sorted(sample))
    return digest([str(len(dataset)).encode(), *parts])


def _bytes(key: str, value) -> bytes:
    """Return the bytes of an entry of a sample; a path counts by the size of its file."""
    if key.endswith('path') and value is not None:
        return str(Path(value).stat().st_size).encode()
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if key == 'instances':  # annotations of a detector
        return json.dumps(value, sort_keys=True).encode()
    return str(value).encode() if isinstance(value, numbers.Number | str) else b''
