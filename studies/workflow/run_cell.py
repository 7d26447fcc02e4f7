# Copyright (c) mmscale contributors.
"""Run a cell of a study by the ordinary tools: ``run_cell.py STUDY RUN SEED RESULT``.

RESULT is the CSV file of the results, with a line for each number. Logs and checkpoints are in the
same folder. An interrupted cell resumes: a training from its last checkpoint, a measurement with
the missing parts.
"""

import json
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

import pandas as pd
import torch
from cells import DIGESTS, ROOT, find_study, make_cell, read_study
from filelock import FileLock
from mmengine.utils import get_git_hash

import mmscale
from mmscale.engine import models
from mmscale.engine.accuracy import MAIN_METRICS
from mmscale.engine.cost import count, first_batch, image_shape
from mmscale.engine.errors import one_line_errors
from mmscale.engine.launch import is_of_mmpretrain
from mmscale.engine.report import write_text

NUMBERS = ['metric', 'factor', 'value', 'standard_error', 'n']
COLUMNS = ['cell', 'seed', *NUMBERS, 'parameters', 'multiply_adds', 'seconds', 'device', 'threads',
           'version', 'commit', 'torch', 'numpy', 'date', *DIGESTS, 'command']  # fmt: skip
LINES_SHOWN = 20


def as_words(options: dict) -> list[str]:
    """Convert options to words behind ``--cfg-options``."""
    return [f'{key}={_word(value)}' for key, value in options.items()]


def _word(value) -> str:
    """Format a value for the command line: no white space, and quotes for strings in lists."""
    if isinstance(value, list | tuple):
        inside = ','.join(repr(v) if isinstance(v, str) else _word(v) for v in value)
        return f'[{inside}]' if isinstance(value, list) else f'({inside})'
    return str(value)


def flags(arguments: dict) -> list[str]:
    """Convert arguments of a tool to words of the command line."""
    words = []
    for name, value in arguments.items():
        if value is not None and value is not False:  # None and False set no flag
            values = value if isinstance(value, list | tuple) else [value]
            words += [f'--{name.replace("_", "-")}', *(str(v) for v in values if v is not True)]
    return words


