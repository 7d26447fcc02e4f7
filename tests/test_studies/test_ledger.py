# Copyright (c) mmscale contributors.
import csv
import io
import json
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest

from mmscale.studies import ledger


@dataclass(frozen=True)
class Asked:
    name: str
    seed: int
    key: str


ORDER = [('b', 0), ('a', 0), ('b', 1), ('a', 1)]


def add(path: Path, entries: list[dict]) -> None:
    ledger.add(path, 'title', entries, ORDER, path.with_suffix('.lock'))


def test_no_file_is_an_empty_ledger_and_another_file_is_named(tmp_path):
    assert ledger.read(tmp_path / 'none.json') == []
    (tmp_path / 'other.json').write_text('[1]')
    with pytest.raises(ValueError, match=r'other\.json is no ledger'):
        ledger.read(tmp_path / 'other.json')


def test_entries_stand_in_the_order_of_the_study_and_replace_older_ones(tmp_path, make_entry):
    path = tmp_path / 'results' / 'small.json'
    for name, seed in (('a', 1), ('other', 3), ('b', 0), ('a', 0)):
        add(path, [make_entry(name, seed)])
    add(path, [{**make_entry('a', 1), 'key': 'new'}])
    found = ledger.read(path)
    assert [ledger.place(e) for e in found] == [('b', 0), ('a', 0), ('a', 1), ('other', 3)]
    assert found[2]['key'] == 'new'
    assert json.loads(path.read_text())['title'] == 'title'
    assert not list(path.parent.glob('*.part'))


def test_a_cell_is_done_changed_or_missing(make_entry):
    cells = [Asked('a', 0, 'a-0'), Asked('a', 1, 'other'), Asked('b', 0, 'b-0')]
    states = ledger.states(cells, [make_entry('a', 0), make_entry('a', 1)])
    assert states == dict(done=cells[:1], changed=cells[1:2], missing=cells[2:])


def test_the_csv_has_every_number_once(tmp_path, make_entry):
    one = make_entry('a', 0, test={'accuracy/top1': 97.5}, validation=dict(last=96.0, best=98.0))
    one['layers']['backbone']['mean'][1] = None
    add(tmp_path / 'small.json', [one])
    rows = list(csv.DictReader(io.StringIO((tmp_path / 'small.csv').read_text())))
    assert tuple(rows[0]) == ledger.COLUMNS
    values = {(r['layer'], r['part'], r['factor']): r['value'] for r in rows}
    assert len(values) == len(rows)
    assert values['', 'accuracy', '2.0'] == '80.0'
    assert values['backbone', 'network', '2.0'] == ''
    assert values['', 'test accuracy/top1', ''] == '97.5'
    assert values['', 'validation accuracy, best', ''] == '98.0'
    assert values['', 'parameters', ''] == '1000'


def _add_many(path: str, name: str, entries: list[dict]) -> None:
    for entry in entries:
        ledger.add(Path(path), 'title', [entry], ORDER, Path(path).with_suffix('.lock'))


def test_several_processes_lose_nothing(tmp_path, make_entry):
    path, context = tmp_path / 'small.json', get_context('fork')
    groups = [[make_entry(f'{name}{i}', 0) for i in range(15)] for name in 'abc']
    workers = [context.Process(target=_add_many, args=(str(path), '', group)) for group in groups]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(ledger.read(path)) == 45
