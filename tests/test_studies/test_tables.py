# Copyright (c) mmscale contributors.
import math

import numpy as np
import pytest
from mmengine.config import Config
from scipy import stats

from mmscale.studies import ledger, pictures, summary, tables


@pytest.fixture
def study():
    return Config(
        dict(
            title='Two networks',
            seeds=[0, 1],
            runs=dict(a=dict(config='configs/a.py'), b=dict(config='configs/b.py')),
            comparisons=[('b for a', 'a', 'b')],
            pictures=[dict(kind='scale'), dict(kind='scatter')],
            columns={},
        )
    )


def lines_of(text: str, start: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in text.splitlines()
        if line.startswith(f'| {start}')
    ]


def test_the_page_has_means_deviations_and_what_is_missing(study, make_entry):
    entries = [make_entry('a', 0), make_entry('a', 1, (92, 70)), make_entry('b', 0, (95, 90))]
    page = tables.document(study, 'two', entries, [('A picture', 'two_scale.png')])
    assert page.startswith('# Two networks\n')
    assert '`python tools/study.py studies/two.py`: 3 of 4 runs' in page
    assert 'b (1 of 2)' in page and '![A picture](two_scale.png)' in page
    costs, accuracy, error = lines_of(page, 'a ')
    assert costs == ['a', '`configs/a.py`', '2', '1,000', '2.0 M', '1.0 ± 0.0']
    assert accuracy == ['a', '91.00 ± 1.41', '75.00 ± 7.07']
    assert error == ['a', '0 ± 0', '0.5 ± 0']
    assert lines_of(page, 'accuracy, points') == [['accuracy, points', '+5.00', '+10.00']]
    assert lines_of(page, 'error of') == [['error of `backbone`, ratio', '-', '1']]


def test_a_ratio_of_errors_has_a_factor_for_its_spread(study, make_entry):
    entries = [make_entry('a', seed, error=(0, 0.4)) for seed in (0, 1)]
    entries += [make_entry('b', seed, error=(0, e)) for seed, e in ((0, 0.1), (1, 0.4))]
    page = tables.document(study, 'two', entries, [])
    # Ratios 1/4 and 1: their geometric mean is 1/2, the standard error of the logarithm log 2.
    assert lines_of(page, 'error of') == [['error of `backbone`, ratio', '-', '0.5 (×÷ 2.00)']]


def test_networks_of_other_layers_are_compared_by_what_they_share(study, make_entry):
    entries = [make_entry('a', 0), make_entry('b', 0, (95, 90))]
    entries[1]['layers']['neck'] = entries[1]['layers']['backbone']
    entries[1]['layers'].pop('backbone')
    page = tables.document(study, 'two', entries, [])
    assert lines_of(page, 'accuracy, points') == [['accuracy, points', '+5.00', '+10.00']]
    assert not lines_of(page, 'error of')


def test_the_number_of_a_cell_that_found_nothing_at_a_size_is_none(make_entry):
    assert pictures.accuracy(make_entry('a', 0)) == 85
    assert math.isnan(pictures.accuracy(make_entry('a', 0, (0.3, None))))


def test_times_of_two_devices_are_not_mixed(study, make_entry):
    entries = [make_entry('a', seed) for seed in (0, 1)]
    entries[1] = dict(entries[1], training_seconds=6, made=dict(entries[1]['made'], device='GPU'))
    page = tables.document(study, 'two', [*entries, make_entry('b', 0)], [])
    assert lines_of(page, 'a ')[0][-2:] == ['0.1', '1.0'] and 'training on GPU, minutes |' in page
    assert lines_of(page, 'b ')[0][-2:] == ['-', '1.0']


def test_test_errors_have_a_column(study, make_entry):
    entries = [make_entry('a', seed, test={'accuracy/top1': 98.0 + seed}) for seed in (0, 1)]
    page = tables.document(study, 'two', [*entries, make_entry('b', 0)], [])
    assert lines_of(page, 'a ')[0][-1] == '1.50 ± 0.71'
    assert lines_of(page, 'b ')[0][-1] == '-'


