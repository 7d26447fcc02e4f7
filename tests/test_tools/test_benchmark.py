# Copyright (c) mmscale contributors.
import json
import os
import struct
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import largest_difference
from torch.utils.flop_counter import FlopCounterMode

from mmscale.ops import scale_conv2d

from .conftest import ROOT, run_here, run_tool

FOLDER = ROOT / 'tools' / 'benchmark'
sys.path.insert(0, str(FOLDER))
import data_loading  # noqa: E402
import deformable  # noqa: E402
import frontier  # noqa: E402
import layers  # noqa: E402
import processes  # noqa: E402
import resnets  # noqa: E402
import results  # noqa: E402
import run_all  # noqa: E402
import timing  # noqa: E402

MIB = 2**20
positive = st.floats(1e-3, 1e3)


# ---- ratios


@settings(max_examples=50)
@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=30))
def test_ratio_is_the_median_of_the_rounds_with_its_quartiles(pairs):
    values, references = zip(*pairs)
    found = timing.ratio(values, references)
    lower, median, upper = np.percentile(np.array(values) / np.array(references), [25, 50, 75])
    assert found['median'] == pytest.approx(median)
    assert found['quartiles'] == pytest.approx([lower, upper])
    assert found['rounds'] == len(pairs)


@settings(max_examples=50)
@given(st.lists(positive, min_size=1, max_size=9), st.data(), st.floats(0.1, 10))
def test_what_slows_a_whole_round_does_not_move_the_ratio(references, data, factor):
    slowed = st.lists(positive, min_size=len(references), max_size=len(references))
    loads = data.draw(slowed)
    values = [factor * one * load for one, load in zip(references, loads)]
    found = timing.ratio(values, [one * load for one, load in zip(references, loads)])
    assert found['median'] == pytest.approx(factor)


def test_one_round_has_no_quartiles():
    assert timing.ratio([6], [2]) == dict(median=3, quartiles=None, rounds=1)


@pytest.mark.parametrize('values, references', [([], []), ([1.0], [1.0, 2.0])])
def test_ratio_refuses_rounds_that_do_not_match(values, references):
    with pytest.raises(ValueError, match='equally many and at least one, got'):
        timing.ratio(values, references)


# ---- time in turn


def test_every_candidate_runs_once_a_round_and_the_warm_up_is_not_timed():
    calls = []
    candidates = {name: (lambda name=name: calls.append(name)) for name in 'abc'}
    times = timing.time_in_turn(candidates, seconds=0, rounds=(3, 9), warm_up=1)
    assert ''.join(calls) == 'abc' + 'abc' + 'cba' + 'abc'
    assert {name: len(found) for name, found in times.items()} == dict(a=3, b=3, c=3)
    assert all(seconds > 0 for found in times.values() for seconds in found)


def test_rounds_end_at_the_greatest_number_and_each_may_be_several_calls():
    calls = []
    times = timing.time_in_turn(
        dict(a=lambda: calls.append('a')), seconds=1e6, rounds=(1, 4), warm_up=0, calls=5
    )
    assert len(times['a']) == 4 and len(calls) == 4 * 5


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(candidates={}), 'candidates must name at least one function'),
        (dict(rounds=(3, 2)), r'rounds must be \(fewest, most\)'),
        (dict(rounds=(0, 2)), r'rounds must be \(fewest, most\)'),
        (dict(calls=0), 'calls 1, got 2 and 0'),
    ],
)
def test_time_in_turn_refuses_numbers_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        timing.time_in_turn(**{'candidates': dict(a=list), **arguments})


# ---- the limits and the plain loops


def counted(candidate: layers.Candidate) -> list[int]:
    """Multiply-adds, forward and forward with backward."""
    found = []
    for step in (layers.forward_step(candidate), layers.training_step(candidate)):
        with FlopCounterMode(display=False) as counter:
            step()
        found.append(counter.get_total_flops())
    return found


