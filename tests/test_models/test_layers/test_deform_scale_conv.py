# Copyright (c) mmscale contributors.
import copy

import pytest
import torch
from mmcv.cnn import build_conv_layer
from mmengine.analysis import get_model_complexity_info
from naive import largest_difference, to_levels
from networks import with_offsets
from torch import nn

from mmscale.models import DeformScaleConv, ModulatedDeformScaleConv, ScaleConv
from mmscale.ops import deform_scale_conv2d
from mmscale.scale_space import ScaleGrid

pytest.importorskip('mmcv._ext', reason='MMCV without compiled ops')
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack  # noqa: E402

pytestmark = pytest.mark.ops

GRID = dict(base=2, num_scales=3)
LAYERS = [(DeformScaleConv, 1.0), (ModulatedDeformScaleConv, 0.5)]
layers = pytest.mark.parametrize('layer, share', LAYERS)


def signal(pyramid, channels=4, size=(15, 18), dtype=torch.float32):
    grid = ScaleGrid.build(GRID)
    generator = torch.Generator().manual_seed(0)
    if not pyramid:
        return torch.randn(2, channels, 3, *size, generator=generator).to(dtype)
    return tuple(
        torch.randn(2, channels, *(grid.level_size(n, k) for n in size), generator=generator)
        .to(dtype)
        for k in range(3)
    )  # fmt: skip


@layers
@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('base', [2, 1.5])
@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=3, padding=1),
        dict(kernel_size=(3, 5), stride=(2, 1), padding=(2, 2), dilation=(2, 1), interaction=2),
        dict(kernel_size=3, padding=1, groups=2, deform_groups=4, bias=False, interaction=3),
    ],
    ids=['plain', 'strided', 'grouped'],
)
def test_starts_as_its_scale_convolution(layer, share, pyramid, base, arguments):
    grid = dict(GRID, base=base)
    x = signal(pyramid)
    if pyramid:
        x = tuple(
            torch.randn(2, 4, *(ScaleGrid.build(grid).level_size(n, k) for n in (15, 18)))
            for k in range(3)
        )
    conv = layer(4, 6, scale_space=grid, **arguments)
    ordinary = ScaleConv(
        4, 6, scale_space=grid, **{k: v for k, v in arguments.items() if k != 'deform_groups'}
    )
    ordinary.weight = nn.Parameter(share * conv.weight.detach())
    ordinary.bias = conv.bias
    largest = max(abs(level).max() for level in to_levels(ordinary(x)))
    assert largest_difference(to_levels(conv(x)), to_levels(ordinary(x))) < 1e-6 * max(1, largest)


@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('backend', ['native', 'mmcv'])
def test_is_the_function_of_predicted_offsets(pyramid, backend):
    arguments = dict(stride=2, padding=1, groups=2, interaction=2, deform_groups=2)
    x = signal(pyramid, dtype=torch.float64)
    conv = with_offsets(
        DeformScaleConv(4, 6, 3, backend=backend, scale_space=GRID, **arguments)
    ).double()
    offset = conv.conv_offset(x)
    expected = deform_scale_conv2d(x, offset, conv.weight, conv.bias, 2, 1, 2, backend=backend,
                                   scale_space=GRID)  # fmt: skip
    assert largest_difference(conv(x), expected) == 0

    conv = with_offsets(
        ModulatedDeformScaleConv(4, 6, 3, backend=backend, scale_space=GRID, **arguments)
    ).double()
    levels = conv.conv_offset(x)
    levels = levels if pyramid else (levels,)
    offset = tuple(level[:, :36] for level in levels)
    modulation = tuple(1 / (1 + (-level[:, 36:]).exp()) for level in levels)
    if not pyramid:
        offset, modulation = offset[0], modulation[0]
    expected = deform_scale_conv2d(x, offset, conv.weight, conv.bias, 2, 1, 2, modulation, backend,
                                   scale_space=GRID)  # fmt: skip
    assert largest_difference(conv(x), expected) < 1e-14


