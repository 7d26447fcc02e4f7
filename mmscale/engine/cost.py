# Copyright (c) mmscale contributors.
"""Count parameters and multiply-adds of a model."""

import copy

import torch
from mmcv.transforms import CenterCrop
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from mmpretrain.datasets import CIFAR10, MNIST

from mmscale.datasets import STIR, ScaleCIFAR10, ScaleDigits, ScaleMNIST
from mmscale.datasets.base import leaf_datasets
from mmscale.registry import is_kind

from .errors import one_line
from .models import scope_of

# Sides of the images of datasets whose pipelines do not crop, in pixels.
IMAGE_SIDES = {
    ScaleMNIST: 28, ScaleDigits: 32, ScaleCIFAR10: 32, STIR: 64, MNIST: 28, CIFAR10: 32,
}  # fmt: skip


def parse_side(text: str) -> tuple[int, int]:
    """Parse ``SIDE`` or ``HEIGHTxWIDTH`` of a command line to height and width in pixels."""
    sides = text.split('x')
    if len(sides) > 2 or not all(side.isdecimal() and int(side) >= 1 for side in sides):
        raise ValueError(f'--side: must be SIDE or HEIGHTxWIDTH, each at least 1, got {text}')
    return int(sides[0]), int(sides[-1])


def image_shape(
    cfg: Config, size: tuple[int, int] | None = None, option: str = '--side'
) -> tuple[int, int, int]:
    """Return the shape ``(C, H, W)`` of the test images of a config.

    Height and width are ``size``, or else the size in the ``test_dataloader``. A ValueError is
    raised if neither has a size. It names the ``option`` of a tool that sets the size.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    mean = preprocessor.get('mean')
    channels = cfg.model.backbone.get('in_channels', 3) if mean is None else len(mean)
    if size is not None:
        return channels, *size
    dataset, scope = leaf_datasets(cfg.test_dataloader.dataset)[0], scope_of(cfg)
    known = [n for kind, n in IMAGE_SIDES.items() if is_kind(dataset.type, kind, DATASETS, scope)]
    known += [dataset.image_size] if 'image_size' in dataset else []
    known += [
        step['crop_size']
        for step in dataset.get('pipeline') or ()
        if is_kind(step['type'], CenterCrop, TRANSFORMS, scope)
    ]
    if not known:
        raise ValueError(f'{option}: say it, that of {dataset.type} is not known')
    # MMCV's crops are (width, height).
    width, height = (known[-1],) * 2 if isinstance(known[-1], int) else known[-1]
    return channels, height, width


def check_input(
    model: torch.nn.Module, shape: tuple[int, int, int], option: str = '--side'
) -> None:
    """Run a model, in eval mode, on one image of shape (C, H, W).

    A ValueError that names the ``option`` of a tool is raised if the model does not take it.
    """
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f'{option}: the model does not take images (C, H, W) of {shape}: {one_line(error)}'
        ) from error


def count(
    model: torch.nn.Module, shape: tuple[int, int, int], option: str = '--side'
) -> tuple[int, int]:
    """Count the parameters and, by MMEngine, the multiply-adds for one image of shape (C, H, W).

    The model must be on the CPU: on a GPU, deformable layers call MMCV's compiled operations, which
    MMEngine cannot count. ``option`` is that of :func:`check_input`.
    """
    check_input(model, shape, option)  # raises the error of the model, not an error of the tracer
    analyzer = FlopAnalyzer(model, (torch.zeros(1, *shape),))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analyzer.tracer_warnings('none')
    return sum(p.numel() for p in model.parameters()), int(analyzer.total())


def first_batch(cfg: Config, batch_size: int) -> dict:
    """Return the first images of the training data of a config, through its pipeline."""
    with DefaultScope.overwrite_default_scope(scope_of(cfg)):
        dataset = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))
    return pseudo_collate([dataset[i] for i in range(batch_size)])
