# Copyright (c) mmscale contributors.
"""Scale convolution with a basis of kernels: the formula, and the features of ScaleConv."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import build_conv_layer
from mmpretrain.models import ResNet_CIFAR
from naive import basis_scale_conv, largest_difference, to_levels
from torch import nn

from mmscale.models import (
    DeformScaleConv,
    ScaleConv,
    ScaleConvNet,
    ScaleResNet,
    ScaleResNet_CIFAR,
)
from mmscale.scale_space import (
    DiscreteBasis,
    GaussianDerivativeBasis,
    HermiteBasis,
    Levels,
    ScaleGrid,
    split_levels,
)

GRID = dict(base=2**0.5, num_scales=3)
BASES = dict(
    hermite=HermiteBasis(7, 3),
    derivatives=GaussianDerivativeBasis(2, 0.7, 2),
    discrete=DiscreteBasis(3),
)
KERNELS = dict(
    hermite=dict(type='mmscale.HermiteBasis', size=7, effective_size=3),
    derivatives=dict(type='mmscale.GaussianDerivativeBasis', max_order=2, width=0.7, truncate=2),
    discrete=dict(type='mmscale.DiscreteBasis', effective_size=3),
)
every_basis = pytest.mark.parametrize('name', BASES)
both_forms = pytest.mark.parametrize('pyramid', [False, True])


def signal(pyramid, grid=GRID, channels=4, size=(9, 10), batch=2):
    grid, generator = ScaleGrid.build(grid), torch.Generator().manual_seed(0)
    sizes = [size] * grid.num_scales
    if pyramid:
        sizes = [[grid.level_size(n, k) for n in size] for k in grid.levels]
    levels = [torch.randn(batch, channels, *n, generator=generator).double() for n in sizes]
    return tuple(levels) if pyramid else torch.stack(levels, 2)


def layer(name, channels=4, **more):
    given = dict(stride=1, padding=1, scale_space=GRID) | more
    return ScaleConv(channels, 6, 3, kernel=KERNELS.get(name), **given)


@given(
    name=st.sampled_from(sorted(BASES)),
    pyramid=st.booleans(),
    interaction=st.integers(1, 3),
    stride=st.sampled_from([1, 2, (2, 1)]),
    dilation=st.sampled_from([1, (2, 1)]),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    base=st.sampled_from([1.5, 2**0.5]),
    levels=st.integers(1, 3),
)
@settings(deadline=None, max_examples=20)
def test_is_the_formula(name, pyramid, interaction, stride, dilation, groups, bias, base, levels):
    grid = ScaleGrid(base, 3)
    padding = dilation if isinstance(dilation, tuple) else (dilation,) * 2
    conv = layer(name, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias,
                 interaction=interaction, scale_space=grid).double()  # fmt: skip
    x = signal(pyramid, grid, size=(5, 7), batch=1)
    x = x[:levels] if pyramid else x[:, :, :levels]
    tables = BASES[name].tables(grid)
    expected = basis_scale_conv(
        to_levels(x),
        conv.weight.detach().numpy(),
        [tables[0]] * levels if pyramid else [tables[k] for k in range(levels)],
        conv.bias.detach().numpy() if bias else None,
        stride if isinstance(stride, tuple) else (stride,) * 2,
        padding,
        groups,
        base=base,
        pyramid=pyramid,
    )
    found = conv(x)
    assert isinstance(found, tuple) == pyramid
    assert largest_difference(to_levels(found), expected) < 1e-12
    assert largest_difference(tuple(conv(Levels.of(x))), split_levels(found)) < 1e-12


@pytest.mark.parametrize('name, pyramid', zip(BASES, (False, True, False)))
def test_gradients_are_exact(name, pyramid):
    conv = layer(name, stride=2, groups=2, interaction=2).double()
    x = [level.requires_grad_() for level in split_levels(signal(pyramid, size=(5, 4), batch=1))]

    def fn(weight, bias, *levels):
        values = dict(weight=weight, bias=bias)
        x = tuple(levels) if pyramid else torch.stack(levels, 2)
        return split_levels(torch.func.functional_call(conv, values, (x,)))

    assert torch.autograd.gradcheck(fn, (conv.weight, conv.bias, *x), fast_mode=True)


@every_basis
def test_builds_where_mmcv_takes_a_conv_cfg(name):
    cfg = dict(type='mmscale.ScaleConv', scale_space=GRID, kernel=KERNELS[name], interaction=2)
    conv = build_conv_layer(cfg, 4, 6, 3, stride=2, padding=1, groups=2, bias=False)
    count = len(BASES[name].tables(ScaleGrid.build(GRID))[0].functions)
    assert conv.kernel == BASES[name] and conv.weight.shape == (6, 2, 2, count)
    assert list(conv.state_dict()) == ['weight'] and not list(conv.buffers())
    assert f'kernel={type(BASES[name]).__name__}(' in repr(conv)
    other = ScaleConv(4, 6, 3, padding=1, kernel=BASES[name], scale_space=GRID)
    assert other.kernel is BASES[name]
    pointwise = ScaleConv(4, 6, 1, kernel=KERNELS[name], scale_space=GRID)
    assert pointwise.kernel is None and pointwise.weight.shape == (6, 4, 1, 1, 1)


def test_a_basis_is_asked_for():
    with pytest.raises(ValueError, match='kernel must be a basis of kernels .* got 3'):
        ScaleConv(4, 6, 3, padding=1, kernel=3, scale_space=GRID)
    with pytest.raises(KeyError, match='NoBasis'):
        ScaleConv(4, 6, 3, padding=1, kernel=dict(type='mmscale.NoBasis'), scale_space=GRID)
    with pytest.raises(ValueError, match='has 3 channels, expected 4'):
        layer('hermite')(signal(False, channels=3).float())


@every_basis
@both_forms
def test_tables_are_cast_from_float64(name, pyramid):
    conv, x = layer(name), signal(pyramid)
    cast = copy.deepcopy(conv).half().bfloat16().double()
    weights = {k: v.double() for k, v in conv.state_dict().items()}
    cast.load_state_dict(weights)
    exact = layer(name).double()
    exact.load_state_dict(weights)
    assert largest_difference(split_levels(cast(x)), split_levels(exact(x))) == 0
    # A cast of the weight alone sets the precision of the result.
    alone = layer(name)
    alone.weight = nn.Parameter(weights['weight'])
    alone.bias = nn.Parameter(weights['bias'])
    assert largest_difference(split_levels(alone(x)), split_levels(exact(x))) < 1e-6


def test_runs_in_mixed_precision():
    conv, x = layer('hermite'), signal(False).float()
    with torch.autocast('cpu', torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    assert largest_difference(y.float(), conv(x)) < 0.03 * conv(x).abs().max()
    y.float().sum().backward()
    assert conv.weight.grad.dtype == torch.float32


@pytest.mark.parametrize('name, pyramid', zip(BASES, (True, False, True)))
def test_compiles_and_exports(name, pyramid):
    torch._dynamo.reset()
    conv, x = layer(name, stride=2, interaction=2).double(), signal(pyramid)
    expected = split_levels(conv(x))
    for other in (
        torch.compile(conv, fullgraph=True, backend='aot_eager'),
        torch.export.export(conv, (x,)).module(),
    ):
        assert largest_difference(split_levels(other(x)), expected) < 1e-12


def test_a_network_runs_in_onnx():
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    net = ScaleConvNet(GRID, dict(type='mmscale.RepeatLift'), channels=(3, 4), kernel_size=3,
                       kernel=KERNELS['hermite']).eval()  # fmt: skip
    image, file = torch.randn(1, 1, 12, 14), io.BytesIO()
    torch.onnx.export(net, (image,), dynamo=True, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert np.abs(found - net(image)[0].detach().numpy()).max() < 1e-5


@pytest.mark.parametrize('name, pyramid', [(None, True), (None, False), *zip(BASES, (0, 1, 0))])
@pytest.mark.parametrize('interaction', [1, 2])
def test_kernels_that_are_kept_follow_the_weight(name, pyramid, interaction):
    """Every change of the weight reaches its cached views.

    The kernels of a basis are copies: changes that PyTorch counts and eval() renew them.
    """
    conv = layer(name, interaction=interaction).eval()
    x = Levels.of(signal(pyramid)).map(torch.Tensor.float)

    def check(conv, x=x):
        expected = [level.detach() for level in conv(x)]  # with gradients: no cache
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                assert largest_difference(tuple(conv(x)), tuple(expected)) < 1e-6

    check(conv)
    with torch.no_grad():
        kept = conv._kernels(not pyramid)
        assert conv._kernels(not pyramid) is kept
        conv.train()
        assert conv._kernels(not pyramid) is not kept
        conv.eval().weight.mul_(2)
    check(conv)
    conv.weight.data = torch.randn_like(conv.weight)
    check(conv)
    conv.weight.data.mul_(2)  # a change without a version, as a swap with averaged weights
    check(conv if name is None else conv.eval())
    conv.load_state_dict({key: value + 1 for key, value in conv.state_dict().items()})
    check(conv)
    other = copy.deepcopy(conv)
    with torch.no_grad():
        conv.weight.zero_()
    check(conv), check(other), check(pickle.loads(pickle.dumps(other)))
    assert pickle.loads(pickle.dumps(other))._views is None
    conv.weight = nn.Parameter(torch.randn_like(conv.weight))
    check(conv)
    conv(x).rows.square().mean().backward()
    torch.optim.SGD(conv.parameters(), 0.5).step()
    check(conv)
    check(conv.double(), x.map(torch.Tensor.double))
    values = {key: torch.ones_like(value).float() for key, value in conv.state_dict().items()}
    check(conv.float())
    with torch.no_grad():
        found = torch.func.functional_call(conv, values, (x,))
    conv.load_state_dict(values)
    assert largest_difference(tuple(found), tuple(conv(x))) < 1e-5
    check(conv)


def test_layers_that_were_made_or_first_used_under_inference_mode():
    x = signal(False).float()
    with torch.inference_mode():
        made = layer('discrete').eval()
        expected = made(x)
        assert made.weight.is_inference() and torch.equal(made(x), expected)
    conv = layer('discrete').eval()
    with torch.inference_mode():
        conv(x)
    conv(x).sum().backward()
    assert conv.weight.grad.isfinite().all()
    with torch.device('meta'):
        empty = layer('hermite')
    empty = empty.to_empty(device='cpu')
    empty.load_state_dict(layer('hermite').state_dict())
    assert empty(x).isfinite().all()


class TestInflation:
    def test_ordinary_weights_load_where_level_0_has_their_taps(self):
        ordinary = nn.Conv2d(4, 6, 3, padding=1)
        conv = layer('discrete', interaction=2)
        assert not any(conv.load_state_dict(ordinary.state_dict()))
        x = signal(False).float()
        assert largest_difference(conv(x)[:, :, 0], ordinary(x[:, :, 0])) < 1e-6

    @pytest.mark.parametrize('name, size', [('hermite', 3), ('derivatives', 3), ('discrete', 5)])
    def test_others_are_refused(self, name, size):
        with pytest.raises(RuntimeError, match='size mismatch for weight'):
            layer(name).load_state_dict(nn.Conv2d(4, 6, size).state_dict())

    def test_of_a_whole_network(self):
        slim = dict(depth=18, stem_channels=4, base_channels=4)
        ordinary, image = ResNet_CIFAR(**slim), torch.randn(1, 3, 16, 16)
        ordinary.eval()  # MMPretrain's returns nothing here
        net = ScaleResNet_CIFAR(**slim, scale_space=dict(num_scales=1), kernel=KERNELS['discrete'])
        net.load_state_dict(ordinary.state_dict())
        assert largest_difference(net.eval()(image)[0][0], ordinary(image)[0]) < 1e-4


@every_basis
def test_backbones_hand_it_to_every_spatial_convolution(name):
    for net in (
        ScaleConvNet(GRID, channels=(4, 5), kernel=KERNELS[name]),
        ScaleResNet(50, GRID, stem_channels=4, base_channels=4, kernel=KERNELS[name]),
    ):
        convs = [module for module in net.modules() if isinstance(module, ScaleConv)]
        assert all((conv.kernel is None) == (conv.kernel_size == (1, 1)) for conv in convs)
        assert sum(conv.kernel is not None for conv in convs) >= 2


def test_deformable_layers_take_no_basis():
    deform = dict(type='mmscale.DeformScaleConv', stages=(False, True))
    with pytest.raises(ValueError, match='kernel and deform exclude each other'):
        ScaleConvNet(GRID, channels=(4, 5), deform=deform, kernel=KERNELS['hermite'])
    with pytest.raises(TypeError, match='kernel'):
        DeformScaleConv(4, 6, 3, padding=1, kernel=KERNELS['hermite'], scale_space=GRID)
