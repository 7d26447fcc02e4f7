# Copyright (c) mmscale contributors.
"""ScaleResNet against MMPretrain's ResNet of the same depth: time and memory of whole steps.

A training step is forward, loss, backward and a step of SGD with momentum.
"""

import resnets
import torch
from processes import start_workers, step_of
from results import compare
from running import parse_args, run_sections
from timing import progress, time_in_turn

FEW = 'pyramid, S = 4'
# Of training steps, time and memory, against ResNet; of many levels, against FEW.
TARGETS = {'dense, S = 4': ('<=', 4.40), FEW: ('<=', 1.50)}
TARGET_OF_MANY = ('<=', 1.05)
# Place among resnets.steps.
MODES = {'training step': 1, 'inference': 0}


def settings(args) -> dict:
    """Depth, batch, side of the images, and how many levels "many" are."""
    if args.quick:
        return dict(depth=18, batch=2, side=64, many=6)
    return dict(depth=50, batch=16 if args.device == 'cuda' else 8, side=224, many=8)


def configs(depth: int, many: int) -> dict[str, dict]:
    """Configs of the networks by name: the reference first, the one of many levels last."""
    return {
        f'ResNet-{depth}': resnets.resnet(depth),
        'dense, S = 4': resnets.scale_resnet(depth, 'dense', 4),
        FEW: resnets.scale_resnet(depth, 'pyramid', 4),
        'bilinear pyramid, S = 4': resnets.scale_resnet(depth, 'bilinear pyramid', 4),
        f'pyramid, S = {many}': resnets.scale_resnet(depth, 'pyramid', many),
    }


def measure(args) -> list[dict]:
    """Peak memory and time, of training steps and of inference."""
    sizes = settings(args)
    named = configs(sizes['depth'], sizes['many'])
    reference = next(iter(named))
    run = dict(batch=sizes['batch'], side=sizes['side'], device=args.device)
    arguments = {name: dict(run, config=config) for name, config in named.items()}
    last = f'{reference}, channels last'
    arguments[last] = dict(run, config=named[reference], channels_last=True)
    work = {name: resnets.flops(one['config'], sizes['side']) for name, one in arguments.items()}

    rows = []
    threads = torch.get_num_threads()
    with start_workers('resnets:steps', arguments, args.device, threads) as workers:
        for mode, place in MODES.items():
            peaks = {name: [worker.peaks[place]] for name, worker in workers.items()}
            rows += rows_of(args, sizes, f'memory of {mode}', peaks, mode, unit='bytes')
        for mode, seconds in (('training step', 45), ('inference', 10)):
            progress(f'time: {mode}')
            times = time_in_turn(
                {name: step_of(worker, MODES[mode]) for name, worker in workers.items()},
                seconds=0 if args.quick else seconds,
                rounds=(2, 2) if args.quick else (5, 20),
                warm_up=0,
            )
            rows += rows_of(args, sizes, f'time of {mode}', times, mode, work=work)
    return rows


def rows_of(
    args,
    sizes: dict,
    quantity: str,
    values: dict[str, list],
    mode: str,
    work: dict[str, int] | None = None,
    unit: str = 's',
) -> list[dict]:
    """Every network against ResNet, and many levels against few."""
    reference, many = next(iter(values)), f'pyramid, S = {sizes["many"]}'
    pairs = [(name, reference, TARGETS.get(name)) for name in values if name != reference]
    pairs.append((many, FEW, TARGET_OF_MANY))
    return [
        compare(
            f'ScaleResNet-{sizes["depth"]}, {sizes["batch"]} x {sizes["side"]}x{sizes["side"]}',
            f'{name}, {quantity}',
            against,
            values[name],
            values[against],
            unit=unit,
            target=target if mode == 'training step' else None,
            work=work[name] / work[against] if work else None,
            judge=not args.quick,
        )
        for name, against, target in pairs
    ]


if __name__ == '__main__':
    run_sections(parse_args(__doc__), dict(backbones=measure), 'backbones')
