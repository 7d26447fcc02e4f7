# Copyright (c) mmscale contributors.
import json
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.runner import Runner
from mmengine.runner.amp import autocast

from mmscale.engine import EquivarianceHook
from mmscale.evaluation import equivariance_error

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
