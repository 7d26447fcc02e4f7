# Copyright (c) mmscale contributors.
import io
import json
import logging
import os
import runpy
import socket
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from mmscale.engine.safe_loading import SAFE_VARIABLE, UNSAFE_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/resnet/resnet18-w8_1xb50-10e_scaledigits.py'
# 200 digits: enough for a checkpoint that differs from chance, seconds to train on.
SMALL = (
    'train_dataloader.dataset.indices=200',
    'val_dataloader.dataset.indices=100',
    'test_dataloader.dataset.indices=100',
    'val_dataloader.dataset.scale=1.0',
    'train_cfg.val_interval=1',
    'default_hooks.logger.interval=1',
)


def tool_environment() -> dict:
    """One thread a process: then sums have one order, and processes do not crowd each other.

    Distributed runs have a port of their own: tests run side by side.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable, 'PORT': port}


def run_tool(*command, folder: Path = ROOT) -> subprocess.CompletedProcess:
    """Runs a tool from the repository's root, as the README has it, or from another folder."""
    program = [] if str(command[0]).endswith('.sh') else [sys.executable]
    return subprocess.run(
        [*program, *map(str, command)],
        cwd=folder,
        env=tool_environment(),
        capture_output=True,
        text=True,
        timeout=900,  # of what hangs: how long a run takes is the machine's affair
    )


def run_here(monkeypatch, *command, folder: Path = ROOT) -> None:
    """Runs a tool in this process, from the repository's root or another folder."""
    # Loggers of earlier runs in it write to streams that are closed: no fault of this run.
    monkeypatch.setattr(logging, 'raiseExceptions', False)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, 'argv', [str(word) for word in command])
    for name in ('LOCAL_RANK', SAFE_VARIABLE, UNSAFE_VARIABLE):  # tools set them for processes
        monkeypatch.setenv(name, '0')
    runpy.run_path(str(ROOT / command[0]), run_name='__main__')


def exit_message(monkeypatch, *command, folder: Path = ROOT) -> str:
    """Runs a tool in this process, which must leave it by an error; returns its one line."""
    written = io.StringIO()  # loggers of MMEngine live on and write to it: it stays open
    with pytest.raises(SystemExit) as end, redirect_stderr(written):
        run_here(monkeypatch, *command, folder=folder)
    line = end.value.code
    # argparse writes its line itself.
    line = line if isinstance(line, str) else written.getvalue().splitlines()[-1]
    assert 'error: ' in line and '\n' not in line and 'Traceback' not in written.getvalue()
    return line


def swap(command, **words) -> list[str]:
    """A command with other words in the places named."""
    command = [str(part) for part in command]
    for name, word in words.items():
        command = [part.replace(name, str(word)) for part in command]
    return command


def train(work_dir: Path, *arguments, options=(), config=CONFIG) -> subprocess.CompletedProcess:
    """Trains on the small digits."""
    return run_tool(
        'tools/train.py', config, '--work-dir', work_dir, *arguments,
        '--cfg-options', *SMALL, *options,
    )  # fmt: skip


def logged_scalars(work_dir: Path) -> list:
    """All lines that MMEngine has logged under a work directory, the latest run last."""
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture(scope='session')
def trained(tmp_path_factory) -> Path:
    """Work directory of a finished run of one epoch."""
    work_dir = tmp_path_factory.mktemp('trained')
    result = train(work_dir, options=['train_cfg.max_epochs=1'])
    assert result.returncode == 0, result.stderr
    return work_dir
