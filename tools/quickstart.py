# Copyright (c) mmscale contributors.
"""Train ordinary and scale-equivariant ResNets on digits and compare them over scale.

``tools/train.py`` trains four networks on digits that are 1 to 1.5 times smaller than full size,
one network per CPU core at a time. ``tools/equivariance.py`` measures them on held-out digits that
are 1 to 3 times smaller. An interrupted run resumes; networks of other code or configs are trained
anew.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from mmengine.config import Config

import mmscale
from mmscale.engine.checkpoints import check_file
from mmscale.engine.errors import one_line_errors
from mmscale.engine.study import digest

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    'ResNet': 'configs/resnet/resnet18-w8_1xb50-10e_scaledigits.py',
    'ResNet, blur': 'configs/resnet/resnet18-blur-w8_1xb50-10e_scaledigits.py',
    'DSS v1': 'configs/dss/scaleresnet18-s3-w8_1xb50-10e_scaledigits.py',
    'economical-up1': 'configs/aa_pyramid/scaleresnet18-economical-up1-w8_1xb50-10e_scaledigits.py',
}
# Twice the epochs of the configs: after 200 steps the networks are half a point below their best.
EPOCHS = 20
LOSS = re.compile(r'Epoch\(train\).* loss: (\S+)')
EPOCH = re.compile(r'Saving checkpoint at (\d+) epochs')


def folder_of(out: Path, name: str) -> Path:
    """Return the folder of a training; its name has a digest of the code and the config."""
    parts = [Config.fromfile(ROOT / CONFIGS[name]).pretty_text.encode()]
    parts += [path.read_bytes() for path in sorted(Path(mmscale.__file__).parent.rglob('*.py'))
              if '.mim' not in path.parts]  # fmt: skip
    return out / f'{Path(CONFIGS[name]).stem}_{digest(parts)[:8]}'


def is_trained(folder: Path) -> bool:
    """Tell whether the last checkpoint of a training is there and intact."""
    try:
        check_file(folder / f'epoch_{EPOCHS}.pth')
    except (FileNotFoundError, ValueError):  # a kill during the writing damages a checkpoint
        return False
    return True


def train(name: str, folder: Path, threads: int) -> None:
    """Train a model; raise ``RuntimeError`` with the end of the log if that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, 'tools/train.py', CONFIGS[name], '--work-dir', str(folder)]
    command += ['--resume', '--cfg-options', 'randomness.seed=0']
    command += [f'train_cfg.max_epochs={EPOCHS}', f'param_scheduler.total_steps={EPOCHS}']
    path, loss = folder / 'train.log', '-'
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
                print(f'{name:<14} epoch {found[1]:>2} of {EPOCHS}, loss {loss}', flush=True)
    if process.returncode:
        end = '\n'.join(path.read_text(encoding='utf-8').splitlines()[-20:])
        raise RuntimeError(f'training {name} failed; the end of {path}:\n{end}')


@one_line_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('work_dirs/quickstart'))
    out = parser.parse_args().out.resolve()
    folders = {name: folder_of(out, name) for name in CONFIGS}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    at_once = min(cores, len(CONFIGS))
    # The longest trainings start first, and the short ones fill the remaining time.
    missing = [name for name in reversed(CONFIGS) if not is_trained(folders[name])]
    print(f'training {len(missing)} networks, {at_once} at a time; logs in {out}/*/train.log')
    with ThreadPoolExecutor(at_once) as pool:
        trainings = [
            pool.submit(train, name, folders[name], max(1, cores // at_once)) for name in missing
        ]
        try:
            for training in as_completed(trainings):
                training.result()
        except (RuntimeError, KeyboardInterrupt) as error:
            pool.shutdown(wait=False, cancel_futures=True)  # those that run end first
            text = str(error) or 'interrupted; the same command goes on'
            print(f'error: {text}', file=sys.stderr)
            sys.exit(1)
    models = [f'{ROOT / CONFIGS[name]}:{folders[name] / f"epoch_{EPOCHS}.pth"}' for name in CONFIGS]
    command = [str(ROOT / 'tools/equivariance.py'), *models, '--names', *CONFIGS, '--out', str(out)]
    command += ['--num-images', '100', '--accuracy-images', '500', '--batch-size', '100']
    # The errors are of digits of full size.
    command += ['--cfg-options', 'test_dataloader.dataset.scale=1.0']
    print(f'\npython {shlex.join(command)}\n', flush=True)
    sys.exit(subprocess.run([sys.executable, *command], cwd=ROOT).returncode)


if __name__ == '__main__':
    main()