@pytest.mark.parametrize('case', [layers.Case(3, 2, 56, 1), layers.Case(7, 3, 28, 2)], ids=str)
@pytest.mark.parametrize('form, interaction', [('dense', 1), ('dense', 2), ('pyramid', 1)])
def test_the_limit_has_the_multiply_adds_of_scale_convolution(form, interaction, case):
    """Between levels of a pyramid ours resamples, too: there only the convolutions are equal."""
    limit = layers.ordinary_convolutions(form, interaction, case, 'cpu')
    assert counted(limit) == counted(layers.scale_convolution(form, interaction, case, 'cpu'))


@pytest.mark.parametrize('form', layers.FORMS)
@pytest.mark.parametrize('interaction', [1, 2, 3, 5])
def test_the_limit_has_the_multiply_adds_of_the_formula(form, interaction):
    case = layers.Case(3, 2, 17, 2)
    forward, _ = counted(layers.ordinary_convolutions(form, interaction, case, 'cpu'))
    sides = [17] * 4 if form == 'dense' else [17, 9, 5, 3]
    terms = [min(interaction, 4 - k) * side**2 for k, side in enumerate(sides)]
    assert forward == 2 * case.batch * case.channels**2 * 9 * sum(terms)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 3, 5]), st.integers(8, 13))
def test_the_plain_loop_computes_scale_convolution(num_scales, interaction, kernel, side):
    torch.manual_seed(0)
    x = torch.randn(2, 3, num_scales, side, side + 1, dtype=torch.float64)
    weight = torch.randn(4, 3, interaction, kernel, kernel, dtype=torch.float64)
    expected = scale_conv2d(x, weight, scale_space=dict(base=2, num_scales=num_scales))
    assert largest_difference(layers.plain_dense(x, weight), expected) < 1e-12


def test_the_plain_loop_computes_scale_convolution_of_pyramids():
    torch.manual_seed(0)
    x = tuple(torch.randn(2, 3, side, side, dtype=torch.float64) for side in (9, 5, 3))
    weight = torch.randn(4, 3, 1, 3, 3, dtype=torch.float64)
    expected = scale_conv2d(x, weight, scale_space=dict(base=2, num_scales=3))
    assert largest_difference(layers.plain_pyramid(list(x), weight), tuple(expected)) < 1e-12


def test_candidates_of_one_case_give_outputs_and_gradients_of_equal_size():
    for form in layers.FORMS:
        sizes = set()
        for make in (layers.scale_convolution, layers.ordinary_convolutions, layers.plain_loop):
            candidate = make(form, 2, layers.Case(3, 4, 16, 2), 'cpu')
            sizes.add(sum(y.numel() for y in candidate.forward()))
            assert all(leaf.is_leaf and leaf.requires_grad for leaf in candidate.leaves)
        assert len(sizes) == 1


def test_mmcvs_op_per_level_computes_deformable_scale_convolution():
    pytest.importorskip('mmcv._ext', reason='MMCV without compiled ops')
    tensors = deformable.random_tensors(deformable.Case(3, 4, 9, 2), 3, 'cpu', torch.float64)
    theirs = deformable.mmcv_per_level(*tensors)
    ours = deformable.deformable_scale_convolution(*tensors, 'native')
    (y,) = ours.forward()
    assert largest_difference(y.unbind(2), tuple(theirs.forward())) < 1e-12
    assert tensors[1][0].square().mean().sqrt().item() == pytest.approx(0.5, rel=0.1)


# ---- processes and memory

ALLOCATE = """
import time
import torch

def steps(mebibytes):
    held = torch.ones(mebibytes[0] * 2**18)
    return [lambda: held.sum(), lambda: torch.ones(mebibytes[1] * 2**18)]

def threads_of(file):
    def write():
        with open(file, 'a') as lines:
            print(torch.get_num_threads(), file=lines)
    return [write]

def fails(at):
    if at == 'start':
        raise ValueError('no such network')
    ran = []
    def step():
        ran.append(1)
        if len(ran) > 2:
            raise ValueError('no such step')
    return [step]
"""


