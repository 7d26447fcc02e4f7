# Copyright (c) mmscale contributors.
"""Training steps in mixed precision, channels last and compiled, against those in float32.

The networks are those of ``backbones.py``. Compiled ones are timed on a GPU only.
"""

import torch
from backbones import TARGETS, settings
from growth import four_levels
from processes import start_workers, step_of
from results import compare
from running import parse_args, run_sections
from timing import time_in_turn

VARIANTS = {
    'float32': dict(),
    'bfloat16': dict(amp=True),
    'bfloat16, channels last': dict(amp=True, channels_last=True),
    'bfloat16, compiled': dict(amp=True, compiled=True),
}


def measure(args) -> list[dict]:
    """Each network against ResNet of the same variant, and against itself in float32."""
    sizes = settings(args)
    section = f'Precisions, ScaleResNet-{sizes["depth"]}, training step'
    named = four_levels(sizes['depth'])
    run = dict(batch=sizes['batch'], side=sizes['side'], device=args.device)
    variants = list(VARIANTS.items())[: 2 if args.quick else None]  # a process a network takes long
    arguments = {
        (name, variant): dict(run, config=config, **options)
        for variant, options in variants
        for name, config in named.items()
        if not (options.get('compiled') and args.device == 'cpu')
    }
    threads = torch.get_num_threads()
    with start_workers('resnets:training_steps', arguments, args.device, threads) as workers:
        times = time_in_turn(
            {key: step_of(worker, 0) for key, worker in workers.items()},
            seconds=0 if args.quick else 60,
            rounds=(2, 2) if args.quick else (5, 30),
            warm_up=0 if args.quick else 2,
        )
    rows = []
    for (name, variant), found in times.items():
        what, judge = f'{name}, {variant}', not args.quick
        if name != 'ResNet':
            rows.append(
                compare(section, what, f'ResNet, {variant}', found, times['ResNet', variant],
                        target=TARGETS.get(name), judge=judge)
            )  # fmt: skip
        if variant != 'float32':
            rows.append(compare(section, what, f'{name}, float32', found, times[name, 'float32']))
    return rows


if __name__ == '__main__':
    run_sections(parse_args(__doc__), dict(precisions=measure), 'precisions')
