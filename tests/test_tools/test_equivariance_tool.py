# Copyright (c) mmscale contributors.
import csv
import json

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain import get_model
from networks import as_if_trained

from mmscale.datasets import ScaleDigits
from mmscale.datasets.images import photograph_crops
from mmscale.engine.accuracy import measure_accuracy
from mmscale.engine.models import Model
from mmscale.engine.study import Settings
from mmscale.evaluation import equivariance_error, error_breakdown, scale_signal

from .conftest import CONFIG as PLAIN
from .conftest import ROOT, exit_message, run_here, run_tool

TOOL = 'tools/equivariance.py'
SCALE = 'scaleresnet18-s3-w8_1xb50-10e_scaledigits'  # a name that MMPretrain knows
LAYERS = ('backbone.layer1', 'backbone.layer4')
FACTORS = (1.0, 1.5, 2.0)
ARGUMENTS = ['--layers', *LAYERS, '--factors', *FACTORS, '--num-images', 6,
             '--accuracy-images', 40, '--batch-size', 4]  # fmt: skip


def close(values, rel=1e-4, **kwargs):
    return pytest.approx(values.tolist(), rel=rel, **kwargs)


def digits(indices, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
    """Test digits as the models take them, normalised by hand, and their labels."""
    dataset = ScaleDigits('test', pipeline=[], **kwargs)
    items = [dataset.get_data_info(i) for i in indices]
    images = torch.stack([torch.from_numpy(item['img']).float()[None] for item in items])
    return (images - 27.5) / 63.0, torch.tensor([item['gt_label'] for item in items])


def write_digit(image: torch.Tensor, path) -> None:
    mmcv.imwrite((image[0] * 63 + 27.5).round().byte().numpy(), str(path))


@torch.no_grad()
def fit_classifier(model) -> None:
    """Has the head recognise digits of full size, by least squares on the random features."""
    images, labels = digits(range(200), scale=1.0)
    features = model.extract_feat(images)[-1]
    mean, std = features.mean(0), features.std(0) + 1e-6
    inputs = torch.cat([(features - mean) / std, torch.ones(200, 1)], 1)
    ridge = inputs.T @ inputs + torch.eye(inputs.shape[1])
    weight = torch.linalg.solve(ridge, inputs.T @ torch.eye(10)[labels])
    model.head.fc.weight.copy_(weight[:-1].T / std)
    model.head.fc.bias.copy_(weight[-1] - model.head.fc.weight @ mean)


@pytest.fixture(scope='module')
def networks(tmp_path_factory):
    """The two models as they must be: random weights of seed 0, and those of a checkpoint."""
    torch.manual_seed(0)
    plain = get_model(PLAIN)
    scale = as_if_trained(get_model(SCALE)).float()
    fit_classifier(scale)
    checkpoint = tmp_path_factory.mktemp('checkpoint') / 'scale.pth'
    torch.save(dict(state_dict=scale.state_dict()), checkpoint)
    return plain, scale, checkpoint


@pytest.fixture(scope='module')
def study(networks, tmp_path_factory):
    out = tmp_path_factory.mktemp('study')
    result = run_tool(TOOL, PLAIN, f'{SCALE}:{networks[2]}', *ARGUMENTS, '--out', out)
    assert result.returncode == 0, result.stderr
    return out, result


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the tool in this process and returns its results."""

    def run(*command, out=tmp_path / 'out') -> list[dict]:
        run_here(monkeypatch, TOOL, *command, '--out', out)
        return read_study(out)

    return run


def read_study(out) -> list[dict]:
    return json.loads((out / 'equivariance.json').read_text(encoding='utf-8'))['models']


def test_all_files_are_there_and_agree(study):
    out, result = study
    assert (out / 'equivariance.png').read_bytes().startswith(b'\x89PNG')
    assert '<svg' in (out / 'equivariance.svg').read_text()
    assert not list(out.rglob('*.part*'))

    models = {model['name']: model for model in read_study(out)}
    assert list(models) == ['resnet18-w8_1xb50-10e_scaledigits (untrained)', SCALE]
    with open(out / 'equivariance.csv', encoding='utf-8') as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(FACTORS) * (2 * len(LAYERS) + 3)
    for line in lines:
        model, place = models[line['model']], FACTORS.index(float(line['factor']))
        others = {'backbone.lift': 'lift', 'backbone.body': 'body', '': 'accuracy'}
        found = model['layers'].get(line['layer']) or model[others[line['layer']]]
        for key in ('mean', 'standard_error', 'n'):
            assert float(line[key]) == found[key][place]

    for layer in LAYERS:
        start = result.stdout.index(f'equivariance error, {layer}')
        row = next(line for line in result.stdout[start:].splitlines() if line.startswith(SCALE))
        means = models[SCALE]['layers'][layer]['mean']
        assert row.split()[1:] == [format(mean, '.1e') for mean in means]
    assert 'no accuracy: the model is untrained' in result.stdout


def test_errors_equal_those_taken_by_hand(study, networks):
    images, _ = digits(range(6))
    for model, network in zip(read_study(study[0]), networks):
        errors = equivariance_error(network, images, FACTORS, layers=LAYERS)
        for layer in LAYERS:
            found = model['layers'][layer]
            assert found['mean'] == close(errors[layer].mean)
            assert found['standard_error'] == close(errors[layer].standard_error)
            assert found['n'] == [6] * 3


def test_lift_and_body_are_measured_alone(study, networks):
    plain, scale = read_study(study[0])
    assert plain['lift'] is None and plain['body'] is None
    backbone, images = networks[1].backbone, digits(range(6))[0]
    arguments = dict(scale_space=backbone.grid)
    lift = equivariance_error(backbone.lift, images, FACTORS, **arguments)
    body = equivariance_error(backbone.body, backbone.lift(images), FACTORS, **arguments)
    assert scale['lift']['mean'] == close(lift.mean)
    assert scale['body']['mean'][:2] == close(body.mean[:2])
    # What follows the lift is exact at a power of the base: so the error there is the lift's.
    assert scale['body']['mean'][2] < 1e-10 < scale['lift']['mean'][2]


def test_accuracy_is_that_of_digits_made_smaller(study, networks):
    found = read_study(study[0])[1]['accuracy']
    for place, factor in enumerate(FACTORS):
        images, labels = digits([i * 500 // 40 for i in range(40)], scale=1 / factor)
        with torch.no_grad():
            right = (networks[1](images).argmax(1) == labels).sum().item()
        assert found['mean'][place] == pytest.approx(100 * right / 40)
    assert found['n'] == [40] * 3
    assert found['mean'][0] > 60 > found['mean'][2]


def test_what_was_measured_is_told(study, networks):
    plain, scale = read_study(study[0])
    assert plain['checkpoint'] is None
    assert scale['checkpoint']['path'] == str(networks[2])
    assert len(scale['checkpoint']['sha256']) == 64
    assert plain['config']['path'] == PLAIN and scale['config']['path'] == SCALE
    assert scale['settings']['layers'] == list(LAYERS)
    assert scale['versions']['torch'] == torch.__version__ and scale['seed'] == 0
    assert scale['images'] == plain['images'] | dict(size=[32, 32], count=6)
    assert scale['images']['source'] == 'the first test images of ScaleDigits'


def test_goes_on_where_it_was_stopped(study, networks, tmp_path, run, capsys):
    """As after a kill: nothing is there of one model, and the error alone of the other."""
    before = read_study(study[0])
    (tmp_path / 'out' / 'models').mkdir(parents=True)
    for path in (study[0] / 'models').iterdir():
        result = json.loads(path.read_text())
        if result['config']['path'] == SCALE:
            result['layers'][LAYERS[0]]['mean'][1] = 0.125  # so that it is seen where it is from
            del result['accuracy']
            (tmp_path / 'out' / 'models' / path.name).write_text(json.dumps(result))
    command = [PLAIN, f'{SCALE}:{networks[2]}', *ARGUMENTS]
    plain, scale = run(*command)
    # Of the plain model the error, of the other the accuracy.
    told = capsys.readouterr().err
    assert told.count('  equivariance error\n') == told.count('  accuracy\n') == 1
    assert scale['layers'][LAYERS[0]]['mean'][1] == 0.125
    assert scale['accuracy'] == before[1]['accuracy'] and plain['layers'] == before[0]['layers']

    again = run(*command, '--names', 'CNN', 'DSS')
    assert ': measuring ' not in capsys.readouterr().out
    assert [model['name'] for model in again] == ['CNN', 'DSS']
    assert [model['layers'] for model in again] == [plain['layers'], scale['layers']]


def test_other_settings_are_measured_anew(networks, tmp_path, run, capsys):
    """Settings reach the measurement, and results of others are not mistaken for theirs."""
    layer = 'backbone.layer1'
    common = [PLAIN, '--layers', layer, '--factors', 2, '--num-images', 3]
    for flags, arguments in [
        ([], {}),
        (['--canvas', 'keep'], dict(canvas='keep')),
        (['--resampling', 'ideal', '--border', 1], dict(resampling='ideal', border=1)),
        (['--unsquared'], dict(squared=False)),
    ]:
        found = run(*common, *flags)[0]['layers'][layer]['mean']
        images, _ = digits(range(3))
        expected = equivariance_error(networks[0], images, [2.0], layers=[layer], **arguments)
        assert found == close(expected[layer].mean)
    assert run(*common, '--unsquared', '--seed', 1)[0]['layers'][layer]['mean'] != found
    assert capsys.readouterr().out.count(': measuring ') == 5
    assert len(list((tmp_path / 'out' / 'models').iterdir())) == 5


def test_other_test_data_are_measured_anew(tmp_path, run):
    """The config names a folder, and does not change with what lies in it."""
    (tmp_path / 'folder.py').write_text(f"""
_base_ = '{ROOT / PLAIN}'
data = dict(type='CustomDataset', data_root='{tmp_path}/images', with_label=True)
pipeline = [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')]
test_dataloader = dict(dataset=dict(_delete_=True, pipeline=pipeline, **data))
""")
    rng, found = np.random.default_rng(0), []
    # One of the images that are measured, then one that is none of them and might be one day.
    for changed in (range(9), (1,), (8,)):
        for name in changed:
            pixels = rng.integers(256, size=(32, 32), dtype=np.uint8)
            mmcv.imwrite(pixels, f'{tmp_path}/images/a/{name}.png')
        for _ in range(2):  # the second time it is known
            found += run(tmp_path / 'folder.py', '--factors', 2, '--num-images', 3, '--no-accuracy')
    means = [result['layers']['backbone']['mean'] for result in found]
    assert means[0] == means[1] != means[2] == means[3] == means[4]
    names = [result['fingerprint'] for result in found]
    assert names[::2] == names[1::2] and len(set(names)) == 3


def test_breakdown(networks, tmp_path, run, capsys):
    factors = [1, 1.2, 1.3]
    common = ['--factors', *factors, '--num-images', 3, '--no-accuracy', '--breakdown',
              '--border', 1]  # fmt: skip
    plain, model = run(PLAIN, f'{SCALE}:{networks[2]}', *common, '--between-levels', 'linear')
    assert plain['breakdown'] is None
    images, backbone = digits(range(3))[0], networks[1].backbone
    arguments = dict(between_levels='linear', border=1)
    expected = error_breakdown(backbone, images, factors, **arguments)
    columns = dict(whole=expected.whole, **expected.parts)
    assert list(model['breakdown']) == list(columns)
    for name, values in columns.items():
        found = model['breakdown'][name]['mean']
        # One float32 network run twice: of what is 0 but for rounding nothing more is known.
        assert found == close(values.mean(1), rel=1e-3, abs=1e-9), name
    found = equivariance_error(networks[1], images, factors, layers=['backbone'], **arguments)
    assert model['layers']['backbone']['mean'] == close(found['backbone'].mean, rel=1e-3)

    printed = capsys.readouterr().out
    block = printed[printed.index('error of the backbone') :].splitlines()
    whole = [f'{mean:.1e}' for mean in model['breakdown']['whole']['mean'][1:]]
    assert block[1].split()[1:] == ['0.0e+00', *whole]
    shares = {line[:14].strip(): line.split('%')[:2] for line in block[2:6]}
    assert list(shares) == list(columns)[1:]
    for place in (0, 1):
        total = sum(float(cells[place].split()[-1]) for cells in shares.values())
        assert total == pytest.approx(100, abs=0.3)
    with open(tmp_path / 'out' / 'equivariance.csv', encoding='utf-8') as file:
        parts = [line['part'] for line in csv.DictReader(file)]
    assert sum(part.startswith('breakdown') for part in parts) == len(factors) * len(columns)

    run(PLAIN, *common)
    assert 'no network on scale spaces to break down' in capsys.readouterr().out


def test_a_scale_space_of_one_level_is_an_ordinary_network(run):
    """It has a lift that does nothing, and no level for its body to move to."""
    (model,) = run(SCALE, '--factors', 2, '--num-images', 2, '--cfg-options',
                   'model.backbone.scale_space.num_scales=1')  # fmt: skip
    assert model['lift'] is None and model['body'] is None
    assert model['layers']['backbone']['mean'][0] > 1e-3


def test_images_of_a_folder(networks, tmp_path, run):
    images, _ = digits(range(4))
    folder = tmp_path / 'images'
    for i, image in enumerate(images):
        write_digit(image, folder / f'{3 - i}.png')
    (folder / 'notes.txt').write_text('not an image')
    command = [PLAIN, '--images', folder, '--factors', 2, '--num-images', 3]
    (model,) = run(*command)
    error = equivariance_error(networks[0], images.flip(0)[:3], [2.0], layers=['backbone'])
    assert model['layers']['backbone']['mean'] == close(error['backbone'].mean)
    assert model['accuracy'] is None and model['images']['count'] == 3
    assert model['accuracy_note'] == 'no accuracy: images of a folder have no labels'

    mmcv.imwrite(np.zeros((32, 32), np.uint8), str(folder / '0.png'))  # another first image
    assert run(*command)[0]['layers'] != model['layers']


def test_other_datasets_are_scaled_on_their_canvas(networks, tmp_path):
    """An ordinary dataset of files: the accuracy is on L_s of what the model takes."""
    images, labels = digits(range(40), scale=1.0)
    order = labels.argsort(stable=True)  # in which the dataset lists its folders
    images, labels = images[order], labels[order]
    assert labels.unique().tolist() == list(range(10))
    for i, (image, label) in enumerate(zip(images, labels)):
        write_digit(image, tmp_path / 'data' / str(label.item()) / f'{i:02}.png')
    config = tmp_path / 'files.py'
    config.write_text(f"""
_base_ = '{ROOT}/configs/dss/{SCALE}.py'
test_evaluator = None
test_dataloader = dict(dataset=dict(
    _delete_=True, type='CustomDataset', data_prefix='{tmp_path}/data',
    pipeline=[dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')]))
""")
    seen = []
    model = Model(str(config), Config.fromfile(config), str(networks[2]), networks[1])
    settings = Settings((1.0, 2.0), ('backbone',), 2, None, 1000, 'shrink', 'gaussian', 0, True, 8)
    handle = networks[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    result = measure_accuracy(model, settings)
    handle.remove()
    expected = [scale_signal(images, s, canvas='keep', resampling='gaussian') for s in (1, 2)]
    torch.testing.assert_close(torch.cat(seen), torch.cat(expected), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        right = [(networks[1](x).argmax(1) == labels).sum().item() for x in expected]
    assert result['accuracy']['mean'] == pytest.approx([100 * count / 40 for count in right])
    assert result['accuracy']['mean'][0] > 60 and result['accuracy']['n'] == [40, 40]
    assert 'canvas of their size' in result['accuracy_note']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([PLAIN, 'missing.pth'], 'config: missing.pth is not CONFIG, CONFIG:CHECKPOINT or'),
        ([PLAIN, '--layers', 'backbone.layer5'], f'--layers: in {PLAIN} there is no layer '
         "'backbone.layer5'; the nearest names are backbone.layer"),
        ([PLAIN, '--factors', 'nan'], '--factors: factors must be at least 1 and finite, got nan'),
        ([PLAIN, '--factors', '1'], '--factors: must grow and end above 1'),
        ([PLAIN, '--factors', '3', '2'], '--factors: must grow and end above 1'),
        ([PLAIN, '--num-images', '0'], '--num-images: must be at least 1, got 0'),
        ([PLAIN, '--images', 'missing'], '--images: there is no folder missing'),
        ([PLAIN, '--device', 'abacus'], '--device: abacus cannot be used'),
        ([SCALE, '--breakdown', '--canvas', 'keep'], '--breakdown: is measured on the canvas shr'),
        ([SCALE, '--factors', '2', '--cfg-options', 'model.backbone.scale_space.num_scales=6'],
         f'{SCALE} (untrained): at factor 2 the network does not take the scaled images of '
         '16x16 pixels: use larger images, smaller factors'),
    ],
)  # fmt: skip
def test_bad_arguments_give_one_line(arguments, message, monkeypatch, tmp_path):
    line = exit_message(monkeypatch, TOOL, *arguments, '--out', tmp_path)
    assert line.startswith(f'error: {message}')


def test_bad_folders_give_one_line(monkeypatch, tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    command = (TOOL, PLAIN, '--images', folder, '--out', tmp_path / 'out')
    assert f'{folder} holds no images, which are files' in exit_message(monkeypatch, *command)
    (folder / 'b.png').write_bytes(b'not an image')
    line = exit_message(monkeypatch, *command)
    assert f'the image {folder / "b.png"} cannot be read: ' in line


def test_without_its_data_a_model_is_measured_on_photographs(run, capsys):
    """Crops as large as its test images, in the order of colours and with the mean it takes."""
    name, images = 'resnet18_8xb16_cifar10', photograph_crops(2, 32).mul(255).round()
    (found,) = run(name, '--factors', 2, '--num-images', 2, '--cfg-options',
                   'test_dataloader.dataset.data_root=absent',
                   'test_dataloader.dataset.download=False')  # fmt: skip
    assert found['images']['source'].startswith("crops of scikit-learn's two photographs, for the")
    assert found['accuracy_note'] == 'no accuracy: the model is untrained'
    torch.manual_seed(0)
    model = get_model(name)
    mean, std = (torch.tensor(model._config.data_preprocessor[k]).view(3, 1, 1)
                 for k in ('mean', 'std'))  # fmt: skip
    inputs = ((images - mean) / std).float()
    expected = equivariance_error(model, inputs, [2.0], layers=['backbone'])['backbone']
    assert found['layers']['backbone']['mean'] == close(expected.mean)
    assert '--pretrained takes those released' in capsys.readouterr().err


def test_images_of_several_sizes(tmp_path, run):
    """The error is that of each image for itself: none is padded to the size of another."""
    pixels = torch.randint(0, 255, (3, 40, 40), dtype=torch.uint8).numpy()
    for name, image in zip('abc', (pixels[0], pixels[1, :32], pixels[2])):
        mmcv.imwrite(image, str(tmp_path / 'images' / name / 'deeper' / f'{name}.png'))
    folders = [tmp_path / 'images', *sorted((tmp_path / 'images').iterdir())]
    together, *alone = (run(PLAIN, '--images', f, '--factors', 2)[0] for f in folders)
    means = [result['layers']['backbone']['mean'][0] for result in alone]
    assert together['layers']['backbone']['mean'][0] == pytest.approx(sum(means) / 3, rel=1e-4)
    assert together['images']['source'].endswith('of 2 sizes')
    assert together['images']['size'] == [40, 40] and together['images']['count'] == 3
