# Copyright (c) mmscale contributors.
import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import deform_scale_conv, largest_difference, to_levels
from torch.autograd import gradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.ops import deform_conv2d

from mmscale.ops import choose_backend, deform_scale_conv2d, scale_conv2d
from mmscale.ops import deform_scale_conv as module
from mmscale.scale_space import ScaleGrid

# Those of MMCV where it was compiled with ops.
BACKENDS = ('native', 'mmcv') if importlib.util.find_spec('mmcv._ext') else ('native',)
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.ops
both_backends = pytest.mark.skipif(len(BACKENDS) < 2, reason='MMCV without compiled ops')


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def signal_of(grid, channels, size, pyramid, batch=1, stride=(1, 1), seed=0, dtype=torch.float64):
    """A signal, or what lies beside the output of a layer of some stride."""

    def side(k, axis):
        size_k = grid.level_size(size[axis], k) if pyramid else size[axis]
        return -(-size_k // stride[axis])

    levels = [
        randn(batch, channels, side(k, 0), side(k, 1), seed=seed + k, dtype=dtype)
        for k in grid.levels
    ]
    return tuple(levels) if pyramid else torch.stack(levels, dim=2)


def map_signal(fn, x):
    return tuple(fn(level) for level in x) if isinstance(x, tuple) else fn(x)


odd = st.sampled_from([1, 3])


@given(
    pyramid=st.booleans(),
    base=st.sampled_from([2, 3, 1.3, 2**0.5]),
    first_level=st.integers(-1, 1),
    num_scales=st.integers(1, 3),
    interaction=st.integers(1, 2),
    kernel=st.tuples(odd, odd),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2]),
    deform_groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    modulated=st.booleans(),
    height=st.integers(3, 5),
    width=st.integers(3, 5),
)
@settings(deadline=None, max_examples=60)
def test_is_the_sum_that_defines_it(
    pyramid, base, first_level, num_scales, interaction, kernel, stride, dilation, groups,
    deform_groups, bias, modulated, height, width,
):  # fmt: skip
    interaction = min(interaction, num_scales)
    grid = ScaleGrid(base, num_scales, first_level=first_level)
    taps, size = kernel[0] * kernel[1] * deform_groups, (height, width)
    x = signal_of(grid, 2, size, pyramid, batch=2)
    offset = signal_of(grid, 2 * taps, size, pyramid, 2, stride, seed=20)
    modulation = signal_of(grid, taps, size, pyramid, 2, stride, seed=40) if modulated else None
    weight = randn(4, 2 // groups, interaction, *kernel, seed=1)
    bias = randn(4, seed=2) if bias else None
    expected = deform_scale_conv(
        to_levels(x), to_levels(offset), weight.numpy(), None if bias is None else bias.numpy(),
        stride, dilation, groups, to_levels(modulation) if modulated else None,
        base=base, first_level=first_level, pyramid=pyramid,
    )  # fmt: skip
    for backend in BACKENDS:
        found = deform_scale_conv2d(
            x, offset, weight, bias, stride, dilation, groups, modulation, backend,
            scale_space=grid,
        )  # fmt: skip
        assert isinstance(found, tuple) == pyramid
        assert largest_difference(to_levels(found), expected) < 1e-11


@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('base', [2, 1.3])
@pytest.mark.parametrize('interaction', [1, 2, 3])
@pytest.mark.parametrize('kernel, stride, dilation', [(3, 1, 1), (5, 2, 1), (3, 2, 2), (1, 2, 1)])
def test_without_offsets_it_is_scale_convolution(
    pyramid, base, interaction, kernel, stride, dilation
):
    grid = ScaleGrid(base, 3)
    x = signal_of(grid, 4, (15, 12), pyramid, batch=2)
    weight, bias = randn(6, 2, interaction, kernel, kernel, seed=1), randn(6)
    offset = map_signal(
        torch.zeros_like, signal_of(grid, 2 * kernel**2, (15, 12), pyramid, 2, (stride, stride))
    )
    args = weight, bias, stride, dilation, 2
    expected = scale_conv2d(x, *args, scale_space=grid)
    for backend in BACKENDS:
        found = deform_scale_conv2d(x, offset, *args, backend=backend, scale_space=grid)
        assert largest_difference(to_levels(found), to_levels(expected)) < 1e-12


@pytest.mark.parametrize('pyramid', [False, True])
def test_a_whole_tap_of_offset_moves_the_signal(pyramid):
    """All taps one up at every level: the output one dilation up, wherever it exists."""
    grid = ScaleGrid(2, 3)
    x, weight = signal_of(grid, 2, (24, 20), pyramid), randn(3, 2, 1, 3, 3, seed=1)
    offset = map_signal(torch.zeros_like, signal_of(grid, 18, (24, 20), pyramid))
    for level in offset if pyramid else (offset,):
        level[:, ::2] = -1
    ordinary = to_levels(scale_conv2d(x, weight, scale_space=grid))
    moved = to_levels(deform_scale_conv2d(x, offset, weight, scale_space=grid))
    for k, (before, after) in enumerate(zip(ordinary, moved)):
        step = 1 if pyramid else 2**k
        # A tap further up the first rows read zeros where the ordinary ones read the image.
        assert largest_difference((torch.tensor(after[:, :, 2 * step :]),),
                                  (torch.tensor(before[:, :, step:-step]),)) < 1e-12  # fmt: skip


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('groups, deform_groups', [(1, 1), (2, 4)])
def test_one_level_is_deformable_convolution(modulated, groups, deform_groups):
    grid = ScaleGrid(2, 1)
    x, weight, bias = randn(2, 4, 9, 10), randn(6, 4 // groups, 1, 3, 5), randn(6)
    offset = randn(2, 30 * deform_groups, 5, 10, seed=3)
    mask = randn(2, 15 * deform_groups, 5, 10, seed=4) if modulated else None
    expected = deform_conv2d(x, offset, weight[:, :, 0], bias, (2, 1), (2, 2), (2, 1), mask)
    for backend in BACKENDS:
        found = deform_scale_conv2d((x,), (offset,), weight, bias, (2, 1), (2, 1), groups,
                                    None if mask is None else (mask,), backend,
                                    scale_space=grid)  # fmt: skip
        assert largest_difference(found, (expected,)) < 1e-12


@both_backends
@pytest.mark.parametrize('batch', [1, 7, 33, 37, 48])
@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('pyramid', [False, True])
def test_backends_agree_in_single_precision(batch, modulated, pyramid):
    """Forward and backward; 33 and 48 images do not divide by MMCV's own step."""
    grid, size = ScaleGrid(2, 2), (9, 8)
    kwargs = dict(batch=batch, dtype=torch.float32)
    x = signal_of(grid, 4, size, pyramid, **kwargs)
    offset = signal_of(grid, 36, size, pyramid, seed=20, **kwargs)
    modulation = signal_of(grid, 18, size, pyramid, seed=40, **kwargs) if modulated else None
    weight = randn(6, 2, 2, 3, 3, seed=1, dtype=torch.float32)
    results = []
    for backend in BACKENDS:
        signals = [
            None if s is None else map_signal(lambda v: v.clone().requires_grad_(), s)
            for s in (x, offset, modulation)
        ]
        w = weight.clone().requires_grad_()
        y = deform_scale_conv2d(signals[0], signals[1], w, None, 1, 1, 2, signals[2], backend,
                                scale_space=grid)  # fmt: skip
        y = y if pyramid else (y,)
        sum((level * randn(*level.shape, seed=9).float()).sum() for level in y).backward()
        leaves = [
            v for s in signals if s is not None for v in (s if isinstance(s, tuple) else (s,))
        ]
        results.append([*(level.detach() for level in y), w.grad, *(v.grad for v in leaves)])
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() < 1e-4 * max(1, a.abs().max())


@both_backends
@pytest.mark.parametrize('modulated', [False, True])
def test_maps_smaller_than_the_kernel(modulated):
    grid = ScaleGrid(2, 2)
    x, offset, weight = randn(3, 2, 2, 2, 1), randn(3, 50, 2, 2, 1), randn(3, 2, 1, 5, 5)
    mask = randn(3, 25, 2, 2, 1) if modulated else None
    a, b = (
        deform_scale_conv2d(x, offset, weight, None, modulation=mask, backend=backend,
                            scale_space=grid)
        for backend in BACKENDS
    )  # fmt: skip
    assert largest_difference(a, b) < 1e-12


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('base, modulated', [(2, False), (1.4, True)])
def test_derivatives(backend, pyramid, base, modulated):
    grid, size, stride = ScaleGrid(base, 2), (4, 3), (2, 1)
    # Bilinear reading has no derivative at whole positions: keep clear of them.
    offset = map_signal(
        lambda level: 0.2 + 0.1 * level.tanh(), signal_of(grid, 18, size, pyramid, 1, stride, 5)
    )
    signals = [signal_of(grid, 2, size, pyramid), offset]
    if modulated:
        signals.append(signal_of(grid, 9, size, pyramid, 1, stride, 7))
    levels = [level for s in signals for level in (s if pyramid else (s,))]
    count = len(levels) // len(signals)

    def fn(weight, bias, *levels):
        parts = [levels[i : i + count] for i in range(0, len(levels), count)]
        x, offset, *modulation = (part if pyramid else part[0] for part in parts)
        y = deform_scale_conv2d(x, offset, weight, bias, stride, 1, 2, *modulation,
                                backend=backend, scale_space=grid)  # fmt: skip
        return y if pyramid else (y,)

    inputs = [randn(2, 1, 2, 3, 3, seed=1), randn(2), *levels]
    assert gradcheck(fn, [level.clone().requires_grad_() for level in inputs])


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast(backend, pyramid, dtype):
    """Half precision in the products, single in the positions: offsets of a large image hold."""
    grid, size = ScaleGrid(1.5, 2), (300, 5)
    x = signal_of(grid, 2, size, pyramid, dtype=torch.float32)
    offset = signal_of(grid, 18, size, pyramid, seed=5, dtype=torch.float32)
    weight, bias = (
        randn(*s, dtype=torch.float32).requires_grad_() for s in ((4, 2, 2, 3, 3), (4,))
    )
    args = x, offset, weight, bias
    exact = to_levels(deform_scale_conv2d(*args, backend=backend, scale_space=grid))
    with torch.autocast('cpu', dtype=dtype):
        y = deform_scale_conv2d(*args, backend=backend, scale_space=grid)
    levels = y if pyramid else y.unbind(2)
    assert all(level.dtype == dtype for level in levels)
    assert largest_difference([level.detach().float() for level in levels], exact) < 0.2
    sum(level.float().square().sum() for level in levels).backward()
    assert weight.grad.dtype == torch.float32 and weight.grad.isfinite().all()


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_keeps_dtype(backend, dtype):
    grid = ScaleGrid(1.5, 2)
    x, offset = randn(1, 2, 2, 6, 6, dtype=dtype), randn(1, 18, 2, 6, 6, dtype=dtype)
    weight, bias = randn(3, 2, 2, 3, 3, dtype=dtype), randn(3, dtype=dtype)
    y = deform_scale_conv2d(x, offset, weight, bias, backend=backend, scale_space=grid)
    assert y.dtype == dtype


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('backend', BACKENDS)
def test_a_batch_of_no_image(backend, modulated):
    grid = ScaleGrid(2, 2)
    x, offset, mask = (randn(0, channels, 2, 6, 6) for channels in (2, 18, 9))
    weight = randn(3, 2, 1, 3, 3).requires_grad_()
    y = deform_scale_conv2d(x, offset, weight, modulation=mask if modulated else None,
                            backend=backend, scale_space=grid)  # fmt: skip
    assert y.shape == (0, 3, 2, 6, 6)
    y.sum().backward()
    assert weight.grad.abs().max() == 0


def run_in_parts(size, x, offset, modulation, weight, required, **kwargs):
    """Outputs and gradients of the native path, ``size`` samples at a time (``None``: all).

    ``required``: which of x, offset, modulation and weight need a gradient.
    """
    signals = [x, offset] if modulation is None else [x, offset, modulation]
    leaves = [
        map_signal(lambda v, n=needed: v.clone().requires_grad_(n), signal)
        for signal, needed in zip([*signals, weight], [*required[: len(signals)], required[3]])
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, '_part_size', lambda *args: size)
        y = deform_scale_conv2d(*leaves[:2], leaves[-1], backend='native', **kwargs,
                                modulation=None if modulation is None else leaves[2])  # fmt: skip
        levels = tree_leaves(y)
        sum((level * randn(*level.shape, seed=9)).sum() for level in levels).backward()
    return [level.detach() for level in levels], [leaf.grad for leaf in tree_leaves(leaves)]


class TestParts:
    """On CPU the native path reads some samples at a time, and again in the backward pass."""

    @given(
        size=st.integers(1, 6),
        batch=st.integers(1, 4),
        pyramid=st.booleans(),
        base=st.sampled_from([2, 1.3]),
        interaction=st.integers(1, 2),
        kernel=st.tuples(odd, odd),
        stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
        groups=st.sampled_from([1, 2]),
        deform_groups=st.sampled_from([1, 2]),
        modulated=st.booleans(),
        channels_last=st.booleans(),
        required=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.just(True)),
    )
    @settings(deadline=None, max_examples=60)
    def test_their_size_changes_nothing(
        self, size, batch, pyramid, base, interaction, kernel, stride, groups, deform_groups,
        modulated, channels_last, required,
    ):  # fmt: skip
        grid, taps, sides = ScaleGrid(base, 2), kernel[0] * kernel[1] * deform_groups, (5, 4)
        signals = [
            signal_of(grid, 4, sides, pyramid, batch),
            signal_of(grid, 2 * taps, sides, pyramid, batch, stride, seed=20),
            signal_of(grid, taps, sides, pyramid, batch, stride, seed=40) if modulated else None,
        ]
        if channels_last and pyramid:
            signals[0] = tuple(v.to(memory_format=torch.channels_last) for v in signals[0])
        weight = randn(6, 4 // groups, interaction, *kernel, seed=1)
        kwargs = dict(stride=stride, groups=groups, scale_space=grid)
        (y, grads), (whole, expected) = (
            run_in_parts(n, *signals, weight, required, **kwargs) for n in (size, None)
        )
        assert largest_difference(y, whole) < 1e-12
        for a, b in zip(grads, expected, strict=True):
            assert (a is None) == (b is None)
            assert a is None or largest_difference(a, b) < 1e-12

    @pytest.mark.parametrize('groups', [1, 2])
    def test_the_signals_alone_can_need_gradients(self, groups):
        signals = randn(3, 4, 2, 5, 5), randn(3, 18, 2, 5, 5), randn(3, 9, 2, 5, 5)
        weight, required = randn(6, 4 // groups, 1, 3, 3), (True, True, True, False)
        kwargs = dict(groups=groups, scale_space=dict(num_scales=2))
        (_, grads), (_, expected) = (
            run_in_parts(n, *signals, weight, required, **kwargs) for n in (2, None)
        )
        assert grads[3] is None
        assert all(largest_difference(a, b) < 1e-12 for a, b in zip(grads[:3], expected))

    @pytest.mark.parametrize('modulated', [False, True])
    @pytest.mark.parametrize('pyramid', [False, True])
    def test_derivatives(self, pyramid, modulated, monkeypatch):
        monkeypatch.setattr(module, '_part_size', lambda *args: 2)
        grid, shape = ScaleGrid(2, 1), (3, 2, 3, 2)
        offset = 0.2 + 0.1 * randn(3, 18, 3, 2, seed=5).tanh()
        inputs = [randn(2, 2, 1, 3, 3, seed=1), randn(*shape), offset]
        inputs += [randn(3, 9, 3, 2, seed=7)] if modulated else []

        def fn(weight, *signals):
            x, offset, *rest = ((v,) if pyramid else v[:, :, None] for v in signals)
            y = deform_scale_conv2d(x, offset, weight, scale_space=grid,
                                    **dict(zip(['modulation'], rest)))  # fmt: skip
            return y[0] if pyramid else y

        assert gradcheck(fn, [v.requires_grad_() for v in inputs])

    @pytest.mark.parametrize('pyramid', [False, True])
    @pytest.mark.parametrize('modulated', [False, True])
    def test_memory_does_not_grow_by_the_taps(self, pyramid, modulated, monkeypatch):
        """Neither what is kept for the backward pass nor what any operation returns."""
        batch, channels, side, taps = 32, 16, 12, 25
        grid = ScaleGrid(2, 1)
        sizes = [channels, 2 * taps, taps] if modulated else [channels, 2 * taps]
        signals = [randn(batch, size, side, side) for size in sizes]
        read, allowed = batch * channels * taps * side**2, signals[1].numel()
        assert read == 8 * allowed
        monkeypatch.setattr(module, 'PART_BYTES', 8 * allowed)
        monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
        kept, returned = [], []

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                out = func(*args, **(kwargs or {}))
                returned.extend(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))
                return out

        def keep(t):
            kept.append(t.numel())
            return t

        def step():
            kept.clear()
            returned.clear()
            leaves = [v.clone().requires_grad_() for v in signals]
            weight = randn(4, channels, 1, 5, 5).requires_grad_()
            with Watch(), saved_tensors_hooks(keep, lambda t: t):
                x, offset, *rest = ((v,) if pyramid else v[:, :, None] for v in leaves)
                y = deform_scale_conv2d(x, offset, weight, scale_space=grid,
                                        **dict(zip(['modulation'], rest)))  # fmt: skip
                (y[0] if pyramid else y).sum().backward()

        step()
        assert max(returned) == allowed and max(kept) == allowed
        monkeypatch.setattr(module, '_part_size', lambda *args: None)
        step()
        assert max(returned) == read and max(kept) == read

    @pytest.mark.parametrize('threads', [1, 3, 64])
    @pytest.mark.parametrize('samples', [0.5, 1, 6.5, 10])
    def test_every_thread_has_as_many_samples(self, threads, samples, monkeypatch):
        monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
        x, displacement = torch.zeros(9, 3, 7, 8), torch.zeros(9, 1, 15, 2, 7, 4)
        monkeypatch.setattr(module, 'PART_BYTES', int(samples * 3 * 15 * 28 * 4))
        size = module._part_size(x, displacement)
        assert size % threads == 0
        assert size == threads or samples - threads < size <= samples

    @pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
    @pytest.mark.parametrize('pyramid', [False, True])
    def test_graphs(self, pyramid, monkeypatch):
        """They read the whole batch, whatever its size."""
        grid = ScaleGrid(2, 2)
        weight = randn(4, 2, 2, 3, 3, seed=1)

        def inputs(batch):
            signals = [signal_of(grid, c, (6, 5), pyramid, batch, seed=c) for c in (4, 18, 9)]
            return tuple(level for s in signals for level in (s if pyramid else (s,)))

        class Op(torch.nn.Module):
            def forward(self, *levels):
                count = len(levels) // 3
                parts = [levels[i : i + count] for i in range(0, len(levels), count)]
                x, offset, modulation = parts if pyramid else (part[0] for part in parts)
                y = deform_scale_conv2d(x, offset, weight, groups=2, modulation=modulation,
                                        scale_space=grid)  # fmt: skip
                return y if pyramid else (y,)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, '_part_size', lambda *args: 1)
            three, five = Op()(*inputs(3)), Op()(*inputs(5))
        monkeypatch.setattr(module, 'PART_BYTES', 1)
        monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
        compiled = torch.compile(Op(), fullgraph=True, backend='aot_eager')
        assert largest_difference(compiled(*inputs(3)), three) < 1e-12
        traced = torch.jit.trace(Op(), inputs(3))
        assert largest_difference(traced(*inputs(3)), three) < 1e-12
        assert largest_difference(traced(*inputs(5)), five) < 1e-12
        batch = torch.export.Dim('batch', min=2)
        shapes = (tuple({0: batch} for _ in inputs(3)),)
        exported = torch.export.export(Op(), inputs(3), dynamic_shapes=shapes, strict=False)
        assert largest_difference(exported.module()(*inputs(5)), five) < 1e-12

    @pytest.mark.parametrize('size', [2, None])
    @pytest.mark.parametrize('given', [torch.float32, torch.bfloat16])
    def test_autocast(self, size, given, monkeypatch):
        """The signal may be of half precision already: the output of the layer before."""
        monkeypatch.setattr(module, '_part_size', lambda *args: size)
        x, offset, weight = (
            v.float().requires_grad_()
            for v in (randn(5, 4, 1, 6, 6), randn(5, 18, 1, 6, 6), randn(3, 4, 1, 3, 3))
        )
        grid = ScaleGrid(2, 1)
        exact = deform_scale_conv2d(x, offset, weight, scale_space=grid)
        exact_grads = torch.autograd.grad(exact.sum(), (x, offset, weight))
        with torch.autocast('cpu', dtype=torch.bfloat16):
            y = deform_scale_conv2d(x.to(given), offset, weight, scale_space=grid)
        assert y.dtype == torch.bfloat16
        assert (y - exact).abs().max() < 0.02 * exact.abs().max()
        for a, b in zip(torch.autograd.grad(y.sum(), (x, offset, weight)), exact_grads):
            assert a.dtype == torch.float32
            assert (a - b).abs().max() < 0.02 * b.abs().max()

    @pytest.mark.parametrize('pyramid', [False, True])
    def test_no_sample(self, pyramid):
        grid = ScaleGrid(2, 2)
        x, offset = (signal_of(grid, channels, (5, 4), pyramid, 0) for channels in (4, 18))
        y = deform_scale_conv2d(x, offset, randn(6, 4, 2, 3, 3), scale_space=grid)
        assert [level.shape[:2] for level in tree_leaves(y)] == [(0, 6)] * (2 if pyramid else 1)


class TestEquivariance:
    """The experiment of the documentation, in float64, with the figures that it states."""

    @pytest.fixture(scope='class')
    def measure(self):
        path = ROOT / 'studies' / 'measurements' / 'deform_equivariance.py'
        spec = importlib.util.spec_from_file_location('deform_equivariance', path)
        experiment = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(experiment)
        return experiment.measure

    @pytest.mark.parametrize('factor', [2, 4])
    def test_offsets_that_grow_with_the_level_are_equivariant(self, measure, factor):
        errors = measure(factor, samples=2)
        assert len(errors['scaled']) == 5 - {2: 1, 4: 2}[factor]
        assert max(errors['scaled']) < 2e-3
        for name in ('unscaled', 'taps'):
            ratios = [a / b for a, b in zip(errors[name], errors['scaled'], strict=True)]
            assert min(ratios) > 10

    def test_the_border_is_part_of_the_statement(self, measure):
        """Zeros begin within one pixel of the level: what is read there does not scale."""
        whole, inside = (measure(2, samples=1, border=border)['scaled'] for border in (0, 16))
        assert whole[0] < 2e-3 and all(a > b for a, b in zip(whole, inside))


class TestBackends:
    def test_automatic(self, monkeypatch):
        cpu, cuda = torch.device('cpu'), torch.device('cuda')
        chosen = {}
        for ops in ((), ('cpu',), ('cpu', 'cuda')):
            monkeypatch.setattr(module, '_compiled_ops', lambda ops=ops: ops)
            chosen[ops] = [choose_backend('auto', device) for device in (cpu, cuda)]
        assert chosen == {
            (): ['native', 'native'],
            ('cpu',): ['native', 'native'],
            ('cpu', 'cuda'): ['native', 'mmcv'],
        }

    def test_what_is_missing_is_said(self, monkeypatch):
        monkeypatch.setattr(module, '_compiled_ops', lambda: ())
        with pytest.raises(RuntimeError, match="backend='mmcv' needs MMCV with compiled ops"):
            choose_backend('mmcv', torch.device('cpu'))
        assert choose_backend('native', torch.device('cpu')) == 'native'

    def test_unknown(self):
        with pytest.raises(ValueError, match="backend must be .*, got 'cuda'"):
            choose_backend('cuda', torch.device('cpu'))


@pytest.mark.parametrize('pyramid', [False, True])
@pytest.mark.parametrize(
    'change, message',
    [
        (dict(channels=17), 'offset must have 18 channels a deformable group, .*got 17'),
        (dict(channels=54), 'divides the 2 channels of the signal; got 54'),
        (dict(size=(9, 8)), r'offset must have a level of shape \(1, ..., 9, 9\)'),
        (dict(batch=2), r'offset must have a level of shape \(1, ..., 9, 9\)'),
        (dict(grid=ScaleGrid(2, 2)), 'offset has 2 levels, the signal 3'),
        (dict(pyramid=None), 'offset and signal must both be dense or both be pyramids'),
    ],
)
def test_offsets_that_do_not_fit(pyramid, change, message):
    grid = ScaleGrid(2, 3)
    x, weight = signal_of(grid, 2, (9, 9), pyramid), randn(4, 2, 1, 3, 3)
    arguments = dict(grid=grid, channels=18, size=(9, 9), pyramid=pyramid)
    deform_scale_conv2d(x, signal_of(**arguments), weight, scale_space=grid)
    if 'pyramid' in change:
        change = dict(pyramid=not pyramid)
    with pytest.raises(ValueError, match=message):
        deform_scale_conv2d(x, signal_of(**{**arguments, **change}), weight, scale_space=grid)


def test_modulations_that_do_not_fit():
    grid = ScaleGrid(2, 2)
    x, offset, weight = randn(1, 2, 2, 6, 6), randn(1, 18, 2, 6, 6), randn(4, 2, 1, 3, 3)
    with pytest.raises(ValueError, match='modulation must have 9 channels'):
        deform_scale_conv2d(x, offset, weight, modulation=randn(1, 8, 2, 6, 6), scale_space=grid)
    with pytest.raises(ValueError, match='modulation has 2 deformable groups, offset 1'):
        deform_scale_conv2d(x, offset, weight, modulation=randn(1, 18, 2, 6, 6), scale_space=grid)
