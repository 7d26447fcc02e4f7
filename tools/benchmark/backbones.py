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
BLUR, BALANCED = 'ResNet with blur', 'balanced'
# Of training steps, time and memory, against ResNet; of many levels, against FEW.
TARGETS = {'dense, S = 4': ('<=', 4.40), FEW: ('<=', 1.50)}
# Of training steps, time alone.
TIME_TARGETS = {BLUR: ('<=', 1.10), BALANCED: ('<=', 2.60)}
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


def named_configs(depth: int) -> dict[str, dict]:
    """The reference, the same with a blur before each stride, and the named configurations."""
    return {
        f'ResNet-{depth}': resnets.resnet(depth),
        BLUR: resnets.blurred(depth, 1, kernel_size=5),
        'economical': resnets.blurred(depth, 3, kernel_size=5),
        BALANCED: resnets.blurred(depth, 5, 2**0.5, kernel_size=7),
        'accurate': resnets.blurred(depth, 9, 2**0.25, variance=3.0),
    }


def measure(args) -> list[dict]:
    """Networks of base 2."""
    sizes = settings(args)
    return measure_networks(args, configs(sizes['depth'], sizes['many']))


def measure_named(args) -> list[dict]:
    """The named configurations; apart, since all networks together need too much memory."""
    return measure_networks(args, named_configs(settings(args)['depth']))


def measure_networks(args, named: dict[str, dict]) -> list[dict]:
    """Peak memory and time, of training steps and of inference."""
    sizes = settings(args)
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
    """Every network against ResNet, and against what else it is compared with."""
    reference, many = next(iter(values)), f'pyramid, S = {sizes["many"]}'
    targets = TARGETS if unit == 'bytes' else {**TARGETS, **TIME_TARGETS}
    pairs = [(name, reference, targets.get(name)) for name in values if name != reference]
    if many in values:
        pairs.append((many, FEW, TARGET_OF_MANY))
    if BALANCED in values and unit == 's':
        # What a careful user would run in place of the reference, where it is the faster one.
        last = f'{reference}, channels last'
        pairs += [(name, last, None) for name in values if name not in (reference, last)]
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
    run_sections(parse_args(__doc__), dict(backbones=measure, named=measure_named), 'backbones')
