# Copyright (c) mmscale contributors.
"""Draw the animation of the first page: a growing digit and the answers of two networks.

    python studies/measurements/growing_digit.py ORDINARY OURS [--index 0]

The digit is of STIR-MNIST. Each network is ``CONFIG:CHECKPOINT``, trained on digits of 17 to 32
pixels by the study ``sizes_stir``. The bars are the probabilities of each class.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from mmscale.datasets import STIR, FixedRescale
from mmscale.engine.models import HELP, load_model

OUT = Path(__file__).resolve().parents[2] / 'docs' / 'images' / 'growing_digit.gif'
SIZES = range(17, 65)
TRAINED = (17, 32)
NAMES = {'ResNet-18, blur': 'black', 'mmscale, three levels': 'tab:red'}
FRAME, LAST = 120, 1500  # ms


@torch.no_grad()
def probabilities(network: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    """Return the probability of each class for an image ``(64, 64)``."""
    inputs = network.data_preprocessor(dict(inputs=[torch.tensor(image)[None]]))['inputs']
    (sample,) = network(inputs, mode='predict')
    return sample.pred_score.numpy()


def draw(image: np.ndarray, size: int, label: int, answers: list) -> Image.Image:
    figure = Figure(figsize=(7.2, 2.7), layout='constrained')
    shown, *panels = figure.subplots(1, 3, width_ratios=(1, 1.1, 1.1))
    shown.imshow(image, cmap='gray', vmin=0, vmax=255)
    known = TRAINED[0] <= size <= TRAINED[1]
    shown.set_title(f'{size} pixels\n{"size of the training" if known else "never trained"}')
    shown.set(xticks=[], yticks=[])
    for axes, (name, color), answer in zip(panels, NAMES.items(), answers):
        right = answer.argmax() == label
        axes.bar(range(10), answer, color=[color if c == label else '0.7' for c in range(10)])
        axes.set(ylim=(0, 1), xticks=range(10), yticks=[0, 0.5, 1], xlabel='class')
        axes.set_title(f'{name}\nsays {answer.argmax()} ({"right" if right else "wrong"})')
    panels[0].set_ylabel('probability')
    file = BytesIO()
    figure.savefig(file, dpi=90)
    return Image.open(file).convert('RGB').quantize(32, dither=Image.Dither.NONE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('models', nargs=2, metavar='MODEL', help=HELP)
    parser.add_argument('--index', type=int, default=0, help='index of the digit in the test data')
    parser.add_argument('--data-root', default='data/mnist')
    parser.add_argument('--out', type=Path, default=OUT)
    args = parser.parse_args()
    networks = [load_model(model).network for model in args.models]
    digit = STIR(data_root=args.data_root, split='test', scale=1.0, pipeline=[])[args.index]
    frames = []
    for size in SIZES:
        scaled = FixedRescale(size / SIZES[-1])(dict(img=digit['img'].copy()))['img'].squeeze()
        answers = [probabilities(network, scaled) for network in networks]
        frames.append(draw(scaled, size, digit['gt_label'], answers))
    times = [FRAME] * (len(frames) - 1) + [LAST]
    frames[0].save(args.out, save_all=True, append_images=frames[1:], duration=times, loop=0)
    print(f'{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB')


if __name__ == '__main__':
    main()
