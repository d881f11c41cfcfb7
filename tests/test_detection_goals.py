"""Vanish and DetectorLoss on fake scenes with hand-made boxes."""
from math import log

import pytest
import torch
from helpers import Detections, pad_boxes, pictures

from sparse_dense_attacks import DetectorLoss, InputError, SparsePGD, Vanish
from sparse_dense_attacks.objectives.detection import iou, matches, object_scores

A, B, NEAR_A, FAR = (0, 0, 4, 4), (4, 0, 8, 4), (0, 0, 4, 3), (20, 20, 30, 30)  # iou(A, NEAR_A) = 0.75
ROW = torch.tensor([0])


def logit(p):
    return log(p / (1 - p))


def scene(truth, candidates, **options):
    return Detections(pictures(len(truth), 1, 3, 3), truth, candidates, **options)


@pytest.mark.parametrize('a, b, expected', [(A, A, 1), (A, B, 0), (A, NEAR_A, 0.75), (A, (2, 0, 6, 4), 1 / 3), (A, FAR, 0),
                                            ((1, 1, 1, 1), (1, 1, 1, 1), 0), ((3, 3, 1, 1), A, 0)])
def test_iou_known_answers(a, b, expected):
    a, b = (torch.tensor(box, dtype=torch.float).view(1, 1, 4) for box in (a, b))
    torch.testing.assert_close(iou(a, b), torch.full((1, 1, 1), float(expected)))
    torch.testing.assert_close(iou(b, a), iou(a, b))


@pytest.mark.parametrize('n, g', [(0, 2), (3, 0), (0, 0)])
def test_no_boxes_on_either_side(n, g):
    candidates, truth = pad_boxes([[(A, 0, 0.5)] * n] * 2), pad_boxes([[(A, 0, 1)] * g] * 2)
    match = matches(candidates, truth, 0.5)
    assert match.shape == (2, n, g)
    assert torch.equal(object_scores(candidates, match), torch.full((2, g), 0.5 if n else 0))


def test_match_needs_class_and_overlap_and_never_padding():
    truth = pad_boxes([[(A, 1, 1)], [(A, 1, 1), (B, 2, 1)]])
    candidates = pad_boxes([[(NEAR_A, 1, .9), (A, 0, .9), (FAR, 1, .9)], [(B, 2, .9)]])
    assert matches(candidates, truth, 0.5).nonzero().tolist() == [[0, 0, 0], [1, 0, 1]]
    assert not matches(candidates, truth, 0.8)[0].any()


def test_object_score_is_the_highest_match():
    truth = pad_boxes([[(A, 1, 1), (B, 1, 1)]])
    candidates = pad_boxes([[(A, 1, .4), (NEAR_A, 1, .7), (A, 2, .9)]])
    torch.testing.assert_close(object_scores(candidates, matches(candidates, truth, 0.5)), torch.tensor([[.7, 0]]))


def test_vanish_known_answers():
    candidates = [(A, 0, .8), (NEAR_A, 0, .5), (FAR, 0, .9), (B, 1, .2)]
    judge = Vanish(score_thr=0.3).objective(scene([[(A, 0, 1), (B, 1, 1)]], [candidates]))
    assert judge.detected.tolist() == [[True, False]] and judge.eligible.all() and judge.defined.all()
    torch.testing.assert_close(judge.clean.loss, torch.tensor([(log(.2) + log(.5) + log(.8)) / 2]))
    torch.testing.assert_close(judge.clean.margin, torch.tensor([logit(.8) - logit(.3)]))
    assert not judge.clean.success


def test_vanish_margin_is_the_mean_over_detected_objects():
    judge = Vanish(score_thr=0.3).objective(scene([[(A, 0, 1), (B, 1, 1)]], [[(A, 0, .8), (B, 1, .6)]]))
    torch.testing.assert_close(judge.clean.margin, torch.tensor([(logit(.8) + logit(.6)) / 2 - logit(.3)]))


def test_vanish_succeeds_when_every_detected_object_is_below_the_threshold():
    fake = scene([[(A, 0, 1), (B, 1, 1)]], [[(A, 0, .8), (B, 1, .1)]])
    judge = Vanish(score_thr=0.3).objective(fake)
    for change in (-3., 0.5, 3.):  # scores move by minus the change of the image's sum, in logits
        x = (fake.images + change / 9).requires_grad_()
        verdict = judge(x, ROW)
        hidden = logit(.8) - change < logit(.3)
        assert verdict.success.item() == hidden, 'an object that appears was not detected on the clean image and does not count'
        grad, = torch.autograd.grad(verdict.margin.relu().sum(), x)
        assert (verdict.margin.item() == 0 and not grad.any()) if hidden else (verdict.margin > 0 and grad.any())


def test_score_at_the_threshold_counts_as_detected():
    fake = scene([[(A, 0, 1)]], [[(A, 0, .5)]])
    judge = Vanish(score_thr=0.5).objective(fake)
    assert judge.eligible.all() and not judge.clean.success and judge.clean.margin == 0


def test_images_without_objects_or_detections():
    fake = scene([[], [(A, 0, 1)], [(A, 0, 1)]], [[(A, 0, .9)], [], [(A, 0, .9)]])
    judge = Vanish().objective(fake)
    assert judge.defined.tolist() == [False, True, True] and judge.eligible.tolist() == [False, False, True]
    assert judge.clean.loss[:2].tolist() == [0, 0] and judge.clean.margin[:2].tolist() == [0, 0]
    assert judge.region.flatten(1).any(1).tolist() == [False, True, True]
    result = SparsePGD(k=2, steps=3, early_stop=False)(judge)
    assert torch.equal(result.images[0], fake.images[0]) and result.forwards.tolist() == [1, 5, 5]
    assert not result.failed.any() and result.clean_correct.tolist() == [False, False, True]


