# Copyright (c) mmscale contributors.
"""Features of transformed images beside transformed features."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mmscale.evaluation import equivariance_error
from mmscale.models import ScaleConvNet, ScaleResNet_CIFAR
from mmscale.scale_space import ScaleGrid, gaussian_pyramid_lift, scale_image
from mmscale.visualization.network import Network
from mmscale.visualization.pairs import (
    LastOutput,
    common_side,
    crop,
    disc,
    finest,
    rotate,
    rotated_pair,
    scaled_pair,
)


def blob(side: int, seed: int = 0) -> torch.Tensor:
    """A smooth random image that vanishes outside of a disc."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 1, side // 6, side // 6, generator=generator, dtype=torch.float64)
    image = nn.functional.interpolate(noise, size=(side, side), mode='bicubic')
    return image * disc(side, (side - 1) / 2, (side - 1) / 2, edge=0.3 * side)


def conv(kernel: torch.Tensor, stride: int = 2) -> nn.Module:
    layer = nn.Conv2d(1, 1, 3, stride, padding=1, bias=False).double()
    layer.weight.data.copy_(kernel)
    return layer


class Backbone(nn.Sequential):
    """Ordinary layers whose output is a tuple of one."""

    def forward(self, x):
        return (super().forward(x),)


ROUND = torch.tensor([[1.0, 2, 1], [2, 5, 2], [1, 2, 1]])
EDGE = torch.tensor([[0.0, 0, 0], [-1, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize('side', [8, 9])
def test_quarter_turns_are_exact(side):
    x = torch.rand(2, 3, side, side, dtype=torch.float64)
    for turns in (-1, 0, 1, 2, 3):
        expected = torch.rot90(x, turns, (2, 3))
        torch.testing.assert_close(rotate(x, 90 * turns, (side - 1) / 2), expected)


def test_a_turn_about_another_point():
    x = torch.zeros(1, 1, 7, 7, dtype=torch.float64)
    x[..., 2, 4] = 1.0  # two columns to the right of (2, 2): turned it is two rows above
    assert rotate(x, 90, 2.0)[0, 0, 0, 2].item() == pytest.approx(1)
    assert rotate(x, 90, 2.0).sum().item() == pytest.approx(1)


def test_disc():
    sharp = disc(9, 4, 4)
    assert sharp[4, 0] == 1 and sharp[4, 8] == 1 and sharp[0, 0] == 0 and sharp[1, 1] == 0
    smooth = disc(9, 4, 4, edge=2)
    assert smooth[4, 4] == 1 and smooth[4, 0] == 0 and smooth[4, 1] == pytest.approx(0.5)


def network(backbone) -> Network:
    return Network(backbone.eval(), nn.Identity(), 1, True, None)


def test_common_side_puts_the_middle_on_a_sample_of_all():
    twice, thrice = (network(Backbone(conv(ROUND, s).float())) for s in (2, 3))
    deep = network(ScaleResNet_CIFAR(18, dict(num_scales=2), in_channels=1, stem_channels=4,
                                     base_channels=4))  # fmt: skip
    image = np.arange(40 * 50).reshape(40, 50, 1)
    assert (crop(image, 5) == image[17:22, 22:27]).all()
    assert common_side([twice], image) == 39
    assert common_side([twice, thrice], image) == 37
    assert common_side([deep, twice], image) == 33
    assert common_side([deep], image[:32]) == 25
    with pytest.raises(ValueError, match='16x50 pixels are too few .* stride 8: .* needs 17'):
        common_side([deep], image[:16])


@pytest.mark.parametrize('kernel, smallest, largest', [(ROUND, 0, 1e-20), (EDGE, 0.5, 10)])
def test_a_quarter_turn_through_a_strided_layer(kernel, smallest, largest):
    """The kernel that turns into itself commutes with the turn, the other does not."""
    pair = rotated_pair(LastOutput(Backbone(conv(kernel))), blob(33), 90, stride=2)
    assert pair.found.shape == pair.expected.shape == (1, 17, 17)
    assert smallest <= pair.error <= largest


def test_a_rotation_is_compared_within_the_disc():
    pair = rotated_pair(LastOutput(Backbone(conv(ROUND))), blob(33), 45, stride=2)
    inside = disc(17, 8, 8)[None] == 1
    for part in (pair.found, pair.expected):
        assert torch.equal(~part.isnan(), inside)
    found, expected = pair.found[inside], pair.expected[inside]
    error = (found - expected).square().sum() / expected.square().sum()
    assert pair.error == pytest.approx(error.item())


class Lift(nn.Module):
    """A backbone that is only a pyramid, with a level finer than the image."""

    grid = ScaleGrid(base=2, num_scales=3, first_level=-1)

    def forward(self, x):
        return (gaussian_pyramid_lift(x, self.grid),)


def test_levels_finer_than_the_image_turn_about_its_middle():
    pair = rotated_pair(LastOutput(Lift()), blob(33), 90, stride=1)
    assert pair.found.shape == (1, 66, 66)
    assert pair.error < 1e-20


@pytest.mark.parametrize('lift', ['GaussianLift', 'GaussianPyramidLift'])
def test_a_scaled_pair_shows_the_finest_level(lift):
    """Level 0 of the features of the scaled image is level 1 of the features of the image."""
    torch.manual_seed(0)
    grid = dict(base=2, num_scales=3, zero_scale=0.6)
    lift = dict(type=f'mmscale.{lift}')
    phi = LastOutput(ScaleConvNet(grid, lift, channels=(4, 5), kernel_size=3).double().eval())
    x = blob(33)
    pair = scaled_pair(phi, x, 2)
    features = phi(x)
    second = features[1] if isinstance(features, tuple) else features[:, :, 1, ::2, ::2]
    torch.testing.assert_close(pair.expected, second[0])
    torch.testing.assert_close(pair.found, finest(phi(scale_image(x, 2, 0.6))))
    assert pair.error == equivariance_error(phi, x, [2], scale_space=grid).mean.item()
    assert pair.error < 0.01


def test_no_valid_level_gives_nan_and_no_level_an_error():
    interacting = ScaleConvNet(dict(base=2, num_scales=2), interaction=2, channels=(4,))
    phi = LastOutput(interacting.double().eval())
    assert math.isnan(scaled_pair(phi, blob(33), 2).error)
    with pytest.raises(ValueError, match='leaves none'):
        scaled_pair(phi, blob(33), 4)
