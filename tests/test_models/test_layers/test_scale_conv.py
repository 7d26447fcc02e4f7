# Copyright (c) mmscale contributors.
import math

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from naive import largest_difference
from torch import nn

from mmscale.models import DeformScaleConv, ScaleConv
from mmscale.ops import scale_conv2d
from mmscale.scale_space import ScaleGrid

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

    def test_does_not_hide_a_mismatch(self):
        conv = ScaleConv(4, 6, 3, padding=1, interaction=2, scale_space=GRID)
        for other in (nn.Conv2d(4, 6, 5), nn.Conv2d(4, 8, 3)):
            with pytest.raises(RuntimeError, match='size mismatch for weight'):
                conv.load_state_dict(other.state_dict())


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
        (dict(padding=0), 'padding must be dilation .* = 1, got 0'),
        (dict(stride=0), 'stride must be at least 1, got 0'),
        (dict(interaction=4), 'interaction must be an integer from 1 to num_scales=3, got 4'),
        (dict(groups=3), 'in_channels must be a multiple of groups=3 .*, got 4'),
        (dict(groups=0), 'groups=0'),
        (dict(out_channels=0), 'out_channels must be .*, got 0'),
        (dict(padding='same'), 'padding must be .*same'),
        (dict(kernel_size=(3,)), r'kernel_size must be .*\(3,\)'),
        (dict(interaction=1.0), 'interaction must be .*1.0'),
    ],
)
def test_wrong_arguments_are_named_with_their_value(change, message):
    arguments = dict(in_channels=4, out_channels=6, kernel_size=3, padding=1, scale_space=GRID)
    ScaleConv(**arguments)
    with pytest.raises(ValueError, match=message):
        ScaleConv(**{**arguments, **change})


@pytest.mark.parametrize('layer', [ScaleConv, DeformScaleConv])
@pytest.mark.parametrize('interaction', [1, 2])
def test_channels_lie_last_where_that_is_asked_for(layer, interaction):
    conv = layer(16, 8, 3, padding=1, interaction=interaction, scale_space=GRID)
    weight, values = conv.weight, conv.weight.detach().clone()
    conv.to(torch.float64, memory_format=torch.channels_last)
    assert conv.weight is weight and torch.equal(weight, values.double())
    for kernel in (m.weight for m in conv.modules() if isinstance(m, ScaleConv)):
        assert kernel.is_contiguous(memory_format=torch.channels_last_3d)
        assert not kernel.is_contiguous()
    conv.to(memory_format=torch.contiguous_format)
    assert conv.weight.is_contiguous() and torch.equal(conv.weight, values.double())


def test_errors_of_moving_a_layer_are_raised():
    def fail(x):
        raise RuntimeError(f'out of memory for {x.ndim} dimensions')

    with pytest.raises(RuntimeError, match='out of memory'):
        ScaleConv(4, 4, 3, padding=1, scale_space=GRID)._apply(fail)
