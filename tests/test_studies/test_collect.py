# Copyright (c) mmscale contributors.
import csv

from collect import collect

from .test_cells import study_of, write


def test_new_lines_of_a_cell_take_the_place_of_its_former_ones(tmp_path):
    study = study_of(tmp_path)
    cells = [dict(cell=name, seed=seed) for seed in (1, 0) for name in ('gone', 'a')]
    path = write(tmp_path / 'all.csv', *cells)
    new = write(tmp_path / 'new.csv', *[dict(cells[3], value='0.30000000000000004')] * 2)
    collect(study, path, [new, tmp_path / 'absent.csv'])
    with path.open() as file:
        found = [(row['cell'], row['seed'], row['value']) for row in csv.DictReader(file)]
    assert found[:3] == [('a', '0', '0.30000000000000004')] * 2 + [('a', '1', '0.1')]
    assert sorted(found[3:]) == [('gone', '0', '0.1'), ('gone', '1', '0.1')]
    before = path.read_bytes()
    collect(study, path, [new])
    assert path.read_bytes() == before
