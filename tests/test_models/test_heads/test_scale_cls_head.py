# Copyright (c) mmscale contributors.
"""Pooling over the predictions of levels, level by level and class by class."""

import mmpretrain.models  # noqa: F401  registers classifiers, heads and losses
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from naive import largest_difference
from networks import as_if_trained

from mmscale.models import ScaleClsHead, ScaleConvNet, ScaleGlobalPooling

POOLS = ('gate', 'prob', 'max', 'mean', 'logsumexp')
HEADS = dict(
    linear=dict(num_classes=5, in_channels=4),
    multi_label=dict(
        num_classes=5, in_channels=4, head_type='mmpretrain.MultiLabelLinearClsHead', thr=0.3
    ),
    stacked=dict(
        num_classes=5, in_channels=4, mid_channels=[6], head_type='mmpretrain.StackedLinearClsHead'
    ),
)


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def make_head(pool='gate', kind='linear', seed=0, **kwargs):
    """Make a head in float64 and eval mode, with weights that make the levels disagree."""
    head = ScaleClsHead(pool, **{**HEADS[kind], **kwargs}).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return head


def vectors(levels=3, batch=6, channels=4, seed=1):
    """Return random outputs of the neck, ``(N, C, S, 1, 1)``."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, channels, levels, 1, 1)
    return (torch.randn(shape, generator=generator, dtype=torch.float64),)


def labelled(batch=6, classes=5):
    return [DataSample().set_gt_label(i % classes) for i in range(batch)]


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def naive(head, feats, kept=None):
    """Compute the result for one sample, one level and one class at a time.

    Return probabilities for mixtures and logits for the other poolings.
    """
    rows = []
    for i, sample in enumerate(feats[-1][..., 0, 0].mT):
        levels = [k for k in range(len(sample)) if kept is None or kept[k, i]]
        scores = [head.head((sample[k : k + 1],))[0].detach().numpy() for k in levels]
        gates = [0.0] * len(levels)
        if head.gate is not None:
            gates = [float(head.gate(sample[k]).detach()) for k in levels]
        if head.pool in ('gate', 'prob'):
            answer = sigmoid if head.sigmoid else softmax
            weights = softmax(np.array(gates))
            rows.append(sum(w * answer(s) for w, s in zip(weights, scores)))
        else:
            reduce = dict(
                max=lambda s: np.max(s, axis=0),
                mean=lambda s: np.mean(s, axis=0),
                logsumexp=lambda s: np.log(np.mean(np.exp(s), axis=0)),
            )
            rows.append(reduce[head.pool](scores))
    return np.stack(rows)


def check_against_naive(head, feats, logits, kept=None):
    expected = naive(head, feats, kept)
    if head.pool in ('gate', 'prob'):
        logits = logits.sigmoid() if head.sigmoid else logits.exp()
    assert largest_difference(logits, expected) < 1e-12


@pytest.mark.parametrize('kind', HEADS)
@pytest.mark.parametrize('pool', POOLS)
class TestEveryPool:
    def test_against_one_sample_level_and_class_at_a_time(self, pool, kind):
        head = make_head(pool, kind)
        check_against_naive(head, vectors(), head(vectors()))

    def test_scale_dropout_leaves_levels_out_and_never_all(self, pool, kind):
        head, feats = make_head(pool, kind, scale_dropout=0.6), vectors(batch=40)
        torch.manual_seed(3)
        found = head.train()(feats)
        torch.manual_seed(3)
        draws = torch.rand(3, 40)
        kept = (draws >= 0.6) | (draws == draws.max(0).values)
        assert set(kept.sum(0).tolist()) == {1, 2, 3}
        check_against_naive(head, feats, found, kept.numpy())
        assert torch.equal(head.eval()(feats), make_head(pool, kind)(feats))

    def test_one_level_is_the_head_bit_for_bit(self, pool, kind):
        head = make_head(pool, kind, scale_dropout=0.5).float()
        feats = (vectors(levels=1)[0].float(),)
        plain = (feats[0].flatten(1),)
        for training in (False, True):
            head.train(training)
            assert torch.equal(head(feats), head.head(plain))
            found, expected = (
                h.loss(x, labelled())['loss'] for h, x in [(head, feats), (head.head, plain)]
            )
            assert torch.equal(found, expected)
        found, expected = head.eval().predict(feats), head.head.predict(plain)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a.pred_score, b.pred_score)
            assert torch.equal(a.pred_label, b.pred_label)
            assert not a.pred_level.any() and (a.pred_level_score == 1).all()

    def test_gradients(self, pool, kind):
        head = make_head(pool, kind, scale_dropout=0.5).train()
        names = [name for name, _ in head.named_parameters()]

        def answer(x, *parameters):
            torch.manual_seed(0)  # the same levels each time
            return torch.func.functional_call(head, dict(zip(names, parameters)), ((x,),))

        leaves = [vectors()[0], *head.parameters()]
        leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        assert torch.autograd.gradcheck(answer, leaves)

    @pytest.mark.parametrize('levels', [1, 3])
    def test_every_parameter_has_a_gradient_in_every_step(self, pool, kind, levels):
        """DistributedDataParallel waits for all gradients, also if levels were left out."""
        head = make_head(pool, kind, scale_dropout=0.99).train()
        for seed in range(3):
            head.zero_grad()
            torch.manual_seed(seed)
            head.loss(vectors(levels), labelled())['loss'].backward()
            for parameter in head.parameters():
                assert parameter.grad is not None and parameter.grad.isfinite().all()

    def test_mixed_precision(self, pool, kind):
        head = make_head(pool, kind, scale_dropout=0.5).float()
        feats = (vectors()[0].float(),)
        with torch.autocast('cpu', torch.bfloat16):
            found = head.eval()(feats)
            loss = head.train().loss(feats, labelled())['loss']
        assert found.dtype == torch.float32
        assert largest_difference(found, head.eval()(feats)) < 0.1
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in head.parameters())

    def test_confident_levels_that_disagree(self, pool, kind):
        """The exponentials of the logits overflow single precision."""
        head = make_head(pool, kind).float()
        feats = (vectors()[0].float() * 1e3,)
        loss = head.loss(feats, labelled())['loss']
        loss.backward()
        assert head(feats).isfinite().all() and loss > 1
        assert all(parameter.grad.isfinite().all() for parameter in head.parameters())

    def test_no_image(self, pool, kind):
        head = make_head(pool, kind, scale_dropout=0.5)
        for training in (False, True):
            found = head.train(training)(vectors(batch=0))
            assert found.shape == (0, 5)
        assert head.eval().predict(vectors(batch=0), []) == []


class TestPredictions:
    @pytest.mark.parametrize('pool', ['gate', 'prob'])
    def test_the_level_is_the_probable_one_given_image_and_label(self, pool):
        """Compute Bayes' rule from the predictions of single levels."""
        head = make_head(pool)
        (x,) = vectors()
        alone = torch.stack([head((x[:, :, k : k + 1],)).softmax(1) for k in range(3)], 1)
        weights = torch.full((6, 3), 1 / 3).double()
        if pool == 'gate':
            weights = head.gate(x[..., 0, 0].mT)[..., 0].softmax(1)
        for i, sample in enumerate(head.predict((x,))):
            joint = weights[i] * alone[i, :, sample.pred_label[0]]
            share, level = (joint / joint.sum()).max(0)
            assert sample.pred_level.tolist() == [level]
            assert sample.pred_level_score.tolist() == pytest.approx([share.item()])

    def test_the_level_of_a_maximum_is_where_it_is(self):
        head = make_head('max')
        (x,) = vectors()
        for i, sample in enumerate(head.predict((x,))):
            (level,), label = sample.pred_level, sample.pred_label
            alone = head((x[i : i + 1, :, level : level + 1],))
            assert largest_difference(alone[0, label], head((x,))[i, label]) < 1e-12

    def test_each_label_of_many_has_its_level(self):
        head = make_head('gate', 'multi_label')
        (x,) = vectors()
        found = head.predict((x,), labelled())
        alone = torch.stack([head((x[:, :, k : k + 1],)).sigmoid() for k in range(3)], 1)
        joint = head.gate(x[..., 0, 0].mT).softmax(1) * alone
        expected = joint / joint.sum(1, keepdim=True)
        for i, sample in enumerate(found):
            assert torch.equal(sample.pred_level, expected[i].argmax(0))
            assert largest_difference(sample.pred_level_score, expected[i].amax(0)) < 1e-12
            assert sample.pred_label.tolist() == [
                c for c in range(5) if sample.pred_score[c] >= 0.3
            ]
        expected = naive(head, (x,))
        assert largest_difference(torch.stack([s.pred_score for s in found]), expected) < 1e-12


