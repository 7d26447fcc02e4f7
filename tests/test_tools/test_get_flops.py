# Copyright (c) mmscale contributors.
import sys

import numpy as np
import pytest
from mmcv.transforms import CenterCrop
from mmengine.config import Config
from torch import nn

from mmscale.engine.cost import count, image_shape
from mmscale.engine.models import build_network, find_config
from mmscale.models import BilinearPyramidLift, DeformScaleConv, ModulatedDeformScaleConv

from .conftest import ROOT, exit_message, run_here

TOOL = 'tools/analysis_tools/get_flops.py'
sys.path.insert(0, str((ROOT / TOOL).parent))
import get_flops  # noqa: E402

CNN = 'configs/cnn/cnn_1xb128-20e_scalemnist.py'
DEFORMABLE = 'configs/deform_dss/scaleconvnet-bilinear-s3-dcnv2_1xb128-20e_scalemnist.py'


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_prints_one_row_a_config(monkeypatch, capsys):
    run_here(monkeypatch, TOOL, DEFORMABLE, CNN)
    printed, progress = capsys.readouterr()
    head, rule, first, second = printed.splitlines()[-4:]
    assert cells(head)[:3] == ['model', 'config', 'parameters'] and set(rule) <= set('|-: ')
    assert cells(first)[:4] == ['DSS v2 + DCNv2', f'`{DEFORMABLE}`', '499,952', '+0.0%']
    assert cells(second) == ['CNN', f'`{CNN}`', '494,805', '-1.0%', '35.1 M']
    assert f'counting {CNN} at 28x28' in progress


@pytest.mark.parametrize('layer, a_tap', [(DeformScaleConv, 2), (ModulatedDeformScaleConv, 3)])
def test_counts_four_multiply_adds_for_each_value_that_a_deformable_layer_reads(layer, a_tap):
    """The lift drops pixels without computing; both levels have the same work at each sample."""
    grid = dict(base=2, num_scales=2, zero_scale=0.5)
    model = nn.Sequential(BilinearPyramidLift(grid), layer(4, 6, 3, padding=1, scale_space=grid))
    taps, samples = 9, 16 * 16 + 8 * 8
    offsets, reading, weighing = 4 * taps * a_tap * taps, 4 * taps * 4, 4 * taps * 6
    assert count(model, (4, 16, 16))[1] == samples * (offsets + reading + weighing)


@pytest.mark.parametrize(
    'config, shape, description',
    [
        ('resnet50_8xb32_in1k', (3, 224, 224), 'CNN'),  # a name of MMPretrain
        ('resnet/resnet18-w8_1xb50-10e_scaledigits.py', (1, 32, 32), 'CNN'),
        ('dcn/resnet50-dcnv1_8xb32_in1k.py', (3, 224, 224), 'CNN + DCNv1'),
        ('dss/scaleresnet18-s3-w16_1xb128-30e_scalecifar10.py', (3, 32, 32), 'DSS v1'),
        (
            'dss/scaleconvnet-pyramid-s5_1xb128-20e_scalemnist.py',
            (1, 28, 28),
            'DSS v2, anti-aliased, 2 finer levels',
        ),
        ('deform_dss/scaleresnet50-s4-dcnv2_8xb32_in1k.py', (3, 224, 224), 'DSS v1 + DCNv2'),
        ('so2/so2convnet_1xb128-20e_scalemnist.py', (1, 28, 28), 'SO(2)'),
        (
            'aa_pyramid/scaleresnet18-gate-s3-blur-w16_1xb128-30e_scalecifar10.py',
            (3, 32, 32),
            'DSS v2, anti-aliased, blur, gate',
        ),
        ('sesn/scaleconvnet-hermite-s4_1xb128-20e_scalemnist.py', (1, 28, 28), 'SESN'),
    ],
)
def test_reads_size_and_kind_off_the_config(config, shape, description):
    cfg, _ = find_config(str(ROOT / 'configs' / config) if config.endswith('.py') else config)
    assert image_shape(cfg) == shape
    assert get_flops.describe(cfg) == description
    repeated = dict(type='RepeatDataset', times=2, dataset=cfg.test_dataloader.dataset)
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[repeated])
    assert image_shape(cfg) == shape


def test_a_size_that_the_model_does_not_take_names_the_option(monkeypatch):
    config = CNN.replace('cnn/cnn', 'dss/scaleconvnet-s3')
    line = exit_message(monkeypatch, TOOL, config, '--shape', 3)
    assert '--shape: the model does not take images (C, H, W) of (1, 3, 3)' in line


def test_three_digits_and_a_unit():
    numbers = {8_878_720: '8.88 M', 999e6: '999 M', 464e3: '0.464 M', 2e13: '20,000 G'}
    assert {number: get_flops.with_unit(number) for number in numbers} == numbers


def test_an_unknown_dataset_needs_a_side():
    cfg = Config.fromfile(ROOT / CNN)
    cfg.test_dataloader.dataset.type = 'Flowers102'
    with pytest.raises(ValueError, match='--side: say it, that of Flowers102'):
        image_shape(cfg)
    with pytest.raises(ValueError, match='--shape: say it'):
        image_shape(cfg, option='--shape')
    assert image_shape(cfg, (64, 48)) == (1, 64, 48)


def test_crops_that_are_not_square():
    """MMCV's are (width, height)."""
    cfg, crop = Config.fromfile(ROOT / CNN), dict(crop_size=(80, 48))
    cfg.test_dataloader.dataset.pipeline.insert(0, dict(type='CenterCrop', **crop))
    pixels = CenterCrop(**crop)(dict(img=np.zeros((90, 90, 1))))['img']
    assert image_shape(cfg) == (1, *pixels.shape[:2])


@pytest.mark.parametrize(
    'config, last_taps', [(CNN, [49]), (CNN.replace('cnn/cnn', 'dss/scaleconvnet-s3'), [49, 49, 9])]
)
def test_counts_every_level(config, last_taps):
    """Positions, taps, channels of three convolutions, by level.

    Of taps 4 pixels apart a 7x7 map sees 3 a side in the last one.
    """
    found = count(build_network(Config.fromfile(ROOT / config), config), (1, 28, 28))[1]
    expected = sum(
        28**2 * 49 * 32 + 14**2 * 49 * 32 * 63 + 7**2 * taps * 63 * 95 for taps in last_taps
    )
    assert found == pytest.approx(expected, rel=0.02)
