# Copyright (c) mmscale contributors.
"""Deformable scale convolution against MMCV's deformable convolution, called once a level.

MMCV's op is given what suits it: the levels apart in memory, and offsets in pixels already.
"""

import torch
from layers import Candidate, Case, tensors_of, training_step
from results import compare
from running import parse_args, run_sections
from timing import progress, time_in_turn

from mmscale.ops import choose_backend, deform_scale_conv2d
from mmscale.scale_space import stack_levels

SECTION = 'Deformable scale convolution'
RMS_OFFSET = 0.5  # taps


# A dense layer, and its number of levels.
CASES = ((Case(3, 64, 28, 8), 4), (Case(3, 256, 14, 4), 4), (Case(7, 32, 14, 16), 3))
QUICK_CASES = ((Case(3, 4, 8, 2), 2),)


def random_tensors(
    case: Case, num_scales: int, device: str, dtype: torch.dtype = torch.float32
) -> tuple:
    """Levels ``(N, C, H, W)``, their offsets in taps ``(N, 2 k k, H, W)``, and one weight."""
    torch.manual_seed(0)
    factory = dict(device=device, dtype=dtype)
    taps = case.kernel**2
    levels = [
        torch.randn(case.batch, case.channels, case.side, case.side, **factory)
        for _ in range(num_scales)
    ]
    offsets = [
        RMS_OFFSET * torch.randn(case.batch, 2 * taps, case.side, case.side, **factory)
        for _ in range(num_scales)
    ]
    weight = torch.randn(case.channels, case.channels, 1, case.kernel, case.kernel, **factory)
    return levels, offsets, weight.requires_grad_()


def deformable_scale_convolution(levels, offsets, weight, backend: str) -> Candidate:
    """One call for all levels."""
    x, offset = (stack_levels(part).requires_grad_() for part in (levels, offsets))
    grid = dict(base=2, num_scales=len(levels))

    def forward():
        y = deform_scale_conv2d(x, offset, weight, backend=backend, scale_space=grid)
        return tensors_of(y)

    return Candidate(forward, [x, offset, weight])


def mmcv_per_level(levels, offsets, weight) -> Candidate:
    """MMCV's op with dilation ``2**k`` and offsets of ``2**k`` pixels."""
    from mmcv.ops import deform_conv2d

    xs = [level.clone().requires_grad_() for level in levels]
    pixels = [(2**k * offset).requires_grad_() for k, offset in enumerate(offsets)]
    radius = weight.shape[-1] // 2

    def forward():
        w = weight[:, :, 0]
        return [
            deform_conv2d(x, offset, w, 1, 2**k * radius, 2**k)
            for k, (x, offset) in enumerate(zip(xs, pixels))
        ]

    return Candidate(forward, [*xs, *pixels, weight])


def backends(device: str) -> dict[str, tuple[str, float] | None]:
    """The backends that are timed, and the target of each for MMCV's time over its own."""
    if device == 'cpu':
        return {'native': ('>=', 5.0)}
    return {'auto': ('>=', 0.87), 'native': None}


def measure(args) -> list[dict]:
    """Rows of forward + backward, as the factor by which ours is faster."""
    try:
        choose_backend('mmcv', torch.device(args.device))
    except RuntimeError as error:
        progress(f'{SECTION}: left out ({error})')
        return []
    rows = []
    for case, num_scales in QUICK_CASES if args.quick else CASES:
        progress(f'{SECTION}: {case}, S = {num_scales}')
        tensors = random_tensors(case, num_scales, args.device)
        candidates = {'mmcv': mmcv_per_level(*tensors)}
        for backend in backends(args.device):
            candidates[backend] = deformable_scale_convolution(*tensors, backend)
        times = time_in_turn(
            {name: training_step(one) for name, one in candidates.items()},
            args.device,
            seconds=0 if args.quick else 12,
            rounds=(3, 3) if args.quick else (5, 30),
            warm_up=1,
            calls=20 if args.device == 'cuda' else 1,
        )
        for backend, target in backends(args.device).items():
            speeds = {name: [1 / t for t in times[name]] for name in (backend, 'mmcv')}
            rows.append(
                compare(
                    SECTION,
                    f"backend='{backend}', {case}, S = {num_scales}, forward + backward",
                    "MMCV's op per level",
                    speeds[backend],
                    speeds['mmcv'],
                    unit='calls/s',
                    target=target,
                    judge=not args.quick,
                )
            )
    return rows


if __name__ == '__main__':
    run_sections(parse_args(__doc__), dict(deformable=measure), 'deformable')
