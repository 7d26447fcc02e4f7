# Copyright (c) mmscale contributors.
import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import largest_difference, randn, scale_conv, signal_of, to_levels
from torch.autograd import gradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from torchvision.ops import deform_conv2d

from mmscale.ops import choose_backend, deform_scale_conv2d
from mmscale.ops import deform_scale_conv as module
from mmscale.scale_space import ScaleGrid

# The devices of MMCV's ops, if they are compiled.
BACKENDS = ('native', 'mmcv') if importlib.util.find_spec('mmcv._ext') else ('native',)
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.ops
both_forms = pytest.mark.parametrize('pyramid', [False, True])
modulated_or_not = pytest.mark.parametrize('modulated', [False, True])
odd = st.sampled_from([1, 3])


@pytest.fixture(params=[*BACKENDS, 'parts'])
def backend(request, monkeypatch):
    """Select a path; ``'parts'`` is the native path with one sample at a time."""
    read = 1 if request.param == 'parts' else None
    monkeypatch.setattr(module, '_part_size', lambda *args: read)
    return 'native' if request.param == 'parts' else request.param


def signals_of(grid, channels, taps, size, pyramid, modulated, batch=1, stride=(1, 1), **kwargs):
    """Return a signal, the offset of ``taps`` taps in total, and the modulation."""
    counts = [2 * taps, taps] if modulated else [2 * taps]
    beside = [
        signal_of(grid, count, size, pyramid, batch, stride, 20 * (i + 1), **kwargs)
        for i, count in enumerate(counts)
    ]
    return [signal_of(grid, channels, size, pyramid, batch, **kwargs), *beside]


def op(signals, weight, **kwargs):
    x, offset, *modulation = signals
    modulation = modulation[0] if modulation else None
    return deform_scale_conv2d(x, offset, weight, modulation=modulation, **kwargs)


