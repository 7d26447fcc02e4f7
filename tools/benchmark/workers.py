# Copyright (c) mmscale contributors.
"""Fresh processes that measure what they are asked for, each on a checkout of mmscale.

In one process the time of a network depends on how the others have left the memory, by more than
what is to be measured. Here they only wait while another one runs.
"""

import cProfile
import multiprocessing
import os
import platform
import pstats
import runpy
import sys
import time
import traceback
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
# Below that the system reads programs from the disk again and again, and that is what is timed.
LEAST_MEMORY = 512 * 2**20


# ---- the side that asks


class Worker:
    """A process of its own, which takes questions and answers them one after the other."""

    def __init__(self, folder: Path, device: str, threads: int, keep_blocks: bool = True):
        """It imports mmscale from ``folder``; ``keep_blocks``: no freed block leaves it (CPU)."""
        context = multiprocessing.get_context('spawn')
        self.connection, theirs = context.Pipe()
        arguments = theirs, str(folder), device, threads, keep_blocks
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def receive(self, deadline: float | None = None):
        """An answer.

        Raises:
            TimeoutError: If there is none before the deadline, of ``time.monotonic()``.
            ImportError: If something that is to be measured is not installed.
            RuntimeError: If the process fails, with what it said.
            MemoryError: If the machine's memory is too full to time anything.
        """
        if deadline and not self.connection.poll(max(0, deadline - time.monotonic())):
            raise TimeoutError('time is over')
        try:
            answer = self.connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError('its process was ended, perhaps for its memory') from None
        if isinstance(answer, Exception):
            raise answer
        left = available_memory()
        if left is not None and left < LEAST_MEMORY:
            raise MemoryError(
                f'only {left // 2**20} MiB of memory are left beside what is compared, at least '
                f'{LEAST_MEMORY // 2**20} are needed to time it: end what else is running'
            )
        return answer

    def send(self, *question):
        """Asks :func:`serve`."""
        self.connection.send(question)

    def end(self):
        self.process.terminate()
        self.process.join()


def available_memory() -> int | None:
    """Bytes that programs can still take, as Linux counts them; None elsewhere."""
    path = Path('/proc/meminfo')
    if not path.is_file():
        return None
    fields = dict(line.split(':') for line in path.read_text().splitlines())
    return int(fields['MemAvailable'].split()[0]) * 1024


# ---- the side that measures


def synchronize(device: str):
    if device == 'cuda':
        torch.cuda.synchronize()


def seconds_of(step, device: str, calls: int) -> float:
    """Seconds of a call. Where there are several, caches are filled first."""
    if calls > 1 or device == 'cuda':
        step.run()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        step.run()
    synchronize(device)
    seconds = (time.perf_counter() - start) / calls
    if device == 'cuda':
        torch.cuda.empty_cache()  # the card has to hold one of the networks at a time
    return seconds


class OperatorCounter(TorchDispatchMode):
    """Counts what PyTorch's dispatcher is asked for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def operators_of(step, device: str, calls: int) -> int:
    step.run()  # what is kept for the next call is made in the first
    with OperatorCounter() as counter:
        step.run()
    return counter.count


def python_calls_of(step, device: str, calls: int) -> int:
    """Functions called, those written in C included."""
    step.run()
    profiler = cProfile.Profile()
    profiler.runcall(step.run)
    return pstats.Stats(profiler).total_calls


def multiply_adds_of(step, device: str, calls: int) -> int:
    """Twice the multiply-adds of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        step.run()
    return counter.get_total_flops()


def kernels_of(step, device: str, calls: int) -> list[tuple[str, float, float]]:
    """Name, number and milliseconds a call of kernels (on a CPU: operators), the costliest first."""
    step.run()
    with profile(activities=[getattr(ProfilerActivity, device.upper())], acc_events=True) as found:
        for _ in range(calls):
            step.run()
        synchronize(device)
    where = 'self_device_time_total' if device == 'cuda' else 'self_cpu_time_total'
    kernels = [(e.key, e.count / calls, getattr(e, where) / 1e3 / calls)
               for e in found.key_averages()]  # fmt: skip
    return sorted(kernels, key=lambda kernel: -kernel[2])


