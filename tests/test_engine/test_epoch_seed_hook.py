# Copyright (c) mmscale contributors.
import random
from types import SimpleNamespace

import numpy as np
import torch

from mmscale.registry import HOOKS


def draws(seed: int, epoch: int) -> tuple:
    """What the three generators give at the start of an epoch."""
    hook = HOOKS.build(dict(type='mmscale.EpochSeedHook'))
    hook.before_train_epoch(SimpleNamespace(seed=seed, epoch=epoch))
    return random.random(), np.random.random(), torch.rand(1).item()


def test_draws_depend_on_seed_and_epoch_alone():
    first = draws(seed=3, epoch=1)
    torch.rand(5), np.random.random(5), random.random()
    assert draws(seed=3, epoch=1) == first
    grid = {draws(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len({numbers[i] for numbers in grid for i in range(3)}) == 27
