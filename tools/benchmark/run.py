# Copyright (c) mmscale contributors.
"""Time, memory and cost of the host against ordinary networks, or against another checkout."""

import argparse
import math
import multiprocessing
import os
import re
import shlex
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, TimeoutError
from functools import cache, partial
from pathlib import Path

import cases
import report
import torch
import workers

LEAST_SECONDS = 0.05  # of one measurement: what is shorter is called several times
# Below that the system reads programs from the disk again and again, and that is what is timed.
LEAST_MEMORY = 512 * 2**20


def progress(text: str):
    print(text, file=sys.stderr, flush=True)


def options(description: str, groups: list[cases.Group]) -> argparse.ArgumentParser:
    """What all benchmarks are told."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    add, names = parser.add_argument, list(dict.fromkeys(group.name for group in groups))
    add('--quick', action='store_true', help='tiny sizes: shows that it works, judges no target')
    add('--out', type=Path, default=Path('work_dirs/benchmark'), help='folder of the results')
    add('--only', nargs='+', choices=names, metavar='GROUP', help=f'some of {", ".join(names)}')
    add('--against', type=Path, metavar='CHECKOUT',
        help='measure each case in turn with itself in another checkout of mmscale')  # fmt: skip
    add('--system-allocator', dest='keep_blocks', action='store_false',
        help='leave the C library its own ways of allocating')  # fmt: skip
    add('--minutes', type=float, default=math.inf,
        help='what cannot be measured in this time is left out')  # fmt: skip
    return parser


def parse(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict]:
    """The options, checked, and what the report is to say beside the rows."""
    args = parser.parse_args()
    args.deadline = time.monotonic() + 60 * args.minutes
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch finds no GPU')
    if args.out.exists() and not args.out.is_dir():
        parser.error(f'--out: {args.out} is a file, not a folder')
    if args.against and not (args.against / 'mmscale').is_dir():
        parser.error(f'--against: {args.against} is no checkout of mmscale')
    command = shlex.join(['python', *sys.argv])
    return args, dict(command=command, machine='', notes=[], profiles={}, failed=False)


def time_in_turn(
    ask: dict[str, Callable], once: dict[str, float], seconds: float, rounds: tuple[int, int]
) -> dict[str, list[float]]:
    """Seconds of a call, an entry a round: what slows the machine for a while slows all of them.

    Every second round goes backwards: then none is always the one that follows a certain other.

    Args:
        ask (dict[str, Callable]): Functions of a number of calls: seconds of a call.
        once (dict[str, float]): About how many they are.
        seconds (float): No round begins after this time, once there are enough of them.
        rounds (tuple[int, int]): The least and the greatest number of rounds.
    """
    calls = {name: max(1, math.ceil(LEAST_SECONDS / once[name])) for name in ask}
    times = {name: [] for name in ask}
    end = time.perf_counter() + seconds
    for i in range(rounds[1]):
        if i >= rounds[0] and time.perf_counter() > end:
            break
        for name in ask if i % 2 == 0 else reversed(ask):
            times[name].append(ask[name](calls[name]))
    return times


def available_memory() -> int:
    """Bytes that programs can still take, as Linux counts them; without end elsewhere."""
    info = Path('/proc/meminfo')
    text = info.read_text(encoding='utf-8') if info.is_file() else ''
    found = re.search(r'MemAvailable: +(\d+) kB', text)
    return int(found[1]) * 1024 if found else sys.maxsize


class Session:
    """The processes of one group; ``run`` is told of what machine they are and which failed."""

    def __init__(self, group: cases.Group, args: argparse.Namespace, run: dict):
        self.group, self.args, self.run = group, args, run
        self.pools = {}  # of one process, by subject

    def start(self):
        """One process a subject, or one for all of a checkout."""
        told, memory = {}, any(row.quantity.startswith('memory') for row in self.group.rows)
        pool = cache(lambda key: ProcessPoolExecutor(1, multiprocessing.get_context('spawn')))
        for name, subject in self.group.subjects.items():
            folder = str(self.args.against.resolve() if subject.checkout else workers.ROOT)
            self.pools[name] = pool(folder if self.group.shared else name)
            told[name] = subject, memory, folder, self.args.device, self.args.keep_blocks
        for said in self.ask(workers.build, told, self.args.device == 'cuda').values():
            self.run['machine'] = said

    def wait(self, future: Future):
        """An answer; ``TimeoutError`` if there is none by the deadline."""
        seconds = max(0, self.args.deadline - time.monotonic())
        found = future.result(seconds if seconds < math.inf else None)
        if (left := available_memory()) < LEAST_MEMORY:
            sys.exit(
                f'error: only {left // 2**20} MiB of memory are left beside what is compared, at '
                f'least {LEAST_MEMORY // 2**20} are needed to time it: end what else is running'
            )
        return found

    def ask(self, function: Callable, told: dict[str, tuple], at_once: bool = False) -> dict:
        """Answers by name, asked for in turn or at once; what fails is left out from then on."""
        found, names = {}, [name for name in told if name in self.pools]
        for turn in [names] if at_once else [[name] for name in names]:
            futures = {name: self.pools[name].submit(function, name, *told[name]) for name in turn}
            for name, future in futures.items():
                try:
                    found[name] = self.wait(future)
                except TimeoutError:
                    raise
                except Exception as error:
                    note(self.run, f'{self.group.title}: {name}', error)
                    failed = self.pools[name]
                    self.pools = {n: pool for n, pool in self.pools.items() if pool is not failed}
        return found

    def times(self, names, mode: str) -> dict[str, list[float]]:
        together, told = self.group.together, dict.fromkeys(names, ('time', mode))
        once = self.ask(workers.answer, told, together)
        once |= self.ask(workers.answer, {name: told[name] for name in once if once[name] < 1})

        def seconds(name: str, calls: int) -> float:
            return self.wait(self.pools[name].submit(workers.answer, name, 'time', mode, calls))

        ask = {name: partial(seconds, name) for name in once if name in self.pools}
        return time_in_turn(ask, once, self.group.seconds, self.group.rounds)

    def rows(self) -> Iterator[dict]:
        """What :func:`report.compare` makes of all that is measured."""
        self.start()
        group = self.group
        forward = 'forward' if 'forward' in group.rows[0].quantity else 'inference'
        counted = dict.fromkeys(group.subjects if group.work else (), ('multiply-adds', forward))
        work = self.ask(workers.answer, counted)
        for quantity in dict.fromkeys(row.quantity for row in group.rows):
            what, mode = quantity.split(' of ')
            rows = [row for row in group.rows if row.quantity == quantity]
            names = dict.fromkeys(n for row in rows for n in (row.measured, *row.references))
            if what == 'time':
                values = self.times(names, mode)
            else:
                answers = self.ask(workers.answer, dict.fromkeys(names, (what, mode)))
                values = {name: [answer] for name, answer in answers.items()}
            if what == 'kernels':
                for name, (text,) in values.items():
                    self.run['profiles'][f'{group.title}: {name}, {mode}'] = text
                continue
            for row in rows:
                there = [name for name in row.references if name in values]
                if row.measured in values and there:
                    against = min(there, key=lambda name: statistics.median(values[name]))  # noqa: B023
                    pair = values[row.measured], values[against]
                    ratio = work[row.measured] / work[against] if what == 'time' and work else None
                    yield report.compare(group.title, row, against, *pair, ratio)

    def end(self):
        for process in multiprocessing.active_children():
            process.terminate()
            process.join()


def note(run: dict, what: str, error: Exception):
    """Has the report say what is left out; a library that is not installed is no failure."""
    progress(f'{what}: {error.__cause__ or error}')  # the cause is a traceback of the process
    run['failed'] |= not isinstance(error, ImportError)
    text = f'{what} is left out: {type(error).__name__}: {error}'.splitlines()[0]
    run['notes'] = list(dict.fromkeys([*run['notes'], text]))


def measure(groups: list[cases.Group], args: argparse.Namespace, name: str, run: dict):
    """Measures groups in their order, writes all rows after each of them, and shows them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # no process is left behind
    os.environ['KINETO_LOG_LEVEL'] = '99'  # that there is no GPU is no error
    if args.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    groups = [group for group in groups if not args.only or group.name in args.only]
    groups = cases.paired(groups) if args.against else groups
    if args.quick:
        groups = [cases.shrunk(group) for group in groups]
        run['notes'].append('--quick: sizes are smaller than the titles say; nothing is judged')
    rows = []
    for i, group in enumerate(groups):
        progress(f'{i + 1} of {len(groups)}: {group.title}: {", ".join(group.subjects)}')
        session = Session(group, args, run)
        try:
            if time.monotonic() > args.deadline:
                raise TimeoutError
            for row in session.rows():
                rows.append(row)  # one by one: time may be over before the next
        except TimeoutError:
            left = dict.fromkeys(group.title for group in groups[i:])
            run['notes'].append(f'time was over before the end of: {"; ".join(left)}')
            break
        except RuntimeError as error:
            note(run, group.title, error)
        finally:
            session.end()
            report.write(args.out, name, run, rows)
    print(report.to_markdown(run, rows), end='')
    missed = ['{measured} / {against}, {quantity}'.format(**r) for r in rows if r['held'] is False]
    progress(f'targets missed: {"; ".join(missed) or "none"}')
    progress(f'results: {(args.out / name).resolve()}.md and .csv')


def main():
    parser = options(__doc__, cases.cpu_groups())
    parser.set_defaults(device='cpu')
    args, run = parse(parser)
    measure(cases.cpu_groups(), args, 'against' if args.against else 'benchmark', run)
    sys.exit(run['failed'])


if __name__ == '__main__':
    main()
