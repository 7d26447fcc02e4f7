# Copyright (c) mmscale contributors.
import json
import pickle
import re

import mmengine
import pytest
import torch
from mmpretrain import get_model
from test_datasets.synthetic import Program

from mmscale.datasets import ScaleDigits

from .conftest import CONFIG, ROOT, SMALL, exit_message, logged_scalars, run_here, run_tool

# The validation data of the training run, as the test set.
ON_VALIDATION_DATA = (
    'test_dataloader.dataset.split=val',
    'test_dataloader.dataset.scale=1.0',
)


def run_test(trained, work_dir, *arguments):
    return run_tool(
        'tools/test.py', CONFIG, trained / 'epoch_1.pth', '--work-dir', work_dir, *arguments,
        '--cfg-options', *SMALL, *ON_VALIDATION_DATA,
    )  # fmt: skip


def validation_accuracy(trained) -> float:
    return [line for line in logged_scalars(trained) if 'accuracy/top1' in line][-1][
        'accuracy/top1'
    ]


def test_repeats_the_accuracy_of_the_validation(trained, tmp_path):
    result = run_test(trained, tmp_path, '--out', tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / 'metrics.json').read_text())[
        'accuracy/top1'
    ] == validation_accuracy(trained)


def test_writes_predictions_and_images(trained, tmp_path):
    out, images = tmp_path / 'predictions.pkl', tmp_path / 'images'
    result = run_test(
        trained, tmp_path, '--out', tmp_path, '--predictions', '--show-dir', images,
        '--interval', '40'
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    predictions = pickle.loads(out.read_bytes())
    right = sum(int(p['pred_label'] == p['gt_label']) for p in predictions)
    assert len(predictions) == 100
    assert 100 * right / len(predictions) == pytest.approx(validation_accuracy(trained))
    assert len(list(images.glob('*.png'))) == 3  # samples 0, 40 and 80


def test_two_processes_with_flips(trained, tmp_path):
    out = tmp_path / 'metrics.json'
    result = run_tool(
        'tools/dist_test.sh', CONFIG, trained / 'epoch_1.pth', 2, '--work-dir', tmp_path, '--tta',
        '--out', tmp_path, '--cfg-options', *SMALL,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert 'accuracy/top1' in json.loads(out.read_text())


def test_only_the_main_process_writes_the_metrics(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(mmengine.dist, 'is_main_process', lambda: False)
    run_here(monkeypatch, 'tools/test.py', CONFIG, str(trained / 'epoch_1.pth'), '--work-dir',
             tmp_path, '--out', tmp_path, '--cfg-options',
             'test_dataloader.dataset.indices=20')  # fmt: skip
    assert not list(tmp_path.glob('metrics.json*'))


WRAPPED = """_base_ = '{base}'
digits = dict(type='mmscale.ScaleDigits', split='test', pipeline=[dict(type='PackInputs')])
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(digits, indices=20),
            dict(type='RepeatDataset', times=1, dataset=dict(digits, indices=10)),
        ],
    )
)
"""


def test_flips_give_the_mean_score_of_an_image_and_its_mirror_image(trained, tmp_path, monkeypatch):
    checkpoint, out = str(trained / 'epoch_1.pth'), tmp_path / 'predictions.pkl'
    run_here(monkeypatch, 'tools/test.py', CONFIG, checkpoint, '--tta', '--work-dir', tmp_path,
             '--out', tmp_path, '--predictions', '--cfg-options',
             'test_dataloader.dataset.indices=20')  # fmt: skip
    found = torch.stack([p['pred_score'] for p in pickle.loads(out.read_bytes())])

    model = get_model(str(ROOT / CONFIG), pretrained=checkpoint).eval()
    digits = ScaleDigits(split='test', indices=20)
    x = torch.stack([torch.from_numpy(digits[i]['img'])[None] for i in range(20)])
    with torch.no_grad():
        inputs = model.data_preprocessor(dict(inputs=x))['inputs']
        views = [model(view).softmax(1) for view in (inputs, inputs.flip(-1))]
    torch.testing.assert_close(found, (views[0] + views[1]) / 2)
    assert (found - views[0]).abs().max() > 1e-3

    # The same digits behind wrappers, which have no pipeline of their own.
    config = tmp_path / 'wrapped.py'
    config.write_text(WRAPPED.format(base=str(ROOT / CONFIG)))
    run_here(monkeypatch, 'tools/test.py', f'{config}:{checkpoint}', '--tta', '--work-dir',
             tmp_path, '--out', tmp_path, '--predictions')  # fmt: skip
    again = torch.stack([p['pred_score'] for p in pickle.loads(out.read_bytes())])
    assert torch.equal(again, torch.cat([found, found[:10]]))


def checkpoint_of(trained, path, change) -> str:
    """A checkpoint whose weights are those of the training run, changed."""
    state = torch.load(trained / 'epoch_1.pth', weights_only=False)['state_dict']
    torch.save(dict(state_dict=change(state)), path)
    return str(path)


def without(part):
    return lambda state: {name: value for name, value in state.items() if part not in name}


def with_a_nan(state):
    state['backbone.layer1.0.conv1.weight'][0, 0, 0, 0] = torch.nan
    return state


@pytest.mark.parametrize(
    ('change', 'flags', 'message'),
    [
        (without('layer4'), [], 'does not fit the config: .*missing keys .*layer4'),
        (lambda state: dict(state, more=torch.ones(1)), [], 'does not fit .*unexpected key .*more'),
        (with_a_nan, [], 'backbone.layer1.0.conv1.weight is not finite'),
        (with_a_nan, ['--no-strict'], 'backbone.layer1.0.conv1.weight is not finite'),
        (lambda state: {f'encoder.{name}': value for name, value in state.items()},
         ['--no-strict'], 'none of its weights has a name that the model has'),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(change, flags, message, trained, tmp_path, monkeypatch):
    path = checkpoint_of(trained, tmp_path / 'a.pth', change)
    options = ['--cfg-options', 'test_dataloader.dataset.indices=20']
    line = exit_message(
        monkeypatch,
        'tools/test.py',
        CONFIG,
        path,
        '--work-dir',
        tmp_path / 'work',
        *flags,
        *options,
    )
    assert re.match(f'error: checkpoint {path}:? ?{message}', line), line


def test_no_strict_takes_a_part(trained, tmp_path, monkeypatch):
    path = checkpoint_of(trained, tmp_path / 'a.pth', without('layer4'))
    out = tmp_path / 'metrics.json'
    run_here(monkeypatch, 'tools/test.py', CONFIG, path, '--no-strict', '--work-dir', tmp_path,
             '--out', tmp_path,
             '--cfg-options', 'test_dataloader.dataset.indices=20')  # fmt: skip
    assert 'accuracy/top1' in json.loads(out.read_text())


def test_a_name_with_its_released_weights(tmp_path, monkeypatch):
    name = 'scaleresnet18-economical-up1-w8_1xb50-10e_scaledigits'
    run_here(monkeypatch, 'tools/test.py', name, '--pretrained', '--work-dir', tmp_path, '--out',
             tmp_path)  # fmt: skip
    assert json.loads((tmp_path / 'metrics.json').read_text())['accuracy/top1'] > 90


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['missing.py', 'missing.pth'], 'error: config: there is no file missing.py'),
        ([CONFIG, 'missing.pth'], 'error: checkpoint: there is no file missing.pth'),
        ([CONFIG], 'error: checkpoint: say which, or --pretrained of a model that has weights'),
        ([CONFIG, '--pretrained'], 'error: checkpoint: say which, or --pretrained of a model'),
        ([CONFIG, 'x.pth', '--tta', '--show'], 'error: --show, --show-dir: MMPretrain cannot'),
    ],
)
def test_bad_arguments_give_one_line(arguments, message, monkeypatch):
    assert exit_message(monkeypatch, 'tools/test.py', *arguments).startswith(message)


def test_a_file_that_is_trusted_is_opened_and_runs(trained, tmp_path, monkeypatch):
    path, made = tmp_path / 'a.pth', tmp_path / 'made'
    state = torch.load(trained / 'epoch_1.pth', weights_only=False)['state_dict']
    torch.save(dict(state_dict=state, more=Program(made)), path)
    command = ('tools/test.py', CONFIG, path, '--work-dir', tmp_path, '--cfg-options',
               'test_dataloader.dataset.indices=20')  # fmt: skip
    line = exit_message(monkeypatch, *command)
    assert re.match(rf'error: checkpoint {path}: it holds .*makedirs.* --trust-checkpoint', line)
    assert not made.exists()
    run_here(monkeypatch, *command[:5], '--trust-checkpoint', *command[5:])
    assert made.is_dir()
