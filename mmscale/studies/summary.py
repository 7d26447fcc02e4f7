# Copyright (c) mmscale contributors.
"""Means over seeds of what a ledger holds."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from mmengine.config import Config

from mmscale.evaluation.accuracy import MAIN_METRICS
from mmscale.evaluation.equivariance import FACTORS
from mmscale.evaluation.report import metric_name


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds; entries of no number are nan.

    Attributes:
        mean (np.ndarray): One value a factor, or one for all.
        deviation (np.ndarray): With Bessel's correction; nan for a single seed.
        count (int): Seeds.
    """

    mean: np.ndarray
    deviation: np.ndarray
    count: int

    @classmethod
    def of(cls, values: Iterable) -> 'Spread':
        """Over the first axis of numbers, or of lists with a number or None a factor."""
        rows = np.array([np.array(row, dtype=float) for row in values])
        deviation = rows.std(0, ddof=1) if len(rows) > 1 else np.full_like(rows[0], math.nan)
        return cls(rows.mean(0), deviation, len(rows))

    @property
    def error(self) -> np.ndarray:
        """Standard error of the mean."""
        return self.deviation / math.sqrt(self.count)


def by_run(entries: list[dict]) -> dict[str, list[dict]]:
    """The entries of each run, in the order of the ledger."""
    found = {}
    for entry in entries:
        found.setdefault(entry['name'], []).append(entry)
    return found


def runs_of(study: Config, entries: list[dict]) -> dict[str, list[dict]]:
    """The entries of each run of a study, without those measured at other factors than it asks for.

    A ledger has such entries from the time before they were changed.
    """
    if study.get('equivariance'):
        asked = study.equivariance.get('factors', FACTORS)
        factors = [float(s) for s in (asked if isinstance(asked, list | tuple) else [asked])]
        entries = [entry for entry in entries if entry.get('factors', factors) == factors]
    return {run: found for run, found in by_run(entries).items() if run in study.runs}


def accuracy_over_scale(entries: list[dict]) -> Spread | None:
    """Of the entries of one run, its :func:`metric_over_scale`; None where it was not measured."""
    if all(entry.get('accuracy') for entry in entries):
        return Spread.of(entry['accuracy']['mean'] for entry in entries)
    return None


def error_over_scale(entries: list[dict], layer: str) -> Spread | None:
    """Equivariance error of a layer; None where it was not measured."""
    if all(layer in entry.get('layers', {}) for entry in entries):
        return Spread.of(entry['layers'][layer]['mean'] for entry in entries)
    return None


def main_metric(names: Iterable[str]) -> str | None:
    """Of the names of metrics that by which a task is known; None if there is none."""
    names, ends = list(names), ('accuracy/top1', *MAIN_METRICS)
    return next((name for end in ends for name in names if name.endswith(end)), None)


def metric_over_scale(entries: list[dict]) -> str:
    """What is measured over scale of a classifier, a detector or a segmentor."""
    return metric_name(next((e['accuracy'] for e in entries if e.get('accuracy')), {}))


def tested(entries: list[dict], test: str, metric: str) -> Spread | None:
    """What one of the tests of a run gives; None where it was not run.

    Nan where the evaluator had no such figure: it has none of a detector that finds nothing.
    """
    if all(test in entry.get('tests', {}) for entry in entries):
        return Spread.of(entry['tests'][test].get(metric, math.nan) for entry in entries)
    return None


def test_error(entries: list[dict]) -> Spread | None:
    """Percent of the test images that are not recognised; None where no classifier was tested."""
    found = [(entry.get('test') or {}).get('accuracy/top1') for entry in entries]
    return None if None in found else Spread.of(100 - value for value in found)


def devices(entries: list[dict]) -> list[str]:
    """Where they were run."""
    return sorted({entry['made']['device'] for entry in entries if 'made' in entry})


def training_minutes(entries: list[dict], device: str) -> Spread | None:
    """Of the entries that were run on a device; None where there is none."""
    seconds = [
        entry['training_seconds']
        for entry in entries
        if entry.get('made', {}).get('device') == device and entry['training_seconds']
    ]
    return Spread.of(value / 60 for value in seconds) if seconds else None


def factors(entries: list[dict]) -> list[float]:
    """The scale factors, which all entries of :func:`runs_of` share."""
    return next((entry['factors'] for entry in entries if 'factors' in entry), [])


def layers(entries: list[dict]) -> list[str]:
    """The layers whose error was measured."""
    return list(dict.fromkeys(layer for entry in entries for layer in entry.get('layers', {})))


def difference(first: list[dict], second: list[dict], value) -> Spread | None:
    """Of the second run to the first, seed by seed.

    Args:
        first, second (list[dict]): Entries of two runs.
        value (Callable): Gives the number, or the list of numbers, of an entry.
    """
    known = {entry['seed']: entry for entry in first}
    pairs = [(known[entry['seed']], entry) for entry in second if entry['seed'] in known]
    if not pairs:
        return None
    return Spread.of(np.subtract(value(b), value(a)) for a, b in pairs)
