# Copyright (c) mmscale contributors.
"""Times of several candidates, taken in turn, and the ratios between them."""

import statistics
import sys
import time
from collections.abc import Callable

import torch


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def time_in_turn(
    candidates: dict[str, Callable[[], object]],
    device: str = 'cpu',
    seconds: float = 10.0,
    rounds: tuple[int, int] = (5, 30),
    warm_up: int = 2,
    calls: int = 1,
) -> dict[str, list[float]]:
    """Times every candidate once a round, so that what slows the machine slows all of them.

    Every second round goes backwards: then none is always the one that follows a certain other.

    Args:
        candidates (dict[str, Callable]): Functions without arguments, by name.
        device (str): ``'cuda'`` waits for the GPU before and after each measurement.
        seconds (float): No round begins after this time, once there are enough of them.
        rounds (tuple[int, int]): The least and the greatest number of rounds.
        warm_up (int): Rounds before them that are not timed.
        calls (int): Calls in one measurement.

    Returns:
        dict[str, list[float]]: Seconds of one call, an entry a round.

    Raises:
        ValueError: If there is no candidate, or a number is out of range.
    """
    fewest, most = rounds
    if not candidates:
        raise ValueError('candidates must name at least one function, got none')
    if not 1 <= fewest <= most:
        raise ValueError(f'rounds must be (fewest, most) with 1 <= fewest <= most, got {rounds}')
    if warm_up < 0 or calls < 1:
        raise ValueError(f'warm_up must be at least 0 and calls 1, got {warm_up} and {calls}')
    synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None
    names = list(candidates)
    for _ in range(warm_up):
        for name in names:
            candidates[name]()
    times = {name: [] for name in names}
    end = time.perf_counter() + seconds
    for i in range(most):
        if i >= fewest and time.perf_counter() > end:
            break
        for name in names if i % 2 == 0 else reversed(names):
            synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                candidates[name]()
            synchronize()
            times[name].append((time.perf_counter() - start) / calls)
    return times


def ratio(values: list[float], references: list[float]) -> dict:
    """Median and quartiles of ``values[i] / references[i]``, a ratio a round.

    Raises:
        ValueError: If the two differ in length or are empty.
    """
    if not values or len(values) != len(references):
        raise ValueError(
            f'values and references must be equally many and at least one, got {len(values)} and '
            f'{len(references)}'
        )
    ratios = [value / reference for value, reference in zip(values, references)]
    if len(ratios) == 1:
        return dict(median=ratios[0], quartiles=None, rounds=1)
    lower, median, upper = statistics.quantiles(ratios, n=4, method='inclusive')
    return dict(median=median, quartiles=[lower, upper], rounds=len(ratios))
