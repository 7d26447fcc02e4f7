# Copyright (c) mmscale contributors.
import sys

import numpy as np
import pytest
import torch
from mmcv.transforms import CenterCrop
from mmengine.config import Config
from torch import nn

from mmscale.engine.cost import count, image_shape, training_step
from mmscale.engine.models import build_network, find_config
from mmscale.models import BilinearPyramidLift, DeformScaleConv, ModulatedDeformScaleConv

from .conftest import ROOT, run_here, run_tool

TOOL = 'tools/analysis_tools/get_flops.py'
sys.path.insert(0, str((ROOT / TOOL).parent))
import get_flops  # noqa: E402

CNN = 'configs/cnn/cnn_1xb128-20e_scalemnist.py'
DSS_V2 = 'configs/dss_v2/scaleconvnet-bilinear-s3_1xb128-20e_scalemnist.py'
DEFORMABLE = 'configs/deform_dss/scaleconvnet-bilinear-s3-dcnv2_1xb128-20e_scalemnist.py'


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_prints_one_row_a_config_in_the_order_given():
    result = run_tool(TOOL, DEFORMABLE, CNN)
    assert result.returncode == 0, result.stderr
    head, rule, first, second = result.stdout.splitlines()[-4:]
    assert cells(head)[:3] == ['model', 'config', 'parameters'] and set(rule) <= set('|-: ')
    assert cells(first)[:4] == ['DSS v2 + DCNv2', f'`{DEFORMABLE}`', '499,952', '+0.0%']
    assert cells(second) == ['CNN', f'`{CNN}`', '494,805', '-1.0%', '35.1 M', '-']
    assert f'counting {CNN} at 28x28' in result.stderr


def test_times_real_steps_of_every_model(monkeypatch, capsys):
    run_here(monkeypatch, TOOL, CNN, DSS_V2, '--speed', '--rounds', 1, '--batch-size', 2)
    printed = capsys.readouterr().out
    assert f'torch {torch.__version__}' in printed
    speeds = [float(cells(line)[-1]) for line in printed.splitlines()[-2:]]
    assert all(speed > 0 for speed in speeds)


def test_a_step_changes_the_weights():
    cfg = Config.fromfile(ROOT / CNN)
    model = build_network(cfg, CNN)
    step = training_step(cfg, model, (1, 28, 28), batch_size=4)
    before = [p.clone() for p in model.parameters()]
    assert step() > 0
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters()))


def test_rounds_go_over_all_models_and_the_warm_up_is_not_timed():
    calls = []
    seconds = iter([9, 9, 9, 9, 1, 10, 3, 30, 2, 20])

    def step(name):
        calls.append(name)
        return next(seconds)

    steps = [lambda: step('a'), lambda: step('b')]
    assert get_flops.time_steps(steps, rounds=3) == [2, 20]
    assert calls == ['a', 'b'] * 5


@pytest.mark.parametrize('layer, a_tap', [(DeformScaleConv, 2), (ModulatedDeformScaleConv, 3)])
def test_counts_four_multiply_adds_for_each_value_that_a_deformable_layer_reads(layer, a_tap):
    """The lift drops pixels without computing; both levels have the same work at each sample."""
    scale_space = dict(base=2, num_scales=2, zero_scale=0.5)
    model = nn.Sequential(
        BilinearPyramidLift(scale_space), layer(4, 6, 3, padding=1, scale_space=scale_space)
    )
    taps, samples = 9, 16 * 16 + 8 * 8
    offsets = 4 * taps * a_tap * taps
    reading, weighing = 4 * taps * 4, 4 * taps * 6
    flops = count(model, (4, 16, 16))[1]
    assert flops == samples * (offsets + reading + weighing)


def test_knows_models_of_mmpretrain_by_name():
    cfg, _ = find_config('resnet50_8xb32_in1k')
    assert image_shape(cfg) == (3, 224, 224)
    assert get_flops.describe(cfg) == 'CNN'


