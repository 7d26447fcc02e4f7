# Copyright (c) mmscale contributors.
"""Steps of several networks, each network in a process of its own.

In one process the time of a network depends on how the others have left the memory, by more than
what is to be measured. Here they only wait while another one runs.
"""

import contextlib
import importlib
import multiprocessing
import os
import traceback
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import torch
from memory import build_and_measure
from mmengine.logging import MMLogger
from timing import progress

# Below that the system reads programs from the disk again and again, and that is what is timed.
LEAST_MEMORY = 512 * 1024**2


@dataclass(frozen=True)
class Worker:
    """A process that holds steps; ``peaks`` are the bytes that each of them needs at most."""

    connection: Connection
    peaks: list[int]


@contextlib.contextmanager
def start_workers(
    target: str, arguments: dict[Hashable, dict], device: str, threads: int
) -> Iterator[dict[Hashable, Worker]]:
    """Starts a process for each entry, one after the other, and ends all of them at the end.

    Args:
        target (str): ``'module:function'``. Called with the arguments of an entry, the function
            builds what is needed and returns steps as :func:`memory.build_and_measure` says.
        arguments (dict[Hashable, dict]): Arguments, by any key.
        device (str): ``'cpu'`` or ``'cuda'``.
        threads (int): CPU threads, where an entry has no ``threads`` of its own.

    Raises:
        RuntimeError: If a process fails, with what it said; if the machine's memory is full.
    """
    context = fork_server()
    with contextlib.ExitStack() as stack:
        workers = {}
        for key, values in arguments.items():
            progress(f'starting {key}')
            values = dict(values)
            at = values.pop('threads', threads)
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve, args=(theirs, target, values, device, at), daemon=True
            )
            process.start()
            theirs.close()
            stack.callback(process.join)
            stack.callback(process.terminate)
            workers[key] = Worker(ours, receive(ours))
        yield workers


def fork_server() -> multiprocessing.context.BaseContext:
    """Forks from a process that has imported all and computed nothing.

    Forks of one that has computed would lack the threads of its OpenMP, and wait for them.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['resnets'])
    folder = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [folder, os.environ.get('PYTHONPATH')]))
    # What is imported asks whether there is a GPU. By CUDA's runtime no fork could use it later.
    with mock.patch.dict(os.environ, PYTHONPATH=path, PYTORCH_NVML_BASED_CUDA_CHECK='1'):
        multiprocessing.forkserver.ensure_running()
    return context


def serve(connection: Connection, target: str, arguments: dict, device: str, threads: int) -> None:
    """What a process does: build, tell the peaks, and run the steps it is asked for."""
    MMLogger.get_instance('benchmark', log_level='ERROR')  # how each weight is initialised
    try:
        torch.set_num_threads(threads)
        # 1x1 convolutions are matrix products here and cuDNN's there: one precision for both.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
        module, function = target.split(':')
        build = getattr(importlib.import_module(module), function)
        steps, peaks = build_and_measure(lambda: build(**arguments), device)
        connection.send(peaks)
        while True:
            steps[connection.recv()]()
            if device == 'cuda':
                torch.cuda.synchronize()
            connection.send(None)
    except EOFError:
        return
    except Exception:
        connection.send(traceback.format_exc())


def receive(connection: Connection):
    """A reply; an error if it is one, or if memory is too full to time anything."""
    try:
        reply = connection.recv()
    except EOFError:
        raise RuntimeError('a process of the benchmark was ended, perhaps for its memory') from None
    if isinstance(reply, str):
        raise RuntimeError(f'a process of the benchmark failed:\n{reply}')
    available = available_memory()
    if available is not None and available < LEAST_MEMORY:
        raise RuntimeError(
            f'only {available // 1024**2} MiB of memory are left beside the networks that are '
            f'compared, at least {LEAST_MEMORY // 1024**2} are needed to time them: end what else '
            f'is running'
        )
    return reply


def available_memory() -> int | None:
    """Bytes that programs can still take, as Linux counts them; None elsewhere."""
    path = Path('/proc/meminfo')
    if not path.is_file():
        return None
    fields = dict(line.split(':') for line in path.read_text().splitlines())
    return int(fields['MemAvailable'].split()[0]) * 1024


def step_of(worker: Worker, place: int) -> Callable[[], None]:
    """A function that runs one of the worker's steps, and returns when it is done."""

    def run():
        worker.connection.send(place)
        receive(worker.connection)

    return run
