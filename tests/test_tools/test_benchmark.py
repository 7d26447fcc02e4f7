# Copyright (c) mmscale contributors.
import csv
import math
import sys
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import largest_difference

from mmscale.ops import scale_conv2d

from .conftest import ROOT, run_here, run_tool

sys.path.insert(0, str(ROOT / 'tools' / 'benchmark'))
import cases  # noqa: E402
import report  # noqa: E402
import run as runner  # noqa: E402
import steps  # noqa: E402
import workers  # noqa: E402

MIB = 2**20
ROW = cases.Row(cases.STEP, ('theirs',), 'ours', None)
SMALL = dict(kernel=3, channels=2, side=17, batch=2)


@given(st.lists(st.tuples(*[st.floats(1e-3, 1e3)] * 3), min_size=2, max_size=30))
def test_ratio_is_that_of_the_rounds_whatever_slows_a_whole_one(rounds):
    values, references, loads = np.array(rounds).T
    found = report.compare('', ROW, 'theirs', list(values * loads), list(references * loads))
    got = [found[name] for name in ('lower_quartile', 'ratio', 'upper_quartile')]
    assert got == pytest.approx(list(np.percentile(values / references, [25, 50, 75])))


def test_each_is_timed_once_a_round_back_and_forth_and_what_is_short_several_times():
    asked = []
    ask = {name: lambda calls, name=name: asked.append((name, calls)) or 1.0 for name in 'abc'}
    times = runner.time_in_turn(ask, dict(a=1.0, b=0.02, c=9.0), seconds=0, rounds=(3, 9))
    assert ''.join(name for name, _ in asked) == 'abc' + 'cba' + 'abc'
    assert times == dict.fromkeys('abc', [1.0] * 3)
    assert dict(asked) == dict(a=1, b=3, c=1)  # 50 ms at least


@pytest.mark.parametrize('target, held', [('<= 2.5', True), ('<= 2.4', False), ('>= 3', False)])
def test_the_table_says_what_was_measured_and_whether_the_target_is_held(target, held):
    row = ROW._replace(target=target)
    found = report.compare('Layers', row, 'theirs', [0.2, 0.3], [0.1, 0.1], 1.5)
    run = dict(command='python run.py', machine='a processor', notes=['left out'], profiles={})
    lines = report.to_markdown(run, [found]).splitlines()
    assert {'`python run.py`', 'a processor.', '- left out', '### Layers'} <= set(lines)
    sign = {'<=': '≤', '>=': '≥'}[target[:2]] + target[2:]
    cells = '| ours, time of training step | theirs | **2.5** | 2.25 to 2.75 | 1.5 | {} | {} | '
    cells = cells.format(sign, 'held' if held else 'missed') + '250 ms | 100 ms |'
    assert lines[-1] == cells and found['held'] is held


@pytest.mark.parametrize('form, sides', [('dense', [17] * 4), ('pyramid', [17, 9, 5, 3])])
@pytest.mark.parametrize('interaction', [1, 2, 5])
def test_the_limit_has_the_multiply_adds_of_the_formula(form, sides, interaction):
    def flops(kind: str, mode: str) -> int:
        layer = steps.layer(kind, form=form, interaction=interaction, **SMALL)
        return workers.multiply_adds_of(layer[mode], 'cpu', 1)

    terms = [min(interaction, 4 - k) * side**2 for k, side in enumerate(sides)]
    assert flops('ordinary', 'forward') == 2 * 2 * 2**2 * 9 * sum(terms)
    if form == 'dense' or interaction == 1:  # between levels of a pyramid ours resamples, too
        for mode in ('forward', 'forward + backward'):
            assert flops('scale', mode) == flops('ordinary', mode)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 3, 5]), st.integers(8, 13))
