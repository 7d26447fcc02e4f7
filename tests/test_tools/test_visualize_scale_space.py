# Copyright (c) mmscale contributors.
import sys
from argparse import Namespace

import matplotlib.pyplot as plt
import mmcv
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from mmpretrain import get_model

from mmscale.scale_space import bilinear_pyramid_lift, gaussian_lift, split_levels
from mmscale.visualization.network import load_network, read_image
from mmscale.visualization.sampling import find_layer, read_layer

from .conftest import CONFIG, ROOT, exit_message, run_here

sys.path.insert(0, str(ROOT / 'tools'))
import visualize_scale_space as tool  # noqa: E402

TOOL = 'tools/visualize_scale_space.py'
DSS = 'configs/dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'
MODULATED = dict(type='mmscale.ModulatedDeformScaleConv', stages=(False, True, True, True))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Paths of a colour image and a grey one."""
    folder = tmp_path_factory.mktemp('images')
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    mmcv.imwrite(pixels, str(folder / 'colour.png'))
    mmcv.imwrite(pixels[..., 0], str(folder / 'grey.png'))
    return folder / 'colour.png', folder / 'grey.png'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Weights of a deformable network whose offset branches are not zero any more."""
    torch.manual_seed(0)
    model = get_model(str(ROOT / DSS), backbone=dict(deform=MODULATED))
    for name, parameter in model.backbone.named_parameters():
        if 'conv_offset' in name:
            torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path_factory.mktemp('weights') / 'deformed.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def arguments(**kwargs) -> Namespace:
    defaults = dict(pretrained=False, layer=None, scale_space=None, lift=None, cfg_options={})
    return Namespace(**{**defaults, 'model': str(ROOT / DSS), **kwargs})


def test_without_a_config(images, tmp_path, monkeypatch, capsys):
    run_here(
        monkeypatch, TOOL, images[0], '--out', tmp_path / 'new', '--lift', 'gaussian-pyramid',
        '--scale-space', 'base=1.5', 'num_scales=3', 'first_level=-1', '--point', 3, 4,
    )  # fmt: skip
    assert f'figure: {tmp_path / "new" / "scale_space.png"}' in capsys.readouterr().out
    assert mmcv.imread(tmp_path / 'new' / 'scale_space.png').shape[1] > 800
    assert {p.name for p in (tmp_path / 'new').iterdir()} == {'scale_space.png', 'scale_space.svg'}


def test_with_a_checkpoint(images, checkpoint, tmp_path, monkeypatch):
    options = [f'model.backbone.deform.{key}={value}' for key, value in MODULATED.items()]
    run_here(
        monkeypatch, TOOL, images[1], f'{DSS}:{checkpoint}', '--out', tmp_path,
        '--layer', 'backbone.layer2.1.conv2', '--cfg-options', *options,
    )  # fmt: skip
    assert (tmp_path / 'scale_space.svg').read_text().rstrip().endswith('</svg>')


@pytest.mark.parametrize(
    'name, lift', [('gaussian', gaussian_lift), ('bilinear-pyramid', bilinear_pyramid_lift)]
)
def test_levels_are_the_lift_of_the_image(name, lift):
    """Away from the border, where the lift reads what lies outside."""
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    figure = tool.figure_of_lift(arguments(image='a.png', model=None, lift=name), image, (15, 20))
    pixels = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].double() / 255
    for k, level in enumerate(split_levels(lift(pixels, dict(num_scales=4)))):
        expected = level[0].permute(1, 2, 0).numpy()
        drawn = figure.axes[k].images[0].get_array()
        middle = tuple(slice(size // 2 - 1, size // 2 + 2) for size in expected.shape[:2])
        np.testing.assert_allclose(drawn[middle], expected[middle], atol=1e-9)
        assert drawn.shape == expected.shape
        assert figure.axes[k].get_xlim() == (-0.5, 69.5)  # one frame for all levels
    plt.close(figure)


def circles(axes) -> np.ndarray:
    """Positions (row, column) of all round markers that were drawn by ``plot``."""
    return np.concatenate([line.get_xydata() for line in axes.lines if line.get_marker() == 'o'])[
        :, ::-1
    ]


def test_what_is_drawn_are_the_positions_that_the_layer_reads(images, checkpoint):
    options = {'model.backbone.deform': MODULATED}
    args = arguments(image=images[1], model=f'{ROOT / DSS}:{checkpoint}', cfg_options=options,
                     layer='backbone.layer2.1.conv2')  # fmt: skip
    image, point = read_image(str(images[1])), (11, 17)
    figure = tool.figure_of_network(args, image, point)
    network = load_network(args.model, options)
    _, layer = find_layer(network, args.layer)
    readings = read_layer(network.backbone, layer, 2, network.to_input(image), point)
    for k, reading in enumerate(readings):
        _, taps, moved = figure.axes[k:9:3]
        np.testing.assert_allclose(circles(taps), reading.taps)
        np.testing.assert_allclose(circles(moved), reading.taps)
        dots = moved.collections[0]
        np.testing.assert_allclose(dots.get_offsets()[:, ::-1], reading.moved[0])
        np.testing.assert_allclose(dots.get_array(), reading.modulation[0])
        assert np.abs(reading.moved[0] - reading.taps).max() > 0.1
        # Nothing that is read lies outside of the part that is shown.
        bottom, top = moved.get_ylim()
        left, right = moved.get_xlim()
        assert (reading.moved > (top, left)).all() and (reading.moved < (bottom, right)).all()
        # The image lies where its pixels are.
        assert tuple(moved.images[0].get_extent()) == (-0.5, 39.5, 29.5, -0.5)
    assert '(deformed.pth)' in figure.get_suptitle()
    plt.close(figure)


def test_an_untrained_network_is_called_so(images):
    figure = tool.figure_of_network(arguments(image=images[1]), read_image(str(images[1])), (9, 9))
    assert 'untrained, random weights' in figure.get_suptitle()
    assert 'backbone.conv1' in figure.get_suptitle()
    assert len(figure.axes) == 6  # levels and taps: nothing is deformed
    taps = figure.axes[3].lines[1]
    assert to_rgba(taps.get_markerfacecolor()) == to_rgba(tool.REGULAR)
    plt.close(figure)


@pytest.mark.parametrize(
    'words, message',
    [
        (['README.md'], 'IMAGE: README.md is not an image'),
        (['IMAGE', CONFIG], 'config: ResNet_CIFAR is not a network on scale spaces'),
        (['IMAGE', DSS, '--point', 30, 0], '--point: 30 0 is outside of the image, whose rows'),
        (['IMAGE', DSS, '--layer', 'layer1.0.conv1'], '--layer: layer1.0.conv1 does not exist'),
        (['IMAGE', DSS, '--size', 0], '--size: needs one or two positive numbers'),
        (['IMAGE', DSS, '--lift', 'gaussian'], '--scale-space, --lift: MODEL has them'),
        (['IMAGE', '--layer', 'conv1'], '--layer, --cfg-options: they need a MODEL'),
        (['IMAGE', '--scale-space', 'levels=1'], "--scale-space: scale_space has no 'levels'"),
        (['IMAGE', '--size', 4], 'an image of 4x4 pixels is smaller than the coarsest'),
    ],
)
def test_bad_arguments_give_one_line(words, message, images, monkeypatch, tmp_path):
    words = [images[0] if word == 'IMAGE' else word for word in words]
    out = [] if '--out' in words else ['--out', tmp_path / 'out']
    assert exit_message(monkeypatch, TOOL, *words, *out).startswith(f'error: {message}')
    assert not list(tmp_path.iterdir())
