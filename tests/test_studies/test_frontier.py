# Copyright (c) mmscale contributors.
import csv
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmscale.models import ScaleResNet_CIFAR

SCRIPT = Path(__file__).resolve().parents[2] / 'studies/measurements/frontier.py'
SPEC = importlib.util.spec_from_file_location('frontier', SCRIPT)
frontier = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(frontier)


def test_the_frontier_of_the_named_configurations(tmp_path):
    """What the blur brings, and what finer levels bring on top."""
    options = ['--named', '--num-images', '2', '--batch-size', '1', '--out', str(tmp_path)]
    result = subprocess.run(
        [sys.executable, SCRIPT, *options], cwd=SCRIPT.parents[1], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    with (tmp_path / 'frontier_cifar18.csv').open(encoding='utf-8') as lines:
        rows = list(csv.DictReader(lines))
    worst = {}
    for row in rows:
        name = row['role'] or row['network']
        worst[name] = max(worst.get(name, 0), float(row['error']))
        assert float(row['cost']) > 0 and float(row['amplification']) > 1  # random weights
    order = ['ordinary', 'ordinary, blur 5 taps', 'economical', 'balanced', 'accurate']
    assert all(worst[better] < worst[than] for than, better in zip(order, order[1:]))
    assert (tmp_path / 'frontier_cifar18.md').read_text(encoding='utf-8') in result.stdout
    assert (tmp_path / 'frontier_cifar18.png').stat().st_size > 20_000


def test_amplification_is_a_share_of_the_signal_over_a_share_of_the_images():
    images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double()

    def network(x):  # two outputs, the second of two levels
        return (5 * x,), (x + 2, 3 * x[..., ::2, ::2])

    first, second = frontier.amplification(network, images)
    assert first == pytest.approx(1, abs=1e-12)
    change = images.roll(1, 0)
    grown = change.square().sum() + 9 * change[..., ::2, ::2].square().sum()
    signal = (images + 2).square().sum() + 9 * images[..., ::2, ::2].square().sum()
    before = change.square().sum() / images.square().sum()
    assert second == pytest.approx(float(grown / signal / before), rel=1e-9)


def test_norms_have_the_statistics_of_the_images():
    """Behind every norm the features of these images have mean 0 and variance 1."""
    torch.manual_seed(0)
    model = ScaleResNet_CIFAR(18, dict(num_scales=2), base_channels=4, stem_channels=4).double()
    model.init_weights()
    nn.init.constant_(model.bn1.bias, 3.0)
    images = 5 + 7 * torch.randn(6, 3, 16, 16).double()
    assert frontier.calibrate_norms(model, images) is model and not model.training
    norms, rows = {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}, {}
    assert 'layer4.1.bn2' in norms  # which starts at 0, and would hide its branch
    for name, norm in norms.items():
        norm.register_forward_hook(lambda _, __, y, name=name: rows.update({name: y.rows.clone()}))
    model(images)
    for name, norm in norms.items():
        assert norm.momentum == 0.1
        # Running variances are unbiased, and eps is added: what is seen differs by so much.
        assert rows[name].mean(0).abs().max() < (1e-9 if name == 'bn1' else 0.1), name
        assert (rows[name].var(0) - 1).abs().max() < 0.2, name
