# Copyright (c) mmscale contributors.
import re

import pytest
import torch
from mmengine.config import Config
from mmpretrain import get_model
from test_tools.conftest import ROOT

from mmscale.engine import models
from mmscale.model_index import register_model_index

NAME = 'scaleconvnet-deep-balanced-up1_1xb128-20e_scalemnist'  # its weights are released
CONFIG = str(ROOT / f'configs/aa_pyramid/{NAME}.py')


@pytest.mark.parametrize(
    ('word', 'parts'),
    [
        ('a/b.py', ('a/b.py', None)),
        ('a/b.py:c/d.pth', ('a/b.py', 'c/d.pth')),
        ('b.py:https://host:80/d.pth', ('b.py', 'https://host:80/d.pth')),
        ('C:\\a.b.py:D:\\d.pth', ('C:\\a.b.py', 'D:\\d.pth')),
        ('resnet50_8xb32_in1k', ('resnet50_8xb32_in1k', None)),
        ('resnet50_8xb32_in1k:a.pth', ('resnet50_8xb32_in1k', 'a.pth')),
    ],
)
def test_configs_names_and_checkpoints_are_told_apart(word, parts):
    assert models.split_model(word) == parts


@pytest.mark.parametrize('word', ['a.pth', 'a/b', ''])
def test_what_is_no_model_is_refused(word):
    with pytest.raises(ValueError, match='is not CONFIG, CONFIG:CHECKPOINT or the NAME'):
        models.split_model(word)


def test_a_name_is_random_and_says_so_or_has_its_released_weights(capsys):
    register_model_index()
    random, known = models.load_model(NAME), models.load_model(NAME, pretrained=True)
    assert random.checkpoint is None
    assert capsys.readouterr().err.count('--pretrained takes those released') == 1
    expected = get_model(NAME, pretrained=True).state_dict()
    assert all(torch.equal(expected[k], v) for k, v in known.network.state_dict().items())
    same = models.load_model(f'{CONFIG}:{known.checkpoint}', {'model.head.topk': (1, 5)})
    assert same.cfg.model.head.topk == (1, 5) and 'topk' not in random.cfg.model.head
    assert all(torch.equal(expected[k], v) for k, v in same.network.state_dict().items())
    with pytest.raises(ValueError, match='^--pretrained: there are no weights by the name'):
        models.load_model(CONFIG, pretrained=True)


def test_random_weights_are_those_of_the_seed():
    one, same, other = (models.load_model(CONFIG, seed=s).network.state_dict() for s in (1, 1, 2))
    weights = [name for name in one if name.endswith('conv.weight')] or [next(iter(one))]
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in weights)


def test_weights_that_do_not_fit_exactly_or_are_not_finite_are_refused(tmp_path):
    state, path = models.load_model(CONFIG).network.state_dict(), tmp_path / 'a.pth'
    first = next(iter(state))
    for changed, message in (
        (dict(state, more=torch.ones(1)), f'checkpoint {path} does not fit {CONFIG}: '),
        (dict(state, **{first: torch.ones(3)}), f'checkpoint {path} does not fit {CONFIG}: '),
        (dict(state, **{first: state[first] * torch.nan}), f'{path}: {first} is not finite'),
    ):
        torch.save(dict(state_dict=changed), path)
        with pytest.raises(ValueError, match=re.escape(message)):
            models.load_model(f'{CONFIG}:{path}')


def test_options_that_nothing_would_look_for_are_refused():
    cfg = Config(dict(train_cfg=dict(max_epochs=1)))
    models.merge_options(cfg, {'activation_checkpointing': ['backbone.layer1']})
    assert cfg.activation_checkpointing == ['backbone.layer1']
    for key in ('activation_checkpoints', 'modle.backbone.depth'):
        with pytest.raises(ValueError, match=f'^--cfg-options: nothing looks for {key}$'):
            models.merge_options(cfg, {key: 3})


def test_rows_are_named_once():
    def model(path, checkpoint=None):
        return models.Model(path, Config(), checkpoint, None)

    pair = [model('a/x.py', 'run/1/e.pth'), model('b/x.py', 'run/2/e.pth'), model('y.py', 'e.pth')]
    assert models.name_models(pair, None) == ['x 1/e.pth', 'x 2/e.pth', 'y']
    assert models.name_models([model('x.py')], None) == ['x (untrained)']
    with pytest.raises(ValueError, match='--names: 3 models need as many different names, got a'):
        models.name_models(pair, ['a', 'a', 'b'])
