# Copyright (c) mmscale contributors.
"""What runs in the processes that measure, each on a checkout of mmscale.

In one process the time of a network depends on how the others have left the memory, by more than
what is to be measured. Here they only wait while another one runs.
"""

import cProfile
import multiprocessing
import os
import platform
import pstats
import re
import runpy
import sys
import time
import warnings
from contextlib import nullcontext, redirect_stdout
from functools import cache
from pathlib import Path
from threading import Thread

import torch
from torch.profiler import ProfilerActivity, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
BUILT = {}  # device, steps by mode and memory by mode of each subject of this process


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


def build_steps(builder, arguments: dict, device: str, memory: bool) -> tuple[dict, dict[str, int]]:
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


@cache
def prepare(folder: str, device: str, keep_blocks: bool) -> str:
    """Imports mmscale from a checkout; returns what :func:`machine` says.

    ``keep_blocks`` has freed blocks stay with the process, on a CPU.
    """
    Thread(target=end_with_parent, daemon=True).start()
    sys.path.insert(0, folder)
    warnings.filterwarnings('ignore', message='Fail to import')  # of MMCV, what it has no ops for
    with redirect_stdout(None):  # MMPretrain, what it could not import
        import steps  # noqa: F401
    from mmengine.logging import MMLogger

    import mmscale

    if Path(folder) not in Path(mmscale.__file__).parents:
        raise RuntimeError(f'{folder} has no mmscale: {mmscale.__file__} was imported')
    MMLogger.get_instance('benchmark', log_level='ERROR')  # how each weight is initialised
    # Of this checkout, whichever is measured: the allocator is no part of what is compared.
    allocator = runpy.run_path(str(ROOT / 'mmscale' / 'engine' / 'allocator.py'))
    # 1x1 convolutions are matrix products here and cuDNN's there: one precision for both.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    return machine(device, keep_blocks and allocator['keep_freed_blocks']())


def end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def build(name: str, subject, memory: bool, folder: str, device: str, keep_blocks: bool) -> str:
    """Builds the steps of a subject, in a process of this checkout, for :func:`answer`."""
    said = prepare(folder, device, keep_blocks)
    import steps

    torch.set_num_threads(subject.threads or torch.get_num_threads())
    builder = steps.BUILDERS[subject.build]
    BUILT[name] = device, *build_steps(builder, subject.arguments, device, memory)
    return said


def answer(name: str, what: str, mode: str, calls: int = 1):
    """One of ``QUANTITIES``, or the memory, of a subject that was built in this process."""
    device, steps, peaks = BUILT[name]
    if what == 'memory':
        return peaks[mode]
    with steps[mode].context():
        return QUANTITIES[what](steps[mode], device, calls)
