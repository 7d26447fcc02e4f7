# Copyright (c) mmscale contributors.
from types import SimpleNamespace

import pytest

from mmscale.engine.classes import check_classes

PETS = dict(classes=('cat', 'dog', 'ship'))
FEWER, TURNED = dict(classes=('cat', 'ship')), dict(classes=('cat', 'ship', 'dog'))


@pytest.mark.parametrize(
    ('train', 'val', 'count', 'message'),
    [
        (PETS, dict(classes=['cat', 'dog', 'ship']), 3, None),
        (None, PETS, 3, None),
        ({}, dict(classes=None), 3, None),
        (PETS, FEWER, 3, "val have no 'dog', which train have"),
        (FEWER, PETS, 2, "train have no 'dog', which val have"),
        (PETS, TURNED, 3, "number 1 is 'ship' in val, and 'dog' in train"),
        (None, FEWER, 3, "val have 2, the last 'ship'.* head has 3"),
    ],
)
def test_the_class_that_differs_is_named(train, val, count, message):
    model, metas = SimpleNamespace(head=SimpleNamespace(num_classes=count)), dict(train=train)
    metas['val'] = val
    if message is None:
        check_classes(model, metas)
    else:
        with pytest.raises(ValueError, match=f'^classes: .*{message}'):
            check_classes(model, metas)
