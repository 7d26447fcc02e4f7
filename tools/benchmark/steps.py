# Copyright (c) mmscale contributors.
"""What is measured: steps of networks and of layers, built from what mmscale offers in public.

A checkout of another day builds them, too. A builder returns steps by mode: the one that needs
least memory comes first.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import NamedTuple

import mmpretrain.models  # noqa: F401  (registers ResNet)
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmscale.models  # noqa: F401  (registers ScaleResNet)
from mmscale.ops import deform_scale_conv2d, scale_conv2d
from mmscale.registry import MODELS
from mmscale.scale_space import ScaleGrid, gaussian_lift, gaussian_pyramid_lift, stack_levels

NUM_CLASSES = 1000
LEARNING_RATE = 1e-3
GRID = ScaleGrid(base=2, num_scales=4)  # of single layers
BASIS_GRID = ScaleGrid(base=2 ** (1 / 3), num_scales=4)
RMS_OFFSET = 0.5  # taps


class Step(NamedTuple):
    """A function without arguments, and the context in which it is called."""

    run: Callable[[], object]
    context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext


# ---- networks


def network(
    config: dict, batch: int, side: int, device: str = 'cpu', channels_last: bool = False,
    amp: bool = False, how: str = 'eager', head: bool = True,
) -> dict[str, Step]:  # fmt: skip
    """Inference and training steps of one and the same backbone with a linear classifier.

    ``amp`` is autocast to bfloat16; ``how`` is ``'eager'``, ``'compiled'`` or ``'CUDA graph'``;
    without ``head`` inference ends with the backbone.
    """
    torch.manual_seed(0)
    backbone = MODELS.build(config)
    backbone.init_weights()
    model = nn.ModuleDict(dict(backbone=backbone, head=nn.Linear(backbone.feat_dim, NUM_CLASSES)))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(device, memory_format=layout)
    images = torch.randn(batch, 3, side, side).to(device, memory_format=layout)
    labels = torch.arange(batch, device=device) % NUM_CLASSES
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)

    def logits():
        return model['head'](pooled(backbone(images)[-1]))

    if how == 'compiled':
        logits = torch.compile(logits)
    if amp:  # a graph has to hold the casts of the weights: no cache
        logits = torch.autocast(device, torch.bfloat16, cache_enabled='graph' not in how)(logits)

    def train():
        loss = F.cross_entropy(logits(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @contextlib.contextmanager
    def inference():
        model.eval()
        with torch.inference_mode():
            yield

    @contextlib.contextmanager
    def training():
        model.train()
        yield

    # A partial, for no call of ours is to be counted with the network's.
    infer = logits if head else functools.partial(backbone, images)
    steps = {'inference': Step(infer, inference), 'training step': Step(train, training)}
    return {mode: captured(step) for mode, step in steps.items()} if 'graph' in how else steps


def captured(step: Step) -> Step:
    """The step as a CUDA graph, captured behind three runs on a stream of its own."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with step.context():
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step.run()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            step.run()
    return Step(graph.replay, step.context)


