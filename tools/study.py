# Copyright (c) mmscale contributors.
"""Runs a study: many configs and seeds, each trained and measured by the ordinary tools.

``python tools/study.py studies/models_scalemnist.py``

What was run is in the ledger ``studies/results/<study>.json`` and ``.csv``, tables and pictures of
it are beside it. Run again, at any time, from any number of machines that share the folder, the
study goes on where it is: only what has not been run, or depends on something that has changed, is
run. ``--dry-run`` says what would be, and how long it would take; ``--draw`` runs nothing.
"""

import argparse
import gc
import os
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

import torch
from mmengine.logging import MMLogger

import mmscale  # noqa: F401  (checks the environment and registers everything)
from mmscale.engine.errors import one_line_errors
from mmscale.studies import ledger, pictures
from mmscale.studies.cells import check_runs, make_cells, read_study
from mmscale.studies.processes import Progress, cores, gpu_of, in_words
from mmscale.studies.queue import TrialState, claimed, enqueue, open_queue, take
from mmscale.studies.runs import device_name, expected_seconds, load_config, run_cell

ROOT = Path(__file__).resolve().parents[1]
# Seconds between two looks at what others run.
POLL = 5.0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, default = parser.add_argument, '; default: %(default)s'
    add('study', type=Path, help='file of the study, such as studies/models_scalemnist.py')
    add('--only', nargs='+', metavar='RUN', default=[], help='names of runs; default: all')
    add('--dry-run', action='store_true', help='say what would run and how long')
    add('--draw', action='store_true', help='run nothing: tables and pictures of the ledger alone')
    add('--keep', action='store_true',
        help='leave cells as they are that were run with other code, config or data')  # fmt: skip
    add('--jobs', type=int, metavar='N',
        help='runs at a time; default: as many as there are GPUs, or else CPU cores')  # fmt: skip
    add('--work-dir', type=Path, default=Path('work_dirs/studies'),
        help='folder of logs and checkpoints, shared by all machines' + default)  # fmt: skip
    add('--out', type=Path, default=ROOT / 'studies' / 'results', help='folder of the ledger')
    add(
        '--storage',
        metavar='URL',
        help='database of Optuna, for many machines; default: a file in the work directory',
    )
    return parser.parse_args()


def plan(cells: list, entries: list[dict]) -> dict[str, float]:
    """Expected seconds of each cell by its key: those of another seed, or else measured.

    Args:
        cells (list[Cell]): That are to run.
        entries (list[dict]): Of the ledger, without those of cells that have changed since: how
            these run now, and whether they can be run, is to be seen.
    """
    torch.set_num_threads(1)
    MMLogger.get_instance('study', log_level='ERROR')  # how each weight is initialised
    here = [entry for entry in entries if entry.get('made', {}).get('device') == device_name()]
    # Of a training that was interrupted, `seconds` are those of its last part alone.
    known = {
        entry['name']: max(entry['seconds'], entry['training_seconds'] or 0)
        for entry in here
        if 'seconds' in entry
    }
    for number, name in enumerate(dict.fromkeys(cell.name for cell in cells), 1):
        if name not in known:
            print(f'timing training steps: {number} {name}', file=sys.stderr, flush=True)
            first = next(cell for cell in cells if cell.name == name)
            try:
                known[name] = expected_seconds(first, ROOT)
            except Exception as error:  # known before the first of all runs has been trained
                text = f'study: runs[{name!r}] cannot be trained and measured: {error}'
                raise ValueError(text) from error
    gc.collect()
    torch.cuda.empty_cache()  # for the trainings, which are processes of their own
    return {cell.key: known[cell.name] for cell in cells}


