# Copyright (c) mmscale contributors.
"""Train ordinary and scale-equivariant ResNets on digits and compare them over scale.

``tools/train.py`` trains all networks on digits that are 1 to 1.5 times smaller than full size,
one network per CPU core at a time. They are tested on held-out digits that are 1 to 3 times
smaller. A table and a figure show the accuracy and the equivariance error against scale. An
interrupted run resumes; networks of other code or configs are trained anew.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from mmengine.config import Config

import mmscale
from mmscale.engine.accuracy import measure_accuracy
from mmscale.engine.errors import one_line_errors
from mmscale.engine.models import Model, load_model
from mmscale.engine.report import write_json
from mmscale.engine.safe_loading import add_trust_option
from mmscale.engine.study import Settings, digest, measure_errors
from mmscale.evaluation.equivariance import FACTORS
from mmscale.visualization import save_figure

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    'ResNet': 'configs/resnet/resnet18-w8_1xb50-10e_scaledigits.py',
    'ResNet, blur': 'configs/resnet/resnet18-blur-w8_1xb50-10e_scaledigits.py',
    'DSS v1': 'configs/dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py',
    'economical-up1': 'configs/aa_pyramid/scaleresnet18-economical-up1-w8_1xb50-10e_scaledigits.py',
}
COLOURS = dict(zip(CONFIGS, ('#7f7f7f', '#000000', '#1f77b4', '#d62728')))
# Twice the epochs of the configs: after 200 steps the networks are half a point below their best.
EPOCHS = 20
LOSS = re.compile(r'Epoch\(train\).* loss: (\S+)')
EPOCH = re.compile(r'Saving checkpoint at (\d+) epochs')
BAR = 24


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='seeds, one per training')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/quickstart'))
    add_trust_option(parser)
    return parser.parse_args()


def folder_of(out: Path, name: str, seed: int) -> Path:
    """Return the folder of a training; its name has a digest of the code and the config."""
    parts = [Config.fromfile(ROOT / CONFIGS[name]).pretty_text.encode()]
    parts += [path.read_bytes() for path in sorted(Path(mmscale.__file__).parent.rglob('*.py'))
              if '.mim' not in path.parts]  # fmt: skip
    return out / f'{Path(CONFIGS[name]).stem}_seed{seed}_{digest(parts)[:8]}'


class Progress:
    """A progress bar over the epochs of all trainings, printed anew for each message."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.lock = total, 0, Lock()

    def advance(self, epochs: int, text: str = '') -> None:
        """Count ``epochs`` as done and, with a ``text``, print the bar and the text."""
        with self.lock:
            self.done += epochs
            bar = '#' * (BAR * self.done // self.total)
            if text:
                print(f'[{bar:-<{BAR}}] {self.done:>3}/{self.total} epochs  {text}', flush=True)


def train(name: str, seed: int, out: Path, progress: Progress, threads: int) -> None:
    """Train a model unless it is trained; raise ``RuntimeError`` with the end of a failed log."""
    folder = folder_of(out, name, seed).resolve()
    if (folder / f'epoch_{EPOCHS}.pth').is_file():
        return progress.advance(EPOCHS)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, 'tools/train.py', CONFIGS[name], '--work-dir', str(folder)]
    command += ['--resume', '--cfg-options', f'randomness.seed={seed}']
    command += [f'train_cfg.max_epochs={EPOCHS}', f'param_scheduler.total_steps={EPOCHS}']
    path, last, loss = folder / 'train.log', 0, '-'
    with (
        path.open('a', encoding='utf-8') as log,
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': str(threads)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8', errors='replace',
        ) as process,
    ):  # fmt: skip
        for line in process.stdout:
            log.write(line)
            log.flush()
            loss = found[1] if (found := LOSS.search(line)) else loss
            if found := EPOCH.search(line):
                epoch = int(found[1])
                text = f'{name:<14} seed {seed}  epoch {epoch:>2}/{EPOCHS}  loss {loss}'
                progress.advance(epoch - last, text)  # a resumed run starts later
                last = epoch
    if process.returncode:
        end = '\n'.join(path.read_text(encoding='utf-8').splitlines()[-20:])
        raise RuntimeError(f'training {name} failed; the end of {path}:\n{end}')


def values(model: Model) -> dict[str, list[float]]:
    """Measure the accuracy on digits of each size and the errors of the features.

    The equivariance errors are of the last feature maps of the whole backbone and of its body, on
    shrinking canvases. The invariance error is of the input vector of the classifier, on a canvas
    that keeps its size, as in the datasets.
    """
    model.cfg.test_dataloader.dataset.scale = 1.0
    settings = Settings(FACTORS, ('backbone',), 100, None, 500, 'shrink', 'matched', 0, True, 100)
    shrunk = measure_errors(model, settings)
    kept = measure_errors(model, replace(settings, layers=('neck',), canvas='keep'))
    curves = dict(
        accuracy=measure_accuracy(model, settings)['accuracy'],
        vector=kept['layers']['neck'],
        network=shrunk['layers']['backbone'],
        body=shrunk['body'] or shrunk['layers']['backbone'],
    )
    return {name: curve['mean'] for name, curve in curves.items()}


