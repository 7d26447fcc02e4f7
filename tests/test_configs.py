# Copyright (c) mmscale contributors.
"""What the configs promise: names that say what is in them; comparisons of one recipe and size."""

import re
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, TRANSFORMS
from torch import nn

from mmscale.datasets import mnist_recipe
from mmscale.engine.schedules import schedules

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
# Those of detectors and segmentors have tests of their own.
APART = ('_base_', 'downstream')
PATHS = sorted(path for path in CONFIGS.glob('*/*.py') if path.parent.name not in APART)
# The ordinary model of each comparison, and the names of all its models.
COMPARISONS = {
    'resnet18-w8_1xb50-10e_scaledigits': r'.*_scaledigits',
    # Derivatives have fewer parameters in the same network.
    'cnn_1xb128-20e_scalemnist': r'(?!.*-(deep|gaussder)-).*_scalemnist',
    'resnet18-w16_1xb128-30e_scalecifar10': r'(?!.*-gaussder-).*resnet18-.*b128-30e_scalecifar10',
    'resnet50-w16_1xb128-30e_scalecifar10': r'.*resnet50-.*_1xb128-30e_scalecifar10',
}
KERNELS = {
    'hermite': 'mmscale.HermiteBasis',
    'discrete': 'mmscale.DiscreteBasis',
    'gaussder': 'mmscale.GaussianDerivativeBasis',
}
PYRAMIDS = ('antialiased', 'pyramid', 'gate', 'prob')
LIFTS = dict.fromkeys(PYRAMIDS, 'mmscale.GaussianPyramidLift')
LIFTS |= dict.fromkeys(KERNELS, 'mmscale.RepeatLift') | {'bilinear': 'mmscale.BilinearPyramidLift'}
BLURS = {
    'blur': dict(type='mmscale.ScaleBlurPool2d', kernel_size=5),
    'blur7': dict(type='mmscale.ScaleBlurPool2d', kernel_size=7),
}
# Levels an octave from the image's own size on, zero_scale and blur. With up1 the grid begins an
# octave finer, and zero_scale is always 0.5.
NAMED = {
    'economical': (1, 0.5, BLURS['blur']),
    'balanced': (2, 1.0, BLURS['blur7']),
    'accurate': (4, 0.5, dict(type='mmscale.ScaleBlurPool2d', variance=3.0)),
}
OFFSETS = {'dcnv1': 'mmscale.DeformScaleConv', 'dcnv2': 'mmscale.ModulatedDeformScaleConv'}


load = cache(Config.fromfile)
# By name; the test of the package holds them to the models.
PARAMETERS = {
    model['Name']: model['Metadata']['Parameters']
    for path in CONFIGS.glob('*/metafile.yml')
    for model in yaml.safe_load(path.read_text())['Models']
}


def family(path: Path) -> str:
    return path.resolve().relative_to(CONFIGS).parts[0]


def test_a_config_inherits_from_its_own_family_and_from_the_shared_bases_alone():
    for path in CONFIGS.rglob('*.py'):
        bases = runpy.run_path(str(path)).get('_base_', [])
        for base in [bases] if isinstance(bases, str) else bases:
            known = '::' in base or family(path.parent / base) in ('_base_', family(path))
            assert known, f'{path.name} inherits from {base}'


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)
def test_the_name_says_what_is_in_the_config(path):
    cfg = load(path)
    backbone = cfg.model.backbone
    model, schedule, _ = path.stem.split('_')
    kind, *words = model.split('-')
    if {'bilinear', 'antialiased'} & set(words):  # DSS v2
        assert cfg.model.neck[0] == dict(type='mmscale.ScalePooling', mode='max', align='smallest')

    gpus, batch = re.match(r'(\d+)xb(\d+)', schedule).groups()
    assert int(batch) == cfg.train_dataloader.batch_size
    assert int(gpus) * int(batch) == cfg.auto_scale_lr.base_batch_size
    if '-' in schedule:
        assert schedule.endswith(f'-{cfg.train_cfg.max_epochs}e')

    depth = re.search(r'net(\d+)', kind)
    assert backbone.get('depth') == (int(depth[1]) if depth else None)
    widths = [int(word[1:]) for word in words if re.fullmatch(r'w\d+', word)]
    # Half of the pretrained ResNet-50 has a stem of full width.
    parts = ('base_channels',) if backbone.get('style') else ('stem_channels', 'base_channels')
    for name in parts if depth else ():
        assert backbone.get(name, 64) == (widths[0] if widths else 64)
    if 'deep' in words:
        assert backbone.channels == ((32, 80, 128) if 'wide' in words else (32, 64, 96))

    if named := set(words) & set(NAMED):
        check_named_grid(backbone, cfg.model.neck, 'up1' in words, *NAMED[named.pop()])
        return
    assert backbone.get('aa_layer') == next((BLURS[word] for word in words if word in BLURS), None)
    levels = [int(word[1:]) for word in words if re.fullmatch(r's\d+', word)]
    scale_space = backbone.get('scale_space', dict(num_scales=1))
    assert scale_space['num_scales'] == (levels[0] if levels else 1)
    assert (scale_space.get('first_level', 0) < 0) == ('pyramid' in words)
    lift = [LIFTS[word] for word in words if word in LIFTS] or ['mmscale.GaussianLift']
    assert backbone.get('lift', dict(type='mmscale.GaussianLift'))['type'] == lift[0]
    kernels = [KERNELS[word] for word in words if word in KERNELS]
    assert kernels == ([backbone.kernel.type] if 'kernel' in backbone else [])
    pools = [cfg.model.head.pool] if cfg.model.head.type == 'mmscale.ScaleClsHead' else []
    assert pools == [word for word in words if word in ('gate', 'prob')]
    offsets = [OFFSETS[word] for word in words if word in OFFSETS]
    assert [backbone.deform.type] == offsets if 'deform' in backbone else not offsets


