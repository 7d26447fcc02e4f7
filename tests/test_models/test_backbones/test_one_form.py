# Copyright (c) mmscale contributors.
"""Inside a network signals have one form, and a forward pass makes few calls."""

import cProfile
import inspect
import pstats
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch.utils._python_dispatch import TorchDispatchMode

import mmscale
from mmscale.models import ScaleResNet

ROOT = Path(mmscale.__file__).parent
SLIM = dict(depth=50, base_channels=8, stem_channels=8)
PYRAMID = dict(type='mmscale.GaussianPyramidLift')
BLUR = dict(aa_layer=dict(type='mmscale.ScaleBlurPool2d', kernel_size=5))


def test_a_convolution_is_reached_in_ten_steps(monkeypatch):
    """The operators that docs/forward_pass.md lists."""
    walks, conv2d = [], F.conv2d

    def spy(*args, **kwargs):
        frames = [frame for frame in inspect.stack() if Path(frame.filename).is_relative_to(ROOT)]
        walks.append([frame.function for frame in frames[::-1]])
        return conv2d(*args, **kwargs)

    monkeypatch.setattr(F, 'conv2d', spy)
    net = ScaleResNet(scale_space=dict(num_scales=3), lift=PYRAMID, **SLIM).eval()
    net(torch.rand(1, 3, 128, 128))
    assert max(map(len, walks)) <= 10
    walk = next(walk for walk in walks if '_inner_forward' in walk)
    page = Path(__file__).parents[3] / 'docs/forward_pass.md'
    steps = re.findall(r'^\d+\. `(\w+)`', page.read_text(encoding='utf-8'), re.MULTILINE)
    assert steps == [step.replace('<lambda>', 'fn') for step in walk]


class Operators(TorchDispatchMode):
    """Count the operators that PyTorch dispatches."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **kwargs or {})


def host_cost(config):
    """Count operators and Python calls of an eager forward pass of one image of 64x64 pixels."""
    model, image = MODELS.build(config), torch.rand(1, 3, 64, 64)
    model.eval()
    with torch.inference_mode():
        model(image)
        with Operators() as operators:
            model(image)
        with cProfile.Profile() as profile:
            model(image)
    return operators.count, pstats.Stats(profile).total_calls


@pytest.mark.parametrize(
    'options, operators, calls',
    [
        (dict(scale_space=dict(num_scales=1)), 1.25, 2),
        (dict(scale_space=dict(num_scales=3), lift=PYRAMID), 3.2, 4),
        (dict(scale_space=dict(num_scales=3), lift=PYRAMID, **BLUR), 4, 4.5),
        (dict(scale_space=dict(base=2**0.5, num_scales=5), lift=PYRAMID, **BLUR), 5.5, 6),
    ],
    ids=['one level', 'pyramid', 'economical', 'balanced'],
)
def test_the_host_does_a_few_times_the_work_that_it_does_for_resnet(options, operators, calls):
    """A GPU waits for the host; shares of MMPretrain's ResNet-50 of equal width."""
    reference = host_cost(dict(type='mmpretrain.ResNet', **SLIM))
    found = host_cost(dict(type='mmscale.ScaleResNet', **options, **SLIM))
    assert found[0] <= operators * reference[0] and found[1] <= calls * reference[1]
