# Copyright (c) mmscale contributors.
"""Numbers of studies, read when the documentation is built.

Pages say where tables belong by comments, on lines of their own:

- ``<!-- study NAME -->``: all tables and pictures of ``studies/results/NAME.csv``.
- ``<!-- picture NAME_KIND -->``: one picture of it.
- ``<!-- accuracy NAME | RUN | RUN ... -->``, ``<!-- error NAME | ... -->``: its accuracy, or the
  columns of its tests, and its equivariance error over scale, of the named runs.
- ``<!-- test NAME -->``: its test errors.
- ``<!-- compare NAME | RUN | RUN -->``: of the second run against the first, seed by seed.
"""

import re
import sys
from functools import cache
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT / 'studies' / 'workflow'))

import draw  # noqa: E402
import tables  # noqa: E402
from cells import STUDIES, read_study  # noqa: E402

GENERATED = DOCS / 'generated'
# Titles and files of the pictures of each study.
DRAWN = {}
COMMENT = re.compile(r'^<!-- (study|picture|accuracy|error|test|compare) (.+?) -->$', re.MULTILINE)


def setup(app: Sphinx) -> dict:
    app.connect('builder-inited', generate)
    app.connect('source-read', fill)
    return dict(parallel_read_safe=True)


def generate(app: Sphinx) -> None:
    """Draws the pictures of all studies."""
    for path in sorted(tables.RESULTS.glob('*.csv')):
        study, frame = read(path.stem)
        DRAWN[path.stem] = draw.draw(study, path.stem, frame, GENERATED / 'studies')


def fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Puts tables where a page asks for them; a number and its deviation stay on one line."""
    text = COMMENT.sub(lambda found: FILLED[found[1]](*_arguments(found[2])), source[0])
    source[0] = re.sub(' (±|×÷) ', '\u00a0\\1\u00a0', text)


def _arguments(text: str) -> list[str]:
    return [word.strip() for word in text.split('|')]


@cache
def read(name: str):
    """A study and what was measured of it."""
    return read_study(STUDIES / f'{name}.py'), tables.load(name)


def chosen(name: str, runs: tuple = ()):
    """A study and what was measured of some of its runs, or of all."""
    study, frame = read(name)
    return study, tables.select(study, frame, runs)


def whole_study(name: str) -> str:
    drawn = [(title, f'/generated/studies/{file}') for title, file in DRAWN[name]]
    study, frame = read(name)
    # Its title becomes a heading below that of the page.
    return '#' + tables.document(study, name, frame, drawn)


def one_picture(name: str) -> str:
    titles = {file: title for drawn in DRAWN.values() for title, file in drawn}
    return f'![{titles[f"{name}.png"]}](/generated/studies/{name}.png)'


def accuracy(name: str, *runs: str) -> str:
    found = chosen(name, runs)
    return tables.accuracy(*found) or tables.columns(*found)


def error(name: str, *runs: str) -> str:
    return tables.errors(chosen(name, runs)[1])


def test(name: str, *runs: str) -> str:
    return tables.costs(*chosen(name, runs), short=True)


def compare(name: str, *pair: str) -> str:
    return tables.comparison(*chosen(name, pair), '', *pair)


FILLED = dict(study=whole_study, picture=one_picture, accuracy=accuracy, error=error, test=test,
              compare=compare)  # fmt: skip