def check_named_grid(backbone, neck, finer, levels_an_octave, zero_scale, aa_layer):
    """Two octaves; one of them is finer than the image if the name says so."""
    assert backbone.scale_space.get('first_level', 0) == (-levels_an_octave if finer else 0)
    assert backbone.scale_space.base == pytest.approx(2 ** (1 / levels_an_octave))
    assert backbone.scale_space.num_scales == 2 * levels_an_octave + 1
    assert backbone.scale_space.zero_scale == (0.5 if finer else zero_scale)
    assert backbone.lift == dict(type='mmscale.GaussianPyramidLift')
    assert backbone.aa_layer == aa_layer and neck.scale_dropout == 0.5


@pytest.mark.parametrize('ordinary, pattern', COMPARISONS.items(), ids=COMPARISONS)
def test_a_comparison_has_one_recipe_and_nearly_one_number_of_parameters(ordinary, pattern):
    def recipe(path):
        cfg = load(path).to_dict()
        # One cycle is written otherwise where offsets have a rate of their own, see below.
        return {k: cfg[k] for k in cfg.keys() - {'model', 'param_scheduler', 'optim_wrapper'}}

    paths = {path.stem: path for path in PATHS if re.fullmatch(pattern, path.stem)}
    # CNN, two of DCN, DSS v1, v2 and anti-aliased, four of deformable DSS, SO(2)
    assert len(paths) >= 11
    for name, path in paths.items():
        assert abs(PARAMETERS[name] / PARAMETERS[ordinary] - 1) < 0.065, name
        assert recipe(path) == recipe(paths[ordinary]), name


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)
def test_offsets_learn_at_a_tenth_of_the_rate_where_there_are_any(path):
    cfg = load(path)
    keys = cfg.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
    assert keys == (dict(conv_offset=dict(lr_mult=0.1)) if 'deform' in cfg.model.backbone else {})
    # It would give all parameters one rate.
    found = [schedule.type for _, schedule in schedules(cfg.param_scheduler)]
    assert not keys or 'OneCycleLR' not in found


def rates(schedule: str, epoch_length: int) -> torch.Tensor:
    """Learning rates of an ordinary and of an offset branch, by iteration: ``(iterations, 2)``."""
    cfg = Config.fromfile(CONFIGS / f'_base_/schedules/{schedule}.py')
    model = nn.ModuleDict(dict(conv=nn.Conv2d(1, 1, 1), conv_offset=nn.Conv2d(1, 1, 1)))
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    given = dict(optimizer=optim_wrapper, epoch_length=epoch_length)
    schedulers = [PARAM_SCHEDULERS.build(schedule, default_args=given)
                  for _, schedule in schedules(cfg.param_scheduler)]  # fmt: skip
    groups, found = optim_wrapper.optimizer.param_groups, []
    for _ in range(cfg.train_cfg.max_epochs * epoch_length):
        found.append((groups[0]['lr'], groups[-1]['lr']))
        optim_wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    return torch.tensor(found)


@pytest.mark.parametrize(
    'schedule, epoch_length',
    [('adam_onecycle_bs50_10e', 20), ('adam_onecycle_bs128_20e', 79),
     ('sgd_cosine_bs128_30e', 10), ('sgd_step_bs256_100e', 10)],
)  # fmt: skip
def test_offsets_have_the_schedule_of_the_other_parameters_at_a_tenth(schedule, epoch_length):
    expected = rates(schedule, epoch_length)[:, 0]
    others, offsets = rates(f'{schedule}_offset', epoch_length).unbind(1)
    torch.testing.assert_close(offsets, 0.1 * others)
    if 'onecycle' in schedule:  # is written otherwise: less than one iteration's change apart
        assert (others - expected).abs().max() <= 1.1 * expected.diff().abs().max()
        assert others.argmax() in (expected.argmax(), expected.argmax() + 1)
    else:
        torch.testing.assert_close(others, expected)


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*/*scalemnist-aug.py')), ids=lambda p: p.stem)
@pytest.mark.parametrize('factor', [0.5, 0.83, 2.0])
def test_augmented_digits_are_made_like_the_dataset(path, factor):
    digits = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    augmentation, _ = Config.fromfile(path).train_dataloader.dataset.pipeline
    transform = TRANSFORMS.build(dict(augmentation, scale_range=(factor, factor)))
    augmented = [transform(dict(img=digit))['img'] for digit in digits]
    expected = mnist_recipe.rescale_digits(digits, np.full(3, factor))
    np.testing.assert_array_equal(augmented, expected)
