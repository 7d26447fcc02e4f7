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
    named = {who: list((meta or {}).get('classes') or ()) for who, meta in metas.items()}
    named = {who: classes for who, classes in named.items() if classes}
    if not named or isinstance(model, BaseRetriever):  # which may be tested on classes of its own
        return
    first, expected = next(iter(named.items()))
    for who, classes in named.items():
        for name in expected + classes:
            for this, other in ((who, first), (first, who)):
                if name not in named[this]:
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
