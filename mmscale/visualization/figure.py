# Copyright (c) mmscale contributors.
"""Files of figures."""

import os
from pathlib import Path

import matplotlib

FIGURE_SUFFIXES = ('.png', '.svg', '.pdf')


def check_figure_path(path: str) -> Path:
    """The path of a figure to be, its folder made; ``ValueError`` if it cannot be one."""
    path = Path(path)
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(f'--out: {path} must end in one of {", ".join(FIGURE_SUFFIXES)}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f'--out: cannot make {path.parent} ({error.strerror})') from error
    return path


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
