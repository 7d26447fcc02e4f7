# Copyright (c) mmscale contributors.
import os
import subprocess
import sys

import pytest

from mmscale.engine.errors import one_line_errors

PROGRAM = """
from pathlib import Path
from mmscale.engine.errors import one_line_errors
from mmscale.engine.report import write_json, write_text

with one_line_errors('.'):
    print('of base \\u221a2')
    write_text(Path('a.csv'), 'of base \\u221a2')
    write_json(Path('a.json'), dict(base='\\u221a2'))
    raise ValueError('\\u221a2 is no base')
"""


def test_no_locale_ends_a_tool(tmp_path):
    """Under an ASCII locale, what was measured is written and printed, and errors are told."""
    ascii_alone = dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    result = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, **ascii_alone},
    )  # fmt: skip
    assert 'of base \\u221a2' in result.stdout
    line = result.stderr.splitlines()[-1]
    assert line.startswith('error: \\u221a2 is no base (where: ') and result.returncode == 1
    for name in ('a.csv', 'traceback_0.txt'):
        assert '√2' in (tmp_path / name).read_text(encoding='utf-8')
    assert (tmp_path / 'a.json').is_file()


def test_the_traceback_can_be_seen(tmp_path, monkeypatch):
    @one_line_errors(tmp_path)
    def fail():
        raise KeyError('the key')

    with pytest.raises(SystemExit, match='^error: KeyError: the key .where: .*traceback_0.txt.$'):
        fail()
    assert 'in fail' in (tmp_path / 'traceback_0.txt').read_text()
    monkeypatch.setenv('MMSCALE_TRACEBACK', '1')
    with pytest.raises(KeyError):
        fail()
