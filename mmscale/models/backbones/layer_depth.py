# Copyright (c) mmscale contributors.
"""Depths of parameters, for layer-wise learning rates."""

import math

# Blocks a group in the second and third stage of each ResNet, as MMPretrain has them.
BLOCKS_A_GROUP = {18: (2, 2), 34: (2, 3), 50: (2, 3), 101: (2, 3), 152: (4, 4)}


def layer_depth(
    depth: int, blocks: tuple[int, ...], param_name: str, prefix: str
) -> tuple[int, int]:
    """The group of a parameter of a ResNet, the stem being 0, and the number of groups.

    Args:
        depth (int): Layers of the ResNet.
        blocks (tuple[int, ...]): Blocks of its four stages.
        param_name (str): Name of the parameter in the whole model.
        prefix (str): What precedes the names of the backbone. What lies outside of the backbone is
            in the last group.
    """
    second, third = BLOCKS_A_GROUP[depth]
    first_of_third = 2 + math.ceil(blocks[1] / second)
    last = first_of_third + math.ceil(blocks[2] / third)
    if not param_name.startswith(prefix):
        return last + 1, last + 2
    names = param_name[len(prefix) :].split('.')
    if not names[0].startswith('layer'):
        return 0, last + 2
    block = int(names[1])
    groups = {
        'layer1': 1,
        'layer2': 2 + block // second,
        'layer3': first_of_third + block // third,
        'layer4': last,
    }
    return groups[names[0]], last + 2
