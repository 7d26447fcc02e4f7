# Copyright (c) mmscale contributors.
import hashlib
import sys
from pathlib import Path

import pytest
import torch
import yaml
from mmpretrain import get_model

from mmscale.datasets import ScaleDigits

from .conftest import ROOT, run_here

sys.path.insert(0, str(ROOT / 'studies' / 'workflow'))
import tables  # noqa: E402
from cells import STUDIES, read_study  # noqa: E402

REALIZATIONS = 'realizations_scalemnist'
TOOL = 'tools/model_converters/publish_model.py'
PUBLISHED = [
    model
    for path in sorted(ROOT.glob('configs/*/metafile.yml'))
    for model in yaml.safe_load(path.read_text())['Models']
    if 'Weights' in model
]


@pytest.mark.parametrize('model', PUBLISHED, ids=lambda model: model['Name'])
def test_weights_are_those_of_their_name_and_load(model):
    path = ROOT / model['Weights']
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rpartition('-')[2])
    weights = torch.load(path, weights_only=True)['state_dict']
    found = get_model(model['Name'], pretrained=True).state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_all_weights_have_a_model_and_are_small():
    files = list((ROOT / 'checkpoints').iterdir())
    assert {ROOT / model['Weights'] for model in PUBLISHED} == set(files)
    assert sum(path.stat().st_size for path in files) < 20e6


@torch.no_grad()
@pytest.mark.parametrize(
    'model', [m for m in PUBLISHED if 'digits' in m['Name']], ids=lambda model: model['Name']
)
def test_the_accuracy_of_the_model_index_is_that_of_the_weights(model):
    network = get_model(model['Name'], pretrained=True).eval()
    digits = ScaleDigits(split='test', **{
        key: value for key, value in network._config.test_dataloader.dataset.items()
        if key in ('scale', 'scale_range', 'seed')
    })  # fmt: skip
    images = [torch.as_tensor(sample['img']).reshape(1, 32, 32) for sample in digits]
    labels = torch.tensor([sample['gt_label'] for sample in digits])
    inputs = network.data_preprocessor(dict(inputs=images))['inputs']
    scores = network.head.fc(network.extract_feat(inputs)[-1])
    accuracy = 100 * (scores.argmax(1) == labels).double().mean().item()
    stated = model['Results'][0]['Metrics']['Top 1 Accuracy']
    assert accuracy == pytest.approx(stated, abs=0.2)  # one digit of 500: sums differ by machine


def test_what_is_published_has_weights_alone(trained, tmp_path, monkeypatch, capsys):
    checkpoint = trained / 'epoch_1.pth'
    run_here(monkeypatch, TOOL, checkpoint, tmp_path / 'new' / 'model.pth')
    published = Path(capsys.readouterr().out.splitlines()[-1])
    assert list(published.parent.iterdir()) == [published]
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert published.name == f'model-{digest[:8]}.pth'
    found = torch.load(published, weights_only=True)
    before = torch.load(checkpoint, weights_only=False)
    assert found.keys() == {'state_dict', 'meta'} and 'cfg' not in found['meta']
    assert all(torch.equal(before['state_dict'][k], v) for k, v in found['state_dict'].items())


def test_accuracies_of_the_index_are_those_of_the_studies():
    """Of configs without weights: those that have are tested with them."""
    study, frame = read_study(STUDIES / f'{REALIZATIONS}.py'), tables.load(REALIZATIONS)
    known = {
        model['Config']: model['Results'][0]['Metrics']
        for path in sorted(ROOT.glob('configs/*/metafile.yml'))
        for model in yaml.safe_load(path.read_text(encoding='utf-8'))['Models']
        if 'Weights' not in model
    }
    frame = tables.select(study, frame)
    mean, _ = tables.spread(tables.test_errors(frame))
    found = {study.runs[run]['config']: round(100 - error, 2) for run, (error,) in mean.iterrows()}
    found = {config: accuracy for config, accuracy in found.items() if config in known}
    assert found and {c: known[c]['Top 1 Accuracy'] for c in found} == found
    assert not study.options and study.epochs is None  # they are of the configs as they stand
