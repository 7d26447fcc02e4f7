# Copyright (c) mmscale contributors.
import sys
import zipfile
from io import BytesIO
from runpy import run_path

import numpy as np
import pytest
import torch
from cells import STUDIES
from PIL import Image

onnx = pytest.importorskip('onnx', reason='needs `pip install mmscale[deployment]`')

CLASSES = ('ant', 'bee')
COUNT = 27  # images of a class: 15 and 10, and 2 more


@pytest.fixture(scope='module')
def script():
    return run_path(str(STUDIES / 'measurements' / 'prepare_caltech101.py'))


def layers_of(network) -> list:
    """Pairs of convolution and norm in the order of the file: shortcuts before third layers."""
    pairs = [(network.conv1, network.norm1)]
    for stage in network.res_layers:
        for block in getattr(network, stage):
            pairs += [(block.conv1, block.norm1), (block.conv2, block.norm2)]
            pairs += [tuple(block.downsample)] if block.downsample else []
            pairs.append((block.conv3, block.norm3))
    return pairs


def write_model(path, network) -> list:
    """Write random layers as the package of the weights does; return their arrays."""
    draw, nodes, tensors, layers = np.random.default_rng(0), [], [], []

    def node(kind, *inputs):
        nodes.append(onnx.helper.make_node(kind, inputs, [f'n{len(nodes)}']))
        return nodes[-1].output[0]

    def tensor(value):
        tensors.append(onnx.numpy_helper.from_array(value.astype(np.float32), f't{len(tensors)}'))
        return tensors[-1].name

    for conv, _ in layers_of(network):
        values = [draw.normal(0, 0.05, conv.weight.shape)]
        values += [draw.normal(1, 0.1, (1, 1, 1, conv.out_channels)) for _ in range(4)]
        layers.append([torch.tensor(value, dtype=torch.float32) for value in values])
        weight, *names = map(tensor, values)
        names[3] = node('Identity', names[3])  # as shared constants are
        x = node('Transpose', node('Conv', 'x', weight))
        for kind, name in zip(('Add', 'Sub', 'Mul', 'Add'), names):
            x = node(kind, x, name)
    graph = onnx.helper.make_graph(nodes, 'net', [], [], tensors)
    onnx.save(onnx.helper.make_model(graph), path)
    return layers


def test_lists_are_drawn_by_seed_and_weights_give_the_function_of_the_file(
    script, tmp_path, monkeypatch
):
    network = script['ResNet'](**script['NETWORK'])
    layers = write_model(str(tmp_path / 'net.onnx'), network)
    draw = np.random.default_rng(1)
    with zipfile.ZipFile(tmp_path / 'images.zip', 'w') as file:
        for name in (f'{label}/{i:02}.jpg' for label in CLASSES for i in range(COUNT)):
            image = BytesIO()
            Image.fromarray(draw.integers(0, 256, (40, 50, 3), np.uint8)).save(image, 'JPEG')
            file.writestr(name, image.getvalue())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['prepare', 'images.zip', 'net.onnx'])
    script['main']()

    root, drawn = tmp_path / 'data' / 'caltech101', set()
    for seed in (0, 1, 2):
        train, test = ((root / f'{split}_{seed}.txt').read_text().splitlines()
                       for split in ('train', 'test'))  # fmt: skip
        assert (len(train), len(test), len({*train, *test})) == (30, 20, 50)
        for line in (*train, *test):
            name, label = line.split()
            assert (root / 'images' / name).is_file()
            assert name.startswith(CLASSES[int(label)])
        drawn.add(tuple(train))
    assert len(drawn) == 3

    state = torch.load(root / 'resnet50-w32.pth', weights_only=True)['state_dict']
    network.load_state_dict({name.removeprefix('backbone.'): v for name, v in state.items()})
    network.eval()
    for (conv, norm), (weight, bias, mean, scale, shift) in zip(layers_of(network), layers):
        x = torch.randn(2, conv.in_channels, 7, 7)
        with torch.no_grad():
            found, plain = norm(conv(x)), torch.nn.functional.conv2d(
                x, weight, None, conv.stride, conv.padding)  # fmt: skip
        bias, mean, scale, shift = (one.view(-1, 1, 1) for one in (bias, mean, scale, shift))
        torch.testing.assert_close(
            found, (plain + bias - mean) * scale + shift, rtol=1e-3, atol=1e-3
        )
    assert network.norm1.running_var.std() > 0  # measured, as the file has none
