# Copyright (c) mmscale contributors.
"""Depths of parameters, for layer-wise learning rates."""

import math

# Blocks per group in the second and third stage of each ResNet, as in MMPretrain.
BLOCKS_A_GROUP = {18: (2, 2), 34: (2, 3), 50: (2, 3), 101: (2, 3), 152: (4, 4)}


def layer_depth(depth: int, blocks: tuple[int, ...], name: str, prefix: str) -> tuple[int, int]:
    """Return a parameter's group in a ResNet of ``blocks`` per stage, and the number of groups.

    The stem is group 0. Parameters without ``prefix`` are in the last group.
    """
    sizes = (blocks[0], *BLOCKS_A_GROUP[depth], blocks[3])
    firsts = [1]
    for count, size in zip(blocks, sizes, strict=True):
        firsts.append(firsts[-1] + math.ceil(count / size))
    group, names = firsts[-1], name.removeprefix(prefix).split('.')
    if name.startswith(prefix):
        group = 0
        if names[0].startswith('layer'):
            stage = int(names[0].removeprefix('layer')) - 1
            group = firsts[stage] + int(names[1]) // sizes[stage]
    return group, firsts[-1] + 1
