# Copyright (c) mmscale contributors.
import pytest


def entry(name: str, seed: int, accuracy=(90.0, 80.0), error=(0.0, 0.5), **more) -> dict:
    """An entry of a ledger, as a run leaves it."""
    count = [100] * len(accuracy)
    return dict(
        name=name,
        seed=seed,
        key=f'{name}-{seed}',
        config='configs/a.py',
        parameters=1_000,
        multiply_adds=2_000_000,
        training_seconds=60.0 + seed,
        factors=[1.0, 2.0],
        accuracy=dict(mean=list(accuracy), standard_error=[1.0, 1.0], n=count),
        layers=dict(
            backbone=dict(mean=list(error), standard_error=[0.0, 0.1], n=count, truncated=None)
        ),
        made=dict(
            device='cpu', threads=1, commit='abc', packages=dict(torch='2', numpy='2'), version='0'
        ),
        seconds=70.0,
        **more,
    )


@pytest.fixture
def make_entry():
    return entry
