# Copyright (c) mmscale contributors.
"""Image files on their way into a network, and figures on their way into files."""

import matplotlib.pyplot as plt
import mmcv
import numpy as np
import pytest
import torch
from mmpretrain import get_model

from mmscale.visualization import make_folder, save_figure
from mmscale.visualization.network import load_network, read_image

CONFIG = """
custom_imports = dict(imports=['mmscale'])
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmscale.ScaleResNet_CIFAR', depth=18, stem_channels=4, base_channels=4,
        in_channels={channels}, scale_space=dict(base=2, num_scales=2),
    ),
)
data_preprocessor = dict(mean={mean}, std={std}, to_rgb={to_rgb})
test_dataloader = dict(dataset=dict(type='ImageNet', pipeline={pipeline}))
"""


def write_config(folder, channels=3, mean=(10.0, 20.0, 30.0), std=(5.0, 10.0, 20.0), to_rgb=True,
                 pipeline=('LoadImageFromFile', 'PackInputs')):  # fmt: skip
    path = folder / 'config.py'
    path.write_text(
        CONFIG.format(channels=channels, mean=list(mean), std=list(std), to_rgb=to_rgb,
                      pipeline=[dict(type=name) for name in pipeline])
    )  # fmt: skip
    return str(path)


@pytest.fixture
def orange(tmp_path):
    """A file of 6x8 pixels, each of the RGB value (200, 100, 50)."""
    path = tmp_path / 'orange.png'
    mmcv.imwrite(np.full((6, 8, 3), (50, 100, 200), np.uint8), str(path))
    return str(path)


@pytest.mark.parametrize(
    'to_rgb, pipeline, order',
    [
        (True, ('LoadImageFromFile', 'PackInputs'), (200, 100, 50)),
        (False, ('LoadImageFromFile', 'PackInputs'), (50, 100, 200)),  # trained on B, G, R
        (False, ('PackInputs',), (200, 100, 50)),  # CIFAR in memory
        (True, (), (200, 100, 50)),
    ],
)
def test_colours_enter_in_the_order_of_the_training(tmp_path, orange, to_rgb, pipeline, order):
    net = load_network(write_config(tmp_path, to_rgb=to_rgb, pipeline=pipeline))
    x = net.to_input(read_image(orange))
    assert x.shape == (1, 3, 6, 8) and x.dtype == torch.float32
    expected = (np.array(order) - (10, 20, 30)) / (5, 10, 20)
    np.testing.assert_allclose(x[0, :, 2, 3], expected, rtol=1e-6)
    picture = net.to_picture(x[0])
    np.testing.assert_allclose(picture[2, 3], np.array([200, 100, 50]) / 255, rtol=1e-5)


def test_networks_of_one_channel_see_grey(tmp_path, orange):
    net = load_network(write_config(tmp_path, channels=1, mean=[50.0], std=[2.0], to_rgb=False))
    x = net.to_input(read_image(orange))
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert x.shape == (1, 1, 6, 8) and (x == (grey - 50) / 2).all()
    np.testing.assert_allclose(net.to_picture(x[0]), np.full((6, 8), grey / 255), rtol=1e-6)


def test_grey_files_are_read_as_colour_and_resized(tmp_path):
    path = str(tmp_path / 'grey.png')
    mmcv.imwrite(np.arange(64, dtype=np.uint8).reshape(8, 8), path)
    image = read_image(path)
    assert image.shape == (8, 8, 3) and (image[..., 0] == image[..., 2]).all()
    assert read_image(path, (12, 10)).shape == (12, 10, 3)
    assert read_image(path, (4, 4))[0, 0, 0] in (4, 5)  # the mean of 0, 1, 8 and 9


def test_weights_are_those_of_the_checkpoint_or_the_same_at_each_call(tmp_path):
    config, state = write_config(tmp_path), torch.get_rng_state()
    first, second = (load_network(config) for _ in range(2))
    assert torch.equal(first.backbone.conv1.weight, second.backbone.conv1.weight)
    assert torch.equal(state, torch.get_rng_state()) and first.checkpoint is None
    model = get_model(config)
    torch.nn.init.constant_(model.backbone.conv1.weight, 3.0)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'weights.pth')
    net = load_network(f'{config}:{tmp_path / "weights.pth"}')
    assert (net.backbone.conv1.weight == 3).all() and not net.backbone.training and net.checkpoint


def test_what_cannot_be_used_is_said(tmp_path):
    with pytest.raises(ValueError, match='1 or 3 channels, .* takes 2'):
        load_network(write_config(tmp_path, channels=2, mean=[0.0, 0.0], std=[1.0, 1.0]))
    with pytest.raises(FileNotFoundError, match='there is no file'):
        read_image(str(tmp_path / 'none.png'))
    (tmp_path / 'text.png').write_text('no image', encoding='utf-8')
    with pytest.raises(ValueError, match='text.png is not an image'):
        read_image(str(tmp_path / 'text.png'))
    with pytest.raises(ValueError, match='--out: cannot make the folder'):
        make_folder(tmp_path / 'text.png' / 'a')


def test_figures_are_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = make_folder(tmp_path / 'new') / 'a.svg'
    path.write_text('before', encoding='utf-8')

    def savefig(part, **options):
        part.write_text('half', encoding='utf-8')
        raise OSError('disk full')

    figure = plt.figure()
    monkeypatch.setattr(figure, 'savefig', savefig)
    with pytest.raises(OSError, match='disk full'):
        save_figure(figure, path)
    assert path.read_text(encoding='utf-8') == 'before' and list(path.parent.iterdir()) == [path]
    plt.close(figure)


@pytest.mark.parametrize('suffix', ['.png', '.svg', '.pdf'])
def test_the_same_figure_is_the_same_file(tmp_path, suffix):
    """So that what is redrawn and has not changed does not show up as a change."""
    path, files = tmp_path / f'a{suffix}', []
    for _ in range(2):
        figure, axes = plt.subplots()
        axes.plot([1, 2], [3, 4])
        axes.fill_between([1, 2], [3, 4], [4, 5])
        save_figure(figure, path)
        plt.close(figure)
        files.append(path.read_bytes())
    assert files[0] == files[1]
