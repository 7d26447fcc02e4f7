# Copyright (c) mmscale contributors.
"""How the time of a training step grows: with levels, image size, interaction and CPU threads.

With levels in number, and, over the same two octaves, in density.
"""

import resnets
import torch
from processes import start_workers, step_of
from resnets import resnet, scale_resnet
from results import compare
from running import parse_args, run_sections
from timing import progress, time_in_turn

DENSE_LEVELS = (1, 2, 4, 8)
# Levels an octave; the base is its root of 2.
DENSITIES = {'2': 1, '√2': 2, '∛2': 3, '∜2': 4}
INTERACTIONS = (1, 2, 3)
NUM_SCALES = 4


def settings(args) -> dict:
    """Depth, batch, a small and a large side of images, the most levels, and bases by name."""
    if args.quick:
        return dict(depth=18, batch=2, sides=(32, 64), most=2, bases=('2', '√2'))
    batch = 8 if args.device == 'cuda' else 4
    return dict(depth=50, batch=batch, sides=(112, 224), most=8, bases=tuple(DENSITIES))


def four_levels(depth: int) -> dict[str, dict]:
    """ResNet, and scale-equivariant networks of four levels."""
    return {
        'ResNet': resnet(depth),
        'dense, S = 4': scale_resnet(depth, 'dense', NUM_SCALES),
        'pyramid, S = 4': scale_resnet(depth, 'pyramid', NUM_SCALES),
    }


def time_networks(args, compared: dict, seconds: float) -> tuple[dict, dict]:
    """Seconds of training steps a round, and multiply-adds.

    Args:
        args (argparse.Namespace): The options.
        compared (dict): Config, side of the images and CPU threads, by any key.
        seconds (float): For all of them.
    """
    batch = settings(args)['batch']
    arguments = {
        key: dict(config=config, batch=batch, side=side, device=args.device, threads=threads)
        for key, (config, side, threads) in compared.items()
    }
    with start_workers('resnets:training_steps', arguments, args.device, 1) as workers:
        times = time_in_turn(
            {key: step_of(worker, 0) for key, worker in workers.items()},
            seconds=0 if args.quick else seconds,
            rounds=(2, 2) if args.quick else (3, 15),
            warm_up=0,
        )
    work = {key: resnets.flops(config, side) for key, (config, side, _) in compared.items()}
    return times, work


def over_levels(args) -> list[dict]:
    """Dense scale spaces and pyramids of more and more levels, against ResNet."""
    sizes = settings(args)
    depth, side, most = sizes['depth'], sizes['sides'][1], sizes['most']
    reference = f'ResNet-{depth}'
    setting = f'base 2, training step, {sizes["batch"]} x {side}x{side}'
    progress(f'growth over levels: {reference}, {setting}')
    threads = torch.get_num_threads()
    counts = dict(
        dense=[count for count in DENSE_LEVELS if count <= most], pyramid=range(1, most + 1)
    )
    rows = []
    for form in counts:  # one after the other: all of them need much memory together
        compared = {
            count: (scale_resnet(depth, form, count), side, threads) for count in counts[form]
        }
        compared[reference] = resnet(depth), side, threads
        times, work = time_networks(args, compared, seconds=20)
        rows += [
            compare(
                f'Growth over levels, {setting}',
                f'{form}, S = {count}',
                reference,
                times[count],
                times[reference],
                work=work[count] / work[reference],
                target=('<=', count) if form == 'dense' and count > 1 else None,
                judge=not args.quick,
                form=form,
                num_scales=count,
                setting=setting,
            )
            for count in counts[form]
        ]
    return rows


def over_bases(args) -> list[dict]:
    """Pyramids over the same two octaves, of levels closer and closer, against ResNet."""
    sizes = settings(args)
    depth, side = sizes['depth'], sizes['sides'][1]
    reference = f'ResNet-{depth}'
    setting = f'training step, {sizes["batch"]} x {side}x{side}'
    progress(f'growth over the base of a pyramid of two octaves: {reference}, {setting}')
    threads = torch.get_num_threads()
    compared = {}
    for base in sizes['bases']:
        count = 2 * DENSITIES[base] + 1
        config = scale_resnet(depth, 'pyramid', count, base=2 ** (1 / DENSITIES[base]))
        compared[f'pyramid, base {base}, S = {count}'] = config, side, threads
    names = list(compared)
    compared[reference] = resnet(depth), side, threads
    times, work = time_networks(args, compared, seconds=20)
    return [
        compare(
            f'Growth over the base, two octaves, {setting}',
            name,
            reference,
            times[name],
            times[reference],
            work=work[name] / work[reference],
        )
        for name in names
    ]


def over_sizes(args) -> list[dict]:
    """Each network on images of twice the side against itself."""
    progress('growth over the size of images')
    sizes = settings(args)
    small, large = sizes['sides']
    variants = four_levels(sizes['depth'])
    compared = {
        (name, side): (config, side, torch.get_num_threads())
        for name, config in variants.items()
        for side in (small, large)
    }
    times, work = time_networks(args, compared, seconds=10)
    return [
        compare(
            'Growth over the size of images',
            f'{name}, {large}x{large}',
            f'{small}x{small}',
            times[name, large],
            times[name, small],
            work=work[name, large] / work[name, small],
        )
        for name in variants
    ]


def over_interactions(args) -> list[dict]:
    """Networks whose layers see several levels against those whose layers see one."""
    progress('growth over the interaction')
    sizes = settings(args)
    side = sizes['sides'][0]
    compared = {
        (form, interaction): (
            scale_resnet(sizes['depth'], form, NUM_SCALES, interaction),
            side,
            torch.get_num_threads(),
        )
        for form in ('dense', 'pyramid')
        for interaction in INTERACTIONS
    }
    times, work = time_networks(args, compared, seconds=10)
    return [
        compare(
            'Growth over the interaction',
            f'{form}, S = {NUM_SCALES}, K = {interaction}, {side}x{side}',
            'K = 1',
            times[form, interaction],
            times[form, 1],
            work=work[form, interaction] / work[form, 1],
        )
        for form, interaction in compared
        if interaction > 1
    ]


def over_threads(args) -> list[dict]:
    """Steps a second on all CPU threads against one; nothing on a GPU or with one thread."""
    most = torch.get_num_threads()
    if args.device != 'cpu' or most == 1:
        return []
    progress('growth over CPU threads')
    sizes = settings(args)
    side = sizes['sides'][0]
    variants = four_levels(sizes['depth'])
    compared = {
        (name, threads): (config, side, threads)
        for name, config in variants.items()
        for threads in (1, most)
    }
    times, _ = time_networks(args, compared, seconds=10)
    speeds = {key: [1 / seconds for seconds in found] for key, found in times.items()}
    return [
        compare(
            'Growth over CPU threads',
            f'{name}, {side}x{side}, {most} threads',
            '1 thread',
            speeds[name, most],
            speeds[name, 1],
            unit='calls/s',
        )
        for name in variants
    ]


SECTIONS = dict(
    levels=over_levels,
    bases=over_bases,
    sizes=over_sizes,
    interactions=over_interactions,
    threads=over_threads,
)

if __name__ == '__main__':
    run_sections(parse_args(__doc__), SECTIONS, 'growth')
