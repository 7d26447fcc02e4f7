# Copyright (c) mmscale contributors.
"""The commands of the pages fit the tools and the repository, and those that take seconds run."""

import argparse
import functools
import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn.datasets
from mmengine.config import Config

from mmscale.__main__ import COMMANDS
from mmscale.engine.models import find_config, merge_options, split_model

from .conftest import ROOT, run_here
from .pages import PAGES, blocks, commands, prose, tool

# Tools of which only other tests run the work.
LONG = {
    'tools/train.py': 'takes hours: test_readme.py, test_docs.py and test_train.py take few images',
    'tools/test.py': 'needs a training: test_readme.py and test_test.py have one',
    'tools/quickstart.py': 'takes minutes: test_quickstart.py measures untrained networks',
    'tools/analysis_tools/get_flops.py': 'of all configs takes minutes, as test_package.py does',
    'tools/deployment/export_onnx.py': 'takes a minute, as test_export_onnx.py does',
    'tools/benchmark/run.py': 'takes minutes: test_benchmark.py has a quick run',
    'tools/benchmark/gpu.py': 'needs a GPU: test_benchmark.py runs it on the CPU',
    'tools/dataset_converters/scatter_objects.py': 'downloads MNIST: test_scatter_objects.py',
    'studies/measurements/frontier.py': 'takes minutes: test_frontier.py takes two images',
    'studies/measurements/first_page.py': 'writes pictures of the page: test_readme.py',
    'studies/measurements/stir.py': 'writes a picture of a page: test_readme.py',
    'studies/measurements/prepare_caltech101.py': 'needs data: test_prepare_caltech101.py',
}
# Tools that run as the pages say, and words that leave seconds of their work.
SHORT = {
    'tools/equivariance.py': ['--num-images=1', '--accuracy-images=8', '--factors=2'],
    'tools/visualize_scale_space.py': [],
    'tools/visualize_equivariance.py': ['--size=33'],
    'studies/measurements/lift_error.py': ['--num-images=1'],
    'studies/measurements/deform_equivariance.py': ['--factors=8'],
}
NAME = 'scaleresnet18-economical-up1-w8_1xb50-10e_scaledigits'
(WEIGHTS,) = ROOT.glob(f'checkpoints/{NAME}-*.pth')
PHOTO = Path(sklearn.datasets.__file__).parent / 'images' / 'flower.jpg'
CONFIG = f'configs/aa_pyramid/{NAME}.py'
MODEL = f'{CONFIG}:{WEIGHTS}'
FILLED = {'NAME': NAME, 'CONFIG': CONFIG, 'MODEL': MODEL, 'CONFIG:CHECKPOINT': MODEL, 'FOLDER': '.',
          'IMAGE': PHOTO}  # fmt: skip
PLACEHOLDER = re.compile(r'(?!/)(.*[:/])?[A-Z]{4,}(/.*)?')
MAKEFILE, SETUP = ((ROOT / name).read_text(encoding='utf-8') for name in ('Makefile', 'setup.py'))


