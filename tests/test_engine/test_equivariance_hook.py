# Copyright (c) mmscale contributors.
import json
import math
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from torch import nn

from mmscale.engine import EquivarianceHook
from mmscale.evaluation import equivariance_error
from mmscale.models import ScaleConv

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py'
LAYERS = ['backbone.layer1', 'backbone.layer4']
FACTORS = [1.0, 1.5, 2.0]
NUM_IMAGES = 7
KEYS = [f'equivariance/{layer}{end}' for layer in LAYERS for end in ('/s1.5', '/s2', '')]


def make_config(work_dir, hook=(), hooks=(), **options) -> Config:
    """A network of 4 channels, 40 digits to train it on and 11 to evaluate, in batches of 4."""
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(
        {
            'model.backbone.stem_channels': 4,
            'model.backbone.base_channels': 4,
            'model.head.in_channels': 32,
            'train_dataloader.dataset.indices': 40,
            'train_dataloader.batch_size': 20,
            'default_hooks.logger.interval': 1,
            'train_cfg.max_epochs': 1,
            'train_cfg.val_interval': 1,
            'custom_hooks': list(hooks),
            'work_dir': str(work_dir),
            'experiment_name': uuid.uuid4().hex,
        }
    )
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.collate_fn = dict(type='default_collate')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.indices = 11
        loader.batch_size = 4
    if hook is not None:
        settings = dict(layers=LAYERS, factors=FACTORS, num_images=NUM_IMAGES)
        cfg.custom_hooks.append({'type': 'mmscale.EquivarianceHook', **settings, **dict(hook)})
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


def seen_images(runner: Runner, loader, count: int = NUM_IMAGES) -> torch.Tensor:
    """The first images of a loader, as the model gets to see them."""
    dataset = loader.dataset
    batch = default_collate([dataset[i] for i in range(min(count, len(dataset)))])
    return runner.model.data_preprocessor(batch)['inputs']


def by_hand(model, images, layers=LAYERS, **options) -> dict:
    """The figures, by :func:`equivariance_error` itself."""
    figures = {}
    results = equivariance_error(model, images, FACTORS[1:], layers=layers, **options)
    for layer, result in results.items():
        for factor, mean in zip(FACTORS[1:], result.mean.tolist()):
            figures[f'equivariance/{layer}/s{factor:g}'] = mean
        figures[f'equivariance/{layer}'] = result.mean.mean().item()
    return figures


def figures_of(metrics: dict) -> dict:
    return {key: value for key, value in metrics.items() if key.startswith('equivariance/')}


def messages_of(runner: Runner) -> list[str]:
    """What a runner logs from now on."""
    messages = []
    runner.logger.addFilter(lambda record: messages.append(record.getMessage()) or True)
    return messages