def test_a_study_of_detectors_may_test_them(study, make_entry):
    entries = [make_entry('a', seed, test={'coco/bbox_mAP': None}) for seed in (0, 1)]
    page = tables.document(study, 'two', entries, [])
    assert 'test error' not in page
    assert math.isnan(pictures.accuracy(entries[0]))  # of no object, no AP


def test_entries_of_other_factors_are_left_out(study, make_entry, tmp_path):
    study.equivariance = dict(factors=[1, 2])
    entries = [make_entry('a', 0), make_entry('a', 1, (92, 70)), make_entry('b', 0)]
    entries[1]['factors'] = [1.0, 3.0]
    entries[2] = {**make_entry('b', 0, (1, 2, 3), (1, 2, 3)), 'factors': [1.0, 2.0, 3.0]}
    page = tables.document(study, 'two', entries, [])
    assert 'a (1 of 2); b (0 of 2)' in page
    assert lines_of(page, 'a ')[1] == ['a', '90.00', '80.00'] and not lines_of(page, 'b ')
    assert pictures.write(study, entries, tmp_path, 'two')
    study.equivariance = dict(factors=3)
    assert list(summary.runs_of(study, entries)) == []


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(pictures=[dict(kind='scater')]), "must be one of scale, .*, got 'scater'"),
        (dict(pictures=[dict(kind='scale', runs=['c'])]), "have 'c', which is no run"),
        (dict(comparisons=[('c for a', 'a', 'c')]), "have 'c', which is no run"),
    ],
)
def test_pictures_that_could_not_be_made_are_named(study, change, message):
    pictures.check_pictures(study)
    study.update(change)
    with pytest.raises(ValueError, match=message):
        pictures.check_pictures(study)


def test_further_tests_have_a_table_and_a_picture(study, make_entry, tmp_path):
    study.columns = {'small': ['few', 'coco/bbox_mAP'], 'large': ['all', 'coco/bbox_mAP']}
    study.runs = {name: dict(config='c', trained=name) for name in 'ab'}
    study.pictures = [dict(kind='columns', columns=['small', 'large'], panels='trained')]

    def entry(name, seed, few):
        tests = {'few': few, 'all': {'coco/bbox_mAP': 0.5}}
        curve = dict(mean=[0.25, None], standard_error=[None] * 2, n=[9] * 2, metric='mAP')
        return dict(make_entry(name, seed, tests=tests), accuracy=curve)

    entries = [entry('a', seed, {'coco/bbox_mAP': 0.1 + 0.2 * seed}) for seed in (0, 1)]
    entries.append(entry('b', 0, {}))  # which has found nothing there
    page = tables.document(study, 'two', entries, [])
    assert ['a', '2', '0.2 ± 0.141', '0.5 ± 0'] in lines_of(page, 'a ')
    assert ['b', '1', '-', '0.5'] in lines_of(page, 'b ')
    assert ['mAP', '1', '1/2'] in lines_of(page, 'mAP')
    assert ['b', '0.25', '-'] in lines_of(page, 'b ')
    assert pictures.in_short(entries[0]) == 'mAP 0.25 - at 1 2'
    assert pictures.accuracy(entries[0]) == 0.1
    runs = summary.by_run(entries)
    figure = pictures.draw_columns(study, runs, study.pictures[0])
    assert [axes.get_title() for axes in figure.axes] == ['a', 'b']
    assert np.allclose(figure.axes[0].lines[0].get_ydata(), [0.2, 0.5])
    assert figure.axes[0].get_ylim()[0] == 0
    assert 'a,0,,test few: coco/bbox_mAP,,0.1,,' in ledger.to_csv(entries)
    entries[2]['tests']['few'] = {'coco/bbox_mAP': 0.9}  # the second panel has the largest
    figure = pictures.draw_columns(study, summary.by_run(entries), study.pictures[0])
    assert all(axes.get_ylim()[1] > 0.9 for axes in figure.axes)


