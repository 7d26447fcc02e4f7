# Copyright (c) mmscale contributors.
import csv
import io
import json
import math

import numpy as np
import pytest
import torch

from mmscale.engine import report
from mmscale.evaluation import EquivarianceError

FACTORS = (1.0, 1.5, 2.0)


def make_curve(*means, n=8, truncated=None):
    known = [mean is not None for mean in means]
    errors = [mean / 10 if mean is not None else None for mean in means]
    n = [n * k for k in known]
    return dict(mean=list(means), standard_error=errors, n=n, truncated=truncated)


def make_result(name, layers, accuracy=None, lift=None, body=None):
    return dict(name=name, factors=FACTORS, layers=layers, accuracy=accuracy, lift=lift, body=body)


@pytest.fixture
def results():
    """An ordinary network, and one on scale spaces whose coarsest level is cut off."""
    plain = {
        'backbone.layer1': make_curve(0.0, 0.2, 0.3),
        'backbone.layer2': make_curve(0, 0.4, 0.7),
    }
    scale = {
        'backbone.layer1': make_curve(0.0, 0.02, 0.001, truncated=make_curve(0.0, 0.5, 0.6)),
        'backbone.layer2': make_curve(0.0, 0.05, None),
    }
    lift, body = make_curve(0.0, 1e-3, 1e-4), make_curve(0.0, 0.04, 0.0)
    return [
        make_result('plain', plain, report.accuracy_curve([90, 80, 45], 100)),
        make_result('scale space, "S = 3"', scale, lift=lift, body=body),
    ]


def test_curve_has_means_over_the_samples_that_have_an_error():
    nan = math.nan
    errors = torch.tensor([[0.0, 0.0, nan], [1.0, 3.0, nan], [nan, 5.0, nan], [nan, nan, nan]])
    truncated = torch.tensor([[nan] * 3] * 3 + [[2.0, 4.0, nan]])
    found = report.curve(EquivarianceError((1.0, 1.5, 2.0, 3.0), errors, truncated))
    assert found['mean'] == [0.0, 2.0, 5.0, None]
    assert found['standard_error'] == [0.0, 1.0, None, None]  # of one sample there is none
    assert found['n'] == [2, 2, 1, 0]
    assert found['truncated']['mean'] == [None, None, None, 3.0]
    assert found['truncated']['n'] == [0, 0, 0, 2]
    ordinary = EquivarianceError((2.0,), torch.ones(1, 4), torch.full((1, 4), nan))
    assert report.curve(ordinary)['truncated'] is None


def test_accuracy_curve_is_in_percent_with_the_standard_error_of_a_share():
    found = report.accuracy_curve([964, 500, 0], 1000)
    assert found['mean'] == [96.4, 50.0, 0.0]
    answers = np.repeat([0, 100], 500)
    assert found['standard_error'][1] == pytest.approx(answers.std() / math.sqrt(1000))
    assert found['n'] == [1000] * 3


def test_csv_has_a_line_for_each_number(results):
    lines = list(csv.DictReader(io.StringIO(report.to_csv(results))))
    assert tuple(lines[0]) == report.COLUMNS
    # Accuracy; two layers of two models, and the truncated levels of one; lift and body.
    assert len(lines) == len(FACTORS) * (1 + 4 + 1 + 2)
    parts = {(line['layer'], line['part']) for line in lines if line['model'] != 'plain'}
    assert parts == {
        ('backbone.layer1', 'network'),
        ('backbone.layer1', 'network, truncated levels'),
        ('backbone.layer2', 'network'),
        ('backbone.lift', 'lift'),
        ('backbone.body', 'body'),
    }
    body = [line for line in lines if line['part'] == 'body']
    assert [float(line['factor']) for line in body] == list(FACTORS)
    assert [float(line['mean']) for line in body] == results[1]['body']['mean']
    (missing,) = [line for line in lines if line['mean'] == '']
    assert (missing['layer'], missing['factor'], missing['n']) == ('backbone.layer2', '2.0', '0')


def test_table_has_a_line_for_each_model_that_has_a_number(results):
    blocks = [block.splitlines() for block in report.table(results).split('\n\n')]
    rows = {block[0].rsplit(maxsplit=3)[0]: block[1:] for block in blocks}
    assert {title: len(lines) for title, lines in rows.items()} == {
        'accuracy in %': 1,
        'equivariance error, backbone.layer1': 2,
        'its truncated levels, backbone.layer1': 1,
        'equivariance error, backbone.layer2': 2,
        'equivariance error, lift alone': 1,
        'equivariance error, body alone': 1,
    }
    assert all(block[0].split()[-3:] == ['1', '1.5', '2'] for block in blocks)
    assert rows['accuracy in %'][0].split() == ['plain', '90.0', '80.0', '45.0']
    line = rows['equivariance error, backbone.layer2'][1]
    assert line.split()[-3:] == ['0.0e+00', '5.0e-02', '-']


