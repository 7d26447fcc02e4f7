# Copyright (c) mmscale contributors.
"""Networks built without memory: shapes are known, and weights come later."""

import pytest
import torch
from networks import small_backbones

NAMES = list(small_backbones())


def leaves(outputs):
    return torch.utils._pytree.tree_leaves(outputs)


@pytest.mark.parametrize('name', NAMES)
def test_built_on_meta_it_becomes_the_same_network(name, nothing_kept):
    net, image = small_backbones()[name].eval(), torch.rand(2, 3, 64, 64)
    with torch.device('meta'):
        empty, assigned = (small_backbones()[name].eval() for _ in range(2))
    shapes = [level.shape for level in leaves(empty(image.to('meta')))]
    expected = leaves(net(image))
    assert shapes == [level.shape for level in expected]
    empty.to_empty(device='cpu')
    empty.load_state_dict(net.state_dict())
    assigned.load_state_dict(net.state_dict(), assign=True)
    for other in (empty, assigned):
        assert all(map(torch.equal, leaves(other(image)), expected))
