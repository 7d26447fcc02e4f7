# Copyright (c) mmscale contributors.
"""Files of figures."""

import os
from pathlib import Path

import matplotlib


def make_folder(path: str) -> Path:
    """The folder of a tool's results, made; ``ValueError`` if it cannot be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f'--out: cannot make the folder {path} ({error.strerror})') from error
    return Path(path)


def write_figure(figure, folder: Path, name: str) -> None:
    """Writes a figure of Matplotlib to a folder, as ``.png`` and ``.svg``."""
    for suffix in ('.svg', '.png'):
        save_figure(figure, folder / f'{name}{suffix}', dpi=150)
    print(f'figure: {(folder / name).resolve()}.png')


def save_figure(figure, path: Path, dpi: int = 130) -> None:
    """Writes a figure of Matplotlib as a whole or not at all; the same figure is the same bytes."""
    part = path.with_name(f'{path.stem}.part{path.suffix}')
    dates = {'.svg': {'Date': None}, '.pdf': {'CreationDate': None}}
    try:
        with matplotlib.rc_context({'svg.hashsalt': path.stem}):
            figure.savefig(part, dpi=dpi, metadata=dates.get(path.suffix.lower()))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
