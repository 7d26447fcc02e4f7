# Copyright (c) mmscale contributors.
"""On a GPU the networks are what they are on the CPU. Skipped where there is none."""

import copy

import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from naive import largest_difference, randn
from networks import as_if_trained, small_backbones, with_offsets
from torch.backends import cuda, cudnn

from mmscale.evaluation import equivariance_error
from mmscale.models import DeformScaleConv, ScaleGlobalPooling, ScalePooling
from mmscale.ops.deform_scale_conv import choose_backend
from mmscale.scale_space import split_levels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')

BACKBONES = small_backbones()
DEVICE = 'cuda'
HALVES = (torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def full_precision():
    """TF32 keeps 10 bits of the mantissa; it is the user's choice, not part of the comparison."""
    flags = [(backend, backend.allow_tf32) for backend in (cuda.matmul, cudnn)]
    for backend, _ in flags:
        backend.allow_tf32 = False
    yield
    for backend, allowed in flags:
        backend.allow_tf32 = allowed


def network(name):
    net = as_if_trained(copy.deepcopy(BACKBONES[name]))
    for module in net.modules():
        if isinstance(module, DeformScaleConv):
            with_offsets(module)
    return net


def images(count=3):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 32, 32, generator=generator, dtype=torch.float64)


def levels_of(outputs):
    """Every level of every output; the SO(2) networks have ordinary maps."""
    levels = []
    for output in outputs:
        is_map = isinstance(output, torch.Tensor) and output.ndim == 4
        levels += [output] if is_map else split_levels(output)
    return levels


def set_backend(net, backend):
    for module in net.modules():
        if isinstance(module, DeformScaleConv):
            module.backend = backend


def features_and_gradients(net, x):
    """Feature maps, and the derivatives of a random sum of them by image and parameters."""
    net.zero_grad()
    x = x.clone().requires_grad_()
    levels = levels_of(net(x))
    sum((randn(*y.shape, seed=k).to(y) * y).sum() for k, y in enumerate(levels)).backward()
    gradients = [x.grad, *(p.grad for p in net.parameters() if p.grad is not None)]
    return [y.detach().cpu() for y in levels], [gradient.cpu() for gradient in gradients]


def relative_difference(found, expected):
    """The largest difference, in the largest value of its tensor."""
    return max(
        float((a - b).abs().max() / b.abs().max().clamp_min(1e-3))
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize('mode', ['eval', 'train'])
@pytest.mark.parametrize('name', BACKBONES)
def test_features_and_gradients_are_those_of_the_cpu(name, mode):
    """float64: only the order of the sums differs."""
    net, x = getattr(network(name), mode)(), images()
    set_backend(net, 'native')  # MMCV's ops add in the order in which threads arrive
    expected = features_and_gradients(copy.deepcopy(net), x)
    found = features_and_gradients(net.to(DEVICE), x.to(DEVICE))
    assert relative_difference(found[0], expected[0]) <= 1e-10
    assert relative_difference(found[1], expected[1]) <= 1e-8


@pytest.mark.parametrize('name', [name for name in BACKBONES if 'deformable' in name])
def test_mmcv_op_gives_what_the_native_path_gives(name):
    if choose_backend('auto', torch.device(DEVICE)) != 'mmcv':
        # Compiling them takes CUDA's own toolkit, which a machine with a GPU need not have.
        pytest.skip('MMCV has no ops for CUDA')
    net, x = network(name).float().to(DEVICE), images().float().to(DEVICE)
    results = {}
    for backend in ('native', 'mmcv'):
        set_backend(net, backend)
        results[backend] = features_and_gradients(net, x)
    assert relative_difference(results['mmcv'][0], results['native'][0]) <= 1e-4
    assert relative_difference(results['mmcv'][1], results['native'][1]) <= 1e-3


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('name', BACKBONES)
def test_single_precision_and_both_orders_in_memory(name, memory_format):
    net, x = network(name), images()
    expected = [y.detach() for y in levels_of(net(x))]
    net = net.float().to(DEVICE).to(memory_format=memory_format)
    found = levels_of(net(x.float().to(DEVICE).to(memory_format=memory_format)))
    assert relative_difference([y.detach().double().cpu() for y in found], expected) <= 1e-3


@pytest.mark.parametrize('dtype', HALVES)
@pytest.mark.parametrize('name', BACKBONES)
def test_mixed_precision_trains(name, dtype):
    """Finite loss and gradients within the rounding of the half type; weights stay float32."""
    net = network(name).float().to(DEVICE).train()
    x = images(8).float().to(DEVICE)

    def loss_of():
        return sum(y.float().square().mean() for y in levels_of(net(x)))

    expected = loss_of()
    optim = torch.optim.SGD(net.parameters(), lr=1e-4)
    wrapper = AmpOptimWrapper(optimizer=optim, dtype=dtype, loss_scale=128.0)
    with wrapper.optim_context(net):
        loss = loss_of()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=0.1)
    wrapper.update_params(loss)
    for parameter in net.parameters():
        assert parameter.dtype == torch.float32 and parameter.isfinite().all()


@pytest.mark.parametrize('name', [name for name in BACKBONES if 'SO2' not in name])
def test_the_error_measured_is_that_of_the_cpu(name):
    net, x = network(name), images(2)

    def last(image):
        return net(image)[-1]

    expected = equivariance_error(last, x, (2, 1.5), scale_space=net.grid).mean
    net.to(DEVICE)
    found = equivariance_error(last, x.to(DEVICE), (2, 1.5), scale_space=net.grid).mean
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize('pool', [ScalePooling, ScaleGlobalPooling])
def test_scale_dropout_follows_the_seed_of_the_gpu(pool):
    signal = torch.rand(4, 3, 4, 8, 8, device=DEVICE)
    neck = pool(scale_dropout=0.5).train()

    def draw(seed):
        torch.manual_seed(seed)
        return neck((signal,))[0]

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize('name', ['ScaleResNet GaussianLift', 'ScaleResNet GaussianPyramidLift'])
def test_constants_are_kept_by_device(name):
    """Those that one call makes for the next, on the CPU, the GPU and the CPU again."""
    net, x = network(name), images()
    before = levels_of(net(x))
    levels_of(net.to(DEVICE)(x.to(DEVICE)))
    after = levels_of(net.cpu()(x))
    assert largest_difference(tuple(before), tuple(after)) == 0
