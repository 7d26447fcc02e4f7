# Copyright (c) mmscale contributors.
"""What a study consists of: one cell for each of its runs and seeds.

A study is a Python file, read as MMEngine reads configs, with the names

- ``title`` (str): Stands over its tables and pictures.
- ``runs`` (dict[str, dict]): For each run its ``config``, a path from the root of the repository,
  and what else holds for it alone: ``options`` (see below), and any plain values that tables and
  pictures ask for.
- ``seeds`` (list[int]): Each run is trained once with each, and the first is done first of all
  runs.
- ``seed_options`` (list[str], optional): Options whose value is the seed, beside
  ``randomness.seed``: realizations of a dataset, for example.
- ``options`` (dict, optional): Of every run, as ``--cfg-options`` of ``tools/train.py`` takes them.
- ``epochs`` (int, optional): Of every run, in place of those of its config; schedules are
  stretched or shortened in proportion.
- ``checkpoint`` (str): Which is measured: 'last', or 'best' in the config's validation.
- ``equivariance`` (dict or None): Arguments of ``tools/equivariance.py``, without the dashes; None
  for no measurement over scale.
- ``test`` (bool): Whether ``tools/test.py`` runs, too, over the config's whole test data.
- ``tests`` (dict[str, dict], optional): More such tests by name, and the options with which each
  runs: other test data, for example.
- ``columns`` (dict[str, list[str]], optional): Of the table of these tests: for each the name of a
  test and of a metric of its evaluator.
- ``pictures`` (list[dict]): See :mod:`mmscale.studies.pictures`.
"""

import ast
import copy
import json
import numbers
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import Dataset

import mmscale
from mmscale.engine import launch, schedules
from mmscale.evaluation.study import digest

DEFAULTS = dict(
    seed_options=[],
    options={},
    epochs=None,
    checkpoint='last',
    equivariance=None,
    test=False,
    tests={},
    columns={},
    pictures=[],
    comparisons=[],
)
NEEDED = ('title', 'runs', 'seeds')
CHECKPOINTS = ('last', 'best')
# Of tools/equivariance.py, whose models, names and folder are the study's.
EQUIVARIANCE = ('layers', 'factors', 'num_images', 'images', 'accuracy_images', 'metric',
                'no_accuracy', 'canvas', 'resampling', 'between_levels', 'border', 'breakdown',
                'unsquared', 'batch_size', 'device', 'seed')  # fmt: skip
# So many samples of a dataset, spread evenly, tell it from another.
SAMPLES = 256
# What decides about numbers: of the package these folders and files.
CODE = ('scale_space', 'ops', 'models', 'datasets', 'evaluation', 'engine/hooks',
        'engine/optim_wrapper_constructor.py')  # fmt: skip
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@dataclass(frozen=True)
class Cell:
    """One training of a study and what is measured of it.

    Attributes:
        name (str): Of the run.
        seed (int): Of the training.
        config (str): Path from the root of the repository.
        options (dict): Flat, as ``--cfg-options`` takes them; all that differs from the config.
        checkpoint, equivariance, test, tests: Of the study.
        digests (dict[str, str]): SHA-256 of the resolved ``config``, of the ``code`` and of the
            ``data``.
    """

    name: str
    seed: int
    config: str
    options: dict
    checkpoint: str
    equivariance: dict | None
    test: bool
    tests: dict
    digests: dict = field(compare=False)

    @property
    def key(self) -> str:
        """Changes if anything changes that the numbers depend on; 12 hexadecimal digits."""
        asked = [self.name, self.seed, self.checkpoint, self.equivariance, self.test, self.digests]
        asked += [self.tests] if self.tests else []
        return digest([json.dumps(asked, sort_keys=True).encode()])[:12]

    @property
    def slug(self) -> str:
        """Of the folder of the run: what it is, and its key."""
        words = re.sub(r'[^A-Za-z0-9.]+', '-', self.name).strip('-').lower()
        return f'{words}_seed{self.seed}_{self.key}'


def as_words(options: dict) -> list[str]:
    """Options as they stand behind ``--cfg-options``."""
    return [f'{key}={_word(value)}' for key, value in options.items()]


def _word(value) -> str:
    """A value as the command line takes it: without white space, strings in lists in quotes."""
    if isinstance(value, list | tuple):
        inside = ','.join(repr(v) if isinstance(v, str) else _word(v) for v in value)
        return f'[{inside}]' if isinstance(value, list) else f'({inside})'
    return str(value)


def read_study(path: Path, root: Path) -> Config:
    """Reads a study and checks it.

    Raises:
        ValueError: For what a study cannot have; with one line.
        FileNotFoundError: If there is no such file.
    """
    if not path.is_file():
        known = ', '.join(str(p.relative_to(root)) for p in sorted(root.glob('studies/*.py')))
        raise FileNotFoundError(f'study: there is no file {path}; this repository has {known}')
    study = launch.load_config(str(path))
    unknown = set(study) - {*NEEDED, *DEFAULTS}
    if unknown:
        names = ', '.join([*NEEDED, *DEFAULTS])
        raise ValueError(f'study: {path} has {sorted(unknown)[0]}; known are {names}')
    for name in NEEDED:
        if not study.get(name):
            raise ValueError(f'study: {path} has no {name}')
    for name, value in DEFAULTS.items():
        study.setdefault(name, value)
    if study.checkpoint not in CHECKPOINTS:
        raise ValueError(
            f'study: checkpoint must be one of {CHECKPOINTS}, got {study.checkpoint!r}'
        )
    for name in study.equivariance or {}:
        if name not in EQUIVARIANCE:
            raise ValueError(f'study: equivariance has {name}; known are {", ".join(EQUIVARIANCE)}')
    for title, place in study.columns.items():
        if place[0] not in study.tests:
            raise ValueError(
                f'study: columns[{title!r}] is of the test {place[0]!r}, which is none of tests: '
                f'{", ".join(study.tests)}'
            )
    for name, run in study.runs.items():
        if not isinstance(run, dict) or not isinstance(run.get('config'), str):
            raise ValueError(f'study: runs[{name!r}] must be a dict with a config, got {run!r}')
        if not (root / run.config).is_file():
            raise FileNotFoundError(f'study: runs[{name!r}]: there is no file {run.config}')
    seeds = study.seeds
    if not all(isinstance(seed, numbers.Integral) and seed >= 0 for seed in seeds):
        raise ValueError(f'study: seeds must be integers from 0, got {seeds}')
    return study


