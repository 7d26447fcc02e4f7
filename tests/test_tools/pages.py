# Copyright (c) mmscale contributors.
"""Code and commands of the pages that users read.

Bash reads the commands, with stubs for programs, so that variables, loops and globs mean what they
mean to a reader.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from torch.distributed.run import parse_args as parse_torchrun

from mmscale.__main__ import COMMANDS

from .conftest import ROOT

PAGES = [
    str(path.relative_to(ROOT))
    for pages in ('README.md', 'CONTRIBUTING.md', 'docs/*.md', 'configs/**/README.md')
    for path in sorted(ROOT.glob(pages))
]
STUB = f"""#!{shutil.which('bash')}
name=${{0##*/}}
# In $(...), which is a pipe, the page needs what Python prints.
[ "$name $1" = 'python -c' ] && [ -p /dev/stdout ] && exec {sys.executable} "$@"
printf '%s\\x1f' "$PWD" $name "$@" >> "$COMMANDS" && echo >> "$COMMANDS"
"""
STUBS = 'mmscale python make pip pytest pre-commit jupyter torchrun srun'.split()
IN_PROSE = re.compile(r'([A-Z_]+=\S+ )?(mmscale|python|make|pip|torchrun|tools/\S+\.(py|sh)) [^.]')


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    text = (ROOT / page).read_text(encoding='utf-8')
    return re.findall(rf'^```{language}\n(.*?)^```', text, re.MULTILINE | re.DOTALL)


def prose(page: str) -> list[str]:
    """The code within the prose of a page."""
    text = (ROOT / page).read_text(encoding='utf-8')
    text = re.sub('^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)
    return [' '.join(code.split()) for code in re.findall('`([^`]+)`', text)]


def tool(program: str, *words: str) -> tuple[str, list[str]] | None:
    """The script of the repository that a command runs and its words; None if it runs none."""
    if program == 'srun':
        words = words[words.index('python') + 2 :]  # python -u
    elif program == 'torchrun' or words[:2] == ('-m', 'torch.distributed.run'):
        found = parse_torchrun(words[0 if program == 'torchrun' else 2 :])
        words = found.training_script, *found.training_script_args
    elif program == 'mmscale' or words[:2] == ('-m', 'mmscale'):
        words = words[0 if program == 'mmscale' else 2 :]
        name = next(n for n in COMMANDS if ' '.join(words).startswith(n))
        words = f'tools/{COMMANDS[name]}', *words[len(name.split()) :]
    elif program != 'python':
        return None
    return words[0], list(words[1:])


def commands(page: str, folder: Path) -> list[tuple[Path, list[str]]]:
    """The commands of a page in their order, each with the folder in which it runs.

    ``folder`` becomes a checkout with the configs that the page tells its reader to write.
    """
    for path in ROOT.iterdir():
        if not path.name.startswith('.') and path.name not in ('data', 'work_dirs'):
            (folder / path.name).symlink_to(path)
    text = (ROOT / page).read_text(encoding='utf-8')
    for name, config in re.findall(
        r'`(\w+\.py)`(?:(?!^```).)*^```python\n(_base_.*?)^```', text, re.MULTILINE | re.DOTALL
    ):
        (folder / name).write_text(config, encoding='utf-8')
    stubs = folder / '.venv' / 'bin'
    stubs.mkdir(parents=True)
    (folder / '.venv-downstream').symlink_to('.venv')
    (stubs / 'activate').touch()
    for name in STUBS:
        (stubs / name).write_text(STUB, encoding='utf-8')
        (stubs / name).chmod(0o755)
    for name in ('bash', 'basename', 'dirname'):
        (stubs / name).symlink_to(shutil.which(name))
    lines = [code for code in prose(page) if IN_PROSE.match(code)]
    lines = [re.sub(r'^(?=tools\S*\.py)', 'python ', code) for code in lines]
    lines = [re.sub(r'^(?=tools\S*\.sh)', 'bash ', code) for code in lines]
    lines += [f': {code}' for code in prose(page) if code.startswith('--')]  # are words of Bash
    script = '\n'.join(f'cd {folder}\n{code}' for code in [*blocks(page, 'bash'), *lines])
    log = folder / 'commands'
    log.touch()
    result = subprocess.run(
        ['bash', '-euc', script], env=dict(PATH=str(stubs), COMMANDS=str(log)), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = [line.split('\x1f') for line in log.read_text(encoding='utf-8').split('\n')]
    return [(Path(at), [w for w in words if w not in ('...', '')]) for at, *words in lines if words]