@pytest.mark.parametrize(
    'layer, published',
    [(DeformScaleConv, DeformConv2dPack), (ModulatedDeformScaleConv, ModulatedDeformConv2dPack)],
)
@pytest.mark.parametrize('deform_groups', [1, 2])
def test_checkpoints_of_deformable_convolutions_load(layer, published, deform_groups):
    ordinary = with_offsets(
        published(4, 6, 3, stride=2, padding=1, deform_groups=deform_groups, bias=False)
    )
    conv = layer(4, 6, 3, 2, 1, bias=False, deform_groups=deform_groups,
                 scale_space=dict(num_scales=1))  # fmt: skip
    conv.load_state_dict(ordinary.state_dict())
    x = signal(True)[0]
    assert (conv((x,))[0] - ordinary(x)).abs().max() < 1e-5
    # On more levels it is the same layer at the finest one.
    conv = layer(4, 6, 3, 2, 1, bias=False, interaction=2, deform_groups=deform_groups,
                 scale_space=GRID)  # fmt: skip
    conv.load_state_dict(ordinary.state_dict())
    assert (conv(signal(True))[0] - ordinary(x)).abs().max() < 1e-5


@layers
def test_builds_where_mmcv_takes_a_conv_cfg(layer, share):
    cfg = dict(type=f'mmscale.{layer.__name__}', scale_space=GRID, deform_groups=2)
    conv = build_conv_layer(cfg, 4, 6, 3, stride=2, padding=1, bias=False)
    assert type(conv) is layer and conv.deform_groups == 2 and conv.bias is None
    assert conv(signal(False)).shape == (2, 6, 3, 8, 9)


@layers
@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('backend', ['native', 'mmcv'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_trains_under_autocast(layer, share, pyramid, backend, dtype):
    conv = with_offsets(layer(4, 6, 3, padding=1, backend=backend, scale_space=GRID), 0.05)
    x = signal(pyramid)
    exact = to_levels(conv(x))
    with torch.autocast('cpu', dtype=dtype):
        y = conv(x)
    levels = y if pyramid else y.unbind(2)
    assert all(level.dtype == dtype for level in levels)
    assert largest_difference(to_levels(y), exact) < 0.1
    sum(level.float().square().sum() for level in levels).backward()
    for parameter in conv.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0


@layers
def test_the_offset_branch_learns_from_the_first_step(layer, share):
    conv = layer(4, 6, 3, padding=1, scale_space=GRID)
    conv(signal(False)).square().sum().backward()
    assert conv.conv_offset.weight.grad.abs().sum() > 0


@layers
@pytest.mark.parametrize('pyramid', [False, True])
def test_flops_are_counted(layer, share, pyramid):
    """Two convolutions, and 4 multiply-adds (bilinear) for every value that is read."""

    class Lifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = layer(4, 6, 3, padding=1, scale_space=GRID)

        def forward(self, image):
            levels = [image, image[..., ::2, ::2], image[..., ::4, ::4]]
            y = self.conv(tuple(levels) if pyramid else torch.stack([image] * 3, 2))
            return y

    pixels = 16 * 12 + (8 * 6 + 4 * 3 if pyramid else 2 * 16 * 12)
    offset_channels = 18 if layer is DeformScaleConv else 27
    expected = pixels * (4 * 9 * offset_channels + 4 * 4 * 9 + 4 * 9 * 6)
    counts = get_model_complexity_info(Lifted(), (4, 16, 12), show_table=False)
    assert counts['flops'] == expected


@layers
def test_the_state_does_not_depend_on_the_mode(layer, share):
    conv = layer(4, 6, 3, padding=1, scale_space=GRID)
    train = copy.deepcopy(conv.train().state_dict())
    assert list(train) == list(conv.eval().state_dict())
    assert list(train) == ['weight', 'bias', 'conv_offset.weight', 'conv_offset.bias']


@layers
def test_says_which_backend_runs(layer, share):
    text = repr(layer(4, 6, 3, padding=1, deform_groups=2, scale_space=GRID))
    assert "deform_groups=2, backend='auto' ('native' here)" in text
    conv = layer(4, 6, 3, padding=1, backend='mmcv', scale_space=GRID)
    assert "backend='mmcv'" in repr(conv)


@layers
@pytest.mark.parametrize(
    'change, message',
    [
        (dict(deform_groups=3), 'deform_groups must divide in_channels=4, got 3'),
        (dict(deform_groups=0), 'deform_groups must divide in_channels=4, got 0'),
        (dict(backend='cudnn'), "backend must be .*, got 'cudnn'"),
        (dict(padding=0), 'padding must be dilation .* = 1, got 0'),
        (dict(interaction=4), 'interaction must be .* from 1 to num_scales=3, got 4'),
    ],
)
def test_wrong_arguments_are_named_with_their_value(layer, share, change, message):
    arguments = dict(in_channels=4, out_channels=6, kernel_size=3, padding=1, scale_space=GRID)
    layer(**arguments)
    with pytest.raises(ValueError, match=message):
        layer(**{**arguments, **change})
