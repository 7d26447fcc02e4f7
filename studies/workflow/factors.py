# Copyright (c) mmscale contributors.
"""Make the runs of studies that vary one hyper-parameter at a time."""

from collections.abc import Callable, Iterable


def one_at_a_time(
    setting: dict, others: dict[str, list], models: Iterable[str], run_of: Callable[..., dict]
) -> dict[str, dict]:
    """Return the runs of a picture of the kind 'factors'.

    Args:
        setting (dict): The common value of each factor.
        others (dict): The other values of each factor.
        models (Iterable[str]): Names of the models.
        run_of (Callable): Takes a model and the values of all factors by name, and returns
            ``config`` and ``options``.
    """
    found = {model: dict(run_of(model, **setting), model=model, values=setting) for model in models}
    for factor, values in others.items():
        for value in values:
            for model in models:
                varied = run_of(model, **{**setting, factor: value})
                found[f'{model}, {factor} {value:g}'] = dict(
                    varied, model=model, factor=factor, value=value
                )
    return found
