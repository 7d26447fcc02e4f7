# Copyright (c) mmscale contributors.
"""Fresh processes that measure what they are asked for, each on a checkout of mmscale.

In one process the time of a network depends on how the others have left the memory, by more than
what is to be measured. Here they only wait while another one runs.
"""

import cProfile
import math
import multiprocessing
import os
import platform
import pstats
import re
import runpy
import sys
import time
import traceback
import warnings
from contextlib import nullcontext, redirect_stdout, suppress
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
# Below that the system reads programs from the disk again and again, and that is what is timed.
LEAST_MEMORY = 512 * 2**20


class Worker:
    """A process of its own; its arguments are those of :func:`serve`."""

    def __init__(self, *arguments):
        context = multiprocessing.get_context('spawn')
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, *question):
        with suppress(ConnectionError):  # from a process that has ended comes why, or nothing
            self.connection.send(question)

    def ask(self, *question, deadline: float = math.inf):
        self.send(*question)
        return self.receive(deadline)

    def receive(self, deadline: float = math.inf):
        """An answer; ``TimeoutError`` if there is none by ``deadline``, of ``time.monotonic()``.

        A library that is not installed is an ``ImportError``, any other failure a ``RuntimeError``.
        """
        seconds = max(0, deadline - time.monotonic())
        if not self.connection.poll(seconds if seconds < math.inf else None):
            raise TimeoutError('time is over')
        try:
            answer = self.connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError('its process was ended, perhaps for its memory') from None
        if isinstance(answer, Exception):
            raise answer
        if (left := available_memory()) < LEAST_MEMORY:
            raise MemoryError(
                f'only {left // 2**20} MiB of memory are left beside what is compared, at least '
                f'{LEAST_MEMORY // 2**20} are needed to time it: end what else is running'
            )
        return answer

    def end(self):
        self.process.terminate()
        self.process.join()


def available_memory() -> int:
    """Bytes that programs can still take, as Linux counts them; without end elsewhere."""
    path = Path('/proc/meminfo')
    found = path.is_file() and re.search(
        r'MemAvailable: +(\d+) kB', path.read_text(encoding='utf-8')
    )
    return int(found[1]) * 1024 if found else sys.maxsize


# ---- in the processes: what is measured of a step, in its context


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


def kernels_of(step, device: str, calls: int) -> str:
    """A table of the ten costliest kernels of one call (on a CPU: operators)."""
    step.run()
    activity = getattr(ProfilerActivity, device.upper())
    with torch.profiler.profile(activities=[activity]) as profiler:
        step.run()
        synchronize(device)
    costly = f'self_{device}_time_total'
    return profiler.key_averages().table(costly, row_limit=10, max_name_column_width=70)


QUANTITIES = {
    'time': seconds_of,
    'operators': operators_of,
    'Python calls': python_calls_of,
    'multiply-adds': multiply_adds_of,
    'kernels': kernels_of,
}


def build(builder, arguments: dict, device: str, memory: bool) -> tuple[dict, dict[str, int]]:
    """Steps by mode and, if asked, the most bytes allocated until each had run twice.

    How much of them a process holds, on a CPU, is up to the allocator of the C library, and differs
    from run to run by more than what is to be measured.
    """
    traced = memory and device == 'cpu'
    profiler = torch.autograd.profiler.profile(profile_memory=True, use_kineto=True)
    with profiler if traced else nullcontext():
        steps, peaks, total, peak = builder(device=device, **arguments), {}, 0, 0
        for mode, step in steps.items() if memory else ():
            with record_function(mode), step.context():
                step.run()
                step.run()
            peaks[mode] = torch.cuda.max_memory_allocated() if device == 'cuda' else 0
    events = profiler.kineto_results.events() if traced else ()
    for event in sorted(events, key=lambda event: event.end_ns()):
        if event.name() == '[memory]':
            total += event.nbytes()
            peak = max(peak, total)
        elif event.name() in peaks:
            peaks[event.name()] = peak
    return steps, peaks


def machine(device: str, keeps_blocks: bool) -> str:
    """Machine, versions, and what sets how memory is allocated."""
    import mmcv
    import mmpretrain

    import mmscale

    info = Path('/proc/cpuinfo')
    text = info.read_text(encoding='utf-8') if info.is_file() else ''
    names = re.findall(r'model name\s*: (.*)', text)
    cpu = [*names, platform.machine()][0]
    where = f'{cpu}, {torch.get_num_threads()} of {os.cpu_count()} threads'
    if device == 'cuda':
        where = f'{torch.cuda.get_device_name()} ({where})'
    modules = (f'{m.__name__} {m.__version__}' for m in (torch, mmcv, mmpretrain, mmscale))
    known = 'MALLOC_', 'LD_PRELOAD', 'GLIBC_TUNABLES', 'PYTORCH_CUDA_ALLOC_CONF'
    settings = (f'{k}={v}' for k, v in sorted(os.environ.items()) if k.startswith(known))
    return ', '.join([where, *modules, *settings, *['freed blocks are kept'] * keeps_blocks])


def serve(connection, folder: str, device: str, keep_blocks: bool):
    """Answers ``('build', name, subject, memory)`` and ``(quantity, name, mode, calls)``.

    ``folder`` is the checkout from which mmscale is imported; ``keep_blocks`` has freed blocks stay
    with the process, on a CPU.
    """
    sys.path.insert(0, folder)
    warnings.filterwarnings('ignore', message='Fail to import')  # of MMCV, what it has no ops for
    built = {}
    try:
        with redirect_stdout(None):  # MMPretrain, what it could not import
            import steps
        from mmengine.logging import MMLogger

        import mmscale

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
                torch.set_num_threads(subject.threads or torch.get_num_threads())
                builder = steps.BUILDERS[subject.build]
                built[name] = build(builder, subject.arguments, device, memory)
                connection.send(machine(device, keeps_blocks))
                continue
            (modes, peaks), (mode, calls) = built[name], rest
            if what == 'memory':
                connection.send(peaks[mode])
                continue
            with modes[mode].context():
                connection.send(QUANTITIES[what](modes[mode], device, calls))
    except EOFError:
        pass
    except ImportError as error:
        connection.send(error)
    except Exception:
        connection.send(RuntimeError(traceback.format_exc().strip()))
