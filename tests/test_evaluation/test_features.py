# Copyright (c) mmscale contributors.
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmscale.engine import study
from mmscale.evaluation import equivariance_error
from mmscale.evaluation.features import Features, check_layers, find_grid
from mmscale.models import (
    DeformScaleConv,
    ScaleConv,
    ScaleConvNet,
    ScaleGlobalPooling,
    ScalePooling,
)
from mmscale.scale_space import ScaleGrid

GRID = ScaleGrid(2, 3)
PYRAMID = dict(type='mmscale.GaussianPyramidLift')


def net(**kwargs):
    return ScaleConvNet(GRID, channels=(3, 4), kernel_size=3, **kwargs)


IMAGE = torch.rand(2, 1, 16, 16)
MAPS = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 2, 2)  # a pyramid, where there is a grid


class TestForms:
    @pytest.mark.parametrize(
        'output, names, grid',
        [
            (torch.rand(2, 3), [''], GRID),
            (MAPS[:1], [''], GRID),
            (MAPS, [''], GRID),
            ((MAPS,), [''], GRID),
            (MAPS, ['[0]', '[1]'], None),
            ((MAPS[0], torch.rand(2, 5, 2, 2)), ['[0]', '[1]'], GRID),
            ((MAPS[0], torch.rand(2, 3)), ['[0]', '[1]'], GRID),
            ((torch.rand(2, 3, 3, 4, 4), torch.rand(2, 5, 3, 2, 2)), ['[0]', '[1]'], GRID),
            ([MAPS, MAPS], ['[0]', '[1]'], GRID),
            (MAPS[:1] * 4, ['[0]', '[1]', '[2]', '[3]'], GRID),  # more than 3 levels
        ],
    )
    def test_names(self, output, names, grid):
        assert list(Features(lambda x: output, grid=grid)(IMAGE)) == names

    def test_behind_a_pooling_over_scale_tuples_are_outputs(self):
        """A feature pyramid network has as many maps of equal channels, and they are no levels."""

        class Pyramid(nn.Module):
            def forward(self, inputs):
                return tuple(inputs[0][..., :: 2**i, :: 2**i] for i in range(3))

        model = nn.Sequential(net(lift=PYRAMID), ScalePooling(), Pyramid()).eval()
        features = Features(model, ['2', '0'], GRID)
        for _ in range(2):  # what a run has seen is forgotten in the next
            assert list(features(IMAGE)) == ['0', '2[0]', '2[1]', '2[2]']
        assert list(Features(model, grid=GRID)(IMAGE)) == ['[0]', '[1]', '[2]']

    @pytest.mark.parametrize('output', [dict(a=1), None, ()])
    def test_what_is_no_signal(self, output):
        with pytest.raises(ValueError, match='outputs are tensors or tuples of them, got'):
            Features(lambda x: output)(IMAGE)

    def test_several_outputs_have_a_result_each(self):
        model = net(out_indices=(0, 1)).eval()
        results = equivariance_error(model, IMAGE, [2])
        named = equivariance_error(model, IMAGE, [2], layers=['norms.0', 'norms.1'])
        assert isinstance(results, tuple) and list(named) == ['norms.0', 'norms.1']
        for a, b in zip(results, named.values(), strict=True):
            assert torch.equal(a.per_sample, b.per_sample)


class TestLayers:
    @pytest.mark.parametrize(
        'layers, message',
        [
            (['conv.1'], r"no layer 'conv.1'; the nearest names are convs.1"),
            (['x9'], 'nearest names are lift, '),
            ('norms', 'layers must be a sequence of names'),
            ((), 'layers must be a sequence of names'),
        ],
    )
    def test_names_that_there_are_not(self, layers, message):
        with pytest.raises(ValueError, match=message):
            check_layers(net(), layers)

    def test_functions_have_none(self):
        with pytest.raises(ValueError, match='phi is a function'):
            equivariance_error(lambda x: x, IMAGE, layers=['a'])

    def test_a_layer_that_does_not_run(self):
        model = net()
        model.idle = nn.ReLU()
        with pytest.raises(ValueError, match="the layer 'idle' did not run"):
            equivariance_error(model, IMAGE, layers=['idle'])

    def test_hooks_are_removed_also_after_an_error(self):
        model = net()
        for image in (IMAGE, torch.rand(1, 1, 2, 2)):
            try:
                Features(model, ['norms.0'], GRID)(image)
            except ValueError:
                pass
        assert not any(module._forward_hooks for module in model.modules())


