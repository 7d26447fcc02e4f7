# Copyright (c) mmscale contributors.
"""Measure how well a model recognises, detects or segments its test data at each scale factor.

Classifiers have an accuracy. Other models have the metrics of the ``test_evaluator`` of their
config. A bad model or bad images raise a ``ValueError`` of one line.
"""

import copy
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from numbers import Real

import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import Dataset, Subset

from mmscale.datasets.base import RescaledDataset
from mmscale.evaluation import scale_signal

from .errors import one_line
from .models import Model
from .report import accuracy_curve, metric_curve
from .study import MissingData, Settings, batches, build_test_data, check_test_classes, progress

# Endings of the main metric of a task: of many metrics, the first ending that occurs is taken.
MAIN_METRICS = ('bbox_mAP', 'mAP', 'mIoU')


@torch.no_grad()
def measure_accuracy(model: Model, settings: Settings) -> dict:
    """Measure the curve of the accuracy of a model over the scale factors.

    Returns:
        dict: ``accuracy``, a curve or None; ``accuracy_note``, on the scaling or the lack of an
        accuracy; ``metrics`` of a detector or segmentor, the curves of its evaluator by name.

    Raises:
        ValueError: If the evaluator has no metric ``settings.metric``, or if the classes of the
            data are not the model's classes.
    """
    if reason := _why_none(model, settings):
        return _none(reason)
    try:
        dataset = build_test_data(model)
    except MissingData:
        return _none('the test data are not there')
    check_test_classes(model, dataset)
    count = min(settings.accuracy_images, len(dataset))
    chosen = [i * len(dataset) // count for i in range(count)]
    if hasattr(model.network, 'with_head'):
        return _measure_labels(model, settings, dataset, chosen)
    return _measure_metrics(model, settings, dataset, chosen)


def _none(reason: str) -> dict:
    return dict(accuracy=None, accuracy_note=f'no accuracy: {reason}')


def _why_none(model: Model, settings: Settings) -> str | None:
    """Return why a model has no accuracy, or None if it has one."""
    is_classifier = hasattr(model.network, 'with_head')
    reasons = {
        'images of a folder have no labels': settings.folder,
        'not asked for': settings.accuracy_images is None,
        'the model is untrained': model.checkpoint is None,
        'the model has no head': is_classifier and not model.network.with_head,
        'the config has no test_evaluator':
            not is_classifier and model.cfg.get('test_evaluator') is None,
    }  # fmt: skip
    return next((reason for reason, holds in reasons.items() if holds), None)


def _measure_labels(model: Model, settings: Settings, dataset: Dataset, chosen: list[int]) -> dict:
    rescaled = isinstance(dataset, RescaledDataset)
    right = [0] * len(settings.factors)
    with progress('  accuracy', len(chosen) * len(settings.factors)) as bar:
        for place, factor in enumerate(settings.factors):
            if rescaled:
                dataset = build_test_data(model, scale=1 / factor)
            for batch in batches(model, Subset(dataset, chosen), settings.batch_size):
                inputs, how = batch['inputs'], dict(canvas='keep', resampling=settings.resampling)
                inputs = inputs if rescaled else scale_signal(inputs, factor, **how)
                samples = model.network(inputs, batch['data_samples'], mode='predict')
                if not all(_has_one_label(sample) for sample in samples):
                    return _none('there is not one label and one prediction an image')
                right[place] += sum(int(s.pred_label == s.gt_label) for s in samples)
                bar.update(len(samples))
    way = 'made by the dataset at scale 1/s' if rescaled else 'scaled, on a canvas of their size'
    return dict(
        accuracy=accuracy_curve(right, len(chosen)),
        accuracy_note=f'accuracy on {len(chosen)} images, {way}',
    )


def _has_one_label(sample) -> bool:
    labels = [sample.get(key) for key in ('gt_label', 'pred_label')]
    return all(label is not None and label.numel() == 1 for label in labels)


def _measure_metrics(model: Model, settings: Settings, dataset: Dataset, chosen: list[int]) -> dict:
    """Measure all metrics of a detector or segmentor, against the original labels.

    The network gets smaller images and their scale factor, as after the resizing of a test
    pipeline. It maps its predictions back to the sizes of the original images.
    """
    with _evaluating(model):
        evaluator = Evaluator(copy.deepcopy(model.cfg.test_evaluator))
    evaluator.dataset_meta = getattr(dataset, 'metainfo', None)
    rows = []
    with progress('  metrics', len(chosen) * len(settings.factors)) as bar:
        for factor in settings.factors:
            ids = []
            for batch in batches(model, Subset(dataset, chosen), settings.batch_size):
                inputs = shrink(batch['inputs'], factor, settings.resampling)
                samples = [told(one, factor, inputs.shape[-2:]) for one in batch['data_samples']]
                with model.scope:  # retrievers build their prototypes at the first prediction
                    samples = model.network(inputs, samples, mode='predict')
                evaluator.process(samples)
                ids += [sample.get('img_id') for sample in samples]
                bar.update(len(samples))
            with _evaluating(model):
                rows.append(_evaluate(evaluator, ids))
            # An evaluator may omit metrics at a factor without any prediction.
            names = list(dict.fromkeys(name for row in rows for name in row))
            name = _main_metric(names, settings.metric) if names else None
    if name is None:
        return _none('the test_evaluator finds no number: is nothing detected?')
    curves = {
        key: metric_curve(key, [row.get(key, math.nan) for row in rows], len(chosen))
        for key in names
    }
    note = (f'{name} on {len(chosen)} images, made s times smaller; predictions are compared with '
            'the original labels')  # fmt: skip
    return dict(accuracy=curves[name], accuracy_note=note, metrics=curves)


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    """Send prints of metrics to the standard error and turn their exceptions to ``ValueError``."""
    try:
        with model.scope, redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        raise ValueError(f'the test_evaluator of {model.path}: {one_line(error)}') from error


def _evaluate(evaluator: Evaluator, ids: list) -> dict[str, float]:
    """Return the numbers that an evaluator computes for the images of ``ids``."""
    for metric in evaluator.metrics:
        # Metrics in COCO's format would count all other images as images without a detection.
        if hasattr(metric, 'img_ids'):
            metric.img_ids = ids
    found = evaluator.evaluate(len(ids)).items()
    numbers = {name: float(value) for name, value in found if isinstance(value, Real)}
    # COCO's tools return -1 if there are no objects of a size.
    absent = (name for name, value in numbers.items() if value == -1 and re.search('AP|AR', name))
    return {**numbers, **dict.fromkeys(absent, math.nan)}


def _main_metric(found: list[str], asked: str | None) -> str:
    if asked is not None and asked not in found:
        raise ValueError(f'--metric: must be one of {", ".join(found)}, got {asked}')
    ends = (name for end in MAIN_METRICS for name in found if name.endswith(end))
    return asked or next(ends, found[0])


def shrink(images: Tensor, factor: float, resampling: str) -> Tensor:
    """Shrink images (N, C, H, W) by ``factor``, aligned at the upper left corner, as boxes are."""
    if factor == 1:
        return images
    sides = [max(1, round(side / factor)) for side in images.shape[-2:]]
    corner = (-0.5, -0.5)
    kept = scale_signal(images, factor, canvas='keep', centre=corner, resampling=resampling)
    return kept[..., : sides[0], : sides[1]]


def told(sample: BaseDataElement, factor: float, shape: torch.Size) -> BaseDataElement:
    """Set the sizes in the data sample of an image that was shrunk by ``factor``."""
    if factor == 1:
        return sample
    meta, shape = sample.metainfo, tuple(shape)
    now = dict(scale_factor=tuple(part / factor for part in meta.get('scale_factor', (1, 1))))
    if 'img_shape' in meta:
        sides = (max(1, round(side / factor)) for side in meta['img_shape'][:2])
        now['img_shape'] = tuple(min(pair) for pair in zip(sides, shape))
    now |= {key: shape for key in ('pad_shape', 'batch_input_shape') if key in meta}
    for key in ('padding_size', 'img_padding_size'):
        if key in meta:
            now[key] = [round(side / factor) for side in meta[key]]
    sample.set_metainfo(now)
    return sample
