# Copyright (c) mmscale contributors.
"""The lift of an image, as a share of the forward pass of a ScaleResNet that begins with it."""

import resnets
import torch
from results import compare
from running import parse_args, run_sections
from timing import progress, time_in_turn

SECTION = 'Lifts'
NUM_SCALES = 4
TARGET = ('<=', 0.02)


def measure(args) -> list[dict]:
    """One row a lift, in eval mode and without gradients."""
    depth, batch, side = (18, 2, 64) if args.quick else (50, 8, 224)
    progress(f'{SECTION}: {batch} x {side}x{side}')
    images = resnets.random_images(batch, side, args.device)
    steps = {}
    for form in resnets.LIFTS:
        config = resnets.scale_resnet(depth, form, NUM_SCALES)
        backbone = resnets.build(config, args.device)['backbone'].eval()
        steps[form, 'lift'] = without_gradients(backbone.lift, images)
        steps[form, 'network'] = without_gradients(backbone, images)
    times = time_in_turn(
        steps,
        args.device,
        seconds=0 if args.quick else 20,
        rounds=(3, 3) if args.quick else (5, 20),
        warm_up=1,
        calls=5 if args.device == 'cuda' else 1,
    )
    return [
        compare(
            SECTION,
            f'{lift.removeprefix("mmscale.")}, S = {NUM_SCALES}, {batch} x {side}x{side}',
            f'forward pass of ScaleResNet-{depth} with it',
            times[form, 'lift'],
            times[form, 'network'],
            target=TARGET,
            judge=not args.quick,
        )
        for form, lift in resnets.LIFTS.items()
    ]


def without_gradients(module: torch.nn.Module, images: torch.Tensor):
    def step():
        with torch.no_grad():
            module(images)

    return step


if __name__ == '__main__':
    run_sections(parse_args(__doc__), dict(lifts=measure), 'lifts')
