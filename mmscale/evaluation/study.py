# Copyright (c) mmscale contributors.
"""What is measured in a study over scale, its models and images, and their equivariance errors.

What is wrong with model or images raises ``ValueError`` of one line.
"""

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from uuid import uuid4

import mmcv
import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.utils import ProgressBar
from mmpretrain.registry import DATASETS, TRANSFORMS
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from mmscale.datasets.base import leaf_datasets, name_images
from mmscale.datasets.images import images_below
from mmscale.scale_space import Signal

from .breakdown import error_breakdown
from .classes import check_classes
from .equivariance import equivariance_error
from .features import find_grid, images_of
from .report import breakdown_curves, curve


@dataclass(frozen=True)
class Settings:
    """How all models of a study are measured.

    Attributes:
        factors (tuple[float, ...]): The scale factors.
        layers (tuple[str, ...]): Names of layers of the models.
        num_images (int): The error is measured on so many images, the first.
        folder (Path | None): Of these images; None for the test data of the configs.
        accuracy_images (int | None): The accuracy is measured on at most so many, spread evenly
            over the test data, at each factor; None for no accuracy.
        metric (str | None): Of a detector or segmentor, that of its evaluator that stands in table
            and figure; None for its mean AP or IoU.
        canvas, resampling, between_levels, border, squared, batch_size: Of
            :func:`mmscale.evaluation.equivariance_error`.
        breakdown (bool): Whether the error of networks on scale spaces is broken down, too, by
            :func:`mmscale.evaluation.error_breakdown`.
    """

    factors: tuple[float, ...]
    layers: tuple[str, ...]
    num_images: int
    folder: Path | None
    accuracy_images: int | None
    canvas: str
    resampling: str
    border: int
    squared: bool
    batch_size: int
    between_levels: str = 'cubic'
    breakdown: bool = False
    metric: str | None = None

    @property
    def error_arguments(self) -> dict:
        names = ('factors', 'canvas', 'resampling', 'between_levels', 'border', 'squared',
                 'batch_size')  # fmt: skip
        return {name: getattr(self, name) for name in names}

    @property
    def breakdown_arguments(self) -> dict:
        names = ('factors', 'resampling', 'between_levels', 'border', 'batch_size')
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Model:
    """A network in eval mode, with the config it is of and the checkpoint it has loaded."""

    path: str
    cfg: Config
    checkpoint: str | None
    network: nn.Module

    @property
    def scope(self):
        """A context in which the registries know the short names of the config."""
        return DefaultScope.overwrite_default_scope(self.cfg.get('default_scope') or 'mmpretrain')


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of several parts."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part)
    return sha256.hexdigest()


def digest_data(model: Model, dataset: Dataset) -> str:
    """Of all that the test data of a model are made of: samples, and files that the config names.

    Such are annotations, which an evaluator may read once more.
    """
    named = [model.cfg.test_dataloader.dataset, model.cfg.get('test_evaluator')]
    return digest([_describe('', named), digest_samples(dataset).encode()])


def digest_samples(dataset: Dataset) -> str:
    """Of all samples of a dataset, as they are before the pipeline.

    Arrays and labels count with their values, files with path, size and time of last change. Of a
    dataset that does not tell its samples, as MMEngine's do, no two digests are the same.
    """
    read = getattr(dataset, 'get_data_info', None)
    if read is None:
        return uuid4().hex
    annotations = _describe('path', getattr(dataset, 'ann_file', None))
    samples = (_describe('', read(place)) for place in range(len(dataset)))
    return digest(chain([annotations], samples))


