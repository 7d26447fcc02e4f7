# Copyright (c) mmscale contributors.
import copy
import math
import pickle

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from naive import largest_difference
from torch import nn

from mmscale.models import ScaleConv
from mmscale.ops import scale_conv2d
from mmscale.scale_space import Levels, ScaleGrid, split_levels
from mmscale.testing import assert_scale_equivariant

GRID = dict(base=2, num_scales=3)
CFG = dict(type='mmscale.ScaleConv', scale_space=GRID)


def signal(pyramid, channels=4, size=(15, 18)):
    grid = ScaleGrid.build(GRID)
    generator = torch.Generator().manual_seed(0)
    if not pyramid:
        return torch.randn(2, channels, 3, *size, generator=generator).double()
    return tuple(
        torch.randn(2, channels, *(grid.level_size(n, k) for n in size), generator=generator)
        .double()
        for k in range(3)
    )  # fmt: skip


@pytest.mark.parametrize('pyramid', [False, True])
def test_is_the_function_with_learned_weights(pyramid):
    conv = ScaleConv(
        4, 6, (3, 5), (2, 1), (2, 2), (2, 1), groups=2, interaction=2, scale_space=GRID
    ).double()
    assert conv.weight.shape == (6, 2, 2, 3, 5) and conv.bias.shape == (6,)
    x = signal(pyramid)
    expected = scale_conv2d(
        x, conv.weight, conv.bias, (2, 1), (2, 1), 2, scale_space=ScaleGrid.build(GRID)
    )
    assert largest_difference(conv(x), expected) == 0


@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('interaction', [1, 2, 3])
@pytest.mark.parametrize('kernel, stride, dilation', [(3, 1, 1), (3, 2, 2), (7, 2, 1), (1, 2, 1)])
def test_commutes_with_scaling(pyramid, interaction, kernel, stride, dilation):
    padding = dilation * (kernel // 2)
    conv = ScaleConv(4, 3, kernel, stride, padding, dilation, interaction=interaction,
                     scale_space=GRID).double()  # fmt: skip
    for factor in (2, 4):
        assert_scale_equivariant(conv, signal(pyramid, size=(31, 26)), factor, GRID)


def test_builds_where_mmcv_takes_a_conv_cfg():
    conv = build_conv_layer(dict(CFG, interaction=2), 4, 6, 3, stride=2, padding=1, bias=False)
    assert isinstance(conv, ScaleConv) and conv.interaction == 2 and conv.bias is None
    x = signal(False).float()
    module = ConvModule(
        4, 6, 3, padding=1, conv_cfg=CFG, norm_cfg=dict(type='mmscale.ScaleBN')
    ).eval()
    assert module.with_norm and module.conv.bias is None
    expected = module.conv(x).div(math.sqrt(1 + module.bn.eps)).relu()
    assert largest_difference(module(x), expected) < 1e-6


class TestInflation:
    @pytest.mark.parametrize('interaction', [1, 3])
    def test_an_ordinary_weight_loads_as_the_finest_level(self, interaction):
        ordinary = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        conv = ScaleConv(4, 6, 3, padding=1, groups=2, interaction=interaction, scale_space=GRID)
        state = ordinary.state_dict()
        assert not any(conv.load_state_dict(state))
        assert torch.equal(conv.weight[:, :, 0], ordinary.weight)
        assert (conv.weight[:, :, 1:] == 0).all()
        assert torch.equal(conv.bias, ordinary.bias)
        assert state['weight'].ndim == 4, 'the checkpoint of the caller is not to be changed'

    def test_inside_other_modules(self):
        ordinary = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 3, padding=1))
        scale = nn.Sequential(
            ScaleConv(4, 6, 1, scale_space=GRID),
            nn.ReLU(),
            ScaleConv(6, 2, 3, padding=1, interaction=2, scale_space=GRID),
        )
        state = ordinary.state_dict()
        scale.load_state_dict(state)
        assert state['2.weight'].ndim == 4
        x = signal(False).float()
        expected = ordinary(x[:, :, 0])
        assert largest_difference(scale(x)[:, :, 0], expected) < 1e-6

    def test_does_not_hide_a_mismatch(self):
        conv = ScaleConv(4, 6, 3, padding=1, interaction=2, scale_space=GRID)
        for other in (nn.Conv2d(4, 6, 5), nn.Conv2d(4, 8, 3)):
            with pytest.raises(RuntimeError, match='size mismatch for weight'):
                conv.load_state_dict(other.state_dict())

    def test_its_own_state_loads_unchanged(self):
        a, b = (ScaleConv(4, 6, 3, padding=1, interaction=2, scale_space=GRID) for _ in range(2))
        b.load_state_dict(a.state_dict())
        assert torch.equal(a.weight, b.weight)


def test_the_state_does_not_depend_on_the_mode():
    conv = ScaleConv(4, 6, 3, padding=1, interaction=2, scale_space=GRID)
    train = copy.deepcopy(conv.train().state_dict())
    conv(signal(False).float())
    assert list(train) == list(conv.eval().state_dict()) == ['weight', 'bias']


