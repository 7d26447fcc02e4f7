# Copyright (c) mmscale contributors.
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import largest_difference
from rotation import (
    as_if_trained_so2,
    error_inside,
    quarter_turn_field,
    smooth_image,
    turn_map,
    turn_pairs,
)
from torch import nn
from torch.func import replace_all_batch_norm_modules_
from torch.optim.swa_utils import update_bn

from mmscale.models.layers.so2 import (
    SO2BatchNorm,
    SO2Conv,
    SO2NormReLU,
    blur_pool,
    join_orders,
    so2_magnitudes,
    split_orders,
)
from mmscale.models.layers.so2_basis import (
    basis_elements,
    field_size,
    intertwiner,
    sampled_harmonic,
)

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


class TestConv:
    @pytest.mark.parametrize('kernel_size', [1, 3, 5])
    @pytest.mark.parametrize('in_order, out_order', [(0, 0), (1, 1), (2, 1), (2, 2), (3, 3)])
    def test_kernel_is_the_weighted_sum_of_the_basis(self, kernel_size, in_order, out_order):
        conv = SO2Conv(2, 3, kernel_size, in_order, out_order).double()
        expected = torch.zeros(3 * (1 + 2 * out_order), 2 * (1 + 2 * in_order), *[kernel_size] * 2)
        expected, index = expected.double(), 0
        for n in range(out_order + 1):
            for m in range(in_order + 1):
                for ring, order, mirrored, phase in basis_elements(kernel_size, m, n):
                    parts = sampled_harmonic(kernel_size, ring, order)
                    element = intertwiner(*parts, m, n, mirrored, phase)
                    for o, i in ((o, i) for o in range(3) for i in range(2)):
                        for p, q in ((p, q) for p in range(field_size(n))
                                     for q in range(field_size(m))):  # fmt: skip
                            row = 3 * (max(2 * n - 1, 0) + p) + o
                            column = 2 * (max(2 * m - 1, 0) + q) + i
                            expected[row, column] += conv.weight[o, i, index] * element[p, q]
                    index += 1
        assert index == conv.weight.shape[2]
        # The basis is kept in float32 until the layer is made double.
        assert largest_difference(conv.kernel(), expected) < 1e-6

    def test_is_one_ordinary_convolution(self):
        conv = SO2Conv(2, 3, 5, in_order=1, out_order=2).double()
        nn.init.normal_(conv.bias)
        ordinary = nn.Conv2d(6, 15, 5, padding=2).double()
        bias = torch.cat((conv.bias, torch.zeros(12)))
        ordinary.load_state_dict(dict(weight=conv.kernel(), bias=bias))
        x = field(1)
        assert largest_difference(conv(x), ordinary(x)) < 1e-12
        assert list(conv.state_dict()) == ['weight', 'bias']

    @settings(max_examples=30, deadline=None)
    @given(size=sizes, in_order=max_orders, out_order=max_orders, kernel=st.sampled_from([5, 7]))
    def test_commutes_with_quarter_turns(self, size, in_order, out_order, kernel):
        conv = SO2Conv(2, 3, kernel, in_order, out_order).double()
        nn.init.normal_(conv.bias)
        x = field(in_order, size=size)
        expected = quarter_turn_field(conv(x), out_order)
        assert largest_difference(conv(quarter_turn_field(x, in_order)), expected) < 1e-12

    @pytest.mark.parametrize('degrees', [15, 30, 45])
    @pytest.mark.parametrize('kernel_size', [3, 7])
    def test_fields_turn_by_any_angle_on_smooth_images(self, kernel_size, degrees):
        """Rotation moves the pixels and turns the pair of order m by m times the angle.

        The test checks each order separately, because orders above 0 are small on smooth images. On
        twice as fine an image the error falls; the error of an alias of order 2 would not fall.
        """
        torch.manual_seed(0)
        first = SO2Conv(1, 2, kernel_size, in_order=0).double()
        second = SO2Conv(2, 2, kernel_size).double()
        errors, widths = {}, (2, 4, 4)
        for size in (33, 65, 129):
            with torch.no_grad():
                unturned = turn_map(second(first(smooth_image(size))), degrees)
                expected = turn_pairs(unturned, 2, degrees).split(widths, 1)
                found = second(first(smooth_image(size, degrees))).split(widths, 1)
            for m in range(3):
                errors.setdefault(m, []).append(error_inside(expected[m], found[m]))
        for coarse, middle, fine in errors.values():
            assert coarse > 1.5 * middle > 3 * fine
            assert fine < 0.003
        # Without the rotation of the pairs the values differ.
        unturned = unturned.split(widths, 1)
        assert all(error_inside(unturned[m], found[m]) > 0.2 for m in (1, 2))

    @pytest.mark.parametrize('kernel_size, in_order', [(3, 0), (7, 0), (3, 2), (7, 2), (1, 2)])
    def test_starts_with_outputs_as_large_as_inputs_in_every_order(self, kernel_size, in_order):
        torch.manual_seed(0)
        out_order = 0 if kernel_size == 1 and in_order == 0 else 2
        conv = SO2Conv(32, 64, kernel_size, in_order, out_order)
        x = field(in_order, channels=32, size=(32, 32)).float()
        y = conv(x)[..., 4:-4, 4:-4]
        scalars, pairs = split_orders(y, out_order)
        assert 0.8 < scalars.var() < 1.25
        for m in range(out_order):
            assert 0.8 < pairs[:, m].var() < 1.25
        assert (conv.bias == 0).all()

    def test_gradients(self):
        conv = SO2Conv(1, 2, 3, in_order=1, out_order=2).double()
        x = field(1, channels=1, size=(4, 3), batch=1).requires_grad_()

        def run(x, weight, bias):
            return torch.func.functional_call(conv, dict(weight=weight, bias=bias), (x,))

        assert torch.autograd.gradcheck(run, (x, conv.weight, conv.bias))

    @pytest.mark.parametrize(
        'change, message',
        [
            (dict(in_channels=0), 'in_channels must be an integer of at least 1, got 0'),
            (dict(out_channels=2.5), 'out_channels must be an integer of at least 1, got 2.5'),
            (dict(kernel_size=4), 'kernel_size must be an odd integer, got 4'),
            (dict(out_order='2'), "out_order must be an integer of at least 0, got '2'"),
            (
                dict(in_order=0, out_order=4),
                'out_order must be less than 3 with kernel_size=3 and in_order=0, .*, got 4',
            ),
        ],
        ids=str,
    )
    def test_wrong_arguments_are_named_with_their_value(self, change, message):
        with pytest.raises(ValueError, match=message):
            SO2Conv(**dict(in_channels=2, out_channels=3, kernel_size=3) | change)

    def test_wrong_fields_are_named(self):
        with pytest.raises(ValueError, match=r'in_channels=2 .* in_order=2, \(N, 10, H, W\)'):
            SO2Conv(2, 3, 3)(torch.randn(1, 9, 8, 8))


