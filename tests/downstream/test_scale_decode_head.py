# Copyright (c) mmscale contributors.
"""One decode head on every level: its predictions move with the levels."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmscale.models import ScaleDecodeHead
from mmscale.scale_space import resample_level

from .conftest import ROOT

for module in ('mmdet', 'mmseg'):
    pytest.importorskip(module, reason='needs the environment of `make test-downstream`')

CONFIGS = ROOT / 'configs/downstream/scattered_mnist'
PLAIN = dict(in_channels=4, channels=3, num_classes=3, in_index=1, norm_cfg=dict(type='BN'))
SIGMOID = dict(loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
GRID = dict(base=2, num_scales=3)


def build(cfg, seed=0):
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(cfg).double().eval()


def scale_head(**options) -> ScaleDecodeHead:
    return build(dict(PLAIN, type='mmscale.ScaleDecodeHead', **{'scale_space': GRID, **options}))


def pyramids(sides=(16, 8, 4), channels=(2, 4)):
    generator = torch.Generator().manual_seed(1)
    return tuple(
        tuple(
            torch.randn(2, c, side, side, dtype=torch.float64, generator=generator)
            for side in sides
        )
        for c in channels
    )


def naive(head, inputs):
    """Mix the maps of the levels, upsampled to the first, by the formula of the pooling."""
    maps = [head.head([stage[k] for stage in inputs]) for k in range(len(inputs[0]))]
    if head.pool == 'prob':
        maps = [m.sigmoid() if head.sigmoid else m.softmax(1) for m in maps]
    maps = [resample_level(m, 1 / 2**k, maps[0].shape[-2:]) for k, m in enumerate(maps)]
    mixed = torch.stack(maps).amax(0) if head.pool == 'max' else torch.stack(maps).mean(0)
    if head.pool != 'prob':
        return mixed
    return (mixed / (1 - mixed)).log() if head.sigmoid else mixed.log()


@pytest.mark.parametrize('pool', ['prob', 'max', 'mean'])
@pytest.mark.parametrize('loss', [{}, SIGMOID])
def test_is_the_mixture_of_the_maps_of_the_levels(pool, loss):
    head, inputs = scale_head(pool=pool, **loss), pyramids()
    found = head(inputs)
    assert found.shape == (2, 3, 16, 16)
    assert (found - naive(head, inputs)).abs().max() < 1e-12
    dense = tuple(torch.stack([stage[0], stage[0]], 2) for stage in inputs)
    alone = head([stage[:1] for stage in inputs])
    if pool != 'prob' or loss:
        assert (head(dense) - alone).abs().max() < 1e-9  # equal levels
    else:
        assert (head(dense) - alone.log_softmax(1)).abs().max() < 1e-9


@pytest.mark.parametrize('pool', ['prob', 'max', 'mean'])
def test_predictions_are_invariant_to_the_order_of_dense_levels(pool):
    head = scale_head(pool=pool)
    x = tuple(torch.stack([stage[0], stage[0] + 1, stage[0] - 2], 2) for stage in pyramids())
    moved = tuple(stage.roll(1, 2) for stage in x)
    assert (head(x) - head(moved)).abs().max() < 1e-12


def test_one_level_is_the_stock_head_and_loads_its_checkpoints():
    head, plain = scale_head(scale_space=dict(num_scales=1)), build(dict(PLAIN, type='FCNHead'), 7)
    head.load_state_dict(plain.state_dict())
    inputs = pyramids(sides=(16,))
    assert torch.equal(head(inputs), plain([stage[0] for stage in inputs]))


def test_whatever_learns_has_the_gradient_of_the_mixture():
    head = scale_head()
    parameters = [p for p in head.parameters() if p.requires_grad]
    inputs = pyramids()
    one, other = (torch.autograd.grad(y.square().sum(), parameters)
                  for y in (head(inputs), naive(head, inputs)))  # fmt: skip
    assert all((a - b).abs().max() < 1e-9 and a.abs().max() > 0 for a, b in zip(one, other))


def test_scale_dropout_leaves_levels_out_in_training_alone():
    head = scale_head(scale_dropout=0.9)
    inputs = pyramids()
    whole = head(inputs)
    assert torch.equal(head(inputs), whole)
    head.pooling.train()
    torch.manual_seed(0)
    assert not torch.equal(head(inputs), whole)


def test_the_config_has_the_parameters_of_its_pooled_twin():
    def parameters(name):
        cfg = Config.fromfile(CONFIGS / f'fcn_scaleresnet18-w16-d8-{name}_1xb8-24e.py')
        model = build(cfg.model)
        return sum(p.numel() for p in model.parameters())

    assert parameters('prob') == parameters('pyramid')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(pool='gate'), 'pool must be one of'),
        (dict(scale_dropout=1.0), 'scale_dropout must be'),
        (dict(scale_space=dict(base=2, num_scales=2, first_level=1)), 'needs level 0'),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        scale_head(**options)


def test_stages_of_different_levels_are_refused():
    fine, coarse = pyramids()
    with pytest.raises(ValueError, match=r'the same levels, got \[3, 2\]'):
        scale_head()((fine, coarse[:2]))