def logged(work_dir) -> list[dict]:
    """What the visualizer was handed at each validation."""
    lines = next(Path(work_dir).glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [line for line in map(json.loads, lines) if 'accuracy/top1' in line]


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> str:
    """A checkpoint, without which no image would be unlike another to the last layer."""
    work_dir = tmp_path_factory.mktemp('trained')
    Runner.from_cfg(make_config(work_dir, hook=None)).train()
    return str(work_dir / 'epoch_1.pth')


# Maps of the last layer are too small for a border.
OTHERS = dict(layers=LAYERS[:1], canvas='keep', resampling='bilinear', squared=False,
              between_levels='linear', border=1)  # fmt: skip


@pytest.mark.parametrize('mode, options', [('val', {}), ('test', OTHERS)])
def test_figures_are_those_measured_by_hand(tmp_path, trained, mode, options):
    runner = Runner.from_cfg(make_config(tmp_path, options, load_from=trained))
    messages = messages_of(runner)
    metrics = getattr(runner, mode)()
    images = seen_images(runner, getattr(runner, f'{mode}_dataloader'))
    expected = by_hand(runner.model, images, **options)
    assert min(expected.values()) > 1e-4
    assert list(figures_of(metrics)) == list(expected)
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(value, rel=1e-6)
        assert runner.message_hub.get_scalar(f'{mode}/{key}').current() == metrics[key]
    (table,) = [text for text in messages if 'Equivariance error of 7 images' in text]
    layer, *cells = table.splitlines()[-1].split()
    assert cells == [f'{metrics[key]:.2e}' for key in expected if layer in key]


WORKER = """
import json, os, sys
from mmengine.config import Config
from mmengine.runner import Runner
from torch.distributed import init_process_group
from mmscale.engine import launch

init_process_group('gloo')
for path in sys.argv[1:]:
    metrics = Runner.from_cfg(Config.fromfile(path)).val()
    with open(f'{path}.{os.environ["RANK"]}.json', 'w') as file:
        json.dump(metrics, file)
launch.leave_process_group()
"""


def test_two_processes_give_the_figures_of_one(tmp_path, trained):
    expected, paths = [], []
    # 12 of 11 images: the sampler repeats one, which is not to count twice.
    for num_images in (1, 7, 12):
        cfg = make_config(tmp_path, dict(num_images=num_images), load_from=trained)
        expected.append(Runner.from_cfg(cfg).val())
        cfg.launcher = 'pytorch'
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
        paths.append(str(tmp_path / f'config{num_images}.py'))
        cfg.dump(paths[-1])
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    places = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), WORLD_SIZE='2')
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', WORKER, *paths], cwd=tmp_path,
            env={**os.environ, **places, 'RANK': rank, 'LOCAL_RANK': rank, 'OMP_NUM_THREADS': '1'},
        )
        for rank in '01'
    ]  # fmt: skip
    try:
        assert [process.wait(timeout=400) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    for path, metrics in zip(paths, expected):
        for rank in range(2):
            found = json.loads(Path(f'{path}.{rank}.json').read_text(encoding='utf-8'))
            assert found == pytest.approx(metrics, rel=1e-6)


def test_averaged_weights_are_measured_beside_ema(tmp_path):
    ema = dict(type='EMAHook', momentum=0.5)
    options = dict(param_scheduler=None, optim_wrapper__optimizer__lr=0.1)
    runner = Runner.from_cfg(make_config(tmp_path, hooks=[ema], **options))
    runner.train()
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    images = seen_images(runner, runner.val_dataloader)
    found = {key: runner.message_hub.get_scalar(f'val/{key}').current() for key in KEYS}
    raw = by_hand(runner.model, images)
    runner.model.load_state_dict(checkpoint['state_dict'])  # EMAHook saves the averaged ones here
    assert found == pytest.approx(by_hand(runner.model, images), rel=1e-6)
    assert all(abs(found[key] / raw[key] - 1) > 1e-2 for key in KEYS)


def test_measures_in_the_precision_of_the_loop(tmp_path, trained):
    runner = Runner.from_cfg(make_config(tmp_path, load_from=trained, val_cfg__fp16=True))
    found = figures_of(runner.val())
    images = seen_images(runner, runner.val_dataloader)
    with autocast():
        assert found == pytest.approx(by_hand(runner.model, images), rel=1e-6)
    assert found != pytest.approx(by_hand(runner.model, images), rel=1e-4)


def test_first_view_is_measured_with_test_time_augmentation(tmp_path, trained):
    cfg = make_config(tmp_path)
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    views = dict(type='TestTimeAug', transforms=[flips, [dict(type='PackInputs')]])
    cfg.test_dataloader.dataset.pipeline = [views]
    cfg.test_dataloader.collate_fn = dict(type='pseudo_collate')
    cfg.model = dict(type='AverageClsScoreTTA', module=cfg.model)
    runner = Runner.from_cfg(cfg)
    model = runner.model.module
    model.load_state_dict(torch.load(trained, weights_only=False)['state_dict'])
    found = figures_of(runner.test())
    batch = [runner.test_dataloader.dataset[i]['inputs'][0] for i in range(NUM_IMAGES)]
    images = model.data_preprocessor(dict(inputs=torch.stack(batch)))['inputs']
    assert found == pytest.approx(by_hand(model, images), rel=1e-6)
    assert found != pytest.approx(by_hand(model, images.flip(-1)), rel=1e-3)


@pytest.mark.parametrize(
    'options, expected',
    [
        # Every other validation, and the last.
        (dict(train_cfg=dict(by_epoch=True, max_epochs=5)), [False, True, False, True, True]),
        (
            dict(
                train_cfg=dict(by_epoch=False, max_iters=6, val_interval=2),
                log_processor=dict(by_epoch=False),
                default_hooks__logger__log_metric_by_epoch=False,
                default_hooks__checkpoint__by_epoch=False,
                param_scheduler=None,
            ),
            [False, True, True],
        ),
    ],
    ids=['epochs', 'iterations'],
)
def test_interval(tmp_path, options, expected):
    """Validations without a measurement have no figure, which is none for CheckpointHook, too."""
    best = dict(default_hooks__checkpoint__save_best=KEYS[0],
                default_hooks__checkpoint__rule='less')  # fmt: skip
    cfg = make_config(tmp_path, dict(interval=2), **{**options, **best, 'train_cfg': {}})
    cfg.train_cfg = options['train_cfg']
    Runner.from_cfg(cfg).train()
    assert [KEYS[0] in line for line in logged(tmp_path)] == expected


def test_what_cannot_be_measured_is_nan_and_does_not_end_the_training(tmp_path):
    # Of layer 4, which has 4x4 samples and then 2x2, a border of one leaves nothing at s = 2.
    best = dict(default_hooks__checkpoint__save_best='equivariance/backbone.layer4',
                default_hooks__checkpoint__rule='less')  # fmt: skip
    runner = Runner.from_cfg(make_config(tmp_path, dict(border=1), train_cfg__max_epochs=2, **best))
    messages = messages_of(runner)
    runner.train()
    for line in logged(tmp_path):
        # The log is JSON, which has no nan: what is none of the figures is left out.
        assert [key in line for key in KEYS] == [True, True, True, True, False, False]
    (warning,) = [text for text in messages if 'is nan' in text]  # once
    assert 'border=1 leaves nothing' in warning
    assert not list(tmp_path.glob('best_*')) and (tmp_path / 'epoch_2.pth').exists()


class CountImages(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(count=len(results))


class TinyModel(BaseModel):
    """As little as MMEngine asks of a model; draws random numbers also in evaluation."""

    def __init__(self, outputs=1):
        super().__init__()
        self.outputs = outputs
        self.conv = ScaleConv(1, 2, 3, padding=1, scale_space=dict(base=2, num_scales=1))
        self.stages = nn.Identity()
        self.linear = nn.Linear(2, 3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        inputs = torch.stack(inputs) if isinstance(inputs, list) else inputs
        x = self.conv(inputs[:, :, None])[:, :, 0]
        x = x + 0.01 * torch.rand_like(x)
        x = self.stages((x, x[:, :, ::2, ::2].square())[: self.outputs])[-1]
        x = self.linear(x.mean((2, 3)))
        if mode == 'loss':
            return dict(loss=nn.functional.cross_entropy(x, data_samples))
        return list(x) if mode == 'predict' else x


class TwoStages(TinyModel):
    """Like a two-stage detector: without data samples it stops after the first stage."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.backbone(torch.stack(inputs) if isinstance(inputs, list) else inputs)
        labels = torch.as_tensor([sample for sample in data_samples])
        x = self.linear(x.mean((2, 3)))
        return list(x) if mode == 'predict' else dict(loss=nn.functional.cross_entropy(x, labels))


def run_tiny(work_dir, *hooks, model=None, collate=default_collate, save_best=None) -> Runner:
    generator = torch.Generator().manual_seed(0)
    data = [
        dict(inputs=torch.rand(1, 12, 12, generator=generator), data_samples=i % 3)
        for i in range(8)
    ]
    loader = dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data)
    torch.manual_seed(0)
    checkpoint = dict(type='CheckpointHook', save_best=save_best, rule='less')
    runner = Runner(
        model or TinyModel(), str(work_dir),
        train_dataloader=dict(loader, collate_fn=default_collate),
        val_dataloader=dict(loader, collate_fn=collate),
        train_cfg=dict(by_epoch=True, max_epochs=2), val_cfg=dict(),
        val_evaluator=[CountImages()], optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=list(hooks), default_hooks=dict(checkpoint=checkpoint),
        randomness=dict(seed=0), experiment_name=uuid.uuid4().hex,
    )  # fmt: skip
    runner.train()
    return runner


def test_layers_that_run_before_data_samples_are_missed(tmp_path):
    """One line says why others are not measured, and the table of how many images it is."""
    torch.manual_seed(0)
    model = TwoStages()
    hook = EquivarianceHook(factors=[2], num_images=4)  # of the backbone
    runner = run_tiny(tmp_path / 'a', hook, model=model)
    images = torch.stack([runner.val_dataloader.dataset[i]['inputs'] for i in range(4)])
    expected = equivariance_error(model.backbone, images, [2]).mean.item()
    assert expected > 1e-3
    assert runner.val()['equivariance/backbone'] == pytest.approx(expected, rel=1e-5)

    for layers, count, isnan in (
        (['backbone', 'linear'], 4, [False, False, True, True]),
        (['linear'], 0, [True, True]),
    ):
        hook = EquivarianceHook(layers, [2], num_images=4)
        runner = run_tiny(tmp_path / str(count), model=TwoStages())
        runner.register_hook(hook)
        hook.before_run(runner)
        messages = messages_of(runner)
        figures = figures_of(runner.val())
        assert [math.isnan(value) for value in figures.values()] == isnan
        (reason,) = [text for text in messages if 'could not be measured' in text]
        assert "without data samples (TypeError: 'NoneType' object is not iterable)" in reason
        assert "stops before the layer 'linear'" in reason and '\n' not in reason
        assert any(text.startswith(f'Equivariance error of {count} images') for text in messages)


def test_training_ends_in_the_same_weights(tmp_path):
    hook = EquivarianceHook(['conv'], [2], num_images=3)
    models = [run_tiny(tmp_path / str(len(hooks)), *hooks).model for hooks in ([], [hook])]
    for name, value in models[0].state_dict().items():
        assert torch.equal(models[1].state_dict()[name], value), name


def test_layer_with_several_outputs(tmp_path):
    # The first validation is not measured, and must name the figures all the same.
    hook, key = EquivarianceHook(['stages'], [2], interval=2), 'equivariance/stages[1]'
    runner = run_tiny(tmp_path, hook, model=TinyModel(outputs=2), save_best=key)
    (best,) = tmp_path.glob('best_*')
    assert best.name == 'best_equivariance_stages[1]_epoch_2.pth'
    metrics = runner.val()
    assert metrics['count'] == 8
    names = ['stages[0]', 'stages[1]']
    assert list(figures_of(metrics)) == [
        f'equivariance/{name}{end}' for name in names for end in ('/s2', '')
    ]
    assert all(math.isfinite(value) for value in metrics.values())


def test_inputs_that_are_no_tensor_give_nan(tmp_path):
    runner = run_tiny(tmp_path, EquivarianceHook(['conv'], [2]), collate=pseudo_collate)
    figures = figures_of(runner.val())
    assert list(figures) == ['equivariance/conv/s2', 'equivariance/conv']
    assert all(math.isnan(value) for value in figures.values())


@pytest.mark.parametrize(
    'layers, message',
    [
        (['backbone.layer5'], "no layer 'backbone.layer5'; the nearest names are .*layer4"),
        ('backbone', 'layers must be a sequence'),
    ],
)
def test_wrong_layer_ends_the_run_before_its_first_step(layers, message, tmp_path):
    runner = Runner.from_cfg(make_config(tmp_path, dict(layers=layers)))
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(factors=[2, 0.5]), 'factors must be at least 1 and finite, got 0.5'),
        (dict(factors=[1]), 'factors must hold one above 1'),
        (dict(interval=0), 'interval must be an integer of at least 1, got 0'),
        (dict(num_images=1.5), 'num_images must be an integer of at least 1, got 1.5'),
        (dict(border=-1), 'border must be an integer of at least 0, got -1'),
        (dict(canvas='grow'), "canvas must be one of 'shrink', 'keep', got 'grow'"),
        (dict(resampling='nearest'), "resampling must be one of 'matched', .*, got 'nearest'"),
        (dict(between_levels='no'), "between_levels must be one of 'linear', 'cubic', got 'no'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        EquivarianceHook(**arguments)
