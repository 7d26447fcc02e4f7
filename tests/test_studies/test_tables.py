# Copyright (c) mmscale contributors.
import math

import draw
import numpy as np
import pandas as pd
import pytest
import tables
from cells import RESULTS, STUDIES, read_study
from scipy import stats

NAMES = sorted(path.stem for path in RESULTS.glob('*.csv'))


def frame_of(*numbers, **more) -> pd.DataFrame:
    """Results with lines of ``(cell, seed, metric, factor, value)``."""
    frame = pd.DataFrame(numbers, columns=['cell', 'seed', 'metric', 'factor', 'value'])
    known = dict(parameters=1_000, multiply_adds=2_000_000, seconds=60.0, device='cpu', threads=1,
                 torch='2', commit='abc')  # fmt: skip
    return frame.assign(**{**known, **more})


def curve(cell, seed, metric, *values) -> list[tuple]:
    return [(cell, seed, metric, factor, value) for factor, value in zip((1.0, 2.0, 3.0), values)]


@pytest.fixture
def study(tmp_path):
    (tmp_path / 'two.py').write_text(
        "title, seeds = 'Two networks', [0, 1]\n"
        "runs = dict(a=dict(config='configs/a.py'), b=dict(config='configs/b.py'))\n"
        "comparisons = [('b for a', 'a', 'b')]\n"
        "pictures = [dict(kind='scale'), dict(kind='scatter')]\n"
        'equivariance = dict(factors=[1, 2])\n'
    )
    return read_study(tmp_path / 'two.py')


def lines_of(text: str, start: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip('|').split('|')]
            for line in text.splitlines() if line.startswith(f'| {start}')]  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_pages_show_the_numbers_of_the_csv_files(name):
    """The pages of before the results were CSV files came out of them again, digit for digit."""
    study = read_study(STUDIES / f'{name}.py')
    page = (RESULTS / f'{name}.md').read_text(encoding='utf-8')
    assert tables.document(study, name, tables.load(name), []) == page


@pytest.mark.parametrize('name', NAMES)
def test_no_change_of_code_makes_users_repeat_the_published_cells(name):
    assert pd.read_csv(RESULTS / f'{name}.csv', usecols=['code']).code.isna().all()


@pytest.mark.parametrize('name', NAMES)
def test_pictures_of_the_repository_can_be_drawn(name, tmp_path, monkeypatch):
    study, drawn = read_study(STUDIES / f'{name}.py'), []
    monkeypatch.setattr(draw, 'save_figure', lambda figure, path, dpi: drawn.append(figure))
    frame = tables.load(name)
    draw.draw(study, name, frame, tmp_path)
    measured = [set(p.get('runs', study.runs)) & set(frame.cell) for p in study.pictures]
    assert len(drawn) == sum(map(bool, measured)) and bool(drawn) == bool(study.pictures)
    for figure in drawn:
        empty = [axes for axes in figure.axes if not axes.lines and not axes.collections]
        assert len(empty) < len(figure.axes)
        assert all(axes.texts[0].get_text() == 'not measured' for axes in empty)


def test_the_page_has_means_deviations_and_what_is_missing(study):
    frame = frame_of(
        *curve('a', 0, 'accuracy', 90, 80), *curve('a', 1, 'accuracy', 92, 70),
        *curve('b', 0, 'accuracy', 95, 90), ('a', 0, 'test/accuracy/top1', math.nan, 98),
        ('a', 1, 'test/accuracy/top1', math.nan, 99),
    )  # fmt: skip
    page = tables.document(study, 'two', frame, [('A picture', 'two_scale.png')])
    assert page.startswith('# Two networks\n\n`make study NAME=two`: 3 of 4 runs')
    assert 'b (1 of 2)' in page and '![A picture](two_scale.png)' in page
    costs, accuracy = lines_of(page, 'a ')
    assert costs == ['a', '`configs/a.py`', '2', '1,000', '2.0 M', '1.0 ± 0.0', '1.50 ± 0.71']
    assert accuracy == ['a', '91.00 ± 1.41', '75.00 ± 7.07']


