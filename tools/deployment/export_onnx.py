# Copyright (c) mmscale contributors.
"""Export a classifier to ONNX: ``python tools/deployment/export_onnx.py CONFIG:CHECKPOINT``.

The graph takes any number of images, as the config's data preprocessor returns them (normalised,
channels in the config's order), and returns logits. The tool compares it with PyTorch before it
writes the file. The size of the images is fixed in the graph, because the matrices that resample
levels depend on the size: each size has its own file.
"""

import argparse
import os
import statistics
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from mmscale.engine import models
from mmscale.engine.cost import check_input, image_shape, parse_side
from mmscale.engine.errors import one_line_errors
from mmscale.visualization import make_folder

TOLERANCE = 1e-4
BATCHES = (1, 2, 5)
ROUNDS = 10
NEEDED = 'pip install "mmscale[deployment]"'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].partition(':')[0])
    add = parser.add_argument
    add('model', metavar='MODEL', help=f'{models.HELP}; without a checkpoint: random weights')
    add('--out', metavar='FOLDER', default='work_dirs/export',
        help='folder for NAME.onnx, after the config; default: %(default)s')  # fmt: skip
    add('--side', metavar='SIDE|HxW', nargs='+',
        help='size of the images, in pixels; of several sizes each gets a file, NAME-SIDE.onnx or '
        'NAME-HxW.onnx; default: the size of the test data')  # fmt: skip
    models.add_config_options(parser, pretrained=True)
    return parser.parse_args()


class Logits(nn.Module):
    """A network from images (N, C, H, W) to the logits of the classes (N, K)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.head(self.model.extract_feat(image))


def check_packages() -> None:
    """Raise a ``ValueError`` now if a package is missing that only the end of the run needs."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f'{error.name} is not installed: {NEEDED}') from None


def export(network: nn.Module, shape: tuple, path: Path) -> None:
    """Write the graph, for any number of images of a shape ``(C, H, W)``."""
    batch = torch.export.Dim('batch', min=1, max=2**15)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            network,
            (torch.randn(2, *shape),),
            path,
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: batch},),
            input_names=['image'],
            output_names=['logits'],
            external_data=False,
        )


def compare(network: nn.Module, shape: tuple, path: Path) -> tuple[float, dict[str, float]]:
    """Return the largest difference from PyTorch and the median seconds for one image."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    generator, difference = torch.Generator().manual_seed(0), 0.0
    for count in BATCHES:
        images = torch.randn(count, *shape, generator=generator)
        found = torch.from_numpy(session.run(None, {'image': images.numpy()})[0])
        expected = network(images)
        if found.shape != expected.shape:
            raise RuntimeError(
                f'the exported graph gives {tuple(found.shape)} for {count} images, PyTorch '
                f'{tuple(expected.shape)}'
            )
        difference = max(difference, float((found - expected).abs().max()))
    image = torch.randn(1, *shape, generator=generator)
    inputs = {'image': image.numpy()}
    ways = {'PyTorch': lambda: network(image), 'onnxruntime': lambda: session.run(None, inputs)}
    seconds = {name: [] for name in ways}
    for _ in range(ROUNDS):  # in turn, so that other load on the machine slows both
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return difference, {name: statistics.median(values) for name, values in seconds.items()}


def write(network: nn.Module, shape: tuple, out: Path) -> None:
    """Export and compare; the file appears only after a successful comparison."""
    part = out.with_name(f'{out.stem}.part.onnx')
    try:
        export(network, shape, part)
        difference, seconds = compare(network, shape, part)
        if not difference <= TOLERANCE:
            raise RuntimeError(f'the exported graph differs from PyTorch by {difference:.2g}')
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    print(f'{out}: images (N, {", ".join(map(str, shape))}), {out.stat().st_size / 2**20:.1f} MiB')
    print(f'largest difference of logits, batches of {BATCHES}: {difference:.2g}')
    times = ', '.join(f'{name} {1e3 * value:.1f} ms' for name, value in seconds.items())
    print(f'one image, {torch.get_num_threads()} threads, median of {ROUNDS}: {times}')


@one_line_errors()
@torch.no_grad()
def main() -> None:
    args = parse_args()
    check_packages()
    sides = [parse_side(side) for side in dict.fromkeys(args.side or ())] or [None]
    model = models.load_model(args.model, args.cfg_options, args.pretrained)
    if not all(hasattr(model.network, part) for part in ('extract_feat', 'head')):
        raise ValueError(f'config: {model.path} is no classifier with a backbone and a head')
    network = Logits(model.network).eval()
    shapes = [image_shape(model.cfg, side) for side in sides]
    for shape in shapes:
        check_input(network, shape)  # makes and keeps the matrices that resample levels
    folder = make_folder(args.out)
    for shape in shapes:
        side = '-' + 'x'.join(map(str, dict.fromkeys(shape[1:]))) if len(shapes) > 1 else ''
        write(network, shape, folder / f'{Path(model.path).stem}{side}.onnx')


if __name__ == '__main__':
    main()
