# Copyright (c) mmscale contributors.
"""The discrete Gaussian, the scale-space kernel of sampled signals."""

import math

import numpy as np
import torch
from scipy.special import ive
from torch import Tensor


def discrete_gaussian(variance: float, radius: int | None = None) -> Tensor:
    """Lindeberg's discrete analogue of the Gaussian, :math:`e^{-t} I_{|n|}(t)`.

    :math:`I_n` is the modified Bessel function of integer order. Unlike the sampled Gaussian it
    is a semigroup (blurring by :math:`t_1` and then :math:`t_2` is blurring by
    :math:`t_1 + t_2`) and has the variance :math:`t` exactly.
    Source: Lindeberg, Scale-space for discrete signals, IEEE TPAMI 12(3), 1990, eq. 16.

    Args:
        variance (float): :math:`t` in pixels², at least 0.
        radius (int, optional): Taps on either side. Defaults to ``4 ceil(sqrt(variance))``.

    Returns:
        Tensor: float64, ``(2 radius + 1,)``, renormalised to the sum 1.
    """
    if not 0 <= variance < math.inf:
        raise ValueError(f'variance must be a finite number of at least 0, got {variance}')
    if radius is None:
        radius = 4 * math.ceil(math.sqrt(variance))
    taps = ive(np.abs(np.arange(-radius, radius + 1)), variance)
    return torch.from_numpy(taps / taps.sum())
