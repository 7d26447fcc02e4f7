# Copyright (c) mmscale contributors.
"""On a GPU: its tests, ratios to ResNet-50, and the costliest kernels, in 8 minutes."""

import os
import subprocess
import sys
import time

import cases
import workers
from run import measure, options, parse, progress


def run_tests(run: dict, seconds: float):
    """Notes what ``tests/test_cuda.py`` ends with."""
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'tests/test_cuda.py']
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(workers.ROOT), *sys.path])}
    try:
        done = subprocess.run(command, cwd=workers.ROOT, env=env, timeout=seconds, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        progress(done.stdout)
        result, run['failed'] = done.stdout.strip().splitlines()[-1], done.returncode != 0
    except subprocess.TimeoutExpired:
        result, run['failed'] = f'not done in {seconds:.0f} s', True
    run['notes'].append(f'`tests/test_cuda.py`: {result}')


def main():
    parser = options(__doc__, cases.gpu_groups())
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda')
    parser.add_argument('--no-tests', action='store_true', help='leave tests/test_cuda.py out')
    parser.set_defaults(minutes=7.5)
    args, run = parse(parser)
    if not args.no_tests:
        run_tests(run, min(150, max(1, args.deadline - time.monotonic())))
    groups = cases.gpu_groups()
    if args.device == 'cpu':
        run['notes'].append('CUDA graphs are left out: there are none on a CPU')
        groups = [group for group in groups if group.name != 'CUDA graph']
    measure(groups, args, 'gpu', run)
    sys.exit(run['failed'])


if __name__ == '__main__':
    main()
