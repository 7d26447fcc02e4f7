# Copyright (c) mmscale contributors.
"""Runs a cell of a study by the ordinary tools: ``run_cell.py STUDY RUN SEED RESULT``.

RESULT is the CSV file that it writes; logs and checkpoints are in the same folder. Run again, it
goes on where it was stopped: a training from its last checkpoint, a measurement at what it lacks.
"""

import argparse
import csv
import fcntl
import io
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch
from cells import COLUMNS, DIGESTS, ROOT, find_study, make_cell, read_study

import mmscale
from mmscale.engine import launch
from mmscale.engine.cost import count, first_batch, image_shape
from mmscale.engine.errors import one_line_errors
from mmscale.engine.resuming import logged_scalars
from mmscale.evaluation.accuracy import MAIN_METRICS
from mmscale.evaluation.report import write_text

LINES_SHOWN = 20


def flags(arguments: dict) -> list[str]:
    """Arguments of a tool as they stand on the command line."""
    words = []
    for name, value in arguments.items():
        if value is not None and value is not False:  # as without it
            values = value if isinstance(value, list | tuple) else [value]
            words += [f'--{name.replace("_", "-")}', *(str(v) for v in values if v is not True)]
    return words


def checkpoint_of(cell: dict, folder: Path) -> Path:
    """The checkpoint that is measured."""
    if cell['checkpoint'] == 'best':
        # A training that is killed between writing a new one and deleting the old leaves both.
        return max(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    last = (folder / 'last_checkpoint').read_text(encoding='utf-8').strip()
    return folder / Path(last).name


def run(words: list, log: Path, lock: int) -> None:
    """Runs a tool from the root of the repository, its output at the end of a log."""
    with log.open('a', encoding='utf-8') as file:
        words = [sys.executable, *map(str, words)]
        # The tool keeps the lock should this process be killed, and the tool go on.
        found = subprocess.run(words, cwd=ROOT, stdout=file, stderr=file, pass_fds=(lock,))
    if code := found.returncode:
        end = log.read_text(encoding='utf-8', errors='replace').splitlines()[-LINES_SHOWN:]
        sys.exit('\n'.join([*end, f'error: {words[1]} failed ({code}); see {log}']))


def numbers(cell: dict, folder: Path, lock: int) -> Iterator[tuple]:
    """Trains and measures what is missing; gives metric, factor, value, error, count, command."""

    def command(tool: str, *words, more=()) -> list:
        options = ['--cfg-options', *cell['options'], *more]
        return [f'tools/{tool}.py', cell['file'], *words, *options]

    def published(words: list) -> str:
        return shlex.join(['python', *map(str, words)])

    trained = folder / 'trained'
    if not trained.is_file():
        run(command('train', '--work-dir', folder, '--resume'), folder / 'train.log', lock)
        trained.touch()
    for name, value in validations(folder).items():
        yield name, '', value, '', '', published(command('train'))
    checkpoint, measured = checkpoint_of(cell, folder), folder / f'measured_{cell["result"]}'
    # Another machine's best epoch may be another one.
    file = 'best_*.pth' if cell['checkpoint'] == 'best' else checkpoint.name
    measured.mkdir(exist_ok=True)
    for test, more in cell['tests'].items():
        out = measured / f'{test.replace("/", "-")}.json'
        if not out.is_file():
            part = out.with_suffix('.part.json')
            words = ['--work-dir', measured / out.stem, '--out', part, '--out-item', 'metrics']
            run(command('test', checkpoint, *words, more=more), folder / f'{out.stem}.log', lock)
            os.replace(part, out)
        said = published(command('test', file, more=more))
        for name, value in json.loads(out.read_text(encoding='utf-8')).items():
            yield f'{test}/{name}', '', value, '', '', said
    if cell['equivariance'] is not None:
        asked, out = flags(cell['equivariance']), measured / 'equivariance'
        words = command('equivariance', checkpoint, *asked, '--out', out)
        run(words, folder / 'equivariance.log', lock)
        found = json.loads((out / 'equivariance.json').read_text(encoding='utf-8'))['models'][0]
        said = published(command('equivariance', file, *asked))
        for name, curve in curves(found):
            columns = (curve['mean'], curve['standard_error'], curve['n'])
            for factor, *row in zip(found['factors'], *columns):
                yield name, factor, *row, said


def curves(found: dict) -> Iterator[tuple[str, dict]]:
    """What ``tools/equivariance.py`` has found of a model, by the names of ``metric``."""
    accuracy = found.get('accuracy')
    if accuracy and 'metric' not in accuracy:
        yield 'accuracy', accuracy
    yield from (found.get('metrics') or {}).items()
    for layer, curve in found['layers'].items():
        yield f'error/{layer}', curve
        if curve['truncated']:
            yield f'error/{layer}/truncated', curve['truncated']


def training_seconds(folder: Path) -> float:
    """Time spent in training steps, over all interruptions, as MMEngine has logged it."""
    steps = {entry['iter']: entry['time'] for entry in logged_scalars(folder) if 'loss' in entry}
    places = sorted(steps)
    return round(sum((b - a) * steps[b] for a, b in zip([0, *places], places)), 1)


def validations(folder: Path) -> dict[str, float]:
    """The figure of the config's validation after the last epoch, and the best of all epochs."""
    entries = list(logged_scalars(folder))
    known = [name for entry in entries for name in entry]
    ends = ('accuracy/top1', *MAIN_METRICS)
    name = next((name for end in ends for name in known if name.endswith(end)), None)
    found = [entry[name] for entry in entries if name in entry]
    return {'validation/last': found[-1], 'validation/best': max(found)} if found else {}


def cost(cell: dict) -> dict:
    """Parameters and multiply-adds of one image."""
    cfg, parser = launch.load_config(str(ROOT / cell['file'])), argparse.ArgumentParser()
    launch.add_config_options(parser)
    options = parser.parse_args(['--cfg-options', *cell['options']]).cfg_options
    launch.merge_options(cfg, options)
    if launch.is_of_mmpretrain(cfg):
        shape = image_shape(cfg)
    else:  # such a config does not say how large its images are
        shape = tuple(first_batch(cfg, 1)['inputs'][0].shape)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        parameters, flops = count(launch.build_network(cfg, cell['file']), shape)
    return dict(parameters=parameters, multiply_adds=flops)


def provenance() -> dict:
    """Where and when, and of which code."""
    return dict(
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        threads=os.environ.get('OMP_NUM_THREADS', torch.get_num_threads()),
        version=mmscale.__version__,
        commit=commit(),
        torch=version('torch'),
        numpy=version('numpy'),
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
    )


def commit() -> str:
    """The revision of the repository, with a plus where code or configs were changed since."""

    def git(*words: str) -> str:
        words = ['git', '-C', str(ROOT), *words]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    try:
        paths = ('mmscale', 'configs', 'tools')
        changed = git('status', '--porcelain', '--untracked-files=no', '--', *paths)
        return git('rev-parse', '--short=12', 'HEAD') + '+' * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return ''


def as_text(value):
    """As it stands in the CSV file: nothing for what there is no number of."""
    return '' if value is None or isinstance(value, float) and not math.isfinite(value) else value


@one_line_errors()
def main():
    (name, run, seed), result = sys.argv[1:4], Path(sys.argv[4]).resolve()
    os.chdir(ROOT)  # configs name their data from here
    cell, folder = make_cell(read_study(find_study(name)), run, int(seed)), result.parent
    if (folder.name, result.stem) != (cell['folder'], cell['result']):
        raise ValueError(f'{run}, seed {seed} has changed since the study was started: start again')
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with (folder / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tools of a study that was killed may run on
        found = list(numbers(cell, folder, lock.fileno()))
        known = dict(cell=cell['cell'], seed=cell['seed'], seconds=training_seconds(folder),
                     **cost(cell), **provenance(), **{k: cell[k] for k in DIGESTS})  # fmt: skip
        names = ('metric', 'factor', 'value', 'standard_error', 'n', 'command')
        found.insert(0, ('seconds', '', round(time.perf_counter() - start, 1), '', '', ''))
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
        writer.writeheader()
        for row in found:
            writer.writerow({**known, **dict(zip(names, map(as_text, row)))})
        write_text(result, text.getvalue())


if __name__ == '__main__':
    main()
