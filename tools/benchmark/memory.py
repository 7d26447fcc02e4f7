# Copyright (c) mmscale contributors.
"""Peak memory of steps: the most that PyTorch has allocated at one time.

How much of that a process holds, on a CPU, is up to the allocator of the C library, and differs
from run to run by more than what is to be measured.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd.profiler import profile, record_function


def build_and_measure(
    build: Callable[[], list[Callable]], device: str
) -> tuple[list[Callable], list[int]]:
    """Builds steps, and runs each of them twice.

    Args:
        build (Callable): Returns the steps, functions without arguments. The peak of one is that
            of all before it, too: the one that needs least comes first.
        device (str): ``'cpu'`` or ``'cuda'``.

    Returns:
        tuple[list[Callable], list[int]]: The steps, and the bytes that each needs at most, with
        what was built.
    """
    measure = _measure_on_gpu if device == 'cuda' else _measure_on_cpu
    return measure(build)


def _measure_on_gpu(build) -> tuple[list[Callable], list[int]]:
    before = torch.cuda.memory_allocated()
    steps, peaks = build(), []
    torch.cuda.reset_peak_memory_stats()
    for step in steps:
        for _ in range(2):
            step()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    return steps, peaks


def _measure_on_cpu(build) -> tuple[list[Callable], list[int]]:
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # that there is no GPU is no error
    with profile(profile_memory=True, use_kineto=True) as profiler:
        steps = build()
        for i, step in enumerate(steps):
            with record_function(f'step {i}'):
                for _ in range(2):
                    step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())['traceEvents']
    ends = {event['name']: event['ts'] + event['dur'] for event in events if 'dur' in event}
    allocated = [
        (event['ts'], event['args']['Total Allocated'])
        for event in events
        if event['name'] == '[memory]'
    ]
    peaks = [
        max((total for at, total in allocated if at <= ends[f'step {i}']), default=0)
        for i in range(len(steps))
    ]
    return steps, peaks