def test_a_study_without_results_has_a_page_that_says_so(study):
    assert 'No run is finished.' in tables.document(study, 'two', [], [])


def test_a_cell_without_number_is_a_dash():
    assert tables.cell(math.nan, 1.0, '.1f') == '-'
    assert tables.cell(1.25, math.nan, '.1f') == '1.2'


def test_pictures_and_page_are_written(study, make_entry, tmp_path):
    entries = [make_entry(name, seed) for name in 'ab' for seed in (0, 1)]
    written = pictures.write(study, entries, tmp_path, 'two')
    assert [path.name for path in written] == ['two.md', 'two_scale.png', 'two_scatter.png']
    assert all(path.stat().st_size > 500 for path in written)
    assert (tmp_path / 'two_scale.svg').is_file()
    assert not list(tmp_path.glob('*.part*'))


def test_each_run_is_drawn_with_the_layer_that_it_has(study, make_entry):
    entries = [make_entry('a', 0), make_entry('b', 0)]
    entries[1]['layers'] = {'neck': dict(entries[1]['layers']['backbone'], mean=[0.0, 0.25])}
    picture = Config(dict(layer=['neck', 'backbone']))
    figure = pictures.draw_scale(study, summary.by_run(entries), picture)
    right = figure.axes[1]
    assert right.get_title() == 'Equivariance error of neck or backbone'
    drawn = [line.get_ydata().tolist() for line in right.lines if len(line.get_ydata())]
    assert [0.5] in drawn and [0.25] in drawn


def test_of_factors_each_value_has_a_line_in_its_panel(make_entry):
    runs = {'m': dict(config='c', model='M', values=dict(base=2, seeds=3))}
    runs['m, base 1.5'] = dict(config='c', model='M', factor='base', value=1.5)
    runs['m, seeds 1'] = dict(config='c', model='M', factor='seeds', value=1)
    study = Config(dict(title='t', seeds=[0], runs=runs))
    found = {name: [make_entry(name, 0)] for name in runs}
    figure = pictures.draw_factors(study, found, Config())
    texts = [[t.get_text() for t in axes.get_legend().get_texts()] for axes in figure.axes]
    assert texts == [['1.5', '2, the setting of the others'], ['1', '3, the setting of the others']]
    assert figure.axes[0].get_ylabel() == 'M\naccuracy (%)'
    assert figure.axes[0].lines[0].get_ydata().tolist() == [90, 80]
    figure = pictures.draw_factors(study, found, Config(dict(measure='error')))
    assert figure.axes[0].get_ylabel() == 'M\nequivariance error'
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[2, 0.5]]  # no 0 on a log axis
    assert not figure.axes[0].texts


def test_of_factors_a_value_without_level_is_named_and_legends_stand_above(make_entry):
    runs = {name: dict(config='c', model=name, values=dict(base=2)) for name in 'MN'}
    for name in 'MN':
        runs[f'{name}, base 8'] = dict(config='c', model=name, factor='base', value=8)
    study = Config(dict(title='t', seeds=[0], runs=runs))
    found = {name: [make_entry(name, 0)] for name in runs}
    for name in 'MN':
        found[f'{name}, base 8'] = [make_entry(f'{name}, base 8', 0, error=(0.0, None))]
    figure = pictures.draw_factors(study, found, Config(dict(measure='error')))
    assert [axes.texts[0].get_text() for axes in figure.axes] == ['8: no level left'] * 2
    legends = [axes.get_legend() for axes in figure.axes]
    assert legends[1] is None
    figure.canvas.draw()
    assert legends[0].get_window_extent().y0 >= figure.axes[0].bbox.y1


def test_rank_correlation_is_spearmans():
    x, y = np.random.default_rng(0).normal(size=(2, 12))
    assert math.isclose(pictures._rank_correlation(x, y), stats.spearmanr(x, y)[0])