def measure(name: str, seed: int, out: Path) -> dict:
    """Measure a trained model, unless its results exist already."""
    folder = folder_of(out, name, seed)
    results, checkpoint = folder / 'results.json', folder / f'epoch_{EPOCHS}.pth'
    if not results.is_file() or results.stat().st_mtime < checkpoint.stat().st_mtime:
        print(f'measuring {name}, seed {seed}, at {len(FACTORS)} scale factors', flush=True)
        write_json(results, values(load_model(f'{ROOT / CONFIGS[name]}:{checkpoint}')))
    return json.loads(results.read_text(encoding='utf-8'))


def table(results: dict[str, list[dict]]) -> str:
    """Return a table of means over seeds and, for several seeds, of standard deviations."""
    lines = []
    for title, key, form in (
        ('accuracy in %, digits of size', 'accuracy', '.1f'),
        ('change of the pooled features', 'vector', '.2f'),
        ('equivariance error, whole network', 'network', '.1e'),
        ('equivariance error, body alone', 'body', '.1e'),
    ):
        sizes = ''.join(f'{f"1/{s:g}" if s > 1 else "1":>9}' for s in FACTORS)
        lines.append(f'{title:<34}' + sizes)
        for name, runs in results.items():
            values = np.array([run[key] for run in runs], float)
            lines.append(f'  {name:<32}' + ''.join(f'{v:>9{form}}' for v in values.mean(0)))
            if len(runs) > 1:
                spread = values.std(0, ddof=1)
                lines.append(f'  {"":<32}' + ''.join(f'{f"±{v:{form}}":>9}' for v in spread))
        lines.append('')
    lines.append('errors over whole feature maps: nothing is left out along the border')
    return '\n'.join(lines)


def draw(results: dict[str, list[dict]], path: Path) -> None:
    """Draw accuracy, invariance error and equivariance error against scale."""
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.3), layout='constrained')
    keys = ('accuracy', 'vector', 'network')
    for name, runs in results.items():
        for axes, key in zip(panels, keys):
            values = np.array([run[key] for run in runs], float)
            shown = slice(int(key == 'network'), None)  # the error at 1 is 0, off a log axis
            axes.plot(FACTORS[shown], values.mean(0)[shown], 'o-', ms=4, color=COLOURS[name],
                      label=name)  # fmt: skip
            for run in values if len(runs) > 1 else ():
                axes.plot(FACTORS[shown], run[shown], color=COLOURS[name], alpha=0.25, lw=0.8)
    accuracy, vector, network = panels
    accuracy.set(title='Accuracy on 500 held-out digits', ylabel='accuracy (%)', ylim=(0, 102))
    accuracy.axhline(10, color='black', lw=0.8, ls=':')
    accuracy.text(1.02, 11, 'chance', va='bottom', fontsize=8)
    vector.set(title='Change of the features that the classifier sees', ylim=(0, None),
               ylabel=r'invariance error $\Delta(s)$')  # fmt: skip
    network.set(title='Last feature maps, border included', yscale='log',
                ylabel=r'equivariance error $\Delta(s)$')  # fmt: skip
    for axes in panels:
        axes.axvspan(1, 1.5, color='black', alpha=0.07, lw=0)
        axes.set_xlabel('scale factor s: digits are s times smaller')
        axes.set_xticks(FACTORS, [f'{s:g}' for s in FACTORS], fontsize=8)
        axes.title.set_fontsize(11)
        axes.grid(alpha=0.3)
    accuracy.text(1.25, 2, 'trained on', ha='center', va='bottom', fontsize=8)
    figure.legend(
        *accuracy.get_legend_handles_labels(), loc='outside lower center', ncols=4, frameon=False
    )
    save_figure(figure, path)


@one_line_errors()
def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    runs = [(name, seed) for seed in args.seeds for name in CONFIGS]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    at_once = min(cores, len(runs))
    print(f'training {len(runs)} networks, {at_once} at a time; logs in {args.out.resolve()}')
    progress = Progress(EPOCHS * len(runs))
    with ThreadPoolExecutor(at_once) as pool:
        # The longest trainings start first, and the short ones fill the remaining time.
        trainings = [
            pool.submit(train, *run, args.out, progress, max(1, cores // at_once))
            for run in reversed(runs)
        ]
        try:
            for training in trainings:
                training.result()
        except BaseException as error:  # waiting trainings must not start, after an interrupt, too
            pool.shutdown(cancel_futures=True)
            if isinstance(error, RuntimeError):
                sys.exit(f'error: {error}')
            raise
    results = {name: [measure(name, seed, args.out) for seed in args.seeds] for name in CONFIGS}
    print(f'\nMeans over {len(args.seeds)} training run(s), seeds {args.seeds}\n')
    print(table(results))
    write_json(args.out / 'quickstart.json', dict(factors=FACTORS, models=results))
    draw(results, args.out / 'quickstart.png')
    print(f'figure: {(args.out / "quickstart.png").resolve()}')


if __name__ == '__main__':
    main()