class Workers:
    """Run what waits, so many cells at a time."""

    def __init__(self, args, study, todo: list, cells: list, seconds: dict, jobs: int):
        self.study, self.todo, self.jobs = study, todo, jobs
        self.cells = {cell.key: cell for cell in todo}
        self.order = [(cell.name, cell.seed) for cell in cells]
        self.seconds = seconds
        self.progress = Progress(sum(seconds.values()), at_once=min(jobs, max(1, len(todo))))
        self.ended, self.failed, self.stop = set(), [], Event()
        self.folder = args.work_dir / args.study.stem
        self.ledger = args.out / f'{args.study.stem}.json'
        storage = args.storage or f'sqlite:///{self.folder / "optuna.db"}'
        self.folder.mkdir(parents=True, exist_ok=True)
        self.queue = open_queue(args.study.stem, storage)

    def run(self) -> None:
        """Runs all, and waits for what others run: other machines, or tools of a killed study."""
        todo = self.todo
        while todo:
            enqueue(self.queue, todo, self.folder)
            with ThreadPoolExecutor(self.jobs) as pool:
                tasks = [pool.submit(self.work, number) for number in range(self.jobs)]
                try:
                    while tasks:  # an interrupt that another thread received is seen every second
                        done, tasks = wait(tasks, timeout=1)
                        for task in done:
                            task.result()
                except BaseException:
                    self.stop.set()
                    raise
            todo = [c for c in self.todo if c.key not in self.ended and not self.is_done(c)]
            if todo:
                self.progress.advance(0, f'waiting for {len(todo)} runs of other processes')
                time.sleep(POLL)

    def is_done(self, cell) -> bool:
        return bool(ledger.states([cell], ledger.read(self.ledger))['done'])

    def work(self, number: int) -> None:
        # As many whatever is left to run: sums over other threads round otherwise, and a cell that
        # is run again alone would give other numbers.
        threads = max(1, cores() // self.jobs)
        env = dict(OMP_NUM_THREADS=str(threads))
        if torch.cuda.is_available():
            visible = os.environ.get('CUDA_VISIBLE_DEVICES')
            env['CUDA_VISIBLE_DEVICES'] = gpu_of(number, torch.cuda.device_count(), visible)
        while not self.stop.is_set() and (trial := take(self.queue, self.cells)):
            cell = self.cells[trial.user_attrs['cell']]
            with claimed(self.folder / cell.slug) as lock:
                # Who runs it, or has run it, took it from the queue before it waited there again.
                if lock is None or self.is_done(cell):
                    self.queue.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
                else:
                    self.run_one(trial, cell, env, lock)

    def run_one(self, trial, cell, env: dict, lock: int) -> None:
        start, expected = time.perf_counter(), self.seconds.get(cell.key, 0.0)
        epochs = load_config(cell, ROOT).train_cfg.max_epochs
        advanced = 0.0

        def on_epoch(epoch: int, loss: str) -> None:
            nonlocal advanced
            part = 0.9 * expected * epoch / epochs - advanced
            advanced += part
            text = f'{cell.name}, seed {cell.seed}: epoch {epoch}/{epochs}, loss {loss}'
            self.progress.advance(part, text)

        try:
            self.ended.add(cell.key)
            entry = run_cell(cell, self.folder / cell.slug, ROOT, env, on_epoch, (lock,))
        except Exception as error:  # the other cells are to run all the same
            self.queue.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            self.failed.append((cell, str(error)))
            if not isinstance(error, RuntimeError):
                (self.folder / cell.slug / 'traceback.txt').write_text(traceback.format_exc())
            self.progress.advance(expected - advanced, f'{cell.name}, seed {cell.seed}: FAILED')
            return
        entry['seconds'] = round(time.perf_counter() - start, 1)
        ledger.add(self.ledger, self.study.title, [entry], self.order, self.folder / 'ledger.lock')
        self.queue.tell(trial, pictures.accuracy(entry), skip_if_finished=True)
        text = f'{cell.name}, seed {cell.seed}: {pictures.in_short(entry)}'
        self.progress.advance(expected - advanced, text)


@one_line_errors()
def main():
    args = parse_args()
    for flag, folder in {'--out': args.out, '--work-dir': args.work_dir}.items():
        for part in (folder, *folder.parents):
            if part.is_file():
                raise ValueError(f'{flag}: {part} is a file, and must be a folder')
    args.study, args.out, args.work_dir = (
        path.resolve() for path in (args.study, args.out, args.work_dir)
    )
    os.chdir(ROOT)  # where the tools run, and find the data that are digested here
    study = read_study(args.study, ROOT)
    pictures.check_pictures(study)
    path = args.out / f'{args.study.stem}.json'
    if args.draw:
        return pictures.write(study, ledger.read(path), args.out, args.study.stem)
    jobs = torch.cuda.device_count() or cores() if args.jobs is None else args.jobs
    if jobs < 1:
        raise ValueError(f'--jobs: must be at least 1, got {jobs}')
    check_runs(study, args.only)
    cells = make_cells(study, ROOT)
    chosen = [cell for cell in cells if not args.only or cell.name in args.only]
    found = ledger.states(chosen, ledger.read(path))
    todo = [*found['missing'], *([] if args.keep else found['changed'])]
    todo.sort(key=cells.index)
    keys = {cell.key for cell in cells}
    seconds = plan(todo, [entry for entry in ledger.read(path) if entry['key'] in keys])
    print(f'{study.title}: {len(found["done"])} of {sum(map(len, found.values()))} runs are done, '
          f'{len(found["changed"])} have changed, {len(found["missing"])} are missing')  # fmt: skip
    for cell in todo:
        print(f'  {in_words(seconds[cell.key]):>8}  {cell.name}, seed {cell.seed}')
    total = sum(seconds.values())
    print(f'{in_words(total)} of work, about {in_words(total / jobs)} with {jobs} at a time')
    if args.dry_run:
        return
    workers = Workers(args, study, todo, cells, seconds, jobs)
    workers.run()
    pictures.write(study, ledger.read(path), args.out, args.study.stem)
    for cell, text in workers.failed:
        print(f'\nfailed: {cell.name}, seed {cell.seed}: {text}')
    if workers.failed:
        sys.exit(f'error: {len(workers.failed)} runs have failed; run again to retry')


if __name__ == '__main__':
    main()