def test_metrics_of_a_detector_beside_the_accuracy_of_a_classifier():
    curves = {
        'mAP': report.metric_curve('mAP', [0.4321, 0.25], 8),
        'mAP_s': report.metric_curve('mAP_s', [math.nan, 0.125], 8),
    }
    shared = dict(layers=dict(backbone=make_curve(0.0, 0.1)), lift=None, body=None)
    shared['factors'] = FACTORS[::2]
    results = [
        dict(name='a detector', accuracy=curves['mAP'], metrics=curves, **shared),
        dict(name='a classifier', accuracy=report.accuracy_curve([9, 5], 10), **shared),
    ]
    lines = [line.split() for line in report.table(results).splitlines()]
    assert lines[:2] == [['mAP', '1', '2'], ['a', 'detector', '0.432', '0.25']]
    assert lines[4] == ['a', 'classifier', '90.0', '50.0']
    rows = [line.split(',') for line in report.to_csv(results).splitlines()]
    assert ['a detector', '', 'mAP_s', '1.0', '', '', '8'] in rows
    assert ['a detector', '', 'mAP', '2.0', '0.25', '', '8'] in rows
    assert ['a classifier', '', 'accuracy', '2.0', '50.0'] in [row[:5] for row in rows]
    figure = report.draw(results)
    assert [axes.get_ylabel() for axes in figure.axes][:2] == ['mAP', 'accuracy (%)']
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.4321, 0.25]


def drawn_lines(axes) -> dict:
    """The points of each model, by the label of its legend."""
    return {container.get_label(): container.lines[0].get_xydata() for container in axes.containers}


def test_figure_shows_the_numbers(results):
    figure = report.draw(results, chance=10.0)
    accuracy, error, *depths = figure.axes
    points = drawn_lines(accuracy)
    assert list(points) == ['plain']
    np.testing.assert_allclose(points['plain'], np.column_stack([FACTORS, [90, 80, 45]]))
    assert [line.get_ydata()[0] for line in accuracy.lines if len(line.get_ydata()) == 2] == [10.0]

    # The last layer, without factor 1, at which a logarithm has no place for the error.
    assert error.get_yscale() == 'log' and 'backbone.layer2' in error.get_title()
    points = drawn_lines(error)
    np.testing.assert_allclose(points['plain'], [[1.5, 0.4], [2, 0.7]])
    np.testing.assert_allclose(points['scale space, "S = 3"'], [[1.5, 0.05], [2, math.nan]])
    _, _, bars = error.containers[0].lines
    spans = np.array([segment[:, 1] for segment in bars[0].get_segments()])
    np.testing.assert_allclose(np.diff(spans).ravel() / 2, [0.04, 0.07])

    assert [axes.get_title() for axes in depths] == ['s = 1.5', 's = 2']
    np.testing.assert_allclose(drawn_lines(depths[0])['plain'], [[0, 0.2], [1, 0.4]])
    labels = [text.get_text() for text in depths[0].get_xticklabels()]
    assert labels == ['layer1', 'layer2']


def test_a_layer_that_a_model_lacks_leaves_it_in_the_legend(results):
    del results[1]['layers']['backbone.layer2']
    figure = report.draw(results)
    assert np.isnan(drawn_lines(figure.axes[1])['scale space, "S = 3"'][:, 1]).all()
    points = drawn_lines(figure.axes[2])['scale space, "S = 3"']
    np.testing.assert_allclose(points, [[0, 0.02], [1, math.nan]])
    assert [text.get_text() for text in figure.legends[0].texts] == [r['name'] for r in results]


def test_an_error_of_zero_is_named_where_it_cannot_be_drawn(results):
    for result in results:
        result.update(accuracy=None, layers={'body': make_curve(0.0, 0.1, 0.2)})
    results[1]['layers']['body']['mean'][2] = 0.0
    (error,) = report.draw(results).axes  # of one layer without accuracy
    assert error.get_title().endswith('not drawn there: scale space, "S = 3"')
    points = drawn_lines(error)['scale space, "S = 3"']
    np.testing.assert_allclose(points, [[1.5, 0.1], [2, math.nan]])


@pytest.mark.parametrize('count', [10, 13])
def test_each_model_has_a_colour_of_its_own(count):
    curve = make_curve(0.0, 0.1, 0.2)
    results = [make_result(f'model {i}', {'backbone': curve}) for i in range(count)]
    (axes,) = report.draw(results).axes
    assert len({container.lines[0].get_color() for container in axes.containers}) == count


def test_files_are_written_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'result.json'
    report.write_json(path, dict(mean=[1.0, None]))
    before = path.read_text()
    with pytest.raises(UnicodeEncodeError):
        report.write_text(path, 'half of it \ud800')
    assert path.read_text() == before


def test_json_has_a_form_for_everything(tmp_path):
    """What was measured is written at the end, whatever it holds."""
    content = dict(
        nan=float('nan'), inf=[float('inf'), 1.5], array=np.array([1, np.nan]), flag=True,
        tensor=torch.tensor(2.0), scalar=np.float32(3), path=tmp_path, none=None, set={1},
        nested=dict(a=[math.nan]), large=10**400,
    )  # fmt: skip
    report.write_json(tmp_path / 'a.json', content)
    text = (tmp_path / 'a.json').read_text(encoding='utf-8')
    assert json.loads(text, parse_constant=pytest.fail) == dict(
        nan=None, inf=[None, 1.5], array=[1.0, None], flag=True, tensor=2.0, scalar=3.0,
        path=str(tmp_path), none=None, set=[1], nested=dict(a=[None]), large=10**400,
    )  # fmt: skip
