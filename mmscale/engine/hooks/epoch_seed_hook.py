# Copyright (c) mmscale contributors.
import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from mmscale.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds the main process anew at the start of each training epoch.

    MMEngine's checkpoints do not hold the state of the random generators, so that a resumed run
    draws other dropout masks (and, with ``num_workers=0``, other augmentations) than the
    uninterrupted one. With this hook both depend only on the runner's seed, the epoch and the
    rank, and the two runs end in the same weights.

    Worker processes have generators of their own, which this hook does not reach: augmentations
    drawn in workers (``num_workers > 0``) are not repeated by a resumed run.
    """

    def before_train_epoch(self, runner):
        # A SeedSequence, for seed + epoch would repeat the draws of the neighbouring seed's run.
        entropy = np.random.SeedSequence([runner.seed, runner.epoch, get_rank()])
        seed = int(entropy.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
