# Copyright (c) mmscale contributors.
"""One cell of a study: training, test and measurement over scale, each by the ordinary tool."""

import math
import platform
import shlex
import sys
import warnings
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from subprocess import CalledProcessError, run

import mmengine
import torch
from mmengine.config import Config

import mmscale
from mmscale.engine import launch
from mmscale.engine.cost import count, first_batch, image_shape, training_step
from mmscale.engine.resuming import logged_scalars
from mmscale.evaluation.equivariance import FACTORS, equivariance_error
from mmscale.evaluation.report import write_json

from . import summary
from .cells import LOADERS, Cell, as_words, count_images
from .processes import epochs_in, run_logged

PACKAGES = ('torch', 'numpy')
REVISED = ('mmscale', 'configs', 'tools')
# A step of the test is a forward pass alone, about a third of a training step.
TEST_SHARE = 1 / 3
# Starting a tool and building its network and data.
OVERHEAD = 15.0
# Defaults of tools/equivariance.py.
MEASURED = dict(
    factors=FACTORS, layers=['backbone'], accuracy_images=1000, num_images=64, no_accuracy=False
)


def load_config(cell: Cell, root: Path) -> Config:
    """The config of a cell, its options merged."""
    cfg = launch.load_config(str(root / cell.config))
    options = {key: value for key, value in cell.options.items() if 'save_best' not in key}
    launch.merge_options(cfg, options)
    return cfg


def cost(cell: Cell, root: Path) -> dict:
    """Parameters and multiply-adds of one image."""
    cfg = load_config(cell, root)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        parameters, flops = count(launch.build_network(cfg, cell.config), _shape_of(cfg))
    return dict(parameters=parameters, multiply_adds=flops)


def _shape_of(cfg: Config) -> tuple[int, int, int]:
    """``(C, H, W)`` of the images of a config, where it does not say so that of the first."""
    if launch.is_of_mmpretrain(cfg):
        return image_shape(cfg)
    return tuple(first_batch(cfg, 1)['inputs'][0].shape)


def checkpoint_of(cell: Cell, folder: Path) -> str:
    """Name of the file that is measured; a pattern as long as there is none."""
    if cell.checkpoint == 'best':
        # A training that is killed between writing a new one and deleting the old leaves both.
        best = max(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime, default=None)
        return best.name if best else 'best_*.pth'
    last = folder / 'last_checkpoint'
    return Path(last.read_text().strip()).name if last.is_file() else 'epoch_*.pth'


def commands(cell: Cell, folder: Path, checkpoint: str) -> dict[str, list[str]]:
    """What a cell runs, behind ``python``, from the root of the repository.

    Args:
        cell (Cell): What to run.
        folder (Path): For all that it writes.
        checkpoint (str): Name of the file in it that is tested and measured.
    """
    checkpoint = str(folder / checkpoint)
    options = ['--cfg-options', *as_words(cell.options)]
    found = dict(
        train=['tools/train.py', cell.config, '--work-dir', str(folder), '--resume', *options]
    )
    if cell.equivariance is not None:
        words = ['tools/equivariance.py', cell.config, checkpoint, '--names', cell.name]
        for name, value in cell.equivariance.items():
            if value is None or value is False:  # as without it
                continue
            values = value if isinstance(value, list | tuple) else [value]
            words += [f'--{name.replace("_", "-")}']
            words += [] if value is True else [str(v) for v in values]
        words += ['--out', str(folder / 'equivariance')]
        found['equivariance'] = words + options
    tests = dict(test={}) if cell.test else {}
    tests |= {f'test_{name}': more for name, more in cell.tests.items()}
    for name, more in tests.items():
        words = ['tools/test.py', cell.config, checkpoint, '--work-dir', str(folder / name)]
        words += ['--out', str(metrics_of(folder, name)), '--out-item', 'metrics']
        found[name] = [*words, *options, *as_words(more)]
    return found


def metrics_of(folder: Path, test: str) -> Path:
    """What a test of a cell has found."""
    return folder / f'{test.replace("test", "metrics", 1)}.json'