class TestLosses:
    def test_label_smoothing_and_soft_labels(self):
        smooth = dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=5)
        head = make_head('gate', loss=smooth)
        targets = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)).double()
        targets = targets / targets.sum(1, keepdim=True)
        samples = [DataSample().set_gt_score(target) for target in targets]
        found = head.loss(vectors(), samples)['loss']
        expected = -((0.9 * targets + 0.02).numpy() * np.log(naive(head, vectors()))).sum(1).mean()
        assert float(found) == pytest.approx(expected, abs=1e-6)  # the loss takes labels in float

    @pytest.mark.parametrize(
        'kind, loss, gamma',
        [
            ('linear', dict(type='CrossEntropyLoss', use_sigmoid=True), None),
            ('multi_label', dict(type='CrossEntropyLoss', use_sigmoid=True), None),
            ('linear', dict(type='FocalLoss', gamma=2.0, alpha=0.5), 2.0),
        ],
    )
    def test_losses_of_a_sigmoid_see_the_mixture_of_each_label(self, kind, loss, gamma):
        head = make_head('gate', kind, loss=loss)
        target = np.eye(5)[[i % 5 for i in range(6)]]
        samples = [DataSample().set_gt_score(row) for row in torch.from_numpy(target)]
        found = float(head.loss(vectors(), samples)['loss'])
        right = np.where(target == 1, naive(head, vectors()), 1 - naive(head, vectors()))
        terms = -np.log(right)
        if gamma:
            terms = 0.5 * (1 - right) ** gamma * terms
        assert found == pytest.approx(terms.sum() / 6, rel=1e-6)

    def test_accuracy_of_the_training(self):
        head = make_head('gate', cal_acc=True, topk=(1, 3))
        found = head.loss(vectors(), labelled())
        order = naive(head, vectors()).argsort(1)[:, ::-1]
        for k in (1, 3):
            right = [i % 5 in order[i, :k] for i in range(6)]
            (accuracy,) = found[f'accuracy_top-{k}']
            assert float(accuracy) == pytest.approx(100 * np.mean(right))


