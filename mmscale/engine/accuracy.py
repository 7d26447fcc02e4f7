# Copyright (c) mmscale contributors.
"""How well a model recognises, detects or segments its test data at each scale factor.

The accuracy of classifiers, and of other models what the ``test_evaluator`` of their config
measures. What is wrong with model or images raises ``ValueError`` of one line.
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

# The figure by which a task is known, where an evaluator finds many: that of the first ending.
MAIN_METRICS = ('bbox_mAP', 'mAP', 'mIoU')


@torch.no_grad()
def measure_accuracy(model: Model, settings: Settings) -> dict:
    """The curve of the accuracy, and a note on how the images were scaled or why there is none.

    Returns:
        dict: ``accuracy``, a curve or None; ``accuracy_note``; and ``metrics``, the curves of all
        that the evaluator of a detector or segmentor finds, by name.

    Raises:
        ValueError: If the metric that is asked for is none of them, or the classes of the data are
            not the model's.
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
    """None where there is an accuracy."""
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
    """Of classifiers: how many labels are right."""
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
    """Of detectors and segmentors: all figures of their evaluator, against the labels as they are.

    The network sees smaller images and is told so, as it is told of the sizes to which a test
    pipeline brings images: it brings what it finds back to the images as they are on disk.
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
                with model.scope:  # retrievers build the data that they search now
                    samples = model.network(inputs, samples, mode='predict')
                evaluator.process(samples)
                ids += [sample.get('img_id') for sample in samples]
                bar.update(len(samples))
            with _evaluating(model):
                rows.append(_evaluate(evaluator, ids))
            # Where nothing is found at a factor, an evaluator may have no figure there.
            names = list(dict.fromkeys(name for row in rows for name in row))
            name = _main_metric(names, settings.metric) if names else None
    if name is None:
        return _none('the test_evaluator finds no number: is nothing detected?')
    curves = {
        key: metric_curve(key, [row.get(key, math.nan) for row in rows], len(chosen))
        for key in names
    }
    note = (f'{name} on {len(chosen)} images, made s times smaller; what is found is compared with '
            'their labels as they are')  # fmt: skip
    return dict(accuracy=curves[name], accuracy_note=note, metrics=curves)


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    """What metrics print is no result, and what they raise is of whichever of them."""
    try:
        with model.scope, redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        raise ValueError(f'the test_evaluator of {model.path}: {one_line(error)}') from error


def _evaluate(evaluator: Evaluator, ids: list) -> dict[str, float]:
    """The numbers that an evaluator finds for the images that it was given."""
    for metric in evaluator.metrics:
        # Those of COCO's format would take images that were not asked for as ones without a find.
        if hasattr(metric, 'img_ids'):
            metric.img_ids = ids
    found = evaluator.evaluate(len(ids)).items()
    numbers = {name: float(value) for name, value in found if isinstance(value, Real)}
    # By -1 the tools of COCO say that there are no objects of this size.
    absent = (name for name, value in numbers.items() if value == -1 and re.search('AP|AR', name))
    return {**numbers, **dict.fromkeys(absent, math.nan)}


def _main_metric(found: list[str], asked: str | None) -> str:
    """The name of the metric that stands in table and figure."""
    if asked is not None and asked not in found:
        raise ValueError(f'--metric: must be one of {", ".join(found)}, got {asked}')
    ends = (name for end in MAIN_METRICS for name in found if name.endswith(end))
    return asked or next(ends, found[0])


def shrink(images: Tensor, factor: float, resampling: str) -> Tensor:
    """Images made ``factor`` times smaller, aligned at their upper left corner, as boxes are."""
    if factor == 1:
        return images
    sides = [max(1, round(side / factor)) for side in images.shape[-2:]]
    corner = (-0.5, -0.5)
    kept = scale_signal(images, factor, canvas='keep', centre=corner, resampling=resampling)
    return kept[..., : sides[0], : sides[1]]


def told(sample: BaseDataElement, factor: float, shape: torch.Size) -> BaseDataElement:
    """A data sample of an image that was made smaller: what it says of sizes is as it is now."""
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