def test_the_plain_loop_computes_scale_convolution(num_scales, interaction, kernel, side):
    torch.manual_seed(0)
    grid = dict(base=2, num_scales=num_scales)
    x = torch.randn(2, 3, num_scales, side, side + 1, dtype=torch.float64)
    weight = torch.randn(4, 3, interaction, kernel, kernel, dtype=torch.float64)
    expected = scale_conv2d(x, weight, scale_space=grid)
    assert largest_difference(steps.plain_dense(x, weight), expected) < 1e-12
    sizes = [(-(-side // 2**k), -(-(side + 1) // 2**k)) for k in range(num_scales)]
    x = tuple(torch.randn(2, 3, *size, dtype=torch.float64) for size in sizes)
    expected = scale_conv2d(x, weight[:, :, :1], scale_space=grid)
    assert largest_difference(tuple(steps.plain_pyramid(x, weight[:, :, :1])), expected) < 1e-12


def test_mmcvs_op_per_level_computes_deformable_scale_convolution():
    pytest.importorskip('mmcv._ext', reason='MMCV without compiled ops')
    found = []
    for kind, more in (('mmcv', {}), ('deformable', dict(backend='native'))):
        torch.manual_seed(0)
        found.append(steps.LAYERS[kind](num_scales=3, **SMALL, **more).forward())
    theirs, (ours,) = found
    assert largest_difference(tuple(theirs), ours.unbind(2)) < 1e-4  # sums of 18, single precision


def test_a_training_step_changes_the_weights_and_inference_does_not(monkeypatch):
    built, build = [], steps.MODELS.build
    monkeypatch.setattr(steps.MODELS, 'build', lambda c: built.append(build(c)) or built[-1])
    config = dict(cases.scaled('pyramid', 2), **cases.NARROW)
    found = steps.network(config, batch=2, side=32)
    before = built[-1].conv1.weight.clone()
    for mode in ('inference', 'training step'):
        with found[mode].context():
            found[mode].run()
            assert built[-1].training == (mode == 'training step')
        assert torch.equal(before, built[-1].conv1.weight) == (mode == 'inference')


def test_memory_is_the_most_that_is_held_at_once():
    step = steps.Step(lambda: torch.zeros(8 * MIB, dtype=torch.uint8))
    _, peaks = workers.build_steps(lambda device: dict(inference=step), {}, 'cpu', True)
    assert 8 * MIB <= peaks['inference'] < 9 * MIB


def test_a_process_measures_the_cost_of_the_host_and_memory(monkeypatch):
    host = next(group for group in cases.cpu_groups() if group.name == 'host')
    names = cases.RESNET, 'one level'
    table = {'memory of inference': {names[0]: {names[1]: None}}}
    group = replace(host, subjects={name: host.subjects[name] for name in names}, table=table)
    args = Namespace(device='cpu', keep_blocks=True, deadline=math.inf, against=None)
    run = dict(notes=[], failed=False)
    session = runner.Session(group, args, run)
    session.start()
    assert f'torch {torch.__version__}' in run['machine']

    def ask(what: str, mode: str = 'inference') -> list:
        return list(session.ask(workers.answer, dict.fromkeys(names, (what, mode))).values())

    assert ask('operators')[0] == 172 and ask('Python calls')[0] == 2107
    assert len(set(ask('multiply-adds'))) == 1
    for infer, train in zip(ask('memory'), ask('memory', 'training step'), strict=True):
        assert train > infer + 4 * MIB  # gradients and momentum: 0.6 million weights twice
    monkeypatch.setattr(runner, 'available_memory', lambda: 100 * MIB)  # nothing to be timed
    with pytest.raises(SystemExit, match='only 100 MiB of memory are left.*at least 512'):
        ask('time')
    monkeypatch.undo()
    assert ask('time', 'no such mode') == [] == list(session.pools) and run['failed']
    assert "one level is left out: KeyError: 'no such mode'" in run['notes'][1]
    session.end()


def test_a_quick_run_of_this_checkout_against_itself(tmp_path):
    options = '--quick', '--only', 'host', '--out', tmp_path, '--against', ROOT
    result = run_tool('tools/benchmark/run.py', *options)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ['against.csv', 'against.md']
    assert (tmp_path / 'against.md').read_text(encoding='utf-8') == result.stdout
    rows = list(csv.DictReader((tmp_path / 'against.csv').open(encoding='utf-8')))
    assert len(rows) == 4 * 6 and {row['held'] for row in rows} == {''}
    counts = [row['ratio'] for row in rows if not row['quantity'].startswith('time')]
    assert counts == ['1.0'] * 4 * 4


def test_the_script_for_a_gpu_profiles_and_ends_in_time(tmp_path):
    command = 'tools/benchmark/gpu.py', '--device', 'cpu', '--no-tests', '--out', tmp_path
    profiled = run_tool(*command, '--quick', '--only', 'kernels')
    assert profiled.returncode == 0 and 'Self CPU time total' in profiled.stdout
    assert 'time was over before the end of: eager,' in run_tool(*command, '--minutes', 0).stdout


@pytest.mark.parametrize('arguments', [['--out', 'README.md'], ['--against', 'docs']])
def test_bad_arguments_are_refused_at_once(arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run_here(monkeypatch, 'tools/benchmark/run.py', *arguments)
    assert error.value.code == 2 and ': '.join(arguments) + ' is ' in capsys.readouterr().err