def make_cells(study: Config, root: Path) -> list[Cell]:
    """The cells of a study, in the order in which they are to run: all runs with the first seed.

    Args:
        study (Config): As :func:`read_study` gives it.
        root (Path): Of the repository.

    Raises:
        ValueError: If a run has not got what its config or its data need.
    """
    return [_make_cell(study, name, int(seed), root) for seed in study.seeds for name in study.runs]


def check_runs(study: Config, names: Iterable[str]) -> None:
    """Raises a ValueError for a name that is none of the study's runs."""
    for name in names:
        if name not in study.runs:
            raise ValueError(f'--only: {name} is not one of {", ".join(map(repr, study.runs))}')


def _make_cell(study: Config, name: str, seed: int, root: Path) -> Cell:
    run = study.runs[name]
    options = {**study.options, **(run.get('options') or {})}
    options.update(dict.fromkeys(study.seed_options, seed))
    try:
        cfg = launch.load_config(str(root / run.config))
        launch.merge_options(cfg, options)
        epochs = run.get('epochs', study.epochs)
        if epochs is not None:
            stretched = schedules.stretched(cfg, epochs)
            options.update(stretched)
            launch.merge_options(cfg, stretched)
        if study.checkpoint == 'best' and not _of_checkpoints(cfg).get('save_best'):
            options['default_hooks.checkpoint.save_best'] = 'auto'
        options['randomness.seed'] = seed
        for more in study.tests.values():
            launch.merge_options(copy.deepcopy(cfg), dict(more))
        digests = dict(config=_digest_config(cfg), code=digest_code(), data=digest_data(cfg))
    except (ValueError, OSError) as error:
        raise ValueError(f'study: runs[{name!r}]: {error}') from error
    return Cell(
        name=name,
        seed=seed,
        config=run.config,
        options=options,
        checkpoint=study.checkpoint,
        equivariance=study.equivariance and dict(study.equivariance),
        test=study.test,
        tests={name: dict(more) for name, more in study.tests.items()},
        digests=digests,
    )


def _of_checkpoints(cfg: Config) -> dict:
    return (cfg.get('default_hooks') or {}).get('checkpoint') or {}


def _digest_config(cfg: Config) -> str:
    return digest([json.dumps(cfg.to_dict(), default=str, sort_keys=True).encode()])


@cache
def digest_code() -> str:
    """Of what the code that decides about numbers does: without comments and docstrings."""
    package = Path(mmscale.__file__).parent
    parts = [package / name for name in CODE]
    files = [path for part in parts for path in ([part] if part.is_file() else part.rglob('*.py'))]
    return digest(_statements(path).encode() for path in sorted(files))


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


def digest_data(cfg: Config) -> str:
    """Of the data of a config: some samples of each of its splits, as they are before pipelines."""
    return digest(_of_data(cfg, loader)[1].encode() for loader in LOADERS if cfg.get(loader))


def count_images(cfg: Config, loader: str) -> int:
    """In the dataset of a loader, 0 if the config has none."""
    return _of_data(cfg, loader)[0] if cfg.get(loader) else 0


def _of_data(cfg: Config, loader: str) -> tuple[int, str]:
    scope = cfg.get('default_scope') or 'mmpretrain'
    return _read_data(json.dumps(cfg[loader].dataset.to_dict(), sort_keys=True), scope)


@cache
def _read_data(dataset: str, scope: str) -> tuple[int, str]:
    """Length and digest of a dataset, which all runs of a study share."""
    with DefaultScope.overwrite_default_scope(scope):
        built = DATASETS.build(json.loads(dataset))
    return len(built), digest_samples(built)


def _size(path: Path) -> bytes:
    return str(path.stat().st_size).encode()


def digest_samples(dataset: Dataset, of_file: Callable[[Path], bytes] = _size) -> str:
    """Of the length of a dataset and some of its samples, as they are before its pipeline.

    Args:
        dataset (Dataset): One of MMEngine's; of another only the length counts.
        of_file (Callable): What counts of the files of samples, wherever they lie; default: their
            size.
    """
    count = min(SAMPLES, len(dataset))
    places = [i * len(dataset) // count for i in range(count)]
    read = getattr(dataset, 'get_data_info', lambda place: {})
    return digest(_sample_bytes(len(dataset), map(read, places), of_file))


def _sample_bytes(count: int, samples: Iterable[dict], of_file) -> Iterable[bytes]:
    yield str(count).encode()
    for sample in samples:
        for key in sorted(sample):
            value = sample[key]
            if key.endswith('path') and value is not None:
                yield of_file(Path(value))
            elif isinstance(value, np.ndarray):
                yield np.ascontiguousarray(value).tobytes()
            elif isinstance(value, numbers.Number | str):
                yield str(value).encode()
            elif key == 'instances':  # the boxes of a detector
                yield json.dumps(value, sort_keys=True).encode()