def run(signals, weight, required=(True,) * 4, **kwargs):
    """Return the levels of the output, and the gradients of a random sum of them."""
    weight, *signals = (
        tree_map(lambda v, n=needed: v.clone().requires_grad_(n), signal)
        for signal, needed in zip([weight, *signals], required)
    )
    y = tree_leaves(op(signals, weight, **kwargs))
    if any(level.requires_grad for level in y):
        sum((level * randn(*level.shape, seed=9).to(level)).sum() for level in y).backward()
    return [level.detach() for level in y], [v.grad for v in tree_leaves([weight, *signals])]


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
    size=st.tuples(st.integers(3, 5), st.integers(3, 5)),
)
@settings(deadline=None, max_examples=60)
def test_is_the_sum_that_defines_it(
    pyramid, base, first_level, num_scales, interaction, kernel, stride, dilation, groups,
    deform_groups, bias, modulated, size,
):  # fmt: skip
    grid = ScaleGrid(base, num_scales, first_level=first_level)
    taps = kernel[0] * kernel[1] * deform_groups
    signals = signals_of(grid, 2, taps, size, pyramid, modulated, 2, stride)
    weight = randn(4, 2 // groups, min(interaction, num_scales), *kernel, seed=1)
    bias = randn(4, seed=2) if bias else None
    x, *beside = map(to_levels, signals)
    expected = scale_conv(
        x, weight.numpy(), None if bias is None else bias.numpy(), stride, dilation, groups,
        *beside, base=base, first_level=first_level, pyramid=pyramid,
    )  # fmt: skip
    args = dict(bias=bias, stride=stride, dilation=dilation, groups=groups, scale_space=grid)
    for backend in BACKENDS:
        found = op(signals, weight, backend=backend, **args)
        assert isinstance(found, tuple) == pyramid
        assert largest_difference(to_levels(found), expected) < 1e-11


@modulated_or_not
@pytest.mark.parametrize('groups, deform_groups', [(1, 1), (2, 4)])
def test_one_level_is_deformable_convolution(backend, modulated, groups, deform_groups):
    grid = ScaleGrid(2, 1)
    x, offset, *mask = signals_of(
        grid, 4, 15 * deform_groups, (9, 10), True, modulated, 2, stride=(2, 1)
    )
    weight, bias = randn(6, 4 // groups, 1, 3, 5), randn(6)
    mask_of_level = mask[0][0] if modulated else None
    expected = deform_conv2d(
        x[0], offset[0], weight[:, :, 0], bias, (2, 1), (2, 2), (2, 1), mask_of_level
    )
    found = op([x, offset, *mask], weight, bias=bias, stride=(2, 1), dilation=(2, 1),
               groups=groups, backend=backend, scale_space=grid)  # fmt: skip
    assert largest_difference(found, (expected,)) < 1e-12


@pytest.mark.skipif(len(BACKENDS) < 2, reason='MMCV without compiled ops')
@pytest.mark.parametrize(
    'batch, size, pyramid, modulated',
    [
        (33, (9, 8), False, False),  # 33 and 48 do not divide by MMCV's own step
        (48, (9, 8), True, False),
        (48, (9, 8), False, True),
        (3, (2, 1), False, False),  # smaller than the kernel
        (3, (2, 1), True, True),
    ],
)
def test_backends_agree_in_single_precision(batch, size, pyramid, modulated):
    grid = ScaleGrid(2, 2)
    signals = signals_of(grid, 4, 18, size, pyramid, modulated, batch, dtype=torch.float32)
    weight = randn(6, 2, 2, 3, 3, seed=1, dtype=torch.float32)
    native, mmcv = (
        run(signals, weight, groups=2, backend=backend, scale_space=grid) for backend in BACKENDS
    )
    for a, b in zip(native[0] + native[1], mmcv[0] + mmcv[1], strict=True):
        assert (a - b).abs().max() < 1e-4 * max(1, a.abs().max())


@pytest.mark.parametrize('base, pyramid, modulated', [(2, True, False), (1.4, False, True)])
def test_derivatives(backend, base, pyramid, modulated):
    grid = ScaleGrid(base, 2)
    x, offset, *mask = signals_of(grid, 2, 9, (3, 2), pyramid, modulated, 2, (2, 1))
    # Bilinear interpolation has no derivative at integral positions: avoid them.
    offset = tree_map(lambda level: 0.2 + 0.1 * level.tanh(), offset)
    leaves, form = tree_flatten([x, offset, *mask])

    def fn(weight, bias, *leaves):
        signals = tree_unflatten(leaves, form)
        return tuple(tree_leaves(op(signals, weight, bias=bias, stride=(2, 1), groups=2,
                                    backend=backend, scale_space=grid)))  # fmt: skip

    inputs = [randn(2, 1, 2, 3, 3, seed=1), randn(2), *leaves]
    assert gradcheck(fn, [v.requires_grad_() for v in inputs])


@pytest.mark.parametrize(
    'given, dtype', [(torch.float32, torch.float16), (torch.bfloat16, torch.bfloat16)]
)
def test_autocast(backend, given, dtype):
    """Products use half precision, positions single precision: large images keep their offsets.

    The signal itself may have half precision, as the output of a layer does.
    """
    grid = ScaleGrid(1.5, 2)
    signals = signals_of(grid, 4, 9, (300, 5), False, False, batch=2, dtype=torch.float32)
    weight = randn(3, 4, 1, 3, 3, dtype=torch.float32)
    exact, exact_grads = run(signals, weight, backend=backend, scale_space=grid)
    with torch.autocast('cpu', dtype=dtype):
        y, grads = run([signals[0].to(given), signals[1]], weight, backend=backend,
                       scale_space=grid)  # fmt: skip
    assert y[0].dtype == dtype
    assert grads[0].dtype == torch.float32
    for a, b in zip([*y, *grads], [*exact, *exact_grads], strict=True):
        assert (a - b).abs().max() < 0.03 * b.abs().max()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_keeps_dtype(backend, dtype):
    grid = ScaleGrid(1.5, 2)
    signals = signals_of(grid, 2, 9, (6, 6), False, False, dtype=dtype)
    weight, bias = randn(3, 2, 2, 3, 3, dtype=dtype), randn(3, dtype=dtype)
    assert op(signals, weight, bias=bias, backend=backend, scale_space=grid).dtype == dtype


@modulated_or_not
def test_a_batch_of_no_image(backend, modulated):
    grid = ScaleGrid(2, 2)
    signals = signals_of(grid, 2, 9, (6, 6), False, modulated, batch=0)
    (y,), grads = run(signals, randn(3, 2, 2, 3, 3), backend=backend, scale_space=grid)
    assert y.shape == (0, 3, 2, 6, 6) and grads[0].abs().max() == 0


class TestParts:
    """On CPU the native path samples parts of the batch, and samples again in the backward pass."""

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
        required=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    )
    @settings(deadline=None, max_examples=60)
    def test_their_size_changes_nothing(
        self, size, batch, pyramid, base, interaction, kernel, stride, groups, deform_groups,
        modulated, channels_last, required,
    ):  # fmt: skip
        grid, taps = ScaleGrid(base, 2), kernel[0] * kernel[1] * deform_groups
        signals = signals_of(grid, 4, taps, (5, 4), pyramid, modulated, batch, stride)
        if channels_last and pyramid:
            signals[0] = tuple(v.to(memory_format=torch.channels_last) for v in signals[0])
        weight, found = randn(6, 4 // groups, interaction, *kernel, seed=1), []
        for read in (size, None):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, '_part_size', lambda *args, read=read: read)
                found.append(run(signals, weight, required, stride=stride, groups=groups,
                                 backend='native', scale_space=grid))  # fmt: skip
        for a, b in zip(found[0][0] + found[0][1], found[1][0] + found[1][1], strict=True):
            assert (a is None) == (b is None)
            assert a is None or largest_difference(a, b) < 1e-12

    @both_forms
    @modulated_or_not
    def test_memory_does_not_grow_by_the_taps(self, pyramid, modulated, monkeypatch):
        """Neither saved tensors nor the result of any operation grow by the number of taps."""
        batch, channels, side, taps, grid = 32, 16, 12, 25, ScaleGrid(2, 1)
        signals = signals_of(grid, channels, taps, (side, side), pyramid, modulated, batch)
        read, allowed = batch * channels * taps * side**2, batch * 2 * taps * side**2
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

        def most():
            kept.clear()
            returned.clear()
            with Watch(), saved_tensors_hooks(keep, lambda t: t):
                run(signals, randn(4, channels, 1, 5, 5), scale_space=grid)
            return max(returned), max(kept)

        assert most() == (allowed, allowed)
        monkeypatch.setattr(module, '_part_size', lambda *args: None)
        assert most() == (read, read)

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
    @both_forms
    def test_graphs(self, pyramid, monkeypatch):
        """Graphs process the whole batch, for any batch size."""
        grid, weight = ScaleGrid(2, 2), randn(4, 2, 2, 3, 3, seed=1)

        def inputs(batch):
            return tuple(tree_leaves(signals_of(grid, 4, 9, (6, 5), pyramid, True, batch)))

        form = tree_flatten(signals_of(grid, 4, 9, (6, 5), pyramid, True))[1]

        class Op(torch.nn.Module):
            def forward(self, *levels):
                y = op(tree_unflatten(levels, form), weight, groups=2, scale_space=grid)
                return y if pyramid else (y,)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, '_part_size', lambda *args: 1)
            three, five = Op()(*inputs(3)), Op()(*inputs(5))
        monkeypatch.setattr(module, 'PART_BYTES', 1)
        monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
        compiled = torch.compile(Op(), fullgraph=True, backend='aot_eager')
        assert largest_difference(compiled(*inputs(3)), three) < 1e-12
        traced = torch.jit.trace(Op(), inputs(3))
        assert largest_difference(traced(*inputs(5)), five) < 1e-12
        shapes = (tuple({0: torch.export.Dim('batch', min=2)} for _ in inputs(3)),)
        exported = torch.export.export(Op(), inputs(3), dynamic_shapes=shapes, strict=False)
        assert largest_difference(exported.module()(*inputs(5)), five) < 1e-12


