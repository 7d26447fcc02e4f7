# Copyright (c) mmscale contributors.
import pytest
import torch
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


both = pytest.mark.parametrize(
    'layer, share', [(DeformScaleConv, 1.0), (ModulatedDeformScaleConv, 0.5)]
)


def signal(pyramid, base=2, dtype=torch.float32):
    grid, generator = ScaleGrid.build(dict(GRID, base=base)), torch.Generator().manual_seed(0)
    sizes = [[grid.level_size(n, k if pyramid else 0) for n in (15, 18)] for k in range(3)]
    levels = tuple(torch.randn(2, 4, *size, generator=generator).to(dtype) for size in sizes)
    return levels if pyramid else torch.stack(levels, 2)


@both
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
    grid, x = dict(GRID, base=base), signal(pyramid, base)
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
    conv = layer(4, 6, 3, 2, 1, bias=False, interaction=2, deform_groups=deform_groups,
                 scale_space=GRID)  # fmt: skip
    conv.load_state_dict(ordinary.state_dict())
    # At the finest level it is the same layer.
    assert (conv(signal(True))[0] - ordinary(signal(True)[0])).abs().max() < 1e-5


@both
def test_the_offset_branch_learns_from_the_first_step(layer, share):
    conv = layer(4, 6, 3, padding=1, scale_space=GRID)
    conv(signal(False)).square().sum().backward()
    assert conv.conv_offset.weight.grad.abs().sum() > 0


def test_says_which_backend_runs():
    text = repr(DeformScaleConv(4, 6, 3, padding=1, deform_groups=2, scale_space=GRID))
    assert "deform_groups=2, backend='auto' ('native' here)" in text


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(deform_groups=3), 'deform_groups must divide in_channels=4, got 3'),
        (dict(backend='cudnn'), "backend must be .*, got 'cudnn'"),
    ],
)
def test_wrong_arguments_are_named_with_their_value(change, message):
    with pytest.raises(ValueError, match=message):
        DeformScaleConv(4, 6, 3, padding=1, scale_space=GRID, **change)
