# Copyright (c) mmscale contributors.
"""Networks that leave PyTorch, as the tool exports them."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpretrain import get_model

from mmscale.ops.adaptive_pool import _max_of_cells, _mean_of_cells, adaptive_pool2d

from .conftest import ROOT, exit_message, run_here
from .pages import blocks

TOOL = 'tools/deployment/export_onnx.py'
CHECKPOINT = 'checkpoints/scaleconvnet-deep-balanced-up1_1xb128-20e_scalemnist-4bb1befa.pth'


def config(folder, name):
    return f'configs/{folder}/{name}_1xb128-20e_scalemnist.py'


PAIRS = st.tuples(st.integers(1, 30), st.integers(1, 12))


@settings(max_examples=60, deadline=None)
@given(rows=PAIRS, columns=PAIRS, mode=st.sampled_from(['max', 'avg']))
def test_cells_of_a_kept_graph_are_those_of_pytorch(rows, columns, mode):
    sides, size = zip(rows, columns)
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    pool = _max_of_cells if mode == 'max' else _mean_of_cells
    expected = dict(max=F.adaptive_max_pool2d, avg=F.adaptive_avg_pool2d)[mode](x, size)
    found = pool(pool(x, size[1]).mT, size[0]).mT
    assert (found - expected).abs().max() <= (0 if mode == 'max' else 1e-12)
    assert torch.equal(adaptive_pool2d(x, size, mode), expected)


# Dense, pyramid, deformable, rotations.
@pytest.mark.parametrize(
    'path',
    [
        config('dss', 'scaleconvnet-s3'),
        config('dss_v2', 'scaleconvnet-bilinear-s3'),
        config('deform_dss', 'scaleconvnet-bilinear-s3-dcnv2'),
        config('so2', 'so2convnet'),
    ],
)
def test_the_graph_takes_batches_of_any_size(path, tmp_path, capsys, monkeypatch):
    out = tmp_path / f'{Path(path).stem}.onnx'
    run_here(monkeypatch, TOOL, path, '--out', tmp_path)
    text = capsys.readouterr().out
    assert 'images (N, 1, 28, 28)' in text and 'onnxruntime' in text
    session = onnxruntime.InferenceSession(out, providers=['CPUExecutionProvider'])
    (image,) = session.get_inputs()
    assert image.name == 'image' and image.shape[1:] == [1, 28, 28]
    images = np.random.default_rng(0).normal(size=(7, 1, 28, 28)).astype(np.float32)
    (together,) = session.run(None, {'image': images})
    alone = [session.run(None, {'image': images[i : i + 1]})[0] for i in range(7)]
    assert together.shape == (7, 10) and np.abs(together - np.concatenate(alone)).max() <= 1e-4
    assert list(tmp_path.iterdir()) == [out]
    monkeypatch.chdir(tmp_path)
    out.rename('network.onnx')
    exec(blocks('docs/deployment.md', 'python')[0], names := {})  # noqa: S102
    assert names['logits'].shape == (4, 10)


def test_graphs_of_several_sizes_have_the_weights_of_the_checkpoint(tmp_path, monkeypatch):
    path = config('aa_pyramid', 'scaleconvnet-deep-balanced-up1')
    name = Path(path).stem
    run_here(monkeypatch, TOOL, name, '--pretrained', '--out', tmp_path, '--side', 28, '32x24')
    assert {p.name for p in tmp_path.iterdir()} == {f'{name}-28.onnx', f'{name}-32x24.onnx'}
    model = get_model(str(ROOT / path), pretrained=str(ROOT / CHECKPOINT)).eval()
    for side, size in {'28': (28, 28), '32x24': (32, 24)}.items():
        images = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(0))
        file = tmp_path / f'{name}-{side}.onnx'
        session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
        (found,) = session.run(None, {'image': images.numpy()})
        with torch.no_grad():
            expected = model.head(model.extract_feat(images)).numpy()
        assert np.abs(found - expected).max() <= 1e-4 and np.abs(expected).max() > 1


@pytest.mark.parametrize(
    'words, message',
    [
        (['--out', 'README.md'], '--out: cannot make the folder README.md'),
        (['--side', '8x8x8'], '--side: must be SIDE or HEIGHTxWIDTH'),
        (['--side', '28', '3'], '--side: the model does not take images (C, H, W) of (1, 3, 3)'),
    ],
)
def test_bad_input_is_named_before_the_export(words, message, monkeypatch):
    assert message in exit_message(monkeypatch, TOOL, config('dss', 'scaleconvnet-s3'), *words)
