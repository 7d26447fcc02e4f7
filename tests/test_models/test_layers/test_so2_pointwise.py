# Copyright (c) mmscale contributors.
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import largest_difference
from rotation import as_if_trained_so2, turn_pairs
from torch import nn

from mmscale.models.layers.so2 import SO2BatchNorm, SO2NormReLU, so2_magnitudes

sizes = st.tuples(st.integers(4, 11), st.integers(4, 11))
max_orders = st.integers(0, 3)


def field(max_order, channels=2, size=(7, 8), batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = batch, channels * (1 + 2 * max_order), *size
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def magnitudes_by_hand(x, max_order):
    channels = x.shape[1] // (1 + 2 * max_order)
    parts = [x[:, :channels]]
    for m in range(max_order):
        first = channels * (1 + 2 * m)
        real, imaginary = x[:, first:].split(channels, 1)[:2]
        parts.append((real**2 + imaginary**2 + 1e-6).sqrt())
    return parts


class TestNormReLU:
    def test_is_its_formula(self):
        act, x = as_if_trained_so2(SO2NormReLU(3, 2)), field(2, channels=3)
        found = act(x)
        assert torch.equal(found[:, :3], x[:, :3].relu())
        for m, length in enumerate(magnitudes_by_hand(x, 2)[1:]):
            factor = (length + act.bias.view(2, 3)[m, :, None, None]).clamp(min=0) / length
            for first in (3 + 6 * m, 6 + 6 * m):
                expected = factor * x[:, first : first + 3]
                assert largest_difference(found[:, first : first + 3], expected) < 1e-14
        # Some are cut off, some lengthened, some shortened.
        assert (found[:, 3:] == 0).any() and (act.bias > 0).any() and (act.bias < 0).any()

    def test_starts_with_the_identity_on_pairs(self):
        x = field(2)
        found = SO2NormReLU(2, 2).double()(x)
        assert largest_difference(found[:, 2:], x[:, 2:]) < 1e-14

    @settings(max_examples=20, deadline=None)
    @given(size=sizes, max_order=max_orders, degrees=st.floats(-360, 360))
    def test_commutes_with_any_angle(self, size, max_order, degrees):
        act, x = as_if_trained_so2(SO2NormReLU(2, max_order)), field(max_order, size=size)
        expected = turn_pairs(act(x), max_order, degrees)
        assert largest_difference(act(turn_pairs(x, max_order, degrees)), expected) < 1e-12

    def test_gradients(self):
        act = as_if_trained_so2(SO2NormReLU(2, 2))
        x = field(2, size=(3, 2), batch=1).requires_grad_()
        # Away from the bends of ReLU, where differences say nothing.
        lengths = torch.cat(magnitudes_by_hand(x, 2)[1:], 1) + act.bias[:, None, None]
        assert lengths.abs().min() > 1e-4 and x[:, :2].abs().min() > 1e-4

        def run(x, bias):
            return torch.func.functional_call(act, dict(bias=bias), (x,))

        assert torch.autograd.gradcheck(run, (x, act.bias))

    @pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize('bias', [-0.5, 0.0, 0.5])
    def test_gradients_are_finite_at_zero(self, dtype, bias):
        act = SO2NormReLU(2, 2)
        nn.init.constant_(act.bias, bias)
        for fn in (act, lambda x: so2_magnitudes(x, 2)):
            x = torch.zeros(1, 10, 3, 3, dtype=dtype, requires_grad=True)
            y = fn(x)
            y.sum().backward()
            assert y.dtype == dtype and y.isfinite().all() and x.grad.isfinite().all()

    @pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
    def test_large_values_in_half_precision(self, dtype):
        """The square of 1000 is beyond float16."""
        x = torch.full((1, 10, 2, 2), 1000.0, dtype=dtype)
        assert largest_difference(SO2NormReLU(2, 2)(x).float(), x.float()) < 8
        assert so2_magnitudes(x, 2)[:, 2:].sub(2**0.5 * 1000).abs().max() < 8
        norm = SO2BatchNorm(2, 2).train()
        assert norm(x).isfinite().all() and norm.running_power.isfinite().all()


class TestBatchNorm:
    def test_order_0_is_an_ordinary_batch_norm(self):
        ours, ordinary = SO2BatchNorm(3, 2).double().train(), nn.BatchNorm2d(3).double().train()
        for seed in range(3):
            x = field(2, channels=3, seed=seed)
            assert largest_difference(ours(x)[:, :3], ordinary(x[:, :3])) < 1e-12
        assert largest_difference(ours.running_mean, ordinary.running_mean) < 1e-14
        assert largest_difference(ours.running_var, ordinary.running_var) < 1e-14
        x = field(2, channels=3, seed=9)
        assert largest_difference(ours.eval()(x)[:, :3], ordinary.eval()(x[:, :3])) < 1e-12

    def test_pairs_are_divided_by_their_root_mean_square_length(self):
        norm = as_if_trained_so2(SO2BatchNorm(3, 2)).train()
        before = norm.running_power.clone()
        x = field(2, channels=3)
        found = norm(x)
        for m in range(2):
            first = 3 + 6 * m
            real, imaginary = x[:, first:].split(3, 1)[:2]
            power = (real**2 + imaginary**2).mean((0, 2, 3))
            factor = norm.weight.view(3, -1)[m + 1] / (power + 1e-5).sqrt()
            for part, start in ((real, first), (imaginary, first + 3)):
                expected = part * factor[:, None, None]
                assert largest_difference(found[:, start : start + 3], expected) < 1e-12
            expected = 0.9 * before[m] + 0.1 * power
            assert largest_difference(norm.running_power[m], expected) < 1e-12
        # The mean square of a length is then the square of the scale.
        lengths = torch.stack(magnitudes_by_hand(found, 2)[1:]).square().mean((1, 3, 4))
        assert largest_difference(lengths, norm.weight.view(3, -1)[1:] ** 2) < 1e-4

    @pytest.mark.parametrize('is_training', [True, False])
    @settings(max_examples=20, deadline=None)
    @given(size=sizes, max_order=max_orders, degrees=st.floats(-360, 360))
    def test_commutes_with_any_angle(self, is_training, size, max_order, degrees):
        norm = as_if_trained_so2(SO2BatchNorm(2, max_order)).train(is_training)
        other, x = copy.deepcopy(norm), field(max_order, size=size)
        expected = turn_pairs(norm(x), max_order, degrees)
        assert largest_difference(other(turn_pairs(x, max_order, degrees)), expected) < 1e-12
        for a, b in zip(norm.buffers(), other.buffers(), strict=True):
            assert largest_difference(a, b) < 1e-12 if a.numel() else True

    def test_eval_changes_no_state_and_uses_what_training_left(self):
        norm = SO2BatchNorm(2, 2).train()
        names = list(norm.state_dict())
        x = field(2).float()
        for _ in range(200):
            trained = norm(x)
        before = copy.deepcopy(norm.eval().state_dict())
        assert largest_difference(norm(x), trained) < 0.02
        assert names == list(before)
        assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())

    def test_gradients(self):
        norm = as_if_trained_so2(SO2BatchNorm(2, 2)).train()
        x = field(2, size=(3, 2)).requires_grad_()
        assert torch.autograd.gradcheck(norm, (x,))
        for parameter in norm.parameters():
            assert parameter.grad is None
        norm(x).square().sum().backward()
        assert all(p.grad.abs().min() > 0 for p in norm.parameters())

    def test_zero_pairs(self):
        x = torch.zeros(2, 10, 3, 3, requires_grad=True)
        y = SO2BatchNorm(2, 2).train()(x)
        y.sum().backward()
        assert (y == 0).all() and x.grad.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(max_order=max_orders, degrees=st.floats(-360, 360))
def test_magnitudes_do_not_see_the_angle(max_order, degrees):
    x = field(max_order, channels=3)
    found = so2_magnitudes(x, max_order)
    assert found.shape[1] == 3 * (1 + max_order)
    assert largest_difference(found, torch.cat(magnitudes_by_hand(x, max_order), 1)) < 1e-14
    turned = so2_magnitudes(turn_pairs(x, max_order, degrees), max_order)
    assert largest_difference(turned, found) < 1e-12


@pytest.mark.parametrize(
    'layer, message',
    [
        (lambda: SO2NormReLU(0), 'channels must be an integer of at least 1, got 0'),
        (lambda: SO2NormReLU(2, -1), 'max_order must be an integer of at least 0, got -1'),
        (lambda: SO2BatchNorm(2.0), 'channels must be an integer of at least 1, got 2.0'),
        (lambda: SO2BatchNorm(2, None), 'max_order must be an integer of at least 0, got None'),
    ],
)
def test_wrong_arguments_are_named_with_their_value(layer, message):
    with pytest.raises(ValueError, match=message):
        layer()
