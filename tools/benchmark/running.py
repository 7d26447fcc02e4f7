# Copyright (c) mmscale contributors.
"""What all benchmarks do: command line, machine, and results written part by part."""

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mmcv
import mmpretrain
import torch
from mmengine.logging import MMLogger
from results import to_markdown, write_results
from timing import progress

import mmscale
from mmscale.engine.errors import one_line_errors


def parse_args(description: str) -> argparse.Namespace:
    """Options that all benchmarks share; sets the number of CPU threads."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        '--quick', action='store_true', help='tiny sizes: shows that it works, judges no target'
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmark'))
    parser.add_argument('--threads', type=int, help="CPU threads; default: PyTorch's")
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument(
        '--data',
        type=Path,
        help='for the data loading: folder of mnist/ and of cifar10/cifar-10-batches-py/, whose '
        'pickles you trust; default: random images in files of the same formats',
    )
    args = parser.parse_args()
    if args.threads is not None and args.threads < 1:
        parser.error(f'--threads must be at least 1, got {args.threads}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch finds no GPU')
    if args.data is not None and not args.data.is_dir():
        parser.error(f'--data: there is no folder {args.data}')
    if args.out.exists() and not args.out.is_dir():
        parser.error(f'--out: {args.out} is a file, not a folder')
    torch.set_num_threads(args.threads or torch.get_num_threads())
    return args


def describe_run(device: str) -> dict:
    """Machine, versions, command, and the environment of the memory allocator."""
    return dict(
        command=shlex.join(['python', *sys.argv]),
        device=device,
        gpu=torch.cuda.get_device_name() if device == 'cuda' else None,
        cpu=cpu_name(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        mmcv=mmcv.__version__,
        mmpretrain=mmpretrain.__version__,
        mmscale=mmscale.__version__,
        allocator={name: os.environ[name] for name in sorted(os.environ) if is_allocators(name)},
    )


def is_allocators(variable: str) -> bool:
    """Whether an environment variable sets how memory is allocated, which costs time on a CPU."""
    return variable.startswith('MALLOC_') or variable in (
        'GLIBC_TUNABLES',
        'LD_PRELOAD',
        'PYTORCH_CUDA_ALLOC_CONF',
        'THP_MEM_ALLOC_ENABLE',
    )


def cpu_name() -> str:
    """The processor's own name where Linux tells it, otherwise its architecture."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


@one_line_errors()
def run_sections(args: argparse.Namespace, sections: dict[str, Callable], name: str) -> list[dict]:
    """Runs the parts of a benchmark, and writes all results after each of them.

    Args:
        args (argparse.Namespace): What :func:`parse_args` returned.
        sections (dict[str, Callable]): Functions of ``args`` that return rows, by name.
        name (str): Name of the files in ``args.out``, without their endings.

    Returns:
        list[dict]: All rows.
    """
    MMLogger.get_instance('benchmark', log_level='ERROR')  # how each weight is initialised
    run = dict(describe_run(args.device), quick=args.quick, seconds={})
    rows = []
    for section, measure in sections.items():
        start = time.perf_counter()
        rows += measure(args)
        run['seconds'][section] = round(time.perf_counter() - start, 1)
        write_results(run, rows, args.out, name)
        progress(f'{section}: {run["seconds"][section]} s')
    print(to_markdown(run, rows))
    progress(f'results: {(args.out / name).resolve()}.json, .md and .png')
    return rows