@pytest.fixture
def allocating(tmp_path, monkeypatch):
    (tmp_path / 'allocating.py').write_text(ALLOCATE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_peak_memory_is_what_was_built_and_what_a_step_needs(allocating):
    """This process holds more than that: it must not count."""
    held = torch.ones(300 * MIB // 4)
    sizes = dict(a=[64, 160], b=[32, 8])
    arguments = {key: dict(mebibytes=size) for key, size in sizes.items()}
    with processes.start_workers('allocating:steps', arguments, 'cpu', 1) as workers:
        for key, (built, needed) in sizes.items():
            first, second = workers[key].peaks
            assert first == pytest.approx(built * MIB, abs=100)
            assert second == pytest.approx((built + needed) * MIB, abs=100)
    assert held.numel() == 300 * MIB // 4


def test_a_worker_runs_a_step_when_asked_on_its_number_of_threads(allocating, tmp_path):
    arguments = {n: dict(file=str(tmp_path / str(n)), threads=n) for n in (1, 2)}
    with processes.start_workers('allocating:threads_of', arguments, 'cpu', 1) as workers:
        processes.step_of(workers[2], 0)()
        found = [(tmp_path / str(n)).read_text().split() for n in (1, 2)]
    assert found == [['1'] * 2, ['2'] * 3]


def test_workers_end_with_their_block(allocating, tmp_path):
    arguments = dict(a=dict(file=str(tmp_path / 'lines')))
    with processes.start_workers('allocating:threads_of', arguments, 'cpu', 1) as workers:
        step = processes.step_of(workers['a'], 0)
        step()
    with pytest.raises((RuntimeError, OSError)):
        step()


def test_a_process_that_fails_says_why(allocating):
    with pytest.raises(RuntimeError, match='(?s)failed.*no such network'):
        with processes.start_workers('allocating:fails', dict(a=dict(at='start')), 'cpu', 1):
            pass
    with processes.start_workers('allocating:fails', dict(a=dict(at='step')), 'cpu', 1) as workers:
        with pytest.raises(RuntimeError, match='(?s)failed.*no such step'):
            processes.step_of(workers['a'], 0)()


def test_nothing_is_timed_where_memory_is_full(allocating, monkeypatch, tmp_path):
    total = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    assert 0 < processes.available_memory() < total
    arguments = dict(a=dict(file=str(tmp_path / 'lines')))
    with processes.start_workers('allocating:threads_of', arguments, 'cpu', 1) as workers:
        monkeypatch.setattr(processes, 'available_memory', lambda: 100 * MIB)
        with pytest.raises(RuntimeError, match='only 100 MiB of memory are left.*at least 512'):
            processes.step_of(workers['a'], 0)()
    with pytest.raises(RuntimeError, match='only 100 MiB of memory are left'):
        with processes.start_workers('allocating:threads_of', arguments, 'cpu', 1):
            pass
    monkeypatch.setattr(processes, 'available_memory', lambda: None)  # nobody says
    with processes.start_workers('allocating:threads_of', arguments, 'cpu', 1) as workers:
        processes.step_of(workers['a'], 0)()


# ---- networks


def test_a_training_step_changes_the_weights_and_inference_does_not(monkeypatch):
    built = []
    build = resnets.build
    monkeypatch.setattr(resnets, 'build', lambda *args: built.append(build(*args)) or built[-1])
    config = resnets.scale_resnet(18, 'pyramid', 2)
    infer, train = resnets.steps(config, batch=2, side=32)
    state = [value.clone() for value in built[0].state_dict().values()]
    infer()
    assert all(map(torch.equal, state, built[0].state_dict().values()))
    train()
    before = dict(zip(built[0].state_dict(), state))
    for name in ('backbone.conv1.weight', 'head.weight', 'head.bias'):
        assert not torch.equal(before[name], built[0].state_dict()[name])


def test_one_level_has_the_multiply_adds_of_resnet():
    one_level = resnets.scale_resnet(18, 'pyramid', 1)
    assert resnets.flops(one_level, 64) == resnets.flops(resnets.resnet(18), 64)


def test_pooled_features_of_both_forms_are_means_over_levels_and_positions():
    x = torch.randn(2, 3, 4, 5, 6)
    assert torch.allclose(resnets.pooled(x), resnets.pooled(x.unbind(2)), atol=1e-6)


# ---- results


def row(**arguments) -> dict:
    return results.compare('Layers', 'ours', 'theirs', [0.2, 0.3], [0.1, 0.1], **arguments)


@pytest.mark.parametrize(
    'target, held', [(('<=', 2.5), True), (('<=', 2.4), False), (('>=', 3), False), (None, None)]
)
def test_a_target_is_held_or_missed_by_the_median(target, held):
    assert row(target=target)['held'] is held
    assert row(target=target, judge=False)['held'] is None


def test_the_table_says_what_was_measured_and_whether_the_target_is_held():
    rows = [row(target=('<=', 2.5), work=1.5), row(target=('>=', 3.0)), row()]
    run = dict(command='python run_all.py', gpu=None, cpu='a processor', threads=2, cores=2,
               torch='2', mmcv='2', mmpretrain='1', mmscale='0',
               allocator={'MALLOC_MMAP_MAX_': '0'})  # fmt: skip
    lines = results.to_markdown(run, rows).splitlines()
    assert '`python run_all.py`' in lines and '## Layers' in lines
    assert lines[4].endswith('mmscale 0, MALLOC_MMAP_MAX_=0.')
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[-3:]]
    assert cells[0] == ['ours', 'theirs', '**2.5**', '2.25 to 2.75', '1.5', '≤ 2.5', 'held',
                        '250 ms', '100 ms']  # fmt: skip
    assert cells[1][4:7] == ['', '≥ 3', 'missed'] and cells[2][4:7] == ['', '', '']


# ---- data


def test_made_up_images_are_read_as_the_datasets_files():
    loaders = data_loading.build_loaders(None, images=200)
    assert list(loaders) == [
        (name, variant)
        for name in ('ScaleMNIST', 'ScaleCIFAR10')
        for variant in ('', ' + RandomRescale')
    ]
    for (name, variant), loader in loaders.items():
        assert loader.num_workers == 2 and loader.batch_size == 128
        assert data_loading.epoch(loader)() == 200
        steps = [type(step).__name__ for step in loader.dataset.pipeline.transforms]
        assert ('RandomRescale' in steps) == bool(variant)
        side, channels = (28, 1) if name == 'ScaleMNIST' else (32, 3)
        assert loader.dataset[0]['inputs'].shape == (channels, side, side)


def test_folders_of_the_user_are_only_read(tmp_path, monkeypatch):
    checksums = data_loading.write_mnist(tmp_path / 'mnist')
    data_loading.write_cifar10(tmp_path / 'cifar10', images_a_file=1200)
    before = sorted(tmp_path.rglob('*'))
    monkeypatch.setattr(data_loading.scale_mnist, 'IDX_FILES', checksums)
    monkeypatch.setattr(data_loading.scale_mnist.ScaleMNIST, 'published', False)
    loaders = data_loading.build_loaders(tmp_path, images=50)
    assert [len(loader.dataset) for loader in loaders.values()] == [50] * 4
    assert sorted(tmp_path.rglob('*')) == before


def test_made_up_mnist_has_the_headers_of_the_original(tmp_path):
    data_loading.write_mnist(tmp_path / 'mnist')
    head = (tmp_path / 'mnist' / 'train-images-idx3-ubyte').read_bytes()[:16]
    assert struct.unpack('>IIII', head) == (0x803, 60_000, 28, 28)


# ---- the scripts


@pytest.mark.parametrize(
    'script', ['layers', 'deformable', 'lifts', 'backbones', 'growth', 'precisions', 'data_loading']
)
def test_a_quick_run_writes_table_json_and_figure(script, tmp_path):
    result = run_tool(f'tools/benchmark/{script}.py', '--quick', '--threads', 2, '--out', tmp_path)
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / f'{script}.json').read_text())
    assert written['quick'] and written['threads'] == 2 and written['torch'] == torch.__version__
    assert f'tools/benchmark/{script}.py --quick' in written['command']
    assert (tmp_path / f'{script}.md').read_text() in result.stdout
    assert (tmp_path / f'{script}.png').stat().st_size > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f'{script}.json', f'{script}.md', f'{script}.png'
    ]  # fmt: skip
    rows = written['rows']
    if script == 'deformable' and not rows:
        assert 'Deformable scale convolution: left out' in result.stderr
        return
    assert rows and all(one['ratio']['median'] > 0 and one['held'] is None for one in rows)
    assert all(one['unit'] in results.UNITS for one in rows)