def pooled(features: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Mean over positions and levels: ``(N, C)``."""
    if isinstance(features, Tensor):
        return features.mean(tuple(range(2, features.ndim)))
    return torch.stack([level.mean((2, 3)) for level in features]).mean(0)


def lift(kind: str, batch: int, side: int, device: str = 'cpu') -> dict[str, Step]:
    """A lift alone; ``kind`` is its name in the registry."""
    module = MODELS.build(dict(type=kind, scale_space=GRID)).to(device)
    images = torch.randn(batch, 3, side, side, device=device)
    return {'inference': Step(lambda: module(images), torch.inference_mode)}


# ---- layers


class Layer(NamedTuple):
    """A function without arguments that returns tensors, and the tensors that get gradients."""

    forward: Callable[[], list[Tensor]]
    leaves: list[Tensor]


def layer(kind: str, device: str = 'cpu', **arguments) -> dict[str, Step]:
    """Forward, and forward with backward to all gradients; ``kind`` is one of ``LAYERS``."""
    torch.manual_seed(0)
    with torch.device(device):
        made = LAYERS[kind](**arguments)
        gradients = [torch.randn_like(y) for y in made.forward()]

    def train():
        torch.autograd.grad(made.forward(), made.leaves, gradients)

    return {'forward': Step(made.forward, torch.no_grad), 'forward + backward': Step(train)}


def tensors_of(x: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """The tensors that a signal is kept in: one if it is dense, otherwise those of the pyramid."""
    return [x] if isinstance(x, Tensor) else list(x)


def level_sides(form: str, side: int) -> list[int]:
    """Side of each level, in samples."""
    return [side if form == 'dense' else GRID.level_size(side, k) for k in GRID.levels]


def random_leaf(*shape: int, channels_last: bool = False) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.randn(shape).to(memory_format=layout).requires_grad_()


def scale_convolution(kernel, channels, side, batch, form: str, interaction: int) -> Layer:
    """``scale_conv2d`` of a signal that lies in memory as another one has left it."""
    lifted = gaussian_lift if form == 'dense' else gaussian_pyramid_lift
    x = lifted(torch.randn(batch, channels, side, side), GRID)
    x = scale_conv2d(x, torch.randn(channels, channels, 1, 1, 1), scale_space=GRID)
    leaves = [tensor.detach().requires_grad_() for tensor in tensors_of(x)]
    x = leaves[0] if form == 'dense' else tuple(leaves)
    weight = random_leaf(channels, channels, interaction, kernel, kernel)
    return Layer(lambda: tensors_of(scale_conv2d(x, weight, scale_space=GRID)), [*leaves, weight])


def basis_convolution(basis: dict, channels, side, batch) -> Layer:
    """A scale convolution of a dense signal whose kernels are made of a basis."""
    conv = MODELS.build(
        dict(type='mmscale.ScaleConv', in_channels=channels, out_channels=channels, kernel_size=7,
             padding=3, bias=False, kernel=basis, scale_space=BASIS_GRID)
    )  # fmt: skip
    x = stack_levels([torch.randn(batch, channels, side, side) for _ in BASIS_GRID.levels])
    x.requires_grad_()
    return Layer(lambda: [conv(x)], [x, conv.weight])


def convolutions_of_its_sizes(basis: dict, channels, side, batch, channels_last=False) -> Layer:
    """The limit: one convolution a level, undilated, of as many taps as the basis has there."""
    tables = MODELS.build(basis).tables(BASIS_GRID)
    xs, weights = [], []
    for k in BASIS_GRID.levels:
        n = tables[k].functions.shape[-1]
        xs.append(random_leaf(batch, channels, side, side, channels_last=channels_last))
        weights.append(random_leaf(channels, channels, n, n, channels_last=channels_last))

    def forward():
        return [F.conv2d(x, w, padding=w.shape[-1] // 2) for x, w in zip(xs, weights)]

    return Layer(forward, [*xs, *weights])


def ordinary_convolutions(
    kernel, channels, side, batch, form: str, interaction: int, channels_last: bool = False
) -> Layer:
    """The limit: one undilated convolution a level, of the same multiply-adds.

    An output level that sees ``l`` input levels is one convolution of ``l`` times the channels, and
    all of them lie ready in memory, in tensors of their own.
    """
    xs, weights = [], []
    for k, n in enumerate(level_sides(form, side)):
        seen = channels * min(interaction, GRID.num_scales - k)
        xs.append(random_leaf(batch, seen, n, n, channels_last=channels_last))
        weights.append(random_leaf(channels, seen, kernel, kernel, channels_last=channels_last))

    def forward():
        return [F.conv2d(x, w, padding=kernel // 2) for x, w in zip(xs, weights)]

    return Layer(forward, [*xs, *weights])


def plain_loop(kernel, channels, side, batch, form: str, interaction: int) -> Layer:
    """Scale convolution as published layers write it."""
    weight = random_leaf(channels, channels, interaction, kernel, kernel)
    if form == 'dense':
        x = random_leaf(batch, channels, GRID.num_scales, side, side)
        return Layer(lambda: [plain_dense(x, weight)], [x, weight])
    levels = [random_leaf(batch, channels, n, n) for n in level_sides(form, side)]
    return Layer(lambda: plain_pyramid(levels, weight), [*levels, weight])


def plain_dense(x: Tensor, weight: Tensor) -> Tensor:
    """``(N, C, S, H, W)``, sample by sample in memory, and ``(C_out, C, K, k, k)``."""
    interaction, kernel = weight.shape[2], weight.shape[3]
    levels = []
    for k in range(x.shape[2]):
        window = dict(dilation=2**k, padding=2**k * (kernel // 2))
        y = F.conv2d(x[:, :, k], weight[:, :, 0], **window)
        for shift in range(1, min(interaction, x.shape[2] - k)):
            y = y + F.conv2d(x[:, :, k + shift], weight[:, :, shift], **window)
        levels.append(y)
    return torch.stack(levels, dim=2)


def plain_pyramid(x: list[Tensor], weight: Tensor) -> list[Tensor]:
    """Levels ``(N, C, H_k, W_k)``; a coarser one is interpolated to the size of the finer."""
    interaction, padding = weight.shape[2], weight.shape[3] // 2
    outputs = []
    for k, level in enumerate(x):
        y = F.conv2d(level, weight[:, :, 0], padding=padding)
        for shift, coarser in enumerate(x[k + 1 : k + interaction], start=1):
            grown = F.interpolate(coarser, size=level.shape[-2:], mode='bilinear')
            y = y + F.conv2d(grown, weight[:, :, shift], padding=padding)
        outputs.append(y)
    return outputs


def deformable_inputs(num_scales: int, kernel, channels, side, batch):
    """Levels ``(N, C, H, W)``, their offsets in taps ``(N, 2 k k, H, W)``, and one weight."""
    levels, offsets = (
        [torch.randn(batch, width, side, side) for _ in range(num_scales)]
        for width in (channels, 2 * kernel**2)
    )
    offsets = [RMS_OFFSET * offset for offset in offsets]
    return levels, offsets, random_leaf(channels, channels, 1, kernel, kernel)


def deformable(backend: str, num_scales: int, **sizes: int) -> Layer:
    """Deformable scale convolution of a dense signal: one call for all levels."""
    *parts, weight = deformable_inputs(num_scales, **sizes)
    x, offset = (torch.stack(part, dim=2).requires_grad_() for part in parts)
    options = dict(backend=backend, scale_space=dict(base=2, num_scales=num_scales))
    return Layer(lambda: [deform_scale_conv2d(x, offset, weight, **options)], [x, offset, weight])


def mmcv_per_level(num_scales: int, **sizes: int) -> Layer:
    """MMCV's op with dilation ``2**k``, given levels apart in memory and offsets in pixels."""
    from mmcv.ops import deform_conv2d

    levels, offsets, weight = deformable_inputs(num_scales, **sizes)
    xs = [level.requires_grad_() for level in levels]
    pixels = [(2**k * offset).requires_grad_() for k, offset in enumerate(offsets)]
    radius = weight.shape[-1] // 2

    def forward():
        return [
            deform_conv2d(x, offset, weight[:, :, 0], 1, 2**k * radius, 2**k)
            for k, (x, offset) in enumerate(zip(xs, pixels))
        ]

    return Layer(forward, [*xs, *pixels, weight])


LAYERS = dict(
    scale=scale_convolution,
    basis=basis_convolution,
    sizes=convolutions_of_its_sizes,
    ordinary=ordinary_convolutions,
    loop=plain_loop,
    deformable=deformable,
    mmcv=mmcv_per_level,
)
BUILDERS = dict(network=network, lift=lift, layer=layer)
