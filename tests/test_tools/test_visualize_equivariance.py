# Copyright (c) mmscale contributors.
import re
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmpretrain import get_model

from .conftest import CONFIG, ROOT, exit_message, run_here

sys.path.insert(0, str(ROOT / 'tools'))
import visualize_equivariance as tool  # noqa: E402

TOOL = 'tools/visualize_equivariance.py'
DSS = 'configs/dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'
PYRAMID = 'configs/dss/scaleresnet18-pyramid-s3-w8_1xb50-10e_scaledigits.py'
SO2 = 'configs/so2/so2resnet18-w5_1xb50-10e_scaledigits.py'
COLOUR = 'configs/dss/scaleresnet18-s4_8xb16_scalecifar10.py'


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    """The path of a smooth colour image of 70x80 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (14, 16, 3), np.uint8)
    path = tmp_path_factory.mktemp('images') / 'smooth.png'
    mmcv.imwrite(mmcv.imresize(noise, (80, 70), interpolation='bicubic'), str(path))
    return path


def figure_of(monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', [TOOL, *map(str, words)])
    monkeypatch.chdir(ROOT)
    return tool.make_figure(tool.parse_args())


def errors(figure) -> list[float]:
    """The numbers written under the pairs, row by row."""
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    return [float(re.fullmatch('error (.*)', text).group(1)) for text in texts]


def test_writes_a_figure_of_checkpoints(image, tmp_path, monkeypatch, capsys):
    torch.manual_seed(1)
    torch.save(dict(state_dict=get_model(str(ROOT / DSS)).state_dict()), tmp_path / 'dss.pth')
    out = tmp_path / 'figures'
    run_here(monkeypatch, TOOL, image, CONFIG, f'{DSS}:{tmp_path / "dss.pth"}', '--stage', 2,
             '--out', out)  # fmt: skip
    assert f'figure: {out / "equivariance.png"}' in capsys.readouterr().out
    assert mmcv.imread(out / 'equivariance.png').shape[1] > 800
    assert {path.name for path in out.iterdir()} == {'equivariance.png', 'equivariance.svg'}


def test_each_network_is_equivariant_to_its_own_group(image, monkeypatch):
    """Rows: ResNet, DSS v1, pyramid, SO(2). Columns: scaling by 2, turns by 90 and 45 degrees."""
    figure = figure_of(monkeypatch, image, CONFIG, DSS, PYRAMID, SO2, '--stage', 2)
    scaling, quarter, eighth = np.array(errors(figure)).reshape(4, 3).T
    assert scaling[1:3].max() < 0.1 * min(scaling[0], scaling[3])
    assert quarter[3] < 1e-8 and (quarter[:3] > 0.01).all()
    # The finest level of the pyramid is the image enlarged, so smooth that rotation does less.
    assert eighth[3] < 0.3 * eighth[:2].min()


def test_maps_names_and_inputs(image, monkeypatch):
    figure = figure_of(monkeypatch, image, COLOUR, DSS, '--names', 'colour', 'grey', '--stage', 1,
                       '--size', 33, '--angles', 90, '--channel', 3)  # fmt: skip
    inputs, maps = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title() for axes in inputs] == ['$ f$', '$L_{2} f$', r'$R_{90\degree} f$']
    assert inputs[0].images[0].get_array().shape == (33, 33, 3)
    assert inputs[1].images[0].get_array().shape == (17, 17, 3)
    assert len(maps) == 2 * 5 and len(errors(figure)) == 2 * 2
    sizes = [axes.images[0].get_array().shape for axes in maps[:5]]
    assert sizes == [(33, 33), (17, 17), (17, 17), (33, 33), (33, 33)]
    assert maps[0].get_ylabel() == 'colour\nchannel 3'
    assert maps[5].get_ylabel() == 'grey\nchannel 3'
    # One colour scale a row: the maps can be compared by eye.
    assert len({axes.images[0].get_clim() for axes in maps[:5]}) == 1
    turned, expected = (axes.images[0].get_array() for axes in maps[3:5])
    assert not np.allclose(turned.compressed(), expected.compressed())


@pytest.mark.parametrize(
    'words, message',
    [
        (['README.md', DSS], 'IMAGE: README.md is not an image'),
        (['IMAGE', DSS, DSS], '--names: 2 models need as many different names'),
        (['IMAGE', DSS, '--stage', 0], '--stage: must be at least 1, got 0'),
        (['IMAGE', DSS, '--channel', 99], '--channel: scaleresnet18'),
        (['IMAGE', DSS, '--factor', 0.5], '--factor: must be at least 1, got 0.5'),
        (['IMAGE', DSS, '--factor', 16], f'{Path(DSS).stem} (untrained): factor'),
        (['IMAGE', DSS, '--angles', 'nan'], '--angles: must be finite numbers'),
        (['IMAGE', DSS, '--size', 9], 'IMAGE: 9x9 pixels are too few for feature maps of stride 8'),
        (['IMAGE', DSS, '--size', -1], '--size: needs one or two positive numbers'),
        (['IMAGE', DSS, '--out', 'README.md'], '--out: cannot make the folder README.md'),
    ],
)
def test_bad_arguments_give_one_line(words, message, image, monkeypatch, tmp_path):
    words = [image if word == 'IMAGE' else word for word in words]
    out = [] if '--out' in words else ['--out', tmp_path / 'out']
    line = exit_message(monkeypatch, TOOL, *words, *out)
    assert line.startswith(f'error: {message}')
    assert not list(tmp_path.iterdir())