def test_the_frontier_of_the_named_configurations(tmp_path):
    result = run_tool(
        'tools/benchmark/frontier.py', '--named', '--num-images', 2, '--batch-size', 1,
        '--out', tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / 'frontier_cifar18.json').read_text())
    rows = {row['role'] or row['name']: row for row in written['rows']}
    worst = {name: max(row['errors'][-1]) for name, row in rows.items()}
    # What the blur brings, and what finer levels bring on top.
    order = ['ordinary', 'ordinary, blur 5 taps', 'economical', 'balanced', 'accurate']
    assert all(worst[better] < worst[than] for than, better in zip(order, order[1:]))
    assert rows['ordinary']['cost'] == 1 and all(row['cost'] > 0 for row in rows.values())
    assert all(row['amplification'][-1] > 1 for row in rows.values())  # random weights
    assert (tmp_path / 'frontier_cifar18.md').read_text() in result.stdout
    assert (tmp_path / 'frontier_cifar18.png').stat().st_size > 20_000


def test_amplification_is_a_share_of_the_signal_over_a_share_of_the_images():
    images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double()

    def network(x):  # two outputs, the second of two levels
        return (5 * x,), (x + 2, 3 * x[..., ::2, ::2])

    first, second = frontier.amplification(network, images)
    assert first == pytest.approx(1, abs=1e-12)
    change = images.roll(1, 0)
    grown = change.square().sum() + 9 * change[..., ::2, ::2].square().sum()
    signal = (images + 2).square().sum() + 9 * images[..., ::2, ::2].square().sum()
    before = change.square().sum() / images.square().sum()
    assert second == pytest.approx(float(grown / signal / before), rel=1e-9)


def test_results_are_written_after_every_part(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['run_all.py', '--quick', '--out', 'results'])
    args = run_all.parse_args('All.')

    def second_part(args):
        written = json.loads((tmp_path / 'results' / 'benchmark.json').read_text())
        assert list(written['seconds']) == ['first'] and len(written['rows']) == 1
        raise RuntimeError('stopped')

    parts = dict(first=lambda args: [row()], second=second_part)
    with pytest.raises(SystemExit, match='RuntimeError: stopped'):
        run_all.run_sections(args, parts, 'benchmark')
    assert (tmp_path / 'results' / 'benchmark.md').exists()


def test_all_parts_are_run():
    scripts = {path.stem for path in FOLDER.glob('*.py') if "__name__ == '__main__'" in
               path.read_text()} - {'run_all', 'frontier'}  # fmt: skip
    run = (FOLDER / 'run_all.py').read_text()
    assert scripts and all(f'{script}.' in run for script in scripts)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--out', 'README.md'], '--out: README.md is a file, not a folder'),
        (['--threads', 0], '--threads must be at least 1, got 0'),
        (['--data', 'nowhere'], '--data: there is no folder nowhere'),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run_here(monkeypatch, 'tools/benchmark/layers.py', *arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err
