# Copyright (c) mmscale contributors.
"""Read the images of a study over scale and measure the equivariance errors of a model on them.

A bad model or bad images raise a ``ValueError`` of one line.
"""

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from uuid import uuid4

import joblib
import mmcv
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from mmengine.utils import ProgressBar
from mmpretrain.registry import DATASETS, TRANSFORMS
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils.data import Dataset, Subset

from mmscale.datasets.base import leaf_datasets, name_images
from mmscale.datasets.images import images_below, photograph_crops
from mmscale.engine.classes import check_classes
from mmscale.evaluation import equivariance_error, error_breakdown
from mmscale.evaluation.features import find_grid, images_of
from mmscale.scale_space import Signal

from .cost import image_shape
from .models import Model
from .report import breakdown_curves, curve


@dataclass(frozen=True)
class Settings:
    """The settings of the measurements, the same for all models of a study.

    The error is measured at ``layers`` (names), on the first ``num_images`` images of ``folder``
    or, if it is None, of the test data of the config. The accuracy is measured at each factor on at
    most ``accuracy_images`` images, spread evenly over the test data; None measures no accuracy.
    ``metric`` names the metric of a detector or segmentor in table and figure; None stands for the
    mean AP or IoU. ``breakdown`` adds :func:`mmscale.evaluation.error_breakdown`. All others are
    arguments of :func:`mmscale.evaluation.equivariance_error`.
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

    def arguments(self, *more: str) -> dict:
        """Return the arguments that error and breakdown share, and those that ``more`` names."""
        names = ('factors', 'resampling', 'between_levels', 'border', 'batch_size', *more)
        return {name: getattr(self, name) for name in names}


class MissingData(ValueError):
    """An error: the files of a config's test data are missing."""