class TestBlurPool:
    @pytest.mark.parametrize('height', [1, 2, 5, 8])
    @pytest.mark.parametrize('width', [3, 4])
    def test_is_its_taps(self, height, width):
        x = field(0, size=(height, width))
        found = blur_pool(x)
        assert found.shape == (2, 2, -(-height // 2), -(-width // 2))

        def weights(size, output):
            """Return the weight of each input in an output, with a replicated border."""
            taps = {-1: 1, 0: 2, 1: 1} if size % 2 else {-1: 1, 0: 3, 1: 3, 2: 1}
            row = torch.zeros(size, dtype=torch.float64)
            for offset, tap in taps.items():
                row[min(max(2 * output + offset, 0), size - 1)] += tap / sum(taps.values())
            return row

        for i in range(found.shape[2]):
            for j in range(found.shape[3]):
                expected = weights(height, i) @ x @ weights(width, j)
                assert largest_difference(found[..., i, j], expected) < 1e-14

    @settings(max_examples=30, deadline=None)
    @given(size=st.tuples(st.integers(1, 12), st.integers(1, 12)))
    def test_commutes_with_quarter_turns(self, size):
        x = field(2, size=size)
        expected = quarter_turn_field(blur_pool(x), 2)
        assert largest_difference(blur_pool(quarter_turn_field(x, 2)), expected) < 1e-13


def test_orders_split_and_join():
    x = field(2, channels=3)
    scalars, pairs = split_orders(x, 2)
    assert torch.equal(scalars, x[:, :3])
    assert torch.equal(pairs[:, 1, 0], x[:, 9:12]) and torch.equal(pairs[:, 0, 1], x[:, 6:9])
    assert torch.equal(join_orders(scalars, pairs), x)
    for wrong in (torch.zeros(1, 9, 4, 4), torch.zeros(10, 4, 4)):
        with pytest.raises(ValueError, match=r'max_order=2 is \(N, 5 \* C, H, W\), got the shape'):
            split_orders(wrong, 2)


def test_compiles_in_one_graph():
    torch._dynamo.reset()
    layers = nn.Sequential(SO2Conv(1, 2, 3, in_order=0), SO2NormReLU(2), SO2BatchNorm(2)).train()
    compiled = torch.compile(copy.deepcopy(layers), fullgraph=True, backend='aot_eager')
    x = torch.randn(2, 1, 6, 7)
    assert largest_difference(compiled(x), layers(x)) < 1e-6


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
        # The norm nonlinearity zeroes some pairs, lengthens some and shortens some.
        assert (found[:, 3:] == 0).any() and (act.bias > 0).any() and (act.bias < 0).any()

    def test_gradients(self):
        act = as_if_trained_so2(SO2NormReLU(2, 2))
        x = field(2, size=(3, 2), batch=1).requires_grad_()
        # Away from the kinks of ReLU, where finite differences are wrong.
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
        """The square of 1000 overflows float16."""
        x = torch.full((1, 10, 2, 2), 1000.0, dtype=dtype)
        assert largest_difference(SO2NormReLU(2, 2)(x).float(), x.float()) < 8
        assert so2_magnitudes(x, 2)[:, 2:].sub(2**0.5 * 1000).abs().max() < 8
        norm = SO2BatchNorm(2, 2).train()
        assert norm(x).isfinite().all() and norm.running_var.isfinite().all()


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
        factors = (norm.weight / (norm.running_var + 1e-5).sqrt()).view(3, 3)[1:]
        expected = x.unflatten(1, (5, 3))[:, 1:] * factors.repeat_interleave(2, 0)[..., None, None]
        assert largest_difference(norm.eval()(x)[:, 3:], expected.flatten(1, 2)) < 1e-12

    def test_gradients(self):
        norm = as_if_trained_so2(SO2BatchNorm(2, 2)).train()
        x = field(2, size=(3, 2)).requires_grad_()
        assert torch.autograd.gradcheck(norm, (x,))
        for parameter in norm.parameters():
            assert parameter.grad is None
        norm(x).square().sum().backward()
        assert all(p.grad.abs().min() > 0 for p in norm.parameters())

    def test_statistics_of_a_mean_over_batches_and_of_none(self):
        """``swa_utils.update_bn`` and ``torch.func.replace_all_batch_norm_modules_`` need this."""
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

    def test_a_norm_over_processes_is_refused(self):
        with pytest.raises(AttributeError, match='SO2BatchNorm cannot be converted to SyncBatch'):
            nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(SO2BatchNorm(2, 2)))


@pytest.mark.parametrize('kind, is_training', [(SO2NormReLU, True), (SO2BatchNorm, True),
                                               (SO2BatchNorm, False)])  # fmt: skip
@settings(max_examples=20, deadline=None)
@given(size=sizes, max_order=max_orders, degrees=st.floats(-360, 360))
def test_pointwise_layers_commute_with_any_angle(kind, is_training, size, max_order, degrees):
    layer = as_if_trained_so2(kind(2, max_order)).train(is_training)
    other, x = copy.deepcopy(layer), field(max_order, size=size)
    y, turned = layer(x), other(turn_pairs(x, max_order, degrees))
    assert largest_difference(turned, turn_pairs(y, max_order, degrees)) < 1e-12
    for a, b in zip(layer.buffers(), other.buffers(), strict=True):
        assert largest_difference(a, b) < 1e-12 if a.numel() else True
    # Lengths do not depend on the angle.
    lengths = so2_magnitudes(y, max_order)
    assert largest_difference(so2_magnitudes(turned, max_order), lengths) < 1e-12
    assert largest_difference(lengths, torch.cat(magnitudes_by_hand(y, max_order), 1)) < 1e-14
