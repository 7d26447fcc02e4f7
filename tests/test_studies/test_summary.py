# Copyright (c) mmscale contributors.
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmscale.studies import summary
from mmscale.studies.summary import Spread

values = st.floats(-1e3, 1e3)


@given(st.lists(st.lists(values, min_size=3, max_size=3), min_size=2, max_size=6))
def test_mean_and_deviation_are_those_of_the_textbook(rows):
    spread = Spread.of(rows)
    for place, column in enumerate(zip(*rows)):
        mean = math.fsum(column) / len(column)
        variance = math.fsum((x - mean) ** 2 for x in column) / (len(column) - 1)
        assert math.isclose(spread.mean[place], mean, abs_tol=1e-9)
        assert math.isclose(spread.deviation[place], math.sqrt(variance), abs_tol=1e-9)
        assert math.isclose(spread.error[place], math.sqrt(variance / len(rows)), abs_tol=1e-9)


def test_one_seed_has_no_deviation_and_no_number_stays_none():
    spread = Spread.of([[1.0, None]])
    assert spread.mean[0] == 1 and math.isnan(spread.mean[1])
    assert np.isnan(spread.deviation).all()


def test_what_was_not_measured_of_all_is_none(make_entry):
    entries = [make_entry('a', 0), make_entry('a', 1, accuracy=(92.0, 70.0))]
    assert summary.accuracy_over_scale(entries).mean.tolist() == [91, 75]
    assert summary.error_over_scale(entries, 'backbone').mean.tolist() == [0, 0.5]
    assert summary.error_over_scale(entries, 'neck') is None
    assert summary.test_error(entries) is None
    tested = [make_entry('a', seed, test={'accuracy/top1': 97.0 + seed}) for seed in range(2)]
    assert summary.test_error(tested).mean == 2.5


def test_differences_are_taken_seed_by_seed(make_entry):
    first = [make_entry('a', 0, (90, 80)), make_entry('a', 1, (50, 40))]
    second = [make_entry('b', 1, (51, 42)), make_entry('b', 0, (91, 82)), make_entry('b', 7)]
    found = summary.difference(first, second, lambda entry: entry['accuracy']['mean'])
    # Seeds differ by forty points; two runs of one seed by one and two.
    assert found.mean.tolist() == [1, 2]
    assert found.error.tolist() == [0, 0]
    assert summary.difference(first, [make_entry('b', 5)], lambda entry: 0.0) is None
