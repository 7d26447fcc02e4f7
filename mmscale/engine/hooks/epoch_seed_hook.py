# Copyright (c) mmscale contributors.
import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmscale.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """A hook that seeds the main process anew at the start of each training epoch.

    MMEngine's checkpoints do not hold the state of the random generators. A resumed run therefore
    draws other dropout masks (and, with ``num_workers=0``, other augmentations) than an
    uninterrupted run. With this hook the draws depend only on the runner's seed, the epoch and the
    rank, and both runs end in the same weights.

    The hook does not reach the generators of worker processes: a resumed run does not repeat
    augmentations that are drawn in workers (``num_workers > 0``).
    """

    def before_train_epoch(self, runner: Runner) -> None:
        # seed + epoch would repeat the draws of a run with the neighbouring seed.
        entropy = np.random.SeedSequence([runner.seed, runner.epoch, get_rank()])
        seed = int(entropy.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
