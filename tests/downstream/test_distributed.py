# Copyright (c) mmscale contributors.
"""Processes that train one detector together, as torch.distributed.run starts them."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from .conftest import ROOT

pytest.importorskip('mmdet', reason='needs the environment of `make test-downstream`')

FOLDER = ROOT / 'configs/downstream/scattered_mnist'
NAMES = ('balanced_scalefpn', 'levels_fpn')
SIZES = ('img_shape', 'pad_shape', 'batch_input_shape')
WORKER = """
import sys
import torch
from mmengine.model import MMDistributedDataParallel
from mmscale.engine import launch
from downstream.test_distributed import NAMES, detector, gradients

torch.distributed.init_process_group('gloo')
rank, found = torch.distributed.get_rank(), {}
for name in NAMES:
    model = MMDistributedDataParallel(detector(name), device_ids=None, broadcast_buffers=False)
    found[name] = gradients(model, slice(rank, None, 2))
torch.save(found, f'{sys.argv[1]}/{rank}.pth')
launch.leave_process_group()
"""


def detector(name: str) -> torch.nn.Module:
    """In eval mode, in which norms keep their statistics and no level is dropped."""
    cfg = Config.fromfile(FOLDER / f'retinanet_scaleresnet18-w16-{name}_1xb8-24e.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    return model.eval().double()


def gradients(model: torch.nn.Module, part: slice) -> list[torch.Tensor]:
    """Of the loss of a part of four images.

    The first two have the same boxes, and the last two: RetinaNet divides the loss of a process by
    the number of its positive anchors, which are then as many in each.
    """
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, 128, 128, generator=generator, dtype=torch.float64)
    samples = []
    for i in range(4):
        boxes = torch.Generator().manual_seed(i // 2)
        corners = 60 * torch.rand(3, 2, generator=boxes)
        sizes = 16 + 40 * torch.rand(3, 2, generator=boxes)
        sample = DetDataSample(metainfo=dict.fromkeys(SIZES, (128, 128)))
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corners, corners + sizes], 1), labels=torch.tensor([i, 4, 5])
        )
        samples.append(sample)
    losses = model(images[part], samples[part], mode='loss')
    sum(sum(values) for values in losses.values()).backward()
    return [p.grad for p in model.parameters()]


def difference(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest of any parameter's gradient, as a share of its largest entry."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-6)) for a, b in pairs)


def test_gradients_are_those_of_one_process_with_the_whole_batch(tmp_path):
    (tmp_path / 'worker.py').write_text(WORKER)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    launch = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_addr=127.0.0.1',
              f'--master_port={port}', str(tmp_path / 'worker.py'), str(tmp_path)]  # fmt: skip
    path = os.pathsep.join([str(ROOT / 'tests'), str(ROOT), os.environ.get('PYTHONPATH', '')])
    result = subprocess.run(
        [sys.executable, *launch], capture_output=True, text=True, timeout=300,
        env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    ranks = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    for name in NAMES:
        expected = gradients(detector(name), slice(None))
        half = gradients(detector(name), slice(0, None, 2))
        assert difference(half, expected) > 0.1
        for found in ranks:
            assert difference(found[name], expected) < 1e-6, name
