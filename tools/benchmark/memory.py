# Copyright (c) mmscale contributors.
"""Peak memory of steps.

On a GPU it is what PyTorch has allocated at most. On a CPU it is how far the resident memory of
the process rises above what it was before anything was built: measure in a process of its own.
"""

import resource
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F


def build_and_measure(
    build: Callable[[], list[Callable]], device: str
) -> tuple[list[Callable], list[int]]:
    """Builds steps, and runs each of them twice.

    Args:
        build (Callable): Returns the steps, functions without arguments. On a CPU the peak of one
            is that of all before it, too: the one that needs least comes first.
        device (str): ``'cpu'`` or ``'cuda'``.

    Returns:
        tuple[list[Callable], list[int]]: The steps, and the bytes that each needs at most, with
        what was built.
    """
    load_libraries(device)
    before = torch.cuda.memory_allocated() if device == 'cuda' else resident_memory()[0]
    steps, peaks = build(), []
    for step in steps:
        if device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            step()
        peak = torch.cuda.max_memory_allocated() if device == 'cuda' else resident_memory()[1]
        peaks.append(peak - before)
    return steps, peaks


def load_libraries(device: str) -> None:
    """A tiny convolution, forward and backward: what PyTorch loads at the first is not counted."""
    weight = torch.ones(1, 1, 3, 3, device=device, requires_grad=True)
    F.conv2d(torch.ones(1, 1, 8, 8, device=device), weight).sum().backward()


def resident_memory() -> tuple[int, int]:
    """Bytes that this process holds, and has held at most.

    Linux' ``ru_maxrss`` begins at what the parent process held; its ``status`` file does not.
    """
    status = Path('/proc/self/status')
    if status.exists():
        fields = dict(line.split(':', 1) for line in status.read_text().splitlines())
        return tuple(1024 * int(fields[name].split()[0]) for name in ('VmRSS', 'VmHWM'))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak, peak