@pytest.mark.parametrize('pool', POOLS)
@pytest.mark.parametrize('kind', HEADS)
def test_the_answer_follows_a_shift_of_levels(pool, kind):
    """An object of another size has its vectors on other levels and gets the same prediction."""
    grid = dict(base=2, num_scales=3)
    body = as_if_trained(ScaleConvNet(grid, in_channels=3, channels=(4, 5, 4)))
    neck, head = ScaleGlobalPooling('none', 'max'), make_head(pool, kind)
    signal = torch.randn(2, 3, 3, 40, 36, generator=torch.Generator().manual_seed(0)).double()
    shifted = neck((body.body(signal[:, :, 1:, ::2, ::2])[0],))
    kept = neck((body.body(signal)[0][:, :, 1:, ::2, ::2],))
    assert largest_difference(head(shifted), head(kept)) < 1e-12
    # The order of the levels does not matter, their number does.
    moved = (kept[0].flip(2),)
    assert largest_difference(head(moved), head(kept)) < 1e-12
    assert largest_difference(head((kept[0][:, :, :1],)), head(kept)) > 1e-4


class TestWrongArguments:
    def test_of_the_head(self):
        linear = HEADS['linear']
        with pytest.raises(ValueError, match="pool must be one of 'gate', 'prob', .*, got 'sum'"):
            ScaleClsHead('sum', **linear)
        with pytest.raises(ValueError, match='scale_dropout must be from 0 to below 1, got 1'):
            ScaleClsHead(scale_dropout=1, **linear)
        for wrong in ('EfficientFormerClsHead', 'ArcFaceClsHead'):
            with pytest.raises(ValueError, match=f'loss and the predictions .* got {wrong}'):
                ScaleClsHead(head_type=wrong, in_channels=4, num_classes=5)
        with pytest.raises(ValueError, match="pool='gate' needs in_channels, and ClsHead has none"):
            ScaleClsHead(head_type='ClsHead')

    @pytest.mark.parametrize(
        'feats', [torch.rand(2, 4), torch.rand(2, 4, 3, 2, 2), (torch.rand(2, 4, 1, 1),)]
    )
    def test_of_the_input(self, feats):
        with pytest.raises(ValueError, match=r'ScaleGlobalPooling.*none'):
            make_head().float()((feats,))

    @pytest.mark.parametrize('pool', ['gate', 'max'])
    def test_of_the_channels(self, pool):
        with pytest.raises(ValueError, match='in_channels must be 6, the size of .*, got 4'):
            make_head(pool)(vectors(channels=6))
