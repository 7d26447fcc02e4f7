# Copyright (c) mmscale contributors.
import math
from collections.abc import Sequence
from itertools import product

import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmengine.runner.amp import autocast
from torch import Tensor, nn

from mmscale.checks import check_choice, check_count
from mmscale.evaluation import equivariance_error
from mmscale.evaluation.equivariance import FACTORS, check_factors
from mmscale.evaluation.features import Features, check_layers, find_grid, images_of
from mmscale.evaluation.scaling import RESAMPLINGS
from mmscale.registry import HOOKS
from mmscale.scale_space.action import BETWEEN_LEVELS, CANVASES


@HOOKS.register_module()
class EquivarianceHook(Hook):
    """A hook that measures the equivariance error of layers at each validation and test.

    The hook takes the images and weights that the loop evaluates: with an ``EMAHook``, the averaged
    weights. :func:`mmscale.evaluation.equivariance_error` defines the error. Each figure is the
    mean over the images, at the valid levels. The figures are logged as a table and join the
    metrics of the evaluators: ``equivariance/<layer>/s<factor>``, and ``equivariance/<layer>``, the
    mean over the factors. A layer that returns several feature maps has a figure for each map:
    ``equivariance/backbone[0]`` and so on.

    A failed measurement does not end the run. Its figures are nan, logs in JSON leave them out, and
    the reason is logged once as a warning. A ``CheckpointHook`` takes nan for no improvement; an
    ``EarlyStoppingHook`` stops at nan. At validations without a measurement (``interval``) the
    figures are None among the metrics. A ``CheckpointHook`` passes over None; other hooks that
    monitor a figure need ``interval=1``.

    Processes share the images as ``DefaultSampler`` does: the figures do not depend on the number
    of processes or the batch size. With test-time augmentation the first view is measured. If a
    model needs data samples, as a two-stage detector does, only its backbone and neck can be
    measured.

    Args:
        layers (Sequence[str], optional): Names of layers, as in ``model.named_modules()``.
            Defaults to ``('backbone',)``.
        factors (Sequence[float]): Scale factors, at least 1. There is no error at 1, and no
            figure. Defaults to (1, 1.1, 1.5, 2, 2.5, 3).
        num_images (int): Number of images, the first of the data. Defaults to 64.
        interval (int): Measure at every ``interval``-th validation. The last validation of a
            training and all tests are always measured. Defaults to 1.
        canvas, resampling, border, squared, between_levels: As in
            :func:`mmscale.evaluation.equivariance_error`, with the same defaults.

    Raises:
        ValueError: If an argument is out of range. Also at the start of a run, before its first
            iteration, if the model has no such layer.

    Example:
        A config that measures two stages every five epochs and keeps the checkpoint whose last
        stage is most equivariant::

            layers = ['backbone.layer1', 'backbone.layer4']
            custom_hooks = [dict(type='mmscale.EquivarianceHook', layers=layers, interval=5)]
            default_hooks = dict(checkpoint=dict(
                type='CheckpointHook', save_best='equivariance/backbone.layer4', rule='less'))
    """

    # LoggerHook and CheckpointHook run after this hook.
    priority = 'NORMAL'

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        factors: Sequence[float] = FACTORS,
        num_images: int = 64,
        interval: int = 1,
        canvas: str = 'shrink',
        resampling: str = 'matched',
        border: int = 0,
        squared: bool = True,
        between_levels: str = 'cubic',
    ) -> None:
        self.layers = ('backbone',) if layers is None else layers
        self.factors = tuple(factor for factor in check_factors(factors) if factor > 1)
        if not self.factors:
            raise ValueError('factors must hold one above 1: at 1 there is no error')
        check_count('num_images', num_images, 1)
        check_count('interval', interval, 1)
        check_count('border', border, 0)
        check_choice('canvas', canvas, CANVASES)
        check_choice('resampling', resampling, RESAMPLINGS)
        check_choice('between_levels', between_levels, BETWEEN_LEVELS)
        self.num_images, self.interval = num_images, interval
        self.options = dict(canvas=canvas, resampling=resampling, between_levels=between_levels,
                            border=border, squared=squared)  # fmt: skip
        self._names: list[str] | None = None
        self._warned: set[str] = set()

    def before_run(self, runner: Runner) -> None:
        model = unwrap(runner.model)
        check_layers(model, self.layers)
        find_grid(model)  # raises if layers have different grids

    def before_val_epoch(self, runner: Runner) -> None:
        self._begin(runner.val_loop, self._is_due(runner))

    def before_test_epoch(self, runner: Runner) -> None:
        self._begin(runner.test_loop, True)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: object = None
    ) -> None:
        self._collect(runner, runner.val_loop, data_batch)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: object = None
    ) -> None:
        self._collect(runner, runner.test_loop, data_batch)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._report(runner, 'val', metrics)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._report(runner, 'test', metrics)

    def _is_due(self, runner) -> bool:
        # The count begins with the training, not with the process, so that a resumed run measures
        # at the same validations. The property would build a loop.
        loop = runner._train_loop
        if not isinstance(loop, BaseLoop):
            return True
        if isinstance(loop, IterBasedTrainLoop):
            step, last = loop.iter, loop.max_iters
        else:
            step, last = loop.epoch, loop.max_epochs
        return step >= last or step // loop.val_interval % self.interval == 0

    def _begin(self, loop, is_measuring: bool) -> None:
        rank, world_size = get_dist_info()
        count = min(self.num_images, len(loop.dataloader.dataset)) if is_measuring else 0
        self._is_measuring = is_measuring
        # Number of images left to this process. Its i-th image is image i * world_size + rank.
        self._missing = len(range(rank, count, world_size))
        self._errors: dict[tuple[str, float], list[float | None]] = {}
        self._failures: list[str] = []

    def _collect(self, runner, loop, batch) -> None:
        if self._missing == 0 and self._names is not None:
            return
        model = unwrap(runner.model)
        # A measurement must not draw the random numbers of the training.
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices), autocast(enabled=getattr(loop, 'fp16', False)):
            try:
                batch = model.data_preprocessor(_first_view(runner.model, batch), False)
                images = images_of(batch)
                if self._names is None:
                    self._names = _names(model, self.layers, images[:1])
            except Exception as error:
                self._fail(error, self.layers, self.factors)
                self._missing = 0
            else:
                images = images[: self._missing]
                self._missing -= len(images)
                if len(images):
                    self._measure(model, images, self.layers, self.factors)

    def _measure(self, model: nn.Module, images: Tensor, layers, factors) -> None:
        try:
            results = equivariance_error(model, images, factors, layers=layers, **self.options)
        except Exception as error:
            # Measure factor by factor, then layer by layer, so that only the failing ones are nan.
            if len(factors) > 1:
                for factor in factors:
                    self._measure(model, images, layers, (factor,))
            elif len(layers) > 1:
                for layer in layers:
                    self._measure(model, images, (layer,), factors)
            else:
                self._fail(error, layers, factors)
            return
        for name, result in results.items():
            for factor, errors in zip(factors, result.per_sample):
                self._errors.setdefault((name, factor), []).extend(errors.tolist())

    def _fail(self, error: Exception, layers, factors) -> None:
        names = [name for name in self._names or layers if name.partition('[')[0] in layers]
        for key in product(names, factors):
            self._errors.setdefault(key, []).append(None)
        self._failures.append(f'{type(error).__name__}: {error}')

    def _report(self, runner, mode: str, metrics: dict | None) -> None:
        """Gather the errors of all processes, log the figures and add them to the metrics."""
        shares = all_gather_object((self._names, self._errors, self._failures))
        names = next((names for names, _, _ in shares if names), self.layers)
        errors = {
            key: [error for _, part, _ in shares for error in part.get(key, ())]
            for key in product(names, self.factors)
        }
        for message in dict.fromkeys(message for _, _, failures in shares for message in failures):
            if message not in self._warned:
                self._warned.add(message)
                runner.logger.warning(
                    f'An equivariance error could not be measured and is nan. {message}'
                )

        means = {name: [_mean(errors[name, factor]) for factor in self.factors] for name in names}
        figures = {}
        for name, row in means.items():
            keys = [f'equivariance/{name}/s{factor:g}' for factor in self.factors]
            figures |= zip(keys, row)
            figures[f'equivariance/{name}'] = sum(row) / len(row)
        if self._is_measuring:
            # The LoggerHook reads the message hub. It writes JSON, which has no nan.
            numbers = {key: value for key, value in figures.items() if math.isfinite(value)}
            runner.message_hub.update_scalars({f'{mode}/{key}': numbers[key] for key in numbers})
            count = max(sum(e is not None for e in found) for found in errors.values())
            runner.logger.info(_table(means, self.factors, count))
        else:
            numbers, figures = {}, dict.fromkeys(figures)
        # Figures of an earlier validation would be logged as figures of this validation.
        for key in figures.keys() - numbers.keys():
            runner.message_hub.log_scalars.pop(f'{mode}/{key}', None)
        if metrics is not None:
            metrics.update(figures)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model within the wrappers of distributed runs and of test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _first_view(model: nn.Module, batch):
    """Return the first of the views that test-time augmentation has made of a batch."""
    while is_model_wrapper(model):
        model = model.module
    if not isinstance(model, BaseTTAModel):
        return batch
    if isinstance(batch, dict):
        return {key: views[0] for key, views in batch.items()}
    return [views[0] for views in batch]


def _names(model: nn.Module, layers: Sequence[str], image: Tensor) -> list[str]:
    """Return the names of the outputs of layers; a layer that fails has only its own name."""
    try:
        return list(Features(model, layers, find_grid(model))(image))
    except Exception:
        if len(layers) == 1:
            return list(layers)
        return [name for layer in layers for name in _names(model, [layer], image)]


def _mean(errors: list[float | None]) -> float:
    """Return the mean over the images, as ``EquivarianceError.mean``; nan if an image failed."""
    if not errors or None in errors:
        return float('nan')
    return torch.tensor(errors, dtype=torch.float64).nanmean().item()


def _table(means: dict[str, list[float]], factors: tuple[float, ...], count: int) -> str:
    width = max(map(len, ('layer', *means)))
    head = [f's={factor:g}' for factor in factors]
    lines = [('layer', [*head, 'mean'])]
    for name, row in means.items():
        lines.append((name, [f'{value:.2e}' for value in (*row, sum(row) / len(row))]))
    body = [f'{name:<{width}}' + ''.join(f'{cell:>10}' for cell in cells) for name, cells in lines]
    return '\n'.join([f'Equivariance error of {count} images:', *body])
