# Copyright (c) mmscale contributors.
"""Classes are numbers to a network: all that names them must name the same ones, in one order."""

from collections.abc import Mapping

from mmpretrain.models import BaseRetriever
from torch import nn


def check_classes(model: nn.Module, metas: Mapping[str, Mapping | None]) -> None:
    """Checks that data, checkpoint and head have the same classes.

    Args:
        model (nn.Module): Whose head, if it is MMPretrain's, says how many there are.
        metas (Mapping): By what has them, ``metainfo`` of datasets or ``dataset_meta`` of a
            checkpoint, with or without the key ``classes``.

    Raises:
        ValueError: If they differ, with one line that names the first class that does.
    """
    if isinstance(model, BaseRetriever):  # may be tested on classes of its own
        return
    named = {who: list(meta['classes']) for who, meta in metas.items() if _has_classes(meta)}
    if not named:
        return
    first, expected = next(iter(named.items()))
    for who, classes in named.items():
        for this, mine, other, theirs in (
            (who, classes, first, expected),
            (first, expected, who, classes),
        ):
            for name in theirs:
                if name not in mine:
                    raise ValueError(f'classes: {this} have no {name!r}, which {other} have')
        for number, (name, before) in enumerate(zip(classes, expected)):
            if name != before:
                raise ValueError(
                    f'classes: number {number} is {name!r} in {who}, and {before!r} in {first}'
                )
    count = getattr(getattr(model, 'head', None), 'num_classes', None)
    if count not in (None, len(expected)):
        raise ValueError(
            f'classes: {first} have {len(expected)}, the last {expected[-1]!r}, and the head has '
            f'{count}: set model.head.num_classes, or metainfo.classes of the data'
        )


def _has_classes(meta: Mapping | None) -> bool:
    return bool(meta) and meta.get('classes') is not None and len(meta['classes']) > 0