@pytest.mark.parametrize('goal', [Vanish(), DetectorLoss()])
@pytest.mark.parametrize('boxes', [0, 3])
def test_a_batch_without_any_object_runs(goal, boxes):
    judge = goal.objective(scene([[], []], [[(A, 0, .9)] * boxes] * 2))
    result = SparsePGD(k=2, steps=3, early_stop=False)(judge)
    assert not result.defined.any() and not result.clean_correct.any() and result.images.isfinite().all()


@pytest.mark.parametrize('goal', [Vanish(), DetectorLoss()])
def test_verdicts_do_not_depend_on_neighbours(goal):
    truth = [[(A, 0, 1)], [(A, 0, 1), (B, 1, 1), (FAR, 2, 1)], []]
    candidates = [[(A, 0, .8), (B, 1, .7), (A, 1, .9), (FAR, 0, .4)], [(B, 1, .6)], []]
    together = goal.objective(scene(truth, candidates))
    x = together.images.roll(1, 3)
    verdict = together(x, torch.arange(3))
    for b in range(3):
        fake = scene(truth[b:b + 1], candidates[b:b + 1])
        fake.images = together.images[b:b + 1]
        alone = goal.objective(fake)(x[b:b + 1], ROW)
        for name in ('loss', 'margin', 'success'):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(verdict, name)[b])
        some = together(x[b:b + 1], torch.tensor([b]))
        torch.testing.assert_close(some.margin[0], verdict.margin[b])


@pytest.mark.parametrize('goal', [Vanish(), DetectorLoss()])
@pytest.mark.parametrize('what', ['loss', 'margin'])
def test_gradients_agree_with_finite_differences(goal, what):
    fake = scene([[(A, 0, 1), (B, 1, 1)], [(A, 0, 1)]], [[(A, 0, .8), (NEAR_A, 0, .5), (B, 1, .4)], [(A, 0, .6)]])
    judge, rows = goal.objective(fake), torch.tensor([1, 0])
    x = fake.images[rows].double().requires_grad_()
    if (goal, what) == (DetectorLoss(), 'margin'):  # a constant whose gradient is that of -loss
        verdict = judge(x, rows)
        assert verdict.margin.tolist() == [1, 1]
        margin, loss = (torch.autograd.grad(v.sum(), x, retain_graph=True)[0] for v in (verdict.margin, verdict.loss))
        torch.testing.assert_close(margin, -loss)
    else:
        assert torch.autograd.gradcheck(lambda z: getattr(judge(z, rows), what), x, check_undefined_grad=False)


@pytest.mark.parametrize('score', [0., 1e-30, 1 - 1e-8, 1.])
def test_extreme_scores_stay_finite(score):
    fake = scene([[(A, 0, 1)]], [[(A, 0, score)]])
    judge = Vanish().objective(fake)
    x = fake.images.clone().requires_grad_()
    verdict = judge(x, ROW)
    grad, = torch.autograd.grad(verdict.loss.sum() + verdict.margin.sum(), x)
    assert verdict.loss.isfinite() and verdict.margin.isfinite() and grad.isfinite().all()


def test_detector_loss_success_is_that_of_vanish_and_ends_the_margin():
    fake = scene([[(A, 0, 1)]], [[(A, 0, .8)]])
    judge = DetectorLoss(score_thr=0.3).objective(fake)
    x = (fake.images + 3 / 9).requires_grad_()
    verdict = judge(x, ROW)
    grad, = torch.autograd.grad(verdict.margin.relu().sum(), x)
    assert verdict.success.all() and verdict.margin == 0 and not grad.any()
    torch.testing.assert_close(verdict.loss, torch.tensor([3.]))


def test_detector_without_boxes_has_undefined_success():
    judge = DetectorLoss().objective(scene([[(A, 0, 1)]], [[]], boxes_known=False))
    assert not judge.defined.any() and judge.eligible.all() and not judge.clean.success
    result = SparsePGD(k=2, steps=4)(judge)
    assert result.l0_pixels == 2 and result.forwards == 6 and not result.success


@pytest.mark.parametrize('goal', [Vanish, DetectorLoss])
def test_attack_hides_the_object(goal):
    fake = scene([[(A, 0, 1)], [(A, 0, 1)]], [[(A, 0, .6)], [(A, 0, .99999)]])
    fake.images = pictures(2, 1, 3, 3, seed=1) * 0.5
    result = SparsePGD(k=4, steps=30)(goal(score_thr=0.3).objective(fake))
    assert result.success.tolist() == [True, False], 'four pixels can lower the logit by at most four'
    assert (result.images[0] > fake.images[0]).any()


@pytest.mark.parametrize('options', [dict(score_thr=0), dict(score_thr=1), dict(iou_thr=1.5), dict(iou_thr=-1)])
@pytest.mark.parametrize('goal', [Vanish, DetectorLoss])
def test_thresholds_outside_the_unit_interval_are_refused(goal, options):
    with pytest.raises(InputError, match=f'{goal.__name__}: {next(iter(options))} = '):
        goal(**options)
