# Copyright (c) mmscale contributors.
"""Check that data, checkpoint and head name the same classes in the same order."""

from collections.abc import Mapping

from mmpretrain.models import BaseRetriever
from torch import nn


def check_classes(model: nn.Module, metas: Mapping[str, Mapping | None]) -> None:
    """Check that data, checkpoint and head have the same classes.

    Args:
        model (nn.Module): The model. A head of MMPretrain has the number of its classes.
        metas (Mapping): The ``metainfo`` of datasets or the ``dataset_meta`` of a checkpoint, by
            the words for its owner in an error. The key ``classes`` may be missing.

    Raises:
        ValueError: If the classes differ. The message names the first class that differs.
    """
    named = {who: list((meta or {}).get('classes') or ()) for who, meta in metas.items()}
    named = {who: classes for who, classes in named.items() if classes}
    if not named or isinstance(model, BaseRetriever):  # a retriever's test may have other classes
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