def test_differences_are_taken_seed_by_seed_and_ratios_have_a_factor_for_their_spread(study):
    # Seeds differ by forty points; two runs of one seed by one and two.
    numbers = [*curve('a', 0, 'accuracy', 90, 80), *curve('a', 1, 'accuracy', 50, 40),
               *curve('b', 1, 'accuracy', 51, 42), *curve('b', 0, 'accuracy', 91, 82),
               *curve('b', 7, 'accuracy', 0, 0)]  # fmt: skip
    # Ratios 1/4 and 1: their geometric mean is 1/2, the standard error of the logarithm log 2.
    for seed, error in ((0, 0.1), (1, 0.4)):
        numbers += curve('a', seed, 'error/neck', 0, 0.4) + curve('b', seed, 'error/neck', 0, error)
    text = tables.comparison(study, tables.select(study, frame_of(*numbers)), '', 'a', 'b')
    assert lines_of(text, 'accuracy') == [['accuracy, points', '+1.00 ± 0.00', '+2.00 ± 0.00']]
    assert lines_of(text, 'error of') == [['error of `neck`, ratio', '-', '0.5 (×÷ 2.00)']]
    assert lines_of(text, 'b against a') == [['b against a', '1', '1/2']]


def test_cells_of_other_factors_are_left_out(study):
    frame = frame_of(*curve('a', 0, 'accuracy', 1, 2), *curve('a', 1, 'accuracy', 1, 2, 3))
    assert set(tables.select(study, frame).seed) == {0}
    with pytest.raises(ValueError, match="there is no run 'c'"):
        tables.select(study, frame, ('c',))


def test_times_of_two_devices_are_not_mixed(study):
    frame = frame_of(
        *(line for one in (('a', 0), ('a', 1), ('b', 0)) for line in curve(*one, 'm', 1))
    )
    frame = frame.assign(device=np.where(frame.seed == 1, 'GPU', 'cpu'),
                         seconds=np.where(frame.seed == 1, 6.0, 60.0))  # fmt: skip
    text = tables.costs(study, tables.select(study, frame))
    assert 'training on GPU, minutes | training on cpu, minutes |' in text
    rows = lines_of(text, 'a ') + lines_of(text, 'b ')
    assert [row[-2:] for row in rows] == [['0.1', '1.0'], ['-', '1.0']]


def test_a_test_that_has_found_nothing_is_a_dash_and_not_a_mean_of_the_others(study):
    study.columns = {'small': ('few', 'AP'), 'large': ('all', 'AP')}
    frame = frame_of(('a', 0, 'test/few/AP', math.nan, 0.1), ('a', 0, 'test/all/AP', math.nan, 0.5),
                     ('a', 1, 'test/few/AP', math.nan, 0.3), ('b', 0, 'test/all/AP', math.nan, 0.5),
                     ('a', 1, 'test/other', math.nan, 0.3))  # fmt: skip
    text = tables.columns(study, tables.select(study, frame))
    assert lines_of(text, 'a ') == [['a', '2', '0.2 ± 0.141', '-']]
    assert lines_of(text, 'b ') == [['b', '1', '-', '0.5']]


def test_each_run_is_drawn_with_the_layer_that_it_has(study):
    frame = frame_of(
        *curve('a', 0, 'error/backbone', 0, 0.5), *curve('b', 0, 'error/neck', 0, 0.25)
    )
    figure = draw.draw_scale(study, tables.select(study, frame), dict(layer=['neck', 'backbone']))
    right = figure.axes[1]
    assert right.get_title() == 'Equivariance error of neck or backbone'
    drawn = [line.get_ydata().tolist() for line in right.lines if len(line.get_ydata())]
    assert [0.5] in drawn and [0.25] in drawn


def test_rank_correlation_is_spearmans(study):
    study.runs = {str(run): dict(config='c') for run in range(12)}
    x, y = np.random.default_rng(0).normal(size=(2, 12))
    numbers = [line for run in study.runs for line in (
        *curve(run, 0, 'error/backbone', 0, math.exp(x[int(run)])),
        *curve(run, 0, 'accuracy', 100, y[int(run)]),
    )]  # fmt: skip
    figure = draw.draw_scatter(study, tables.select(study, frame_of(*numbers)), {})
    rank = stats.spearmanr(x, y)[0]
    assert figure.axes[0].get_title().endswith(f'over the 12 models: {rank:+.2f}')


def test_models_without_an_error_at_some_factor_have_no_rank(study):
    """Their accuracies would shift the ranks of the others."""
    study.runs |= {name: dict(config=f'configs/{name}.py') for name in 'cd'}
    study.equivariance['factors'] = [1, 2, 3]
    rows = []
    for cell, error, accuracy in zip('abcd', (1.0, 2.0, 3.0, math.nan), (70.0, 90.0, 80.0, 75.0)):
        rows += curve(cell, 0, 'accuracy', 99, accuracy, accuracy)
        rows += curve(cell, 0, 'error/backbone', 0, 1.0, error)
    frame = tables.select(study, frame_of(*rows))
    (axes,) = draw.draw_scatter(study, frame, {}).axes
    assert axes.get_title() == 'rank correlation over the 3 models: +0.50'
