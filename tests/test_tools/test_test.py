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

FEW = ('--cfg-options', 'test_dataloader.dataset.indices=20')


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """Tests the trained network, or another, in this process; all is written to ``tmp_path``."""

    def run(*arguments, checkpoint=trained / 'epoch_1.pth', config=CONFIG, end=FEW, go=run_here):
        return go(monkeypatch, 'tools/test.py', config, checkpoint, '--work-dir', tmp_path,
                  '--out', tmp_path, *arguments, *end)  # fmt: skip

    return run


def scores(folder) -> torch.Tensor:
    return torch.stack(
        [p['pred_score'] for p in pickle.loads((folder / 'predictions.pkl').read_bytes())]
    )


def metrics(folder) -> dict:
    return json.loads((folder / 'metrics.json').read_text(), parse_constant=pytest.fail)


def test_repeats_the_validation_and_writes_predictions_and_images(trained, run, tmp_path):
    """Of the validation data, as the test set."""
    same = ('test_dataloader.dataset.split=val', 'test_dataloader.dataset.scale=1.0')
    run('--predictions', '--show-dir', tmp_path / 'images', '--interval', 40,
        end=('--cfg-options', *SMALL, *same))  # fmt: skip
    accuracies = [line.get('accuracy/top1') for line in logged_scalars(trained)]
    accuracy = metrics(tmp_path)['accuracy/top1']
    assert accuracy == [value for value in accuracies if value is not None][-1]
    predictions = pickle.loads((tmp_path / 'predictions.pkl').read_bytes())
    right = [int(p['pred_label'] == p['gt_label']) for p in predictions]
    assert len(right) == 100 and sum(right) == pytest.approx(accuracy)
    assert len(list((tmp_path / 'images').glob('*.png'))) == 3  # samples 0, 40 and 80


def test_two_processes_with_flips(trained, tmp_path):
    result = run_tool(
        'tools/dist_test.sh', CONFIG, trained / 'epoch_1.pth', 2, '--work-dir', tmp_path, '--tta',
        '--out', tmp_path, '--cfg-options', *SMALL,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert 'accuracy/top1' in metrics(tmp_path)


def test_only_the_main_process_writes_the_metrics(run, tmp_path, monkeypatch):
    monkeypatch.setattr(mmengine.dist, 'is_main_process', lambda: False)
    run()
    assert not list(tmp_path.glob('metrics.json*'))


WRAPPED = """_base_ = '{base}'
digits = dict(type='mmscale.ScaleDigits', split='test', pipeline=[dict(type='PackInputs')])
repeated = dict(type='RepeatDataset', times=1, dataset=dict(digits, indices=10))
test_dataloader = dict(dataset=dict(
    _delete_=True, type='ConcatDataset', datasets=[dict(digits, indices=20), repeated]))
"""


def test_flips_give_the_mean_score_of_an_image_and_its_mirror_image(trained, run, tmp_path):
    run('--tta', '--predictions')
    found = scores(tmp_path)
    model = get_model(str(ROOT / CONFIG), pretrained=str(trained / 'epoch_1.pth')).eval()
    digits = ScaleDigits(split='test', indices=20)
    x = torch.stack([torch.from_numpy(digits[i]['img'])[None] for i in range(20)])
    with torch.no_grad():
        inputs = model.data_preprocessor(dict(inputs=x))['inputs']
        views = [model(view).softmax(1) for view in (inputs, inputs.flip(-1))]
    torch.testing.assert_close(found, (views[0] + views[1]) / 2)
    assert (found - views[0]).abs().max() > 1e-3

    # The same digits behind wrappers, which have no pipeline of their own.
    (tmp_path / 'wrapped.py').write_text(WRAPPED.format(base=ROOT / CONFIG))
    run('--tta', '--predictions', config=tmp_path / 'wrapped.py', end=())
    assert torch.equal(scores(tmp_path), torch.cat([found, found[:10]]))


def without_layer4(state):
    return {name: value for name, value in state.items() if 'layer4' not in name}


def with_a_nan(state):
    state['backbone.layer1.0.conv1.weight'][0, 0, 0, 0] = torch.nan
    return state


@pytest.mark.parametrize(
    ('change', 'flags', 'message'),
    [
        (without_layer4, [], 'does not fit the config: .*missing keys .*layer4'),
        (without_layer4, ['--no-strict'], None),
        (lambda state: dict(state, more=torch.ones(1)), [], 'does not fit .*unexpected key .*more'),
        (with_a_nan, ['--no-strict'], 'backbone.layer1.0.conv1.weight is not finite'),
        (lambda state: {f'encoder.{name}': value for name, value in state.items()},
         ['--no-strict'], 'none of its weights has a name that the model has'),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(change, flags, message, trained, run, tmp_path):
    path = tmp_path / 'a.pth'
    state = torch.load(trained / 'epoch_1.pth', weights_only=False)['state_dict']
    torch.save(dict(state_dict=change(state)), path)
    if message is None:
        run(*flags, checkpoint=path)
        assert 'accuracy/top1' in metrics(tmp_path)
    else:
        line = run(*flags, checkpoint=path, go=exit_message)
        assert re.match(f'error: checkpoint {path}:? ?{message}', line), line


def test_a_name_with_its_released_weights(run, tmp_path):
    name = 'scaleresnet18-economical-up1-w8_1xb50-10e_scaledigits'
    run(config=name, checkpoint='--pretrained', end=())
    assert metrics(tmp_path)['accuracy/top1'] > 90


def test_a_file_that_is_trusted_is_opened_and_runs(trained, run, tmp_path):
    path, made = tmp_path / 'a.pth', tmp_path / 'made'
    state = torch.load(trained / 'epoch_1.pth', weights_only=False)['state_dict']
    torch.save(dict(state_dict=state, more=Program(made)), path)
    line = run(checkpoint=path, go=exit_message)
    assert re.match(rf'error: checkpoint {path}: it holds .*makedirs.* --trust-checkpoint', line)
    assert not made.exists()
    run('--trust-checkpoint', checkpoint=path)
    assert made.is_dir()


def test_a_metric_that_is_no_number_is_null(run, tmp_path):
    hook = dict(type='mmscale.EquivarianceHook', factors=(2,), num_images=2, border=99)
    (tmp_path / 'hooked.py').write_text(
        f'_base_ = {str(ROOT / CONFIG)!r}\ncustom_hooks = [{hook!r}]\n'
    )
    run(config=tmp_path / 'hooked.py')
    found = metrics(tmp_path)
    assert found['equivariance/backbone'] is None and found['accuracy/top1'] >= 0


def test_images_without_a_path_are_drawn_apart_in_batches_of_any_length(run, tmp_path):
    run('--show-dir', tmp_path / 'shown', end=(*FEW, 'test_dataloader.batch_size=7'))
    assert len(list((tmp_path / 'shown').glob('*.png'))) == 20
