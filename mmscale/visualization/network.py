# Copyright (c) mmscale contributors.
"""Load a backbone and an image for it, from a config and an image file.

A bad config or image raises a ``ValueError`` or ``OSError`` of one line.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
import torch
from torch import Tensor, nn

from mmscale.datasets.base import leaf_datasets
from mmscale.engine.models import load_model


def read_image(path: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image file by MMCV, and resize the image to ``size``, (height, width), if given.

    Returns:
        np.ndarray: ``(H, W, 3)``, 8 bits, channels in the order B, G, R.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'IMAGE: there is no file {path}')
    try:
        image = mmcv.imread(path, 'color')
    except Exception as error:  # any library may read this kind of file
        raise ValueError(f'IMAGE: {path} is not an image that MMCV reads ({error})') from error
    if image is None:
        raise ValueError(f'IMAGE: {path} is not an image that MMCV reads')
    if size is None:
        return image
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    return mmcv.imresize(image, size[::-1], interpolation='area' if shrinks else 'bicubic')


@dataclass(frozen=True)
class Network:
    """A backbone with the preprocessor of its images.

    Attributes:
        backbone (nn.Module): The backbone, in eval mode.
        preprocessor (nn.Module): The data preprocessor of the model.
        in_channels (int): Number of channels of an image, 1 or 3.
        reads_bgr (bool): Whether the preprocessor takes the channels in the order B, G, R.
        checkpoint (str | None): Path of the weights; None if they are random.
        path (str): Path of the config.
    """

    backbone: nn.Module
    preprocessor: nn.Module
    in_channels: int
    reads_bgr: bool
    checkpoint: str | None
    path: str = ''

    def to_input(self, image: np.ndarray) -> Tensor:
        """Convert an image of :func:`read_image` to an input ``(1, in_channels, H, W)``."""
        if self.in_channels == 1:
            image = mmcv.bgr2gray(image, keepdim=True)
        elif not self.reads_bgr:
            image = mmcv.bgr2rgb(image)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        return self.preprocessor(dict(inputs=pixels))['inputs'].float()

    def to_picture(self, x: Tensor) -> np.ndarray:
        """Convert an input of the backbone, or a level of it, ``(C, H, W)``, for Matplotlib."""
        preprocessor = self.preprocessor
        if getattr(preprocessor, '_enable_normalize', False):
            x = x * preprocessor.std + preprocessor.mean
        is_bgr = self.reads_bgr != getattr(preprocessor, 'to_rgb', False)
        return to_picture((x.flip(0) if is_bgr and len(x) == 3 else x) / 255)


def to_picture(x: Tensor) -> np.ndarray:
    """Convert ``(1, H, W)`` or ``(3, H, W)`` between 0 and 1 for Matplotlib."""
    x = x.detach().clamp(0, 1).cpu().numpy()
    return x[0] if len(x) == 1 else x.transpose(1, 2, 0)


def load_network(model: str, options: dict | None = None, pretrained: bool = False) -> Network:
    """Build a model with the weights of a checkpoint, or with the same random weights each time.

    The arguments are the arguments of :func:`mmscale.engine.models.load_model`.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loaded = load_model(model, options, pretrained)
    backbone = getattr(loaded.network, 'backbone', None)
    if backbone is None:
        raise ValueError(f'config: {loaded.path} has no model with a backbone')
    in_channels = input_channels(backbone)
    if in_channels not in (1, 3):
        raise ValueError(
            f'config: an image file has 1 or 3 channels, {loaded.path} takes {in_channels}'
        )
    preprocessor, order = loaded.network.data_preprocessor, _reads_bgr(loaded.cfg)
    return Network(backbone, preprocessor, in_channels, order, loaded.checkpoint, loaded.path)


def input_channels(backbone: nn.Module) -> int:
    """Return the number of channels of the image: the ``in_channels`` of the first layer."""
    for module in backbone.modules():
        if module is not backbone and isinstance(getattr(module, 'in_channels', None), int):
            return module.in_channels
    return 3


def _reads_bgr(cfg) -> bool:
    """Tell whether images are B, G, R, as from files; datasets in memory are R, G, B."""
    dataset = leaf_datasets((cfg.get('test_dataloader') or {}).get('dataset', {}))[0]
    types = [str(transform.get('type')) for transform in dataset.get('pipeline') or ()]
    return not types or any('LoadImage' in name for name in types)