@functools.cache
def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser of a script, which is stopped where it parses."""
    found = []

    def stop(parser, *words):
        found.append(parser)
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        patch.syspath_prepend((ROOT / script).parent)
        runpy.run_path(str(ROOT / script), run_name='__main__')
    return found[0]


def check_program(program: str, *words: str) -> None:
    """Check a command that runs no script of the repository."""
    if program == 'make':
        dry_run(*words)
        settings = dict(word.split('=', 1) for word in words if '=' in word)
        assert all(f'$({name})' in MAKEFILE for name in settings), words
        assert 'NAME' not in settings or (ROOT / f'studies/{settings["NAME"]}.py').is_file(), words
    elif '-e' in words:  # pip install
        extra = re.fullmatch(r'\.(?:\[(\w+)\])?', words[-1])[1]
        assert extra is None or f"'{extra}': read_requirements" in SETUP, words
    elif program in ('pytest', 'jupyter'):
        assert Path(words[-1]).is_file(), words
    else:
        assert program in ('pip', 'pre-commit'), words


@functools.cache
def dry_run(*words: str) -> None:
    """Let Make say what it would do; it fails without a rule for the target."""
    words = ['make', '-n', f'PYTHON={sys.executable}', *words]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)


def mentions(code: str, path: str) -> bool:
    return re.search(rf'{re.escape(path)}\b', code) is not None


def check_model(model: str, options: dict, trained: dict, code: str) -> None:
    """Check that config and checkpoint are there, the latter made by a training or by ``code``."""
    config, checkpoint = split_model(model)
    if checkpoint and not PLACEHOLDER.fullmatch(checkpoint):
        folder, _, name = checkpoint.rpartition('/')
        made = name == f'epoch_{trained.get(folder)}.pth' or mentions(code, checkpoint)
        assert made, f'nothing makes {checkpoint}; trained are {trained}'
    # Other tests build all configs of the repository.
    if PLACEHOLDER.fullmatch(config) or lacks_its_base(config):
        return
    if options or not Path(config).is_file():
        merge_options(find_config(config)[0], options)


def lacks_its_base(config: str) -> bool:
    return 'downstream' in config and not importlib.util.find_spec('mmdet')


def epochs(config: str, options: dict) -> int | None:
    """The epochs of a training; None of a config whose base is not installed."""
    if (found := options.get('train_cfg.max_epochs')) or lacks_its_base(config):
        return found
    return Config.fromfile(config).train_cfg.max_epochs


@pytest.mark.parametrize('page', PAGES)
def test_the_commands_fit_the_tools_and_the_repository(page, tmp_path, monkeypatch):
    trained, code = {}, '\n'.join(blocks(page, 'python'))
    for place, command in commands(page, tmp_path):
        monkeypatch.chdir(place)
        if command[:2] == ['python', '-c']:
            exec(command[2], {})  # noqa: S102
            continue
        if (found := tool(*command)) is None:
            check_program(*command)
            continue
        script, words = found
        assert script in LONG or script in SHORT, f'{script}: who runs it?'
        if all(word.startswith('-') for word in words):  # no command, or one without values
            assert not words or {*words} <= parser_of(script)._option_string_actions.keys(), command
            continue
        args = vars(parser_of(script).parse_args(words))
        for model in filter(None, [args.get('config'), args.get('model'), *args.get('models', [])]):
            model = ':'.join(filter(None, [model, args.get('checkpoint')]))
            check_model(model, args.get('cfg_options', {}), trained, code)
        if script == 'tools/train.py' and Path(args['config']).is_file():
            folder = args['work_dir'] or f'work_dirs/{Path(args["config"]).stem}'
            trained[folder] = epochs(args['config'], args['cfg_options'] or {})
        for path in map(str, filter(None, [args.get('image'), args.get('images')])):
            there = Path(path).exists() or PLACEHOLDER.fullmatch(path) or mentions(code, path)
            assert there, command


def test_flags_and_paths_in_the_prose_are_those_of_the_repository():
    known = {flag for script in {*LONG, *SHORT, *(f'tools/{name}' for name in COMMANDS.values())}
             if not script.endswith(('first_page.py', 'stir.py'))
             for flag in parser_of(script)._option_string_actions}  # fmt: skip
    for page in PAGES:
        ours = '\n'.join(code for code in prose(page) if not code.startswith('torchrun'))
        flags = {*re.findall(r'(?<!\S)--[a-z][\w-]+', ours)}
        assert flags <= known, (page, flags - known)
        paths = re.findall(r'(?<!\S)(?:tools|studies|tests|requirements)/[\w/.-]+', ours)
        absent = [path for path in paths if not (ROOT / path).exists()]
        assert not absent, (page, absent)


def test_commands_that_take_seconds_run(tmp_path, monkeypatch):
    ran = []
    for page in PAGES:
        folder = tmp_path / page.replace('/', '-')
        folder.mkdir()
        for place, command in commands(page, folder):
            monkeypatch.chdir(place)
            script, words = tool(*command) or ('', [])
            words = [str(FILLED.get(word, word)) for word in words]
            files = {word.rpartition(':')[2] for word in words if word.endswith('.pth')}
            for block in blocks(page, 'python'):
                if any(file in block and not Path(file).exists() for file in files):
                    exec(block, {})  # noqa: S102
            mention = all(word.startswith('-') for word in words)
            if mention or script not in SHORT or any(map(PLACEHOLDER.fullmatch, words)):
                continue
            if all(Path(file).exists() for file in files):
                if (script, words) not in ran:
                    run_here(monkeypatch, script, *words, *SHORT[script], folder=place)
                ran.append((script, words))
    assert {script for script, _ in ran} == {*SHORT}
