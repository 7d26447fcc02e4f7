# Copyright (c) mmscale contributors.
"""Inside a network a signal has one form; outside, those that users know."""

import pytest
import torch
from networks import small_backbones
from torch import Tensor

from mmscale.models import DeformScaleConv, ScaleBN, ScaleConv, ScaleMaxPool2d
from mmscale.scale_space import Levels

BACKBONES = {name: net for name, net in small_backbones().items() if 'SO2' not in name}


@pytest.mark.parametrize('name', BACKBONES)
def test_layers_are_handed_levels_and_users_get_tensors(name, monkeypatch):
    seen = set()
    for kind in (ScaleConv, DeformScaleConv, ScaleBN, ScaleMaxPool2d):

        def forward(self, x, whole=kind.forward):
            seen.add(type(x))
            return whole(self, x)

        monkeypatch.setattr(kind, 'forward', forward)
    outputs = BACKBONES[name](torch.rand(2, 3, 64, 64))
    assert seen and all(issubclass(kind, Levels) for kind in seen)
    for signal in outputs:
        assert isinstance(signal, Tensor) or type(signal) is tuple
        assert all(isinstance(x, Tensor) for x in signal)
