# Copyright (c) mmscale contributors.
import csv
import json
import sys

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


def digits(indices, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
    """Test digits as the models take them, normalised by hand, and their labels."""
    dataset = ScaleDigits('test', pipeline=[], **kwargs)
    items = [dataset.get_data_info(i) for i in indices]
    images = torch.stack([torch.from_numpy(item['img']).float()[None] for item in items])
    return (images - 27.5) / 63.0, torch.tensor([item['gt_label'] for item in items])


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


def read_study(out) -> list[dict]:
    return json.loads((out / 'equivariance.json').read_text())['models']


def table_of(printed: str) -> str:
    return printed[printed.index('accuracy in %') :]


def test_all_files_are_there_and_agree(study):
    out, result = study
    assert (out / 'equivariance.png').read_bytes().startswith(b'\x89PNG')
    assert '<svg' in (out / 'equivariance.svg').read_text()
    assert not list(out.rglob('*.part*'))

    models = {model['name']: model for model in read_study(out)}
    untrained = 'resnet18-w8_1xb50-10e_scaledigits (untrained)'
    assert list(models) == [untrained, SCALE]
    with open(out / 'equivariance.csv', encoding='utf-8') as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        model = models[line['model']]
        found = dict(model['layers'], **{
            'backbone.lift': model['lift'], 'backbone.body': model['body'], '': model['accuracy'],
        })[line['layer']]  # fmt: skip
        place = FACTORS.index(float(line['factor']))
        assert float(line['mean']) == found['mean'][place]
        assert float(line['standard_error']) == found['standard_error'][place]
        assert int(line['n']) == found['n'][place]
    assert len(lines) == len(FACTORS) * (2 * len(LAYERS) + 3)

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
            assert found['mean'] == pytest.approx(errors[layer].mean.tolist(), rel=1e-4)
            assert found['standard_error'] == pytest.approx(
                errors[layer].standard_error.tolist(), rel=1e-4
            )
            assert found['n'] == [6] * 3
        assert model['images']['size'] == [32, 32] and model['images']['count'] == 6


def test_the_hook_in_a_test_finds_the_same(study, networks, tmp_path, monkeypatch):
    """tools/test.py with an EquivarianceHook, on the same test data, in other batches."""
    config = tmp_path / 'hooked.py'
    hook = dict(type='mmscale.EquivarianceHook', layers=LAYERS, factors=FACTORS, num_images=6)
    config.write_text(f"_base_ = {str(ROOT / 'configs/dss' / f'{SCALE}.py')!r}\n"
                      f'custom_hooks = [{hook!r}]\n')  # fmt: skip
    run_here(
        monkeypatch, 'tools/test.py', config, networks[2], '--work-dir', tmp_path / 'work',
        '--out', tmp_path,
        '--cfg-options', 'test_dataloader.batch_size=4', 'test_dataloader.dataset.indices=8',
    )  # fmt: skip
    logged = json.loads((tmp_path / 'metrics.json').read_text())
    for layer, curve in read_study(study[0])[1]['layers'].items():
        for factor, mean in list(zip(FACTORS, curve['mean']))[1:]:
            assert logged[f'equivariance/{layer}/s{factor:g}'] == pytest.approx(mean, rel=1e-6)


def test_lift_and_body_are_measured_alone(study, networks):
    plain, scale = read_study(study[0])
    assert plain['lift'] is None and plain['body'] is None
    backbone = networks[1].backbone
    images, _ = digits(range(6))
    lift = equivariance_error(backbone.lift, images, FACTORS, scale_space=backbone.grid)
    body = equivariance_error(
        backbone.body, backbone.lift(images), FACTORS, scale_space=backbone.grid
    )
    assert scale['lift']['mean'] == pytest.approx(lift.mean.tolist(), rel=1e-4)
    assert scale['body']['mean'][:2] == pytest.approx(body.mean.tolist()[:2], rel=1e-4)
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
    assert plain['config_sha256'] != scale['config_sha256']
    assert scale['settings']['layers'] == list(LAYERS)
    assert scale['settings']['canvas'] == 'shrink' and scale['settings']['squared'] is True
    assert scale['versions']['torch'] == torch.__version__ and scale['seed'] == 0
    assert scale['images']['source'] == 'the first test images of ScaleDigits'
    assert scale['images']['sha256'] == plain['images']['sha256']


def test_goes_on_where_it_was_stopped(study, networks, tmp_path):
    """As after a kill: nothing is there of one model, and the error alone of the other."""
    out, first = study
    for path in (out / 'models').iterdir():
        result = json.loads(path.read_text())
        if result['config']['path'] == SCALE:
            result['layers'][LAYERS[0]]['mean'][1] = 0.125  # so that it is seen where it is from
            del result['accuracy']
            (tmp_path / 'models').mkdir()
            (tmp_path / 'models' / path.name).write_text(json.dumps(result))
    command = [TOOL, PLAIN, f'{SCALE}:{networks[2]}', *ARGUMENTS, '--out', tmp_path]
    second = run_tool(*command)
    assert second.returncode == 0, second.stderr
    # Of the plain model the error, of the other the accuracy.
    assert second.stderr.count('  equivariance error\n') == second.stderr.count('  accuracy\n') == 1
    plain, scale = read_study(tmp_path)
    assert scale['layers'][LAYERS[0]]['mean'][1] == 0.125
    assert scale['accuracy'] == read_study(out)[1]['accuracy']
    assert plain['layers'] == read_study(out)[0]['layers']

    third = run_tool(*command, '--names', 'CNN', 'DSS')
    assert third.returncode == 0, third.stderr
    assert 'measuring' not in third.stdout and 'equivariance error\n' not in third.stderr
    assert [model['name'] for model in read_study(tmp_path)] == ['CNN', 'DSS']
    assert [model['layers'] for model in read_study(tmp_path)] == [plain['layers'], scale['layers']]


def in_process(monkeypatch, *command) -> None:
    """Runs the tool without a new interpreter."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [TOOL, *map(str, command)])
    import equivariance

    equivariance.main()


def test_other_settings_are_measured_anew(networks, tmp_path, monkeypatch, capsys):
    """Settings reach the measurement, and results of others are not mistaken for theirs."""
    layer = 'backbone.layer1'
    common = [PLAIN, '--layers', layer, '--factors', 2, '--num-images', 3, '--out', tmp_path]
    images, _ = digits(range(3))
    for flags, arguments in [
        ([], {}),
        (['--canvas', 'keep'], dict(canvas='keep')),
        (['--resampling', 'ideal', '--border', 1], dict(resampling='ideal', border=1)),
        (['--unsquared'], dict(squared=False)),
    ]:
        in_process(monkeypatch, *common, *flags)
        found = read_study(tmp_path)[0]['layers'][layer]['mean']
        expected = equivariance_error(networks[0], images, [2.0], layers=[layer], **arguments)
        assert found == pytest.approx(expected[layer].mean.tolist(), rel=1e-4)
    in_process(monkeypatch, *common, '--unsquared', '--seed', 1)
    assert read_study(tmp_path)[0]['layers'][layer]['mean'] != found
    assert capsys.readouterr().out.count(': measuring ') == 5
    assert len(list((tmp_path / 'models').iterdir())) == 5


def test_other_test_data_are_measured_anew(networks, tmp_path, monkeypatch):
    """The config names a folder, and does not change with what lies in it."""
    config = f"""
_base_ = '{ROOT / PLAIN}'
data = dict(type='CustomDataset', data_root='{tmp_path}/images', with_label=True)
pipeline = [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')]
test_dataloader = dict(dataset=dict(_delete_=True, pipeline=pipeline, **data))
"""
    (tmp_path / 'folder.py').write_text(config)
    rng = np.random.default_rng(0)

    def write(*names):
        for name in names:
            pixels = rng.integers(256, size=(32, 32), dtype=np.uint8)
            mmcv.imwrite(pixels, f'{tmp_path}/images/a/{name:03d}.png')

    write(*range(300))
    found = []
    # One of the images that are measured, then one that is none of them and might be one day.
    for changed in ((), (1,), (299,)):
        write(*changed)
        for _ in range(2):  # the second time it is known
            in_process(monkeypatch, tmp_path / 'folder.py', '--factors', 2, '--num-images', 3,
                       '--no-accuracy', '--out', tmp_path / 'out')  # fmt: skip
            found.append(read_study(tmp_path / 'out')[0])
    means = [result['layers']['backbone']['mean'] for result in found]
    assert means[0] == means[1] != means[2] == means[3] == means[4]
    names = [result['fingerprint'] for result in found]
    assert names[::2] == names[1::2] and len(set(names)) == 3


def test_breakdown(networks, tmp_path, monkeypatch, capsys):
    common = ['--factors', 1, 1.2, 1.3, '--num-images', 3, '--out', tmp_path, '--no-accuracy',
              '--breakdown', '--border', 1]  # fmt: skip
    in_process(monkeypatch, PLAIN, f'{SCALE}:{networks[2]}', *common, '--between-levels', 'linear')
    plain, model = read_study(tmp_path)
    assert plain['breakdown'] is None
    assert model['settings']['between_levels'] == 'linear'
    images, factors = digits(range(3))[0], [1, 1.2, 1.3]
    backbone, arguments = networks[1].backbone, dict(between_levels='linear', border=1)
    expected = error_breakdown(backbone, images, factors, **arguments)
    columns = dict(whole=expected.whole, **expected.parts)
    assert list(model['breakdown']) == list(columns)
    for name, values in columns.items():
        found = model['breakdown'][name]['mean']
        # One float32 network run twice: of what is 0 but for rounding nothing more is known.
        assert found == pytest.approx(values.mean(1).tolist(), rel=1e-3, abs=1e-9), name
    found = equivariance_error(networks[1], images, factors, layers=['backbone'], **arguments)
    assert model['layers']['backbone']['mean'] == pytest.approx(
        found['backbone'].mean.tolist(), rel=1e-3
    )

    printed = capsys.readouterr().out
    block = printed[printed.index('error of the backbone') :].splitlines()
    assert block[1].split()[1:] == ['0.0e+00'] + [
        f'{mean:.1e}' for mean in model['breakdown']['whole']['mean'][1:]
    ]
    shares = {line[:14].strip(): line.split('%')[:2] for line in block[2:6]}
    assert list(shares) == list(columns)[1:]
    for place in (0, 1):
        total = sum(float(cells[place].split()[-1]) for cells in shares.values())
        assert total == pytest.approx(100, abs=0.3)
    with open(tmp_path / 'equivariance.csv', encoding='utf-8') as file:
        rows = [line for line in csv.DictReader(file) if line['part'].startswith('breakdown')]
    assert len(rows) == len(factors) * len(columns)

    in_process(monkeypatch, PLAIN, *common)
    assert 'no network on scale spaces to break down' in capsys.readouterr().out


def test_a_scale_space_of_one_level_is_an_ordinary_network(tmp_path, monkeypatch):
    """It has a lift that does nothing, and no level for its body to move to."""
    in_process(monkeypatch, SCALE, '--factors', 2, '--num-images', 2, '--out', tmp_path,
               '--cfg-options', 'model.backbone.scale_space.num_scales=1')  # fmt: skip
    (model,) = read_study(tmp_path)
    assert model['lift'] is None and model['body'] is None
    assert model['layers']['backbone']['mean'][0] > 1e-3


def test_images_of_a_folder(networks, tmp_path, monkeypatch, capsys):
    images, _ = digits(range(4))
    folder = tmp_path / 'images'
    for i, image in enumerate(images):
        mmcv.imwrite((image[0] * 63 + 27.5).round().byte().numpy(), str(folder / f'{3 - i}.png'))
    (folder / 'notes.txt').write_text('not an image')
    command = [PLAIN, '--images', folder, '--factors', 2, '--num-images', 3, '--out', tmp_path]
    in_process(monkeypatch, *command)
    (model,) = read_study(tmp_path)
    error = equivariance_error(networks[0], images.flip(0)[:3], [2.0], layers=['backbone'])
    assert model['layers']['backbone']['mean'] == pytest.approx(
        error['backbone'].mean.tolist(), rel=1e-4
    )
    assert model['accuracy'] is None and model['images']['count'] == 3
    assert 'no accuracy: images of a folder have no labels' in capsys.readouterr().out

    mmcv.imwrite(np.zeros((32, 32), np.uint8), str(folder / '0.png'))  # another first image
    in_process(monkeypatch, *command)
    assert read_study(tmp_path)[0]['layers'] != model['layers']


def test_other_datasets_are_scaled_on_their_canvas(networks, tmp_path):
    """An ordinary dataset of files: the accuracy is on L_s of what the model takes."""
    images, labels = digits(range(40), scale=1.0)
    order = labels.argsort(stable=True)  # in which the dataset lists its folders
    images, labels = images[order], labels[order]
    assert labels.unique().tolist() == list(range(10))
    for i, (image, label) in enumerate(zip(images, labels)):
        path = tmp_path / 'data' / str(label.item()) / f'{i:02}.png'
        mmcv.imwrite((image[0] * 63 + 27.5).round().byte().numpy(), str(path))
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
        ([PLAIN, PLAIN], '--names: 2 models need as many different names'),
        ([PLAIN, '--layers', 'backbone.layer5'], f'--layers: in {PLAIN} there is no layer '
         "'backbone.layer5'; the nearest names are backbone.layer"),
        ([PLAIN, '--factors', '0.5'], '--factors: factors must be at least 1 and finite, got 0.5'),
        ([PLAIN, '--factors', '1'], '--factors: must grow and end above 1'),
        ([PLAIN, '--factors', '3', '2'], '--factors: must grow and end above 1'),
        ([PLAIN, '--num-images', '0'], '--num-images: must be at least 1, got 0'),
        ([PLAIN, '--border', '-1'], '--border: must be at least 0, got -1'),
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
    def message(folder):
        line = exit_message(monkeypatch, TOOL, PLAIN, '--images', folder, '--out', tmp_path / 'out')
        return line.removeprefix('error: ')

    folder = tmp_path / 'images'
    folder.mkdir()
    (folder / 'notes.txt').write_text('not an image')
    assert message(folder).startswith(f'{folder} holds no images, which are files that end in .jpg')
    (folder / 'b.png').write_bytes(b'not an image')
    assert f'the image {folder / "b.png"} cannot be read: ' in message(folder)


def test_without_its_data_a_model_is_measured_on_photographs(tmp_path, monkeypatch, capsys):
    """Crops as large as its test images, in the order of colours and with the mean it takes."""
    name, images = 'resnet18_8xb16_cifar10', photograph_crops(2, 32).mul(255).round()
    in_process(monkeypatch, name, '--factors', 2, '--num-images', 2, '--out', tmp_path,
               '--cfg-options', 'test_dataloader.dataset.data_root=absent',
               'test_dataloader.dataset.download=False')  # fmt: skip
    (found,) = read_study(tmp_path)
    assert found['images']['source'].startswith("crops of scikit-learn's two photographs, for the")
    assert found['accuracy_note'] == 'no accuracy: the model is untrained'
    torch.manual_seed(0)
    model = get_model(name)
    mean, std = (torch.tensor(model._config.data_preprocessor[k]).view(3, 1, 1)
                 for k in ('mean', 'std'))  # fmt: skip
    inputs = ((images - mean) / std).float()
    expected = equivariance_error(model, inputs, [2.0], layers=['backbone'])['backbone']
    assert found['layers']['backbone']['mean'] == pytest.approx(expected.mean.tolist(), rel=1e-4)
    assert '--pretrained takes those released' in capsys.readouterr().err


def test_images_of_several_sizes(networks, tmp_path, monkeypatch):
    """The error is that of each image for itself: none is padded to the size of another."""
    folder = tmp_path / 'images'
    folder.mkdir()
    pixels = torch.randint(0, 255, (3, 40, 40), dtype=torch.uint8).numpy()
    for name, image in zip('abc', (pixels[0], pixels[1, :32], pixels[2])):
        mmcv.imwrite(image, str(folder / name / 'deeper' / f'{name}.png'))
    found = []
    for chosen in (folder, *(tmp_path / name for name in 'abc')):
        if chosen != folder:
            chosen.mkdir()
            (folder / chosen.name / 'deeper' / f'{chosen.name}.png').rename(chosen / 'image.png')
        in_process(
            monkeypatch, PLAIN, '--images', chosen, '--factors', 2, '--out', tmp_path / 'out'
        )
        found.append(read_study(tmp_path / 'out')[0])
    together, *alone = found
    means = [result['layers']['backbone']['mean'][0] for result in alone]
    assert together['layers']['backbone']['mean'][0] == pytest.approx(sum(means) / 3, rel=1e-4)
    assert together['images']['source'].endswith('of 2 sizes')
    assert together['images']['size'] == [40, 40] and together['images']['count'] == 3