def digest(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 of several parts, one after the other, in hexadecimal digits."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part)
    return sha256.hexdigest()


def digest_data(model: Model, dataset: Dataset) -> str:
    """Return a digest of the test data of a model: its samples, and the files in its config.

    Of files, such as annotations, the digest holds path, size and time of the last change. A
    dataset without MMEngine's ``get_data_info`` has a new digest at each call.
    """
    read = getattr(dataset, 'get_data_info', None)
    if read is None:
        return uuid4().hex
    samples = [read(place) for place in range(len(dataset))]
    named = [model.cfg.test_dataloader.dataset, model.cfg.get('test_evaluator')]
    words = _words([named, samples, getattr(dataset, 'ann_file', None)])
    files = [(path, os.stat(path)) for path in words if os.path.isfile(path)]
    stats = [(path, status.st_size, status.st_mtime_ns) for path, status in files]
    return joblib.hash([str(named), samples, stats], 'sha1')


def _words(part) -> Iterator[str]:
    if isinstance(part, Mapping | list | tuple):
        for value in part.values() if isinstance(part, Mapping) else part:
            yield from _words(value)
    elif isinstance(part, str | Path):
        yield str(part)


@contextmanager
def progress(title: str, total: int) -> Iterator[ProgressBar]:
    """Show a progress bar on the standard error: the standard output is for results."""
    print(title, file=sys.stderr)
    bar = ProgressBar(total, file=sys.stderr)
    try:
        yield bar
    finally:
        print(file=sys.stderr)


def _colours(model: Model) -> tuple[str, str]:
    """Return colours and channel order of a model's preprocessor, as MMCV names them."""
    preprocessor = model.network.data_preprocessor
    mean = getattr(preprocessor, 'mean', None)
    gray = mean is not None and len(mean) == 1
    order = 'bgr' if getattr(preprocessor, 'to_rgb', False) else 'rgb'
    return ('grayscale' if gray else 'color'), order


class FolderImages(Dataset):
    """A dataset of image files, loaded by the test pipeline of a model's config."""

    def __init__(self, paths: list[Path], model: Model) -> None:
        self.paths, self.colours = paths, _colours(model)
        dataset = leaf_datasets((model.cfg.get('test_dataloader') or {}).get('dataset', {}))[0]
        steps = list(dataset.get('pipeline') or [dict(type='PackInputs')])
        with model.scope:
            self.pipeline = Compose([TRANSFORMS.build(step) for step in steps])
        # The pipeline of a dataset in memory has no step that loads an image.
        self.loads = any('LoadImage' in str(step['type']) for step in steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        path = self.paths[index]
        sample = dict(img_path=str(path), sample_idx=index)
        try:
            if not self.loads:
                sample['img'] = mmcv.imread(path, *self.colours)
                if sample['img'] is None:
                    raise ValueError('MMCV cannot decode it')
            return self.pipeline(sample)
        except Exception as error:  # any library may read this kind of file
            raise ValueError(f'the image {path} cannot be read: {error}') from error


def crops_of_photographs(model: Model, count: int) -> list[dict]:
    """Return crops of scikit-learn's photographs, as large as the model's test images."""
    try:
        _, height, width = image_shape(model.cfg)
    except (AttributeError, ValueError):  # the config has no size
        height = width = 224
    colours, order = _colours(model)
    pixels = 255 * photograph_crops(count, max(height, width))[..., :height, :width]
    if colours == 'grayscale':
        pixels = pixels.mean(1, keepdim=True)
    elif order == 'bgr':
        pixels = pixels.flip(1)
    return [dict(inputs=crop, data_samples=DataSample()) for crop in pixels.round().byte()]


def build_test_data(model: Model, **overrides: object) -> Dataset:
    """Build the test dataset of a model's config; raise ``MissingData`` if files are missing."""
    if model.cfg.get('test_dataloader') is None:
        raise ValueError(f'{model.path} has no test_dataloader')
    try:
        with model.scope:
            dataset = DATASETS.build({**model.cfg.test_dataloader.dataset, **overrides})
    except Exception as error:  # a dataset can raise anything on a bad argument
        # These types stand for files that are missing or could not be downloaded.
        kind = MissingData if isinstance(error, FileNotFoundError | RuntimeError) else ValueError
        raise kind(f'the test data of {model.path} cannot be read: {error}') from error
    name_images(dataset)
    return dataset


def check_test_classes(model: Model, dataset: Dataset) -> None:
    """Raise a ``ValueError`` if the classes of the test data are not the model's classes."""
    trained, tested = getattr(model.network, 'dataset_meta', {}), getattr(dataset, 'metainfo', {})
    check_classes(model.network, {'the data of the checkpoint': trained, 'the test data': tested})


def batches(model: Model, dataset: Dataset, batch_size: int) -> Iterator[dict]:
    """Yield preprocessed batches: inputs and data samples, as the network takes them.

    All images of a batch have one size, because a batch of several sizes would be padded.
    """
    samples = (dataset[i] for i in range(len(dataset)))
    for _, alike in groupby(samples, lambda sample: sample['inputs'].shape):
        while batch := list(islice(alike, batch_size)):
            found = model.network.data_preprocessor(pseudo_collate(batch), False)
            images_of(found)  # raises on other kinds of models: several views, or no images
            yield found


def read_images(model: Model, settings: Settings) -> tuple[list[Tensor], str]:
    """Return the images for the error, in batches of shape (N, C, H, W), and their source."""
    if settings.folder:
        dataset = FolderImages(images_below(settings.folder)[: settings.num_images], model)
        source = f'of {settings.folder}'
    else:
        try:
            dataset = build_test_data(model)
            source = f'the first test images of {type(dataset).__name__}'
            dataset = Subset(dataset, range(min(settings.num_images, len(dataset))))
        except MissingData as error:
            dataset = crops_of_photographs(model, settings.num_images)
            source = f"crops of scikit-learn's two photographs, for {error}"
    parts = [batch['inputs'] for batch in batches(model, dataset, settings.batch_size)]
    sizes = {batch.shape[2:] for batch in parts}
    return parts, source if len(sizes) == 1 else f'{source}, of {len(sizes)} sizes'


def measure_errors(model: Model, settings: Settings) -> dict:
    """Return the error curves of the layers and, if the network has them, of lift and body."""
    images, source = read_images(model, settings)
    network, backbone = model.network, getattr(model.network, 'backbone', None)
    grid = find_grid(network)
    # With a single level, the lift is the identity, and features cannot move to another level.
    lifts = grid is not None and grid.num_scales > 1
    lifts = lifts and all(hasattr(backbone, part) for part in ('lift', 'body'))
    count = sum(map(len, images))
    seen = dict(source=source, count=count,
                size=max(([*batch.shape[2:]] for batch in images), key=math.prod),
                sha256=digest(batch.cpu().numpy().tobytes() for batch in images))  # fmt: skip
    result = dict(images=seen, lift=None, body=None, breakdown=None)
    rounds = 3 + settings.breakdown if lifts else 1
    with progress('  equivariance error', count * rounds) as bar:

        def each(transform: Callable[[Tensor], Signal] = lambda batch: batch) -> Iterator[Signal]:
            for batch in images:
                yield transform(batch)
                bar.update(len(batch))

        arguments = settings.arguments('canvas', 'squared')
        found = equivariance_error(network, each(), layers=settings.layers, **arguments)
        result['layers'] = {layer: curve(error) for layer, error in found.items()}
        if lifts:
            arguments['scale_space'] = grid
            result['lift'] = curve(equivariance_error(backbone.lift, each(), **arguments))
            error = equivariance_error(backbone.body, each(backbone.lift), **arguments)
            result['body'] = curve(error[-1] if isinstance(error, tuple) else error)
            if settings.breakdown:
                found = error_breakdown(backbone, each(), **settings.arguments())
                result['breakdown'] = breakdown_curves(found)
    return result
