# Copyright (c) mmscale contributors.
import pytest
import torch
from mmcv.cnn import build_norm_layer
from naive import largest_difference
from networks import as_if_trained
from torch import nn

from mmscale.models import ScaleBN
from mmscale.scale_space import Levels


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double() * 3 + 1


DENSE = randn(2, 4, 3, 9, 7)
PYRAMID = tuple(randn(2, 4, n, n + 1, seed=n) for n in (8, 4, 2))


def pixels(x):
    """Join all pixels of all levels to one signal (N, C, L)."""
    return torch.cat([level.flatten(2) for level in (x if isinstance(x, tuple) else (x,))], 2)


FORMS = [DENSE, PYRAMID, DENSE[:, :, 0], Levels.of(DENSE), Levels.of(PYRAMID)]


@pytest.mark.parametrize('x', FORMS, ids=['dense', 'pyramid', 'image', 'dense levels', 'levels'])
@pytest.mark.parametrize('momentum', [0.1, None])
def test_is_one_batch_norm_over_all_pixels_of_all_levels(x, momentum):
    torch.manual_seed(0)
    norm, reference = ScaleBN(4, momentum=momentum).double(), nn.BatchNorm1d(4, momentum=momentum)
    nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    reference.double().load_state_dict(norm.state_dict())
    for mode in (True, True, False):
        found, expected = norm.train(mode)(x), reference.train(mode)(pixels(x))
        assert largest_difference(pixels(found), expected) < 1e-13
        assert not isinstance(found, Levels) or found.rows.is_contiguous()
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(norm.state_dict()[name], value, rtol=0, atol=1e-14)
    assert norm.num_batches_tracked == 2


def test_gradients_are_those_of_the_joint_norm():
    norm, reference = ScaleBN(4).double(), nn.BatchNorm1d(4).double()
    weight = torch.randn(pixels(PYRAMID).shape).double()
    for x in (DENSE, PYRAMID):
        levels = tuple(level.clone().requires_grad_() for level in (x if x is PYRAMID else (x,)))
        y = norm(levels if x is PYRAMID else levels[0])
        joint = pixels(x).requires_grad_()
        w = weight if x is PYRAMID else torch.randn(joint.shape).double()
        (pixels(y) * w).sum().backward()
        (reference(joint) * w).sum().backward()
        assert largest_difference(pixels(tuple(z.grad for z in levels)), joint.grad) < 1e-13


def test_states_of_ordinary_norms_load_both_ways():
    ordinary = as_if_trained(nn.BatchNorm2d(4))
    norm = ScaleBN(4).double()
    assert not any(norm.load_state_dict(ordinary.state_dict()))
    assert not any(nn.BatchNorm2d(4).load_state_dict(norm.state_dict()))
    norm.eval()
    assert largest_difference(norm(DENSE[:, :, 0]), ordinary(DENSE[:, :, 0])) == 0


def test_builds_where_mmcv_takes_a_norm_cfg():
    name, norm = build_norm_layer(dict(type='mmscale.ScaleBN', requires_grad=False), 4, postfix=1)
    assert name == 'bn1' and isinstance(norm, ScaleBN)
    assert not any(p.requires_grad for p in norm.parameters())


def test_a_training_norm_of_no_pixel_is_that_of_pytorch():
    theirs = nn.BatchNorm2d(4).train()
    theirs(torch.rand(0, 4, 12, 11))
    pyramid = tuple(level[:0].float() for level in PYRAMID)
    for empty in (DENSE[:0].float(), pyramid, Levels.of(pyramid)):
        ours = ScaleBN(4).train()
        assert len(pixels(ours(empty))) == 0
        for name, buffer in theirs.named_buffers():
            assert torch.equal(ours.get_buffer(name), buffer), name
