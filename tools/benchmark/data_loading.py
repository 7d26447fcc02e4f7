# Copyright (c) mmscale contributors.
"""Images a second that training dataloaders deliver, against those that networks train on.

Loader and network run by themselves, one after the other, on the same cores: a factor of 3 leaves
the cores to the network for three quarters of the time and more.
"""

import contextlib
import hashlib
import os
import pickle
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain import get_model
from results import compare
from running import parse_args, run_sections
from timing import progress, time_in_turn
from torch.utils.data import DataLoader

from mmscale.datasets import scale_mnist

SECTION = 'Data loading'
CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TARGET = ('>=', 3.0)
NUM_WORKERS = 2
CLASSES = 10
# For each dataset the networks, by name.
NETWORKS = {
    'ScaleMNIST': {
        'ScaleConvNet, dense, S = 3': 'dss/scaleconvnet-s3_1xb128-20e_scalemnist.py',
        'ScaleConvNet, pyramid, S = 5': 'dss/scaleconvnet-pyramid-s5_1xb128-20e_scalemnist.py',
        'ScaleConvNet, pyramid, S = 3': 'dss_v2/scaleconvnet-bilinear-s3_1xb128-20e_scalemnist.py',
    },
    'ScaleCIFAR10': {
        'ScaleResNet-18, pyramid, S = 3': (
            'dss_v2/scaleresnet18-bilinear-s3-w16_1xb128-30e_scalecifar10.py'
        ),
    },
}
RESCALE = dict(type='mmscale.RandomRescale', scale_range=(0.5, 1.0))


def write_mnist(folder: Path) -> dict[str, str]:
    """Files like MNIST's, of random images; returns the MD5 of each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    checksums = {}
    for name, count in (('train', 60_000), ('t10k', 10_000)):
        pixels = rng.integers(0, 256, (count, 7, 7), np.uint8).repeat(4, 1).repeat(4, 2)
        labels = rng.permutation(np.arange(count, dtype=np.uint8) % CLASSES)
        contents = {
            f'{name}-images-idx3-ubyte': struct.pack('>IIII', 0x803, count, 28, 28)
            + pixels.tobytes(),
            f'{name}-labels-idx1-ubyte': struct.pack('>II', 0x801, count) + labels.tobytes(),
        }
        for file, content in contents.items():
            (folder / file).write_bytes(content)
            checksums[file] = hashlib.md5(content).hexdigest()
    return checksums


def write_cifar10(root: Path, images_a_file: int = 2000) -> None:
    """Files like the training part of CIFAR-10, of random images."""
    folder = root / 'cifar-10-batches-py'
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(1, 6):
        data = rng.integers(0, 256, (images_a_file, 3 * 32 * 32), np.uint8)
        labels = [j % CLASSES for j in range(images_a_file)]
        (folder / f'data_batch_{i}').write_bytes(pickle.dumps(dict(data=data, labels=labels)))


def build_loader(config: dict, dataset: dict, rescale: bool = False) -> DataLoader:
    """The training dataloader of a config, with workers and other arguments of the dataset.

    Args:
        config (dict): ``train_dataloader``, which is not changed.
        dataset (dict): Arguments of the dataset to set.
        rescale (bool): Rescale the images at random, too.
    """
    config = Config(config).copy()
    config.update(num_workers=NUM_WORKERS, persistent_workers=True)
    config.setdefault('collate_fn', dict(type='default_collate'))  # as tools/train.py does
    config.dataset.update(dataset)
    if rescale:
        config.dataset.pipeline.insert(0, RESCALE)
    with DefaultScope.overwrite_default_scope('mmpretrain'), stdout_to_stderr():
        return Runner.build_dataloader(config, seed=0)


@contextlib.contextmanager
def stdout_to_stderr():
    """Datasets print how far they are, MMEngine's progress bar past ``sys.stdout``."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def build_loaders(data: Path | None, images: int) -> dict[tuple[str, str], DataLoader]:
    """Dataloaders by dataset and variant.

    Args:
        data (Path, optional): Folder of ``mnist/`` and ``cifar10/``.
        images (int): How many images of a dataset are used.
    """
    cfgs = {name: load(next(iter(found.values()))) for name, found in NETWORKS.items()}
    loaders = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = data or Path(folder)
        # A benchmark leaves nothing in folders that it was only given to read.
        mnist = dict(data_root=str(root / 'mnist'), cache_dir=str(Path(folder) / 'cache'),
                     indices=images, download=False)  # fmt: skip
        cifar10 = dict(data_root=str(root / 'cifar10'), indices=images, download=False,
                       check_integrity=False)  # fmt: skip
        if data is None:
            checksums = write_mnist(root / 'mnist')
            stack.enter_context(mock.patch.dict(scale_mnist.IDX_FILES, checksums))
            mnist['seed'] = 1  # published factors would be held to published images
            write_cifar10(root / 'cifar10')
        for name, dataset in (('ScaleMNIST', mnist), ('ScaleCIFAR10', cifar10)):
            for variant, rescale in (('', False), (' + RandomRescale', True)):
                progress(f'{SECTION}: {name}{variant}')
                loaders[name, variant] = build_loader(cfgs[name].train_dataloader, dataset, rescale)
    return loaders


def load(config: str) -> Config:
    return Config.fromfile(CONFIGS / config)


def epoch(loader: DataLoader) -> Callable[[], int]:
    """A function that goes through the dataset once: no worker is ahead of it at the start."""

    def run() -> int:
        return sum(len(batch['inputs']) for batch in loader)

    return run


def training_step(config: str, loader: DataLoader, device: str) -> Callable[[], None]:
    """A step of a config's network and optimizer on a batch of its dataset."""
    cfg = load(config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = get_model(cfg, device=device).train()
        model.init_weights()
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    samples = [loader.dataset[i] for i in range(min(loader.batch_size, len(loader.dataset)))]
    batch = loader.collate_fn(samples)
    return lambda: model.train_step(batch, optim_wrapper)


def measure(args) -> list[dict]:
    """A row for each loader and network."""
    images = 256 if args.quick else 5000
    loaders = build_loaders(args.data, images)
    counts, steps = {}, {}
    for (name, variant), loader in loaders.items():
        steps[name, variant] = epoch(loader)
        counts[name, variant] = len(loader.dataset)
    for name, networks in NETWORKS.items():
        for network, config in networks.items():
            loader = loaders[name, '']
            steps[network] = training_step(config, loader, args.device)
            counts[network] = min(loader.batch_size, len(loader.dataset))
    progress(f'{SECTION}: {len(loaders)} loaders and {len(steps) - len(loaders)} networks')
    times = time_in_turn(
        steps,
        args.device,
        seconds=0 if args.quick else 15,
        rounds=(2, 2) if args.quick else (4, 20),
        warm_up=1,
    )
    speeds = {key: [counts[key] / t for t in found] for key, found in times.items()}
    source = 'random images' if args.data is None else 'real images'
    return [
        compare(
            SECTION,
            f'{name}{variant}, {NUM_WORKERS} workers, {source}',
            f'training {network}',
            speeds[name, variant],
            speeds[network],
            unit='images/s',
            target=TARGET,
            judge=not args.quick,
        )
        for name, variant in loaders
        for network in NETWORKS[name]
    ]


if __name__ == '__main__':
    run_sections(parse_args(__doc__), dict(data_loading=measure), 'data_loading')
