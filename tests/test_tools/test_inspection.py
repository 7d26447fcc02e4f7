# Copyright (c) mmscale contributors.
"""The tools that only look at a config."""

import re

import pytest
from mmengine.config import Config

from .conftest import CONFIG, exit_message, run_here, run_tool


def test_print_config_prints_a_config_that_loads(tmp_path):
    result = run_tool(
        'tools/misc/print_config.py', CONFIG, '--cfg-options', 'model.backbone.depth=34'
    )
    assert result.returncode == 0, result.stderr
    printed = tmp_path / 'printed.py'
    printed.write_text(result.stdout)
    expected = Config.fromfile(CONFIG)
    expected.model.backbone.depth = 34
    assert Config.fromfile(printed).to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    'config, shape, last_taps',
    [
        ('configs/cnn/cnn_1xb128-20e_scalemnist.py', [28], [49]),
        ('configs/dss/scaleconvnet-s3_1xb128-20e_scalemnist.py', [1, 28, 28], [49, 49, 9]),
    ],
)
def test_get_flops_counts_every_level(config, shape, last_taps, monkeypatch, capsys):
    """Positions, taps, channels of three convolutions, by level.

    Of taps 4 pixels apart a 7x7 map sees 3 a side in the last one.
    """
    run_here(monkeypatch, 'tools/analysis_tools/get_flops.py', config, '--shape', *shape)
    printed = capsys.readouterr().out
    assert 'Input shape (C, H, W): (1, 28, 28)' in printed
    assert re.search(r'Parameters: 0\.495M', printed)
    number, unit = re.search(r'Multiply-adds: ([\d.]+)([MG])', printed).groups()
    expected = sum(
        28**2 * 49 * 32 + 14**2 * 49 * 32 * 63 + 7**2 * taps * 63 * 95 for taps in last_taps
    )
    assert float(number) * {'M': 1e6, 'G': 1e9}[unit] == pytest.approx(expected, rel=0.02)


def test_get_flops_refuses_a_shape_of_four_numbers(monkeypatch):
    tool = 'tools/analysis_tools/get_flops.py'
    line = exit_message(monkeypatch, tool, CONFIG, '--shape', 1, 1, 32, 32)
    assert line.startswith('error: --shape: needs one to three')
