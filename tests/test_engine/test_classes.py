# Copyright (c) mmscale contributors.
from types import SimpleNamespace

import pytest

from mmscale.engine.classes import check_classes


def model(num_classes=3):
    return SimpleNamespace(head=SimpleNamespace(num_classes=num_classes))


def meta(*classes):
    return dict(classes=classes)


PETS = meta('cat', 'dog', 'ship')


@pytest.mark.parametrize(
    'metas',
    [
        dict(train=PETS, val=PETS),
        dict(train=None, val=PETS),
        dict(train={}, val=dict(classes=None)),
        dict(train=dict(classes=['cat', 'dog', 'ship']), val=PETS),
    ],
)
def test_the_same_or_unknown_classes_are_taken(metas):
    check_classes(model(), metas)


@pytest.mark.parametrize(
    ('metas', 'count', 'message'),
    [
        (dict(train=PETS, val=meta('cat', 'ship')), 3, "val have no 'dog', which train have"),
        (dict(train=meta('cat', 'ship'), val=PETS), 2, "train have no 'dog', which val have"),
        (dict(train=PETS, val=meta('cat', 'ship', 'dog')), 3,
         "number 1 is 'ship' in val, and 'dog' in train"),
        (dict(train=None, val=meta('cat', 'ship')), 3, "val have 2, the last 'ship'.* head has 3"),
    ],
)  # fmt: skip
def test_the_class_that_differs_is_named(metas, count, message):
    with pytest.raises(ValueError, match=f'^classes: .*{message}'):
        check_classes(model(count), metas)
