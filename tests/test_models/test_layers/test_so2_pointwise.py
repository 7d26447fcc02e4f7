# Copyright (c) mmscale contributors.
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.model import BaseModel
from mmpretrain.engine.hooks.precise_bn_hook import update_bn_stats
from naive import largest_difference
from rotation import as_if_trained_so2, turn_pairs
from torch import nn
from torch.func import replace_all_batch_norm_modules_
from torch.optim.swa_utils import update_bn

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
        assert norm(x).isfinite().all() and norm.running_var.isfinite().all()


class BaseModelOf(BaseModel):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, inputs, **kwargs):
        return self.layer(inputs)


class Batches(list):
    batch_size = 1

    def __iter__(self):
        return (dict(inputs=batch) for batch in super().__iter__())


class TestBatchNorm:
    def test_order_0_is_an_ordinary_batch_norm(self):
        ours, ordinary = SO2BatchNorm(3, 2).double().train(), nn.BatchNorm2d(3).double().train()
        for seed in range(3):
            x = field(2, channels=3, seed=seed)
            assert largest_difference(ours(x)[:, :3], ordinary(x[:, :3])) < 1e-12
        assert largest_difference(ours.running_mean[:3], ordinary.running_mean) < 1e-14
        assert largest_difference(ours.running_var[:3], ordinary.running_var) < 1e-14
        x = field(2, channels=3, seed=9)
        assert largest_difference(ours.eval()(x)[:, :3], ordinary.eval()(x[:, :3])) < 1e-12

    def test_pairs_are_divided_by_their_root_mean_square_length(self):
        norm = as_if_trained_so2(SO2BatchNorm(3, 2)).train()
        before = norm.running_var.view(3, 3)[1:].clone()
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
            assert largest_difference(norm.running_var.view(3, 3)[m + 1], expected) < 1e-12
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

    def test_statistics_of_a_mean_over_batches_and_of_none(self):
        """As ``swa_utils.update_bn`` and ``torch.func.replace_all_batch_norm_modules_`` ask."""
        norm, batches = SO2BatchNorm(2, 2), [field(2, seed=seed).float() for seed in range(3)]
        update_bn(batches, norm)
        each = SO2BatchNorm(2, 2, momentum=1.0)
        found = []
        for batch in batches:
            each(batch)
            found.append((each.running_mean.clone(), each.running_var.clone()))
        means, variances = (torch.stack(parts).mean(0) for parts in zip(*found, strict=True))
        torch.testing.assert_close(norm.running_mean, means)
        torch.testing.assert_close(norm.running_var, variances)
        assert (means[:2] != 0).all() and (means[2:] == 0).all() and (variances != 1).all()
        replace_all_batch_norm_modules_(norm)
        torch.testing.assert_close(norm.eval()(batches[0]), SO2BatchNorm(2, 2)(batches[0]))

    def test_the_hook_for_precise_statistics(self):
        """MMPretrain's goes over batch norms, and averages running_mean and running_var."""
        norm, batches = SO2BatchNorm(2, 2), [field(2, seed=seed).float() for seed in range(3)]
        expected = copy.deepcopy(norm)
        update_bn(batches, expected)
        model = BaseModelOf(norm)
        update_bn_stats(model.train(), Batches(batches), logger='silent')
        torch.testing.assert_close(norm.running_var, expected.running_var)
        torch.testing.assert_close(norm.running_mean, expected.running_mean)

    def test_a_norm_over_processes_is_refused(self):
        with pytest.raises(AttributeError, match='SO2BatchNorm cannot be converted to SyncBatch'):
            nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(SO2BatchNorm(2, 2)))

    def test_statistics_of_older_checkpoints(self):
        norm = as_if_trained_so2(SO2BatchNorm(3, 2))
        state = norm.state_dict()
        old = dict(state, running_mean=state['running_mean'][:3], weight=state['weight'].view(3, 3))
        old.update(running_var=state['running_var'][:3], running_power=state['running_var'][3:])
        old['running_power'] = old['running_power'].view(2, 3)
        del old['num_batches_tracked']
        other = SO2BatchNorm(3, 2).double().eval()
        other.load_state_dict(old)
        x = field(2, channels=3)
        assert torch.equal(other(x), norm(x))

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