QUANTITIES = {
    'time': seconds_of,
    'operators': operators_of,
    'Python calls': python_calls_of,
    'multiply-adds': multiply_adds_of,
    'kernels': kernels_of,
}


def build_and_measure_memory(build, device: str) -> tuple[dict, dict[str, int]]:
    """Steps, and the most bytes that PyTorch has allocated until each had run twice.

    How much of that a process holds, on a CPU, is up to the allocator of the C library, and differs
    from run to run by more than what is to be measured.
    """
    peaks, total, peak = {}, 0, 0
    with torch.autograd.profiler.profile(profile_memory=device == 'cpu', use_kineto=True) as found:
        steps = build()
        for mode, step in steps.items():
            with record_function(mode), step.context():
                step.run()
                step.run()
            if device == 'cuda':
                peaks[mode] = torch.cuda.max_memory_allocated()
    if device == 'cuda':
        return steps, peaks
    for event in sorted(found.kineto_results.events(), key=lambda event: event.end_ns()):
        if event.name() == '[memory]':
            total += event.nbytes()
            peak = max(peak, total)
        elif event.name() in steps:
            peaks[event.name()] = peak
    return steps, peaks


def machine(device: str, threads: int, keeps_blocks: bool) -> str:
    """Machine, versions, and what sets how memory is allocated."""
    import mmcv
    import mmpretrain

    import mmscale

    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    where = f'{names[0] if names else platform.machine()}, {threads} of {os.cpu_count()} threads'
    if device == 'cuda':
        where = f'{torch.cuda.get_device_name()} ({where})'
    allocator = [f'{name}={value}' for name, value in sorted(os.environ.items())
                 if name.startswith('MALLOC_') or name in ('LD_PRELOAD', 'PYTORCH_CUDA_ALLOC_CONF')]
    allocator += ['freed blocks are kept'] * keeps_blocks
    modules = torch, mmcv, mmpretrain, mmscale
    return ', '.join([where, *(f'{m.__name__} {m.__version__}' for m in modules), *allocator])  # fmt: skip


def serve(connection, folder: str, device: str, threads: int, keep_blocks: bool):
    """What a process does. Questions and answers:

    - ``('build', name, subject, whether to measure memory)``: on what machine;
    - ``(quantity, name, mode, calls)``: a number, for kernels a list.
    """
    sys.path.insert(0, folder)
    built, peaks = {}, {}
    try:
        from mmengine.logging import MMLogger

        import mmscale
        import steps

        if Path(folder) not in Path(mmscale.__file__).parents:
            raise RuntimeError(f'{folder} has no mmscale: {mmscale.__file__} was imported')
        MMLogger.get_instance('benchmark', log_level='ERROR')  # how each weight is initialised
        # Of this checkout, whichever is measured: the allocator is no part of what is compared.
        allocator = runpy.run_path(str(ROOT / 'mmscale' / 'engine' / 'allocator.py'))
        keeps_blocks = keep_blocks and allocator['keep_freed_blocks']()
        # 1x1 convolutions are matrix products here and cuDNN's there: one precision for both.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
        while True:
            what, name, *rest = connection.recv()
            if what == 'build':
                subject, memory = rest
                torch.set_num_threads(subject.threads or threads)
                build = lambda: steps.BUILDERS[subject.build](device=device, **subject.arguments)
                built[name], peaks[name] = build_and_measure_memory(build, device) if memory else (build(), {})
                connection.send(machine(device, torch.get_num_threads(), keeps_blocks))
            elif what == 'memory':
                connection.send(peaks[name][rest[0]])
            else:
                mode, calls = rest
                with built[name][mode].context():
                    connection.send(QUANTITIES[what](built[name][mode], device, calls))
    except EOFError:
        pass
    except ImportError as error:
        connection.send(error)
    except Exception:
        connection.send(RuntimeError(traceback.format_exc().strip()))
