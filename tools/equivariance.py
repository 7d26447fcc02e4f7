# Copyright (c) mmscale contributors.
"""Measure accuracy, AP or mIoU, and equivariance error of models against scale.

``python tools/equivariance.py CONFIG[:CHECKPOINT] ...``

The tool prints a table and writes ``equivariance.json``, ``.csv``, ``.png`` and ``.svg`` to
``--out``. The folder ``models/`` there keeps the measurements of each model: an interrupted run
resumes from them.
"""

import argparse
import json
import sys
import time
import warnings
from dataclasses import asdict, fields
from pathlib import Path

import torch

import mmscale
from mmscale.datasets.images import images_below
from mmscale.engine import models, report, study
from mmscale.engine.accuracy import measure_accuracy
from mmscale.engine.errors import one_line_errors
from mmscale.engine.study import Settings, digest
from mmscale.evaluation.equivariance import FACTORS, check_factors
from mmscale.evaluation.features import check_layers
from mmscale.evaluation.scaling import RESAMPLINGS
from mmscale.scale_space.action import BETWEEN_LEVELS, CANVASES
from mmscale.visualization import make_folder, write_figure

LEAST = dict(num_images=1, accuracy_images=1, batch_size=1, border=0, seed=0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, default = parser.add_argument, '; default: %(default)s'
    add('models', metavar='MODEL', nargs='+',
        help=f'{models.HELP}; without a checkpoint the weights are random')  # fmt: skip
    add('--names', nargs='+', metavar='NAME', help='names of the models; default: of the configs')
    add('--layers', nargs='+', metavar='LAYER', default=['backbone'],
        help='layers whose error is measured, such as backbone.layer1 backbone.layer2; default: '
        'backbone, for its last feature map')  # fmt: skip
    add('--factors', nargs='+', metavar='S', type=float, default=FACTORS,
        help='scale factors: everything is s times smaller' + default)  # fmt: skip
    add('--num-images', type=int, default=64, help='the error takes the first n images' + default)
    add('--images', metavar='FOLDER', type=Path,
        help="images in this folder and in folders below it, in place of the config's test data; "
        'without accuracy')  # fmt: skip
    add('--accuracy-images', type=int, default=1000,
        help='most images of the accuracy, spread evenly over the test data' + default)  # fmt: skip
    add('--metric', metavar='NAME',
        help='metric of a detector or segmentor in table and figure, a name of its test_evaluator, '
        'such as coco/bbox_mAP_s; default: the mean AP or IoU; the JSON has all')  # fmt: skip
    add('--no-accuracy', action='store_true', help='measure the error alone')
    add('--canvas', choices=CANVASES, default='shrink',
        help='images of the error shrink, or keep their size' + default)  # fmt: skip
    add('--resampling', choices=RESAMPLINGS, default='matched',
        help='how images and features are scaled' + default)  # fmt: skip
    add('--between-levels', choices=BETWEEN_LEVELS, default='cubic',
        help='how scale spaces are interpolated between levels' + default)  # fmt: skip
    add('--border', metavar='SAMPLES', type=int, default=0,
        help='samples to leave out along each side of a feature map' + default)  # fmt: skip
    add('--breakdown', action='store_true',
        help='split the error of networks on scale spaces into lift, body, reading between levels '
        'and --border')  # fmt: skip
    add('--unsquared', action='store_true', help='take the square root of the error')
    add('--batch-size', type=int, default=8, help=default[2:])
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help=default[2:])
    add('--seed', type=int, default=0, help='seed of random weights' + default)
    add('--out', metavar='FOLDER', default='work_dirs/equivariance', help=default[2:])
    models.add_config_options(parser, pretrained=True)
    return parser.parse_args()


def check_arguments(args: argparse.Namespace) -> Settings:
    """Check that the arguments are in range and return them as settings."""
    try:
        factors = check_factors(args.factors)
    except ValueError as error:
        raise ValueError(f'--factors: {error}') from error
    if list(factors) != sorted(set(factors)) or factors[-1] == 1:
        raise ValueError(f'--factors: must grow and end above 1, got {args.factors}')
    for name, least in LEAST.items():
        if getattr(args, name) < least:
            raise ValueError(
                f'--{name.replace("_", "-")}: must be at least {least}, got {getattr(args, name)}'
            )
    if args.breakdown and args.canvas != 'shrink':
        raise ValueError(f'--breakdown: is measured on the canvas shrink, got {args.canvas}')
    if args.images and not args.images.is_dir():
        raise FileNotFoundError(f'--images: there is no folder {args.images}')
    try:
        torch.zeros(1, device=args.device)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f'--device: {args.device} cannot be used ({error})') from error
    args.out = make_folder(args.out)
    same = {field.name for field in fields(Settings)} & vars(args).keys()
    chosen = dict(
        factors=factors,
        layers=tuple(dict.fromkeys(args.layers)),
        folder=args.images,
        accuracy_images=None if args.no_accuracy or args.images else args.accuracy_images,
        squared=not args.unsquared,
    )
    return Settings(**{name: getattr(args, name) for name in same} | chosen)


def load(word: str, layers: tuple, args: argparse.Namespace) -> models.Model:
    """Load a model and check that it has the layers."""
    model = models.load_model(word, args.cfg_options, args.pretrained, args.seed)
    try:
        check_layers(model.network, layers)
    except ValueError as error:
        raise ValueError(f'--layers: in {model.path} {error}') from error
    return model