def _describe(key: str, value) -> bytes:
    """A value of a sample or config, under a key that may say that it is a path."""
    if isinstance(value, Mapping):
        parts = [f'{name}='.encode() + _describe(str(name), part) for name, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [_describe(key, part) for part in value]
    elif isinstance(value, np.ndarray | Tensor):
        array = np.ascontiguousarray(value)
        parts = [str((array.dtype, array.shape)).encode(), array.tobytes()]
    else:
        parts = [repr(value).encode()]
        is_path = isinstance(value, str | Path) and key.endswith(('path', 'file'))
        if is_path and Path(value).is_file():
            status = os.stat(value)
            parts.append(f'{status.st_size} {status.st_mtime_ns}'.encode())
    return b'(' + b','.join(parts) + b')'


@contextmanager
def progress(title: str, total: int) -> Iterator[ProgressBar]:
    """A bar on the standard error, apart from what is printed as a result."""
    print(title, file=sys.stderr)
    bar = ProgressBar(total, file=sys.stderr)
    try:
        yield bar
    finally:
        print(file=sys.stderr)


class FolderImages(Dataset):
    """Image files through the test pipeline of a model's config."""

    def __init__(self, paths: list[Path], model: Model):
        self.paths = paths
        loader = model.cfg.get('test_dataloader') or {}
        dataset = leaf_datasets(loader.get('dataset', {}))[0]
        steps = list(dataset.get('pipeline') or [dict(type='PackInputs')])
        with model.scope:
            self.pipeline = Compose([TRANSFORMS.build(step) for step in steps])
        # A dataset that lies in memory has no step that loads: it hands over what the model takes.
        self.loads = any('LoadImage' in str(step['type']) for step in steps)
        preprocessor = model.network.data_preprocessor
        mean = getattr(preprocessor, 'mean', None)
        self.flag = 'grayscale' if mean is not None and len(mean) == 1 else 'color'
        self.order = 'bgr' if getattr(preprocessor, 'to_rgb', False) else 'rgb'

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        path = self.paths[index]
        sample = dict(img_path=str(path), sample_idx=index)
        try:
            if not self.loads:
                sample['img'] = mmcv.imread(path, self.flag, self.order)
                if sample['img'] is None:
                    raise ValueError('MMCV cannot decode it')
            return self.pipeline(sample)
        except Exception as error:  # of whichever library reads this kind of file
            raise ValueError(f'the image {path} cannot be read: {error}') from error


def build_test_data(model: Model, **overrides) -> Dataset:
    """The dataset of the config's test."""
    if model.cfg.get('test_dataloader') is None:
        raise ValueError(f'{model.path} has no test_dataloader')
    try:
        with model.scope:
            dataset = DATASETS.build({**model.cfg.test_dataloader.dataset, **overrides})
    except Exception as error:  # of whichever dataset has got what it does not take
        raise ValueError(f'the test data of {model.path} cannot be read: {error}') from error
    name_images(dataset)
    return dataset


def check_test_classes(model: Model, dataset: Dataset) -> None:
    """Raises a ValueError unless the labels of its test data are the model's."""
    trained, tested = getattr(model.network, 'dataset_meta', {}), getattr(dataset, 'metainfo', {})
    check_classes(model.network, {'the data of the checkpoint': trained, 'the test data': tested})


def batches(model: Model, dataset: Dataset, batch_size: int) -> Iterator[dict]:
    """Inputs and data samples as the model's preprocessor hands them to the network.

    Images of different sizes are in different batches: in one they would be padded.
    """
    samples = (dataset[i] for i in range(len(dataset)))
    for _, alike in groupby(samples, lambda sample: sample['inputs'].shape):
        while batch := list(islice(alike, batch_size)):
            found = model.network.data_preprocessor(pseudo_collate(batch), False)
            images_of(found)  # of models of other kinds it may be several views, or none
            yield found


def read_images(model: Model, settings: Settings) -> tuple[list[Tensor], str]:
    """The images on which the error is measured, in batches, and where they are from."""
    if settings.folder:
        dataset = FolderImages(images_below(settings.folder)[: settings.num_images], model)
        source = f'of {settings.folder}'
    else:
        dataset = build_test_data(model)
        source = f'the first test images of {type(dataset).__name__}'
        dataset = Subset(dataset, range(min(settings.num_images, len(dataset))))
    parts = [batch['inputs'] for batch in batches(model, dataset, settings.batch_size)]
    sizes = {batch.shape[2:] for batch in parts}
    return parts, source if len(sizes) == 1 else f'{source}, of {len(sizes)} sizes'


def largest(images: list[Tensor]) -> list[int]:
    """Height and width of the largest of all images."""
    return max(([*batch.shape[2:]] for batch in images), key=math.prod)


def measure_errors(model: Model, settings: Settings) -> dict:
    """Curves of the layers, and of lift and body of a network that has them."""
    images, source = read_images(model, settings)
    network, backbone = model.network, getattr(model.network, 'backbone', None)
    grid = find_grid(network)
    # With a single level the lift does nothing, and there is no level to move to.
    lifts = grid is not None and grid.num_scales > 1
    lifts = lifts and all(hasattr(backbone, part) for part in ('lift', 'body'))
    result = dict(
        images=dict(
            source=source,
            count=sum(map(len, images)),
            size=largest(images),
            sha256=digest(batch.cpu().numpy().tobytes() for batch in images),
        ),
        lift=None,
        body=None,
        breakdown=None,
    )
    rounds = 3 + settings.breakdown if lifts else 1
    with progress('  equivariance error', result['images']['count'] * rounds) as bar:

        def each(transform: Callable[[Tensor], Signal] = lambda batch: batch) -> Iterator[Signal]:
            for batch in images:
                yield transform(batch)
                bar.update(len(batch))

        arguments = settings.error_arguments
        found = equivariance_error(network, each(), layers=settings.layers, **arguments)
        result['layers'] = {layer: curve(error) for layer, error in found.items()}
        if lifts:
            arguments['scale_space'] = grid
            result['lift'] = curve(equivariance_error(backbone.lift, each(), **arguments))
            error = equivariance_error(backbone.body, each(backbone.lift), **arguments)
            result['body'] = curve(error[-1] if isinstance(error, tuple) else error)
            if settings.breakdown:
                found = error_breakdown(backbone, each(), **settings.breakdown_arguments)
                result['breakdown'] = breakdown_curves(found)
    return result
