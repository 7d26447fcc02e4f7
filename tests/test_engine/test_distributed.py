# Copyright (c) mmscale contributors.
"""Processes that train one model together, as torch.distributed.run starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from mmpretrain.structures import DataSample
from naive import largest_difference
from networks import small_classifier

NETWORKS = dict(
    dense=dict(lift='GaussianLift'),
    pyramid=dict(lift='GaussianPyramidLift'),
    gate=dict(lift='GaussianPyramidLift', pool='gate'),
    deformable=dict(
        lift='GaussianPyramidLift', deform=dict(type='mmscale.DeformScaleConv', stages=[True] * 4)
    ),
)
WORKER = """
import sys
import torch
from mmengine.model import MMDistributedDataParallel
from mmscale.engine import launch
from test_engine.test_distributed import NETWORKS, gradients, small_classifier

torch.distributed.init_process_group('gloo')
rank, found = torch.distributed.get_rank(), {}
for name, options in NETWORKS.items():
    model = MMDistributedDataParallel(
        small_classifier(**options), device_ids=None, broadcast_buffers=False
    )
    found[name] = gradients(model, slice(rank, None, 2))
torch.save(found, f'{sys.argv[1]}/{rank}.pth')
launch.leave_process_group()
"""


def gradients(model: torch.nn.Module, part: slice) -> list[torch.Tensor]:
    """Of the loss of a part of eight images."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(8, 3, 16, 16, generator=generator, dtype=torch.float64)
    samples = [DataSample().set_gt_label(i % 5) for i in range(8)]
    model(images[part], samples[part], mode='loss')['loss'].backward()
    return [p.grad for p in model.parameters()]


def test_gradients_are_those_of_one_process_with_the_whole_batch(tmp_path):
    """Of norms that keep their statistics: those of half a batch are not those of the whole, and
    PyTorch synchronises them on accelerators alone."""
    (tmp_path / 'worker.py').write_text(WORKER)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    launch = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_addr=127.0.0.1',
              f'--master_port={port}', str(tmp_path / 'worker.py'), str(tmp_path)]  # fmt: skip
    tests = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get('PYTHONPATH', '')])
    result = subprocess.run(
        [sys.executable, *launch], capture_output=True, text=True, timeout=300,
        env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    ranks = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    for name, options in NETWORKS.items():
        expected = gradients(small_classifier(**options), slice(None))
        half = gradients(small_classifier(**options), slice(0, None, 2))
        assert largest_difference(half, expected) > 1e-3
        for found in ranks:
            assert largest_difference(found[name], expected) < 1e-12, name