def digest_files(model: models.Model, settings: Settings) -> str:
    """Return a digest of the images and labels for the measurements of a model."""
    if settings.folder:
        paths = images_below(settings.folder)[: settings.num_images]
        return digest(path.read_bytes() for path in paths)
    try:
        return study.digest_data(model, study.build_test_data(model))
    except study.MissingData:
        return 'photographs'


def describe(model: models.Model, settings: Settings, args: argparse.Namespace) -> dict:
    """Return all that determines the measured values, and a fingerprint of it."""
    code = sorted(Path(mmscale.__file__).parent.rglob('*.py')) + [Path(__file__)]
    weights = []
    for name, tensor in model.network.state_dict().items():
        values = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        weights += [name.encode(), values.tobytes()]
    packages = 'mmscale', 'torch', 'numpy', 'mmcv', 'mmengine', 'mmpretrain'
    described = dict(
        config_sha256=digest([json.dumps(model.cfg.to_dict(), default=str).encode()]),
        weights_sha256=digest(weights),
        data=digest_files(model, settings),
        code_sha256=digest(path.read_bytes() for path in code if '.mim' not in path.parts),
        versions={name: sys.modules[name].__version__ for name in packages},
        device=torch.device(args.device).type,
        seed=args.seed,
        settings=report.plain(asdict(settings)),
    )
    checkpoint = model.checkpoint and dict(path=model.checkpoint, sha256=None)
    if checkpoint and Path(model.checkpoint).is_file():
        checkpoint['sha256'] = digest([Path(model.checkpoint).read_bytes()])
    return dict(
        fingerprint=digest([json.dumps(described).encode()]),
        config=dict(path=model.path, options=args.cfg_options),
        checkpoint=checkpoint,
        factors=settings.factors,
        **described,
    )


def read_result(path: Path, fingerprint: str) -> dict:
    """Return the measurements of an earlier run with the same fingerprint, {} if there are none."""
    try:
        result = json.loads(path.read_text(encoding='utf-8'))
        return result if result['fingerprint'] == fingerprint else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def measure(model: models.Model, name: str, settings: Settings, args: argparse.Namespace) -> dict:
    """Measure a model; measurements of an earlier run are kept and not repeated."""
    header = describe(model, settings, args)
    path = args.out / 'models' / f'{Path(model.path).stem}-{header["fingerprint"][:12]}.json'
    result = {**read_result(path, header['fingerprint']), **header, 'name': name}
    # The accuracy comes first, because it checks the classes of the labels.
    parts = dict(accuracy=measure_accuracy, layers=study.measure_errors)
    missing = [key for key in parts if key not in result]
    print(f'{name}: {"measuring" if missing else "measured already, see"} {path}', flush=True)
    model.network.to(args.device)
    for key in missing:
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always', UserWarning)
            try:
                result.update(parts[key](model, settings))
            except (RuntimeError, ValueError) as error:
                raise ValueError(f'{name}: {error}') from error
        notes = dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning)
        result[f'{key}_warnings'] = list(notes)
        result[f'{key}_seconds'] = round(time.perf_counter() - start, 1)
        report.write_json(path, result)
    model.network.cpu()
    return result


def how(settings: dict) -> str:
    """Describe how an error was measured, in words."""
    norms = 'squared norms' if settings['squared'] else 'norms'
    return (f'canvas {settings["canvas"]}, resampling {settings["resampling"]}, '
            f'{settings["between_levels"]} between levels, '
            f'border {settings["border"]}, {norms}')  # fmt: skip


def print_notes(results: list[dict]) -> None:
    """Print the notes to the table: settings, images and warnings."""
    print(f'\nerror: {how(results[0]["settings"])}')
    for result in results:
        images = result['images']
        size = 'x'.join(map(str, images['size']))
        print(f'{result["name"]}: error on {images["count"]} images of {size}, {images["source"]}; '
              f'{result["accuracy_note"]}')  # fmt: skip
        for text in result['layers_warnings'] + result['accuracy_warnings']:
            print(f'  warning: {text}')
    if len({result['images']['sha256'] for result in results}) > 1:
        print('not all models saw the same pixels: test data, pipeline or normalisation differ')


@one_line_errors()
def main() -> None:
    args = parse_args()
    torch.backends.cudnn.allow_tf32 = False  # a mantissa of ten bits would show in the error
    settings = check_arguments(args)
    (args.out / 'models').mkdir(exist_ok=True)
    loaded = [load(word, settings.layers, args) for word in args.models]
    names = models.name_models(loaded, args.names)
    results = [measure(model, name, settings, args) for model, name in zip(loaded, names)]
    print(f'\n{report.table(results)}')
    if settings.breakdown:
        print(f'\n{report.breakdown_table(results) or "no network on scale spaces to break down"}')
    print_notes(results)
    # Accuracy of a guess in percent, if all models have the same number of classes.
    heads = [getattr(model.network, 'head', None) for model in loaded]
    classes = {getattr(head, 'num_classes', None) for head in heads}
    chance = 100 / classes.pop() if len(classes) == 1 and None not in classes else None
    report.write_json(args.out / 'equivariance.json', dict(models=results))
    report.write_text(args.out / 'equivariance.csv', report.to_csv(results))
    figure = report.draw(results, chance, how(results[0]['settings']))
    write_figure(figure, args.out, 'equivariance')


if __name__ == '__main__':
    main()