def test_offsets_that_grow_with_the_level_are_equivariant():
    """The experiment of the documentation in float64 gives the documented numbers."""
    path = ROOT / 'studies' / 'measurements' / 'deform_equivariance.py'
    spec = importlib.util.spec_from_file_location('deform_equivariance', path)
    experiment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(experiment)
    errors = experiment.measure(2, samples=1)
    assert len(errors['scaled']) == 4 and max(errors['scaled']) < 2e-3
    for name in ('unscaled', 'taps'):
        ratios = [a / b for a, b in zip(errors[name], errors['scaled'], strict=True)]
        assert min(ratios) > 10


def test_the_backend_is_chosen_by_device_and_compiled_ops(monkeypatch):
    cpu, cuda = torch.device('cpu'), torch.device('cuda')
    for ops, on_cuda in (((), 'native'), (('cpu',), 'native'), (('cpu', 'cuda'), 'mmcv')):
        monkeypatch.setattr(module, '_compiled_ops', lambda ops=ops: ops)
        assert [choose_backend('auto', device) for device in (cpu, cuda)] == ['native', on_cuda]
    monkeypatch.setattr(module, '_compiled_ops', lambda: ())
    with pytest.raises(RuntimeError, match="backend='mmcv' needs MMCV with compiled ops"):
        choose_backend('mmcv', cpu)
    with pytest.raises(ValueError, match="backend must be .*, got 'cuda'"):
        choose_backend('cuda', cpu)


@both_forms
@pytest.mark.parametrize(
    'change, message',
    [
        (dict(channels=17), 'offset must have 18 channels a deformable group, .*got 17'),
        (dict(channels=54), 'divide the 2 channels of the signal; got 54'),
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


@pytest.mark.parametrize(
    'channels, message',
    [
        (8, 'modulation must have 9 channels'),
        (18, 'modulation has 2 deformable groups, offset 1'),
    ],
)
def test_modulations_that_do_not_fit(channels, message):
    x, offset, weight = randn(1, 2, 2, 6, 6), randn(1, 18, 2, 6, 6), randn(4, 2, 1, 3, 3)
    with pytest.raises(ValueError, match=message):
        op([x, offset, randn(1, channels, 2, 6, 6)], weight, scale_space=ScaleGrid(2, 2))
