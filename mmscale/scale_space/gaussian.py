# Copyright (c) mmscale contributors.
"""The discrete Gaussian, the scale-space kernel of sampled signals."""

import math

import torch
from torch import Tensor


def discrete_gaussian(variance: float, radius: int | None = None) -> Tensor:
    r"""Return the taps of Lindeberg's discrete Gaussian, :math:`e^{-t} I_{|n|}(t)`.

    :math:`I_n` is the modified Bessel function of integer order. Unlike the sampled Gaussian, the
    discrete Gaussian is a semigroup (blurs by :math:`t_1` and :math:`t_2` compose to a blur by
    :math:`t_1 + t_2`) and has exactly the variance :math:`t`.
    Source: Lindeberg, Scale-space for discrete signals, IEEE TPAMI 12(3), 1990.

    Args:
        variance (float): :math:`t` in pixels², at least 0.
        radius (int, optional): Taps on each side. Defaults to ``4 ceil(sqrt(variance))``.

    Returns:
        Tensor: float64, ``(2 radius + 1,)``, normalised to the sum 1.
    """
    if not 0 <= variance < math.inf:
        raise ValueError(f'variance must be a finite number of at least 0, got {variance}')
    deviation = math.ceil(math.sqrt(variance))
    if radius is None:
        radius = 4 * deviation
    # The continued fraction of I_n / I_{n-1}, from large n down, has positive terms only, so that
    # every tap has full relative precision.
    ratio, ratios = 0.0, []
    for n in range(radius + 10 * deviation + 20, 0, -1):
        ratio = variance / (2 * n + variance * ratio)
        ratios.append(ratio)
    taps = [1.0]
    for ratio in ratios[: -radius - 1 : -1]:
        taps.append(taps[-1] * ratio)
    taps = torch.tensor(taps[:0:-1] + taps, dtype=torch.float64)
    return taps / taps.sum()