def run_cell(
    cell: Cell,
    folder: Path,
    root: Path,
    env: dict,
    on_epoch: Callable[[int, str], None] = lambda epoch, loss: None,
    kept_open: tuple = (),
) -> dict:
    """Runs what of a cell was not run yet, and returns its entry of the ledger.

    Args:
        cell (Cell): What to run.
        folder (Path): For all that it writes. What an interrupted run left there is gone on with.
        root (Path): Of the repository.
        env (dict): What is added to the environment of the tools.
        on_epoch (Callable): Is called with number and loss of each epoch that is finished.
        kept_open (tuple): File descriptors that the tools inherit.

    Raises:
        RuntimeError: If a tool fails; with the end of its log.
    """

    def start(name: str, on_line=lambda line: None) -> None:
        words = [sys.executable, *commands(cell, folder, checkpoint_of(cell, folder))[name]]
        run_logged(words, root, env, folder / f'{name}.log', on_line, kept_open)

    folder.mkdir(parents=True, exist_ok=True)
    done = folder / 'trained'
    if not done.is_file():
        start('train', epochs_in(on_epoch))
        done.touch()
    entry = dict(
        name=cell.name,
        seed=cell.seed,
        key=cell.key,
        config=cell.config,
        checkpoint=cell.checkpoint,
        **cost(cell, root),
        training_seconds=training_seconds(folder),
        **measured_before(folder),
    )

    def tested(name: str) -> dict:
        if not metrics_of(folder, name).is_file():
            start(name)
        found = mmengine.load(metrics_of(folder, name))  # JSON has no nan: an AP of no object
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in found.items()
        }

    if cell.test:
        entry['test'] = tested('test')
    if cell.tests:
        entry['tests'] = {name: tested(f'test_{name}') for name in cell.tests}
    if cell.equivariance is not None:
        start('equivariance')  # which keeps what it has measured itself
        (model,) = mmengine.load(folder / 'equivariance' / 'equivariance.json')['models']
        names = ('factors', 'accuracy', 'accuracy_note', 'metrics', 'layers', 'settings')
        entry.update({name: model[name] for name in names if name in model})
        entry['images'] = {key: model['images'][key] for key in ('count', 'source', 'size')}
    # Another machine's best epoch may be another one.
    checkpoint = 'best_*.pth' if cell.checkpoint == 'best' else checkpoint_of(cell, folder)
    published = commands(cell, Path('work_dirs') / folder.name, checkpoint)
    entry.update(
        commands={
            name: ' '.join(['python', *map(_quoted, words)]) for name, words in published.items()
        },
        digests=cell.digests,
        made=provenance(root, env),
    )
    write_json(folder / 'result.json', entry)
    return entry


def _quoted(word: str) -> str:
    """As a shell takes it; the pattern of a checkpoint stays one."""
    return word if word.endswith('_*.pth') else shlex.quote(word)


def training_seconds(folder: Path) -> float | None:
    """Time spent in training steps, over all interruptions, as MMEngine has logged it."""
    steps = {entry['iter']: entry['time'] for entry in logged_scalars(folder) if 'loss' in entry}
    total, before = 0.0, 0
    for step in sorted(steps):
        total += (step - before) * steps[step]
        before = step
    return round(total, 1) if steps else None


def measured_before(folder: Path) -> dict:
    """The figure of the config's validation after the last epoch, and the best of all epochs."""
    entries = list(logged_scalars(folder))
    name = summary.main_metric(name for entry in entries for name in entry)
    found = [entry[name] for entry in entries if name in entry]
    return dict(validation=dict(last=found[-1], best=max(found))) if found else {}


def provenance(root: Path, env: dict) -> dict:
    """Where and when a cell was run, and of which code."""
    return dict(
        version=mmscale.__version__,
        commit=commit(root),
        packages={name: version(name) for name in PACKAGES},
        device=device_name(),
        threads=int(env.get('OMP_NUM_THREADS', torch.get_num_threads())),
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
    )


def device_name() -> str:
    """Of the GPU, and of the processor where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()


def commit(root: Path) -> str | None:
    """The revision of the repository, with a plus where code or configs were changed since."""

    def git(*words: str) -> str:
        words = ['git', '-C', str(root), *words]
        return run(words, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git('status', '--porcelain', '--untracked-files=no', '--', *REVISED)
        return git('rev-parse', '--short=12', 'HEAD') + '+' * bool(changed)
    except (OSError, CalledProcessError):
        return None


def expected_seconds(cell: Cell, root: Path, rounds: int = 2) -> float:
    """How long a cell will take in a process like this one, from training steps that are timed.

    Raises:
        ValueError: If the network could not be measured behind its training: with images that
            are too small for a factor, for example.
    """
    cfg = load_config(cell, root)
    shape, size = _shape_of(cfg), cfg.train_dataloader.batch_size
    network = launch.build_network(cfg, cell.config)
    step = training_step(cfg, network, shape, size)
    step()
    if cell.equivariance is not None:
        _try_measurement(network, shape, {**MEASURED, **cell.equivariance})
    per_image = min(step() for _ in range(rounds)) / size
    train, val, test = (count_images(cfg, loader) for loader in LOADERS)
    epochs = cfg.train_cfg.max_epochs
    images = epochs * train
    validations = epochs // cfg.train_cfg.get('val_interval', 1)
    tested = test * (cell.test + len(cell.tests)) + val * validations
    if cell.equivariance is not None:
        asked = {**MEASURED, **cell.equivariance}
        of_accuracy = 0 if asked['no_accuracy'] else min(asked['accuracy_images'], test)
        tested += len(asked['factors']) * (of_accuracy + 2 * asked['num_images'])
    images += TEST_SHARE * tested
    tools = len(commands(cell, Path(), ''))
    return images * per_image + tools * OVERHEAD


def _try_measurement(network, shape: tuple[int, int, int], asked: dict) -> None:
    """Measures one image of noise as the tool will measure those of the test data."""
    names = ('canvas', 'resampling', 'between_levels', 'border')
    options = {name: asked[name] for name in names if name in asked}
    factors, layers = (
        value if isinstance(value, list | tuple) else [value]
        for value in (asked['factors'], asked['layers'])
    )
    image = torch.rand(1, *shape, device=next(network.parameters()).device)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the tool says it, of the trained network
        equivariance_error(network, image, factors, layers=layers, **options)