class TestTruncation:
    def test_interactions_before_a_layer_add_up(self):
        features = Features(net(interaction=(2, 3)), ['lift', 'norms.0', 'convs.1'], GRID)
        features(IMAGE)
        assert features.truncation == {'lift': 0, 'norms.0': 1, 'convs.1': 3}

    def test_behind_a_pooling_over_scale_nothing_is_spoiled(self):
        model = nn.Sequential(net(interaction=(2, 3)), ScaleGlobalPooling())
        features = Features(model, ['0', '1'], GRID)
        features(IMAGE)
        assert features.truncation == {'0': 3, '1': 0}
        found = equivariance_error(model, IMAGE, [1, 2])
        assert found.per_sample[0].max() == 0 < found.per_sample[1].min()
        assert found.truncated.isnan().all()
        given = equivariance_error(model, IMAGE, [2], truncation=3)
        assert torch.equal(given.per_sample[0], found.per_sample[1])

    def test_offset_branches_run_beside(self):
        conv = DeformScaleConv(1, 2, 3, padding=1, interaction=2, scale_space=GRID)
        features = Features(conv, None, GRID)
        features(torch.rand(1, 1, 3, 8, 8))
        assert features.truncation == {'': 1}


def test_levels_that_interaction_cut_off_are_apart_in_the_body_alone(monkeypatch):
    grid, images = ScaleGrid(2, 4), torch.rand(2, 1, 32, 32)
    backbone = ScaleConvNet(grid, channels=(3, 4), kernel_size=3, interaction=2).eval()
    network = nn.Sequential()
    network.add_module('backbone', backbone)
    monkeypatch.setattr(study, 'read_images', lambda *args: ([images], 'made here'))
    settings = study.Settings((1.5, 2.0), ('backbone',), 2, None, None, 'shrink', 'matched', 0,
                              True, 32)  # fmt: skip
    found = study.measure_errors(SimpleNamespace(network=network), settings)
    expected = equivariance_error(backbone.body, backbone.lift(images), (1.5, 2.0))
    assert found['body']['mean'] == pytest.approx(expected.mean.tolist(), rel=1e-4)
    # At a power of the base the input of the body is cut as its output is.
    assert found['body']['truncated']['n'] == [2, 0] and found['body']['n'] == [2, 2]


class TestGrid:
    def test_is_that_of_the_layers(self):
        assert find_grid(net()) == GRID
        assert find_grid(nn.Sequential(net(), nn.ReLU())) == GRID
        assert find_grid(nn.Conv2d(1, 1, 1)) is None
        assert find_grid(lambda x: x) is None

    def test_two_of_them_are_refused(self):
        layers = [ScaleConv(1, 1, 1, scale_space=dict(base=base)) for base in (2, 3)]
        with pytest.raises(ValueError, match='2 different scale grids'):
            equivariance_error(nn.Sequential(*layers), IMAGE)


def test_batches_may_come_one_at_a_time():
    torch.manual_seed(0)
    model, images = net().eval(), torch.rand(5, 1, 16, 16)
    together = equivariance_error(model, images, [2]).per_sample
    stream = equivariance_error(model, iter(images.split(2)), [2], batch_size=1).per_sample
    torch.testing.assert_close(stream, together, rtol=1e-5, atol=1e-9)
    listed = equivariance_error(model, list(images.split(2)), [2], batch_size=1).per_sample
    torch.testing.assert_close(listed, stream, rtol=1e-5, atol=1e-9)
    for none in (iter(()), []):
        with pytest.raises(ValueError, match='at least one image'):
            equivariance_error(model, none, [2])


def test_not_finite_is_an_error_that_names_the_layer():
    class Broken(nn.Module):
        def forward(self, x):
            return x / 0

    model = nn.Sequential(nn.Conv2d(1, 1, 1), Broken())
    with pytest.raises(ValueError, match="layer '1' is not finite at factor 1: check the weights"):
        equivariance_error(model, IMAGE, layers=['0', '1'])
