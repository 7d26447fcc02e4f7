# Copyright (c) mmscale contributors.
"""Scale convolution against ordinary convolutions of equal work, and against the plain loop.

The limit is one ordinary convolution a level, undilated and of the same multiply-adds: an output
level that sees ``l`` input levels is one convolution of ``l`` times the channels, and all of them
lie ready in memory. The plain loop is how published layers are written.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from results import compare
from running import parse_args, run_sections
from timing import progress, time_in_turn
from torch import Tensor

from mmscale.ops import scale_conv2d
from mmscale.scale_space import ScaleGrid, Signal, gaussian_lift, gaussian_pyramid_lift, is_pyramid

SECTION = 'Scale convolution'
GRID = ScaleGrid(base=2, num_scales=4)
FORMS = ('dense', 'pyramid')
INTERACTIONS = (1, 2)


@dataclass(frozen=True)
class Case:
    """One layer: ``channels`` in and out, images of ``side`` pixels."""

    kernel: int
    channels: int
    side: int
    batch: int

    def __str__(self) -> str:
        return (
            f'{self.kernel}x{self.kernel}, {self.channels} channels, '
            f'{self.batch} x {self.side}x{self.side}'
        )


CASES = (Case(3, 64, 56, 8), Case(7, 32, 28, 32))
QUICK_CASES = (Case(3, 4, 16, 2),)


@dataclass(frozen=True)
class Candidate:
    """A function without arguments that returns tensors, and the tensors that get gradients."""

    forward: Callable[[], list[Tensor]]
    leaves: list[Tensor]


def level_sides(form: str, side: int) -> list[int]:
    """Side of each level, in samples."""
    if form == 'dense':
        return [side] * GRID.num_scales
    return [GRID.level_size(side, k) for k in GRID.levels]


def tensors_of(x: Signal) -> list[Tensor]:
    """The tensors that a signal is kept in: one if it is dense, otherwise those of the pyramid."""
    return list(x) if is_pyramid(x) else [x]


def scale_convolution(form: str, interaction: int, case: Case, device: str) -> Candidate:
    """``scale_conv2d`` of a signal that lies in memory as another one has left it."""
    lift = gaussian_lift if form == 'dense' else gaussian_pyramid_lift
    image = torch.randn(case.batch, case.channels, case.side, case.side, device=device)
    before = torch.randn(case.channels, case.channels, 1, 1, 1, device=device)
    x = scale_conv2d(lift(image, GRID), before, scale_space=GRID)
    levels = tuple(tensor.detach().requires_grad_() for tensor in tensors_of(x))
    x = levels if is_pyramid(x) else levels[0]
    weight = random_weight(case, interaction, device)
    return Candidate(
        lambda: tensors_of(scale_conv2d(x, weight, scale_space=GRID)), [*tensors_of(x), weight]
    )


def random_weight(case: Case, interaction: int, device: str) -> Tensor:
    shape = case.channels, case.channels, interaction, case.kernel, case.kernel
    return torch.randn(shape, device=device).requires_grad_()


def ordinary_convolutions(
    form: str,
    interaction: int,
    case: Case,
    device: str,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Candidate:
    """The limit: one convolution a level, each on tensors of its own."""
    inputs, weights = [], []
    for k, side in enumerate(level_sides(form, case.side)):
        seen = case.channels * min(interaction, GRID.num_scales - k)
        shapes = (case.batch, seen, side, side), (case.channels, seen, case.kernel, case.kernel)
        for tensors, shape in zip((inputs, weights), shapes):
            tensor = torch.randn(shape, device=device).to(memory_format=memory_format)
            tensors.append(tensor.requires_grad_())
    padding = case.kernel // 2
    return Candidate(
        lambda: [F.conv2d(x, w, padding=padding) for x, w in zip(inputs, weights)],
        [*inputs, *weights],
    )


def plain_loop(form: str, interaction: int, case: Case, device: str) -> Candidate:
    """Scale convolution as published layers write it."""
    weight = random_weight(case, interaction, device)
    sides = level_sides(form, case.side)
    if form == 'dense':
        shape = case.batch, case.channels, GRID.num_scales, case.side, case.side
        x = torch.randn(shape, device=device).requires_grad_()
        return Candidate(lambda: [plain_dense(x, weight)], [x, weight])
    shapes = [(case.batch, case.channels, side, side) for side in sides]
    levels = [torch.randn(shape, device=device).requires_grad_() for shape in shapes]
    return Candidate(lambda: plain_pyramid(levels, weight), [*levels, weight])


def plain_dense(x: Tensor, weight: Tensor) -> Tensor:
    """``(N, C, S, H, W)``, sample by sample in memory, and ``(C_out, C, K, k, k)``."""
    interaction, kernel = weight.shape[2], weight.shape[3]
    levels = []
    for k in range(x.shape[2]):
        dilation = 2**k
        padding = dilation * (kernel // 2)
        y = F.conv2d(x[:, :, k], weight[:, :, 0], padding=padding, dilation=dilation)
        for shift in range(1, min(interaction, x.shape[2] - k)):
            finer, w = x[:, :, k + shift], weight[:, :, shift]
            y = y + F.conv2d(finer, w, padding=padding, dilation=dilation)
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


def forward_step(candidate: Candidate) -> Callable[[], None]:
    def step():
        with torch.no_grad():
            candidate.forward()

    return step


def training_step(candidate: Candidate) -> Callable[[], None]:
    """Forward and backward, to the gradients of inputs and weights."""
    gradients = [torch.randn_like(y) for y in candidate.forward()]

    def step():
        torch.autograd.grad(candidate.forward(), candidate.leaves, gradients)

    return step


def measure(args) -> list[dict]:
    """Rows of all cases, forms and interactions."""
    rows = []
    limit_target = ('<=', 1.25 if args.device == 'cuda' else 1.10)
    for case in QUICK_CASES if args.quick else CASES:
        for form in FORMS:
            for interaction in INTERACTIONS:
                progress(f'{SECTION}: {form}, K = {interaction}, {case}')
                makers = dict(
                    scale=scale_convolution,
                    limit=ordinary_convolutions,
                    channels_last=functools.partial(
                        ordinary_convolutions, memory_format=torch.channels_last
                    ),
                    loop=plain_loop,
                )
                candidates = {
                    name: make(form, interaction, case, args.device)
                    for name, make in makers.items()
                }
                for mode, make_step in (
                    ('forward', forward_step),
                    ('forward + backward', training_step),
                ):
                    times = time_in_turn(
                        {name: make_step(one) for name, one in candidates.items()},
                        args.device,
                        seconds=0 if args.quick else 3,
                        rounds=(3, 3) if args.quick else (7, 40),
                        calls=20 if args.device == 'cuda' else 1,
                    )
                    target = mode == 'forward + backward'
                    for name, against, bound in (
                        ('limit', 'ordinary convolutions', limit_target),
                        ('channels_last', 'the same, channels last', None),
                        ('loop', 'plain loop', ('<=', 1.0)),
                    ):
                        rows.append(
                            compare(
                                SECTION,
                                f'{form}, K = {interaction}, {case}, {mode}',
                                against,
                                times['scale'],
                                times[name],
                                target=bound if target else None,
                                judge=not args.quick,
                            )
                        )
    return rows


if __name__ == '__main__':
    run_sections(parse_args(__doc__), dict(layers=measure), 'layers')