@pytest.mark.parametrize(
    'config, shape, description',
    [
        ('resnet/resnet18-w8_1xb50-10e_scaledigits', (1, 32, 32), 'CNN'),
        ('cnn/cnn_1xb128-20e_scalemnist', (1, 28, 28), 'CNN'),
        ('dcn/resnet50-dcnv1_8xb32_in1k', (3, 224, 224), 'CNN + DCNv1'),
        ('dss/scaleresnet18-s3-w16_1xb128-30e_scalecifar10', (3, 32, 32), 'DSS v1'),
        (
            'dss/scaleconvnet-pyramid-s5_1xb128-20e_scalemnist',
            (1, 28, 28),
            'DSS v2, anti-aliased, 2 finer levels',
        ),
        ('dss_v2/scaleresnet50-antialiased-s4_8xb32_in1k', (3, 224, 224), 'DSS v2, anti-aliased'),
        ('deform_dss/scaleresnet50-s4-dcnv2_8xb32_in1k', (3, 224, 224), 'DSS v1 + DCNv2'),
        ('so2/so2convnet_1xb128-20e_scalemnist', (1, 28, 28), 'SO(2)'),
        ('sesn/scaleconvnet-hermite-s4_1xb128-20e_scalemnist', (1, 28, 28), 'SESN'),
    ],
)
def test_reads_size_and_kind_off_the_config(config, shape, description):
    cfg, _ = find_config(str(ROOT / f'configs/{config}.py'))
    assert image_shape(cfg) == shape
    assert get_flops.describe(cfg) == description


def test_reads_size_within_wrappers():
    cfg, _ = find_config(str(ROOT / 'configs/so2/so2convnet_1xb128-20e_scalemnist.py'))
    repeated = dict(type='RepeatDataset', times=2, dataset=cfg.test_dataloader.dataset)
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[repeated])
    assert image_shape(cfg) == (1, 28, 28)


@pytest.mark.parametrize(
    'number, text',
    [
        (8_878_720, '8.88 M'),
        (26.9e6, '26.9 M'),
        (274e6, '274 M'),
        (999e6, '999 M'),
        (464e3, '0.464 M'),
        (16.64e9, '16.6 G'),
    ],
)
def test_three_digits_and_a_unit(number, text):
    assert get_flops.with_unit(number) == text


def test_large_numbers_have_no_exponent():
    assert get_flops.three_digits(1234.5) == '1,234'


def test_an_unknown_dataset_needs_a_side():
    cfg = Config.fromfile(ROOT / CNN)
    cfg.test_dataloader.dataset.type = 'Flowers102'
    with pytest.raises(ValueError, match='--side: say it, that of Flowers102'):
        image_shape(cfg)
    assert image_shape(cfg, (64, 48)) == (1, 64, 48)


def test_crops_that_are_not_square():
    """MMCV's are (width, height)."""
    cfg = Config.fromfile(ROOT / CNN)
    cfg.test_dataloader.dataset.pipeline.insert(0, dict(type='CenterCrop', crop_size=(80, 48)))
    shape = image_shape(cfg)
    assert shape == (1, 48, 80)
    pixels = CenterCrop(crop_size=(80, 48))(dict(img=np.zeros((90, 90, 1))))['img']
    assert pixels.shape == (48, 80, 1)
    square, oblong = (count(build_network(cfg, CNN), (1, *size)) for size in ((48, 48), (48, 80)))
    assert square[0] == oblong[0] and 1.6 < oblong[1] / square[1] < 1.72


@pytest.mark.parametrize(
    'config, last_taps', [(CNN, [49]), (CNN.replace('cnn/cnn', 'dss/scaleconvnet-s3'), [49, 49, 9])]
)
def test_counts_every_level(config, last_taps, monkeypatch, capsys):
    """Positions, taps, channels of three convolutions, by level.

    Of taps 4 pixels apart a 7x7 map sees 3 a side in the last one.
    """
    run_here(monkeypatch, TOOL, config, '--shape', 28)
    number, unit = cells(capsys.readouterr().out.splitlines()[-1])[4].split()
    expected = sum(
        28**2 * 49 * 32 + 14**2 * 49 * 32 * 63 + 7**2 * taps * 63 * 95 for taps in last_taps
    )
    assert float(number) * {'M': 1e6, 'G': 1e9}[unit] == pytest.approx(expected, rel=0.02)
