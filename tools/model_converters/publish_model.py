# Copyright (c) mmscale contributors.
"""Convert a checkpoint of a training for publication: weights alone, with a digest in the name.

``python tools/model_converters/publish_model.py IN_FILE OUT_FILE``
"""

import argparse
import hashlib
import os
from pathlib import Path

import torch

import mmscale  # noqa: F401  (checks the environment)
from mmscale.engine.checkpoints import check_file
from mmscale.engine.errors import one_line_errors
from mmscale.engine.safe_loading import add_trust_option, read_checkpoint

# Digits of the SHA-256 in the name, as in the names of MMPretrain's checkpoints.
DIGITS = 8


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('in_file', type=Path, help='checkpoint of tools/train.py')
    parser.add_argument('out_file', type=Path, help='output file; the digest is added to its name')
    add_trust_option(parser)
    return parser.parse_args()


def publish(in_file: Path, out_file: Path) -> Path:
    """Write the weights, and the epoch, seed and ``dataset_meta`` of ``meta``; return the path."""
    check_file(in_file)
    checkpoint = read_checkpoint(in_file)
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise ValueError(f'in_file: {in_file} has no state_dict: it is no checkpoint of MMEngine')
    meta = checkpoint.get('meta', {})
    kept = dict(
        state_dict=checkpoint['state_dict'],
        meta={key: meta[key] for key in ('dataset_meta', 'epoch', 'seed') if key in meta},
    )
    out_file.parent.mkdir(parents=True, exist_ok=True)
    part = out_file.with_suffix('.part')
    torch.save(kept, part)
    digest = hashlib.sha256(part.read_bytes()).hexdigest()[:DIGITS]
    named = out_file.with_name(f'{out_file.stem}-{digest}.pth')
    os.replace(part, named)
    return named


@one_line_errors()
def main() -> None:
    args = parse_args()
    print(publish(args.in_file, args.out_file))


if __name__ == '__main__':
    main()
