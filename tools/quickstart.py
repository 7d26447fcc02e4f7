# Copyright (c) mmscale contributors.
"""Trains an ordinary and two scale-equivariant ResNets on digits and compares them over scale.

All are trained by ``tools/train.py`` on digits that are 1 to 1.5 times smaller than full size, and
tested on held-out digits that are 1 to 3 times smaller. A table on the terminal and a figure show
how the accuracy holds, and how far the features are from moving as the image is scaled. Run again,
it goes on where it was stopped.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

from mmscale.evaluation import equivariance_error
from mmscale.evaluation.equivariance import FACTORS

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    'ResNet': 'configs/resnet/resnet18-w8_1xb50-10e_scaledigits.py',
    'DSS v1': 'configs/dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py',
    'pyramid': 'configs/dss/scaleresnet18-pyramid-s3-w8_1xb50-10e_scaledigits.py',
}
COLOURS = {'ResNet': '#7f7f7f', 'DSS v1': '#1f77b4', 'pyramid': '#d62728'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='one training each')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/quickstart'))
    return parser.parse_args()


def train(config: str, seed: int, work_dir: Path) -> Path:
    """Trains a config unless it was trained already; returns the checkpoint."""
    cfg = Config.fromfile(ROOT / config)
    checkpoint = work_dir / f'epoch_{cfg.train_cfg.max_epochs}.pth'
    if not checkpoint.is_file():
        command = ['tools/train.py', config, '--work-dir', str(work_dir.resolve()), '--resume']
        command += ['--cfg-options', f'randomness.seed={seed}']
        print('\n$ python', *command, flush=True)
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    return checkpoint


def load(config: str, checkpoint: Path) -> tuple[Config, torch.nn.Module]:
    cfg = Config.fromfile(ROOT / config)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    # Our own file of a moment ago: it may hold more than weights.
    state = torch.load(checkpoint, map_location='cpu', weights_only=False)
    model.load_state_dict(state['state_dict'])
    return cfg, model.eval()


@torch.no_grad()
def accuracy(cfg: Config, model: torch.nn.Module, scale: float) -> float:
    """Share of test digits of one size that are recognised, in percent."""
    right, count = 0, 0
    for batch in test_batches(cfg, scale):
        for sample in model.test_step(batch):
            right += int(sample.pred_label == sample.gt_label)
            count += 1
    return 100 * right / count


def test_batches(cfg: Config, scale: float):
    loader = dict(cfg.test_dataloader, num_workers=0, persistent_workers=False)
    loader['dataset'] = dict(loader['dataset'], scale=scale)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return Runner.build_dataloader(loader, seed=0)


def errors(cfg: Config, model: torch.nn.Module) -> dict[str, list[float]]:
    """How the features change as 100 images of full-size digits shrink.

    The last feature maps of the whole backbone and of what follows its lift, on shrinking canvases;
    and the vector that the classifier sees, on a canvas that keeps its size as in the datasets.
    """
    images = model.data_preprocessor(next(iter(test_batches(cfg, 1.0))))['inputs']
    backbone, neck = model.backbone, model.neck
    grid = getattr(backbone, 'grid', None)
    network = equivariance_error(backbone, images, scale_space=grid)
    vector = equivariance_error(
        lambda x: neck(backbone(x)), images, scale_space=grid, canvas='keep'
    )
    body = network
    if grid is not None:
        body = equivariance_error(backbone.body, backbone.lift(images), scale_space=grid)
    return {
        key: result.mean.tolist()
        for key, result in dict(network=network, body=body, vector=vector).items()
    }


def measure(name: str, seed: int, out: Path) -> dict:
    """Trains and measures one model, unless its results are there already."""
    folder = out / f'{Path(CONFIGS[name]).stem}_seed{seed}'
    results = folder / 'results.json'
    checkpoint = train(CONFIGS[name], seed, folder)
    if not results.is_file() or results.stat().st_mtime < checkpoint.stat().st_mtime:
        cfg, model = load(CONFIGS[name], checkpoint)
        print(f'measuring {name} at {len(FACTORS)} scale factors', flush=True)
        values = dict(accuracy=[accuracy(cfg, model, 1 / s) for s in FACTORS])
        values.update(errors(cfg, model))
        write(results, json.dumps(values, indent=2))
    return json.loads(results.read_text())


def write(path: Path, text: str) -> None:
    """Writes a file as a whole or not at all."""
    part = path.with_suffix('.part')
    part.write_text(text)
    os.replace(part, path)


def table(results: dict[str, list[dict]]) -> str:
    """Means over seeds, a line a model."""
    lines = []

    def add(title: str, key: str, form: str):
        lines.append(
            f'{title:<34}' + ''.join(f'{f"1/{s:g}" if s > 1 else "1":>9}' for s in FACTORS)
        )
        for name, runs in results.items():
            means = np.mean([run[key] for run in runs], axis=0)
            lines.append(f'  {name:<32}' + ''.join(f'{mean:>9{form}}' for mean in means))
        lines.append('')

    add('accuracy in %, digits of size', 'accuracy', '.1f')
    add('change of the pooled features', 'vector', '.2f')
    add('equivariance error, whole network', 'network', '.0e')
    add('equivariance error, body alone', 'body', '.0e')
    return '\n'.join(lines)


def draw(results: dict[str, list[dict]], path: Path) -> None:
    """Accuracy, invariance and equivariance error against scale."""
    figure, panels = plt.subplots(1, 3, figsize=(13, 4), layout='constrained')
    keys = ('accuracy', 'vector', 'network')
    for name, runs in results.items():
        for axes, key in zip(panels, keys):
            values = np.array([run[key] for run in runs])
            shown = slice(int(key == 'network'), None)  # the error at 1 is 0, off a log axis
            axes.plot(FACTORS[shown], values.mean(0)[shown], 'o-', ms=4, color=COLOURS[name],
                      label=name)  # fmt: skip
            for run in values if len(runs) > 1 else ():
                axes.plot(FACTORS[shown], run[shown], color=COLOURS[name], alpha=0.25, lw=0.8)
    accuracy, vector, network = panels
    accuracy.set(title='Accuracy on 500 held-out digits', ylabel='accuracy (%)', ylim=(0, 102))
    accuracy.axhline(10, color='black', lw=0.8, ls=':')
    accuracy.text(1.02, 11, 'chance', va='bottom', fontsize=8)
    accuracy.legend(frameon=False, loc='center right')
    vector.set(title='Change of the features that the classifier sees', ylim=(0, None),
               ylabel=r'invariance error $\Delta(s)$')  # fmt: skip
    network.set(title='Last feature maps, whole network', yscale='log',
                ylabel=r'equivariance error $\Delta(s)$')  # fmt: skip
    for axes in panels:
        axes.axvspan(1, 1.5, color='black', alpha=0.07, lw=0)
        axes.set_xlabel('scale factor s: digits are s times smaller')
        axes.set_xticks(FACTORS, [f'{s:g}' for s in FACTORS], fontsize=8)
        axes.title.set_fontsize(11)
        axes.grid(alpha=0.3)
    accuracy.text(1.25, 2, 'trained on', ha='center', va='bottom', fontsize=8)
    part = path.with_suffix('.part.png')
    figure.savefig(part, dpi=130)
    os.replace(part, path)


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = {name: [measure(name, seed, args.out) for seed in args.seeds] for name in CONFIGS}
    print(f'\nMeans over {len(args.seeds)} training run(s), seeds {args.seeds}\n')
    print(table(results))
    write(args.out / 'quickstart.json', json.dumps(dict(factors=FACTORS, models=results), indent=2))
    draw(results, args.out / 'quickstart.png')
    print(f'figure: {(args.out / "quickstart.png").resolve()}')


if __name__ == '__main__':
    main()