def checkpoint_of(cell: dict, folder: Path) -> Path:
    """Return the path of the measured checkpoint."""
    if cell['checkpoint'] == 'best':
        # A kill between writing the new checkpoint and deleting the old leaves both.
        return max(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    return folder / Path((folder / 'last_checkpoint').read_text(encoding='utf-8').strip()).name


def run(words: list, log: Path, held: list[int]) -> None:
    """Run a tool and append its output to a log; print the end of the log if the tool fails."""
    words = [sys.executable, *map(str, words)]
    with log.open('a', encoding='utf-8') as file:
        # If this process is killed and the tool runs on, the tool keeps the lock.
        code = subprocess.run(words, stdout=file, stderr=file, pass_fds=held).returncode
    if code:
        print(*log.read_text(encoding='utf-8').splitlines()[-LINES_SHOWN:], sep='\n')
        raise ChildProcessError(f'{words[1]} failed ({code}); see {log}')


def numbers(cell: dict, folder: Path, held: list[int]) -> Iterator[tuple]:
    """Train and measure missing parts; yield metric, factor, value, error, count and command."""

    def command(tool: str, *words, more={}, checkpoint=None) -> list:
        part = cell['trained'] if tool == 'train' else cell
        model = f'{part["file"]}:{checkpoint}' if checkpoint else part['file']
        options = as_words(part['options']) + as_words(more)
        return [f'tools/{tool}.py', model, *words, '--cfg-options', *options]

    def published(*words, **kwargs) -> str:
        return shlex.join(['python', *map(str, command(*words, **kwargs))])

    trained = folder / 'trained'
    if not trained.is_file():
        run(command('train', '--work-dir', folder, '--resume'), folder / 'train.log', held)
        trained.touch()
    for name, value in validations(folder).items():
        yield name, '', value, '', '', published('train')
    checkpoint, measured = checkpoint_of(cell, folder), folder / f'measured_{cell["result"]}'
    # The best epoch may differ on another machine.
    file = 'best_*.pth' if cell['checkpoint'] == 'best' else checkpoint.name
    measured.mkdir(exist_ok=True)
    for test, more in cell['tests'].items():
        out = measured / test.replace('/', '-')
        if not (out / 'metrics.json').is_file():
            words = ['--work-dir', out, '--out', out]
            run(command('test', checkpoint, *words, more=more), out.with_suffix('.log'), held)
        for name, value in json.loads((out / 'metrics.json').read_text(encoding='utf-8')).items():
            if value is None or isinstance(value, int | float):  # lists over classes are left out
                yield f'{test}/{name}', '', value, '', '', published('test', file, more=more)
    if cell['equivariance'] is not None:
        asked = flags(cell['equivariance'])
        words = command('equivariance', *asked, '--out', measured, checkpoint=checkpoint)
        run(words, measured / 'equivariance.log', held)
        found = json.loads((measured / 'equivariance.json').read_text(encoding='utf-8'))
        for name, factor, *row in over_scale(found['models'][0]):
            yield name, factor, *row, published('equivariance', *asked, checkpoint=file)


def over_scale(found: dict) -> Iterator[tuple]:
    """Yield metric, factor, value, error and count from a result of ``tools/equivariance.py``."""
    curves, accuracy = dict(found.get('metrics') or {}), found.get('accuracy')
    if accuracy and 'metric' not in accuracy:
        curves['accuracy'] = accuracy
    for layer, curve in found['layers'].items():
        curves[f'error/{layer}'] = curve
        if curve['truncated']:
            curves[f'error/{layer}/truncated'] = curve['truncated']
    for name, curve in curves.items():
        columns = (curve[key] for key in ('mean', 'standard_error', 'n'))
        yield from ((name, *row) for row in zip(found['factors'], *columns))


def logged_scalars(work_dir: Path) -> Iterator[dict]:
    """Yield the entries of MMEngine's logs in a work directory, over all interruptions."""
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                yield json.loads(line)
            except ValueError:  # a killed run leaves an incomplete last line
                continue


def training_seconds(folder: Path) -> float:
    """Return the seconds of all training steps, over all interruptions, from MMEngine's logs."""
    steps = {entry['iter']: entry['time'] for entry in logged_scalars(folder) if 'loss' in entry}
    places = sorted(steps)
    return round(sum((b - a) * steps[b] for a, b in zip([0, *places], places)), 1)


def validations(folder: Path) -> dict[str, float]:
    """Return the validation's metric after the last epoch, and the best over all epochs."""
    entries = list(logged_scalars(folder))
    known = [name for entry in entries for name in entry]
    ends = ('accuracy/top1', *MAIN_METRICS)
    name = next((name for end in ends for name in known if name.endswith(end)), None)
    found = [entry[name] for entry in entries if name in entry]
    return {'validation/last': found[-1], 'validation/best': max(found)} if found else {}


def facts(cell: dict) -> dict:
    """Return the columns that all lines of a cell share: costs, device, versions and digests."""
    cfg = models.load_config(cell['file'])
    models.merge_options(cfg, cell['options'])
    # A config of another toolbox has no size of its images.
    known = is_of_mmpretrain(cfg)
    shape = image_shape(cfg) if known else tuple(first_batch(cfg, 1)['inputs'][0].shape)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        parameters, flops = count(models.build_network(cfg, cell['file']), shape)
    return dict(
        parameters=parameters,
        multiply_adds=flops,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        threads=torch.get_num_threads(),
        version=mmscale.__version__,
        commit=get_git_hash(fallback='', digits=12),
        torch=version('torch'),
        numpy=version('numpy'),
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        **{name: cell[name] for name in ('cell', 'seed', *DIGESTS)},
    )


@one_line_errors()
def main() -> None:
    (name, run, seed), result = sys.argv[1:4], Path(sys.argv[4]).resolve()
    os.chdir(ROOT)  # the tools find their data from there
    start, folder = time.perf_counter(), result.parent
    cell = make_cell(read_study(find_study(name)), run, int(seed))
    if (folder.name, result.stem) != (cell['folder'], cell['result']):
        raise ValueError(f'{run}, seed {seed} has changed since the study was started: start again')
    folder.mkdir(parents=True, exist_ok=True)
    held = []
    # Tools of a killed study may run on, so they hold the lock, too.
    with FileLock(folder / 'lock', on_acquired=held.append):
        found = list(numbers(cell, folder, held))
        found.insert(0, ('seconds', '', round(time.perf_counter() - start, 1), '', '', ''))
        # The type object keeps numbers as they are, and missing numbers empty.
        frame = pd.DataFrame(found, columns=[*NUMBERS, 'command'], dtype=object)
        frame = frame.assign(**facts(cell), seconds=training_seconds(folder))
        write_text(result, frame[COLUMNS].to_csv(index=False, lineterminator='\n'))


if __name__ == '__main__':
    main()