def test_weights_start_as_those_of_torch():
    torch.manual_seed(0)
    ordinary = nn.Conv2d(4, 6, 3)
    torch.manual_seed(0)
    conv = ScaleConv(4, 6, 3, padding=1, scale_space=GRID)
    assert torch.equal(conv.weight[:, :, 0], ordinary.weight)
    assert torch.equal(conv.bias, ordinary.bias)
    # The fan-in counts every level that is summed.
    wide = ScaleConv(64, 64, 3, padding=1, interaction=3, scale_space=GRID)
    bound = 1 / math.sqrt(64 * 3 * 9)
    assert 0.98 * bound < wide.weight.abs().max() <= bound
    assert wide.bias.abs().max() <= bound


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(kernel_size=2), 'kernel_size must be odd, got 2'),
        (dict(kernel_size=(3, 4)), 'kernel_size must be odd, got 4'),
        (dict(padding=0), 'padding must be dilation .* = 1, got 0'),
        (dict(dilation=2), 'padding must be dilation .* = 2, got 1'),
        (dict(stride=0), 'stride must be at least 1, got 0'),
        (dict(interaction=4), 'interaction must be an integer from 1 to num_scales=3, got 4'),
        (dict(interaction=0), 'interaction must be an integer from 1 to num_scales=3, got 0'),
        (dict(groups=3), 'in_channels must be a multiple of groups=3 .*, got 4'),
        (dict(groups=0), 'groups=0'),
        (dict(out_channels=0), 'out_channels must be .*, got 0'),
        (dict(padding='same'), 'padding must be .*same'),
        (dict(kernel_size=(3,)), r'kernel_size must be .*\(3,\)'),
        (dict(interaction=1.0), 'interaction must be .*1.0'),
        (dict(scale_space=dict(base=1)), 'base must be .*, got 1'),
        (dict(scale_space=dict(scales=4)), "scale_space has no 'scales'"),
    ],
)
def test_wrong_arguments_are_named_with_their_value(change, message):
    arguments = dict(in_channels=4, out_channels=6, kernel_size=3, padding=1, scale_space=GRID)
    ScaleConv(**arguments)
    with pytest.raises((ValueError, TypeError), match=message):
        ScaleConv(**{**arguments, **change})


def test_wrong_signals_are_named():
    conv = ScaleConv(4, 6, 3, padding=1, scale_space=GRID)
    with pytest.raises(ValueError, match='has 3 channels, expected 4'):
        conv(torch.randn(1, 3, 3, 8, 8))
    with pytest.raises(ValueError, match='dense tensor'):
        conv(torch.randn(1, 4, 8, 8))


def test_says_what_it_is():
    text = repr(ScaleConv(4, 6, 3, padding=1, interaction=2, scale_space=GRID))
    for part in ('4, 6', 'kernel_size=(3, 3)', 'interaction=2', 'base=2', 'num_scales=3'):
        assert part in text


@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('base', [2, 2**0.5, 3.5])
def test_compiles_in_one_graph(pyramid, base):
    torch._dynamo.reset()
    grid = ScaleGrid(base, 3)
    conv = ScaleConv(4, 6, 3, padding=1, stride=2, interaction=2, scale_space=grid)
    x = torch.randn(1, 4, 3, 12, 12)
    if pyramid:
        x = tuple(torch.randn(1, 4, n, n) for n in (grid.level_size(12, k) for k in range(3)))
    y = torch.compile(conv, fullgraph=True, backend='aot_eager')(x)
    assert largest_difference(split_levels(y), split_levels(conv(x))) < 1e-6


@pytest.mark.parametrize('interaction', [1, 2])
def test_kernels_that_are_kept_follow_the_weight(interaction):
    """Without gradients the views of the weight are kept; whatever happens to it, they show it."""
    grid = dict(base=2, num_scales=2)
    conv = ScaleConv(3, 4, 3, padding=1, interaction=interaction, scale_space=grid)
    x = Levels.of(torch.randn(1, 3, 2, 9, 8))

    def check(layer, signal=x):
        weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
        expected = scale_conv2d(signal, weight, bias, scale_space=grid)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                assert largest_difference(tuple(layer(signal)), tuple(expected)) < 1e-6

    check(conv)
    conv.weight.data.mul_(2)  # which no version counter tells
    check(conv)
    conv.weight.data = torch.randn_like(conv.weight)
    check(conv)
    conv.load_state_dict({name: value + 1 for name, value in conv.state_dict().items()})
    check(conv)
    other = copy.deepcopy(conv)
    with torch.no_grad():
        conv.weight.zero_()
    check(conv), check(other), check(pickle.loads(pickle.dumps(other)))
    conv.weight = torch.nn.Parameter(torch.randn_like(conv.weight))
    check(conv)
    conv(x).rows.square().mean().backward()
    torch.optim.SGD(conv.parameters(), 0.5).step()
    check(conv)
    check(conv.double(), x.map(torch.Tensor.double))
    values = {name: torch.ones_like(value) for name, value in conv.state_dict().items()}
    with torch.no_grad():
        found = torch.func.functional_call(conv, values, (x.map(torch.Tensor.double),))
    expected = scale_conv2d(x.map(torch.Tensor.double), *values.values(), scale_space=grid)
    assert largest_difference(tuple(found), tuple(expected)) < 1e-12
    check(conv, x.map(torch.Tensor.double))
