# Copyright (c) mmscale contributors.
"""Write figures to files."""

import os
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure


def make_folder(path: str) -> Path:
    """Make the folder of a tool's results; raise ``ValueError`` if that fails."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f'--out: cannot make the folder {path} ({error.strerror})') from error
    return Path(path)


def write_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure to a folder, as ``.png`` and ``.svg``."""
    for suffix in ('.svg', '.png'):
        save_figure(figure, folder / f'{name}{suffix}', dpi=150)
    print(f'figure: {(folder / name).resolve()}.png')


def save_figure(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write a figure atomically; equal figures have equal bytes. ``dpi`` is dots per inch."""
    part = path.with_name(f'{path.stem}.part{path.suffix}')
    dates = {'.svg': {'Date': None}, '.pdf': {'CreationDate': None}}
    try:
        with matplotlib.rc_context({'svg.hashsalt': path.stem}):
            figure.savefig(part, dpi=dpi, metadata=dates.get(path.suffix.lower()))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
