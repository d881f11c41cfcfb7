"""Goals of detection on fake scenes with hand-made boxes."""
from math import log

import pytest
import torch

from sparse_dense_attacks import DetectorLoss, Fabricate, InputError, Mislabel, SparsePGD, Vanish
from sparse_dense_attacks.objectives.detection import matches, object_scores
from sparse_dense_attacks.ops.boxes import distinct, iou
from tests.helpers import EVERY_ATTACK, Detections, make_attack, pad_boxes, pictures

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
    assert judge.counted.tolist() == [[True, False]] and judge.eligible.all() and judge.defined.all()
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


def test_vanish_can_count_objects_that_the_clean_image_scores_too_low():
    fake = scene([[(A, 0, 1), (B, 1, 1)], [(B, 1, 1)]], [[(A, 0, .8), (B, 1, .1)], [(B, 1, .1)]])
    judge = Vanish(score_thr=0.3, undetected=True).objective(fake)
    assert judge.counted.tolist() == [[True, True], [True, False]] and judge.parts.tolist() == [2, 1]
    assert judge.eligible.tolist() == [True, False] and judge.clean.success.tolist() == [False, True]
    torch.testing.assert_close(judge.clean.margin, torch.tensor([(logit(.8) - logit(.3)) / 2, 0]))
    risen = judge(fake.images[:1] - 3 / 9, ROW)  # every score rises by 3, in logits
    torch.testing.assert_close(risen.margin, torch.tensor([(logit(.8) + logit(.1) + 6 - 2 * logit(.3)) / 2]))
    fallen = judge(fake.images[:1] + 3 / 9, ROW)
    assert not risen.success and fallen.success and fallen.margin == 0


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


@pytest.mark.parametrize('goal', [Vanish(), DetectorLoss(), Mislabel()])
@pytest.mark.parametrize('boxes', [0, 3])
def test_a_batch_without_any_object_runs(goal, boxes):
    judge = goal.objective(scene([[], []], [[(A, 0, .9)] * boxes] * 2))
    result = SparsePGD(k=2, steps=3, early_stop=False)(judge)
    assert not result.defined.any() and not result.clean_correct.any() and result.images.isfinite().all()


EVERY_GOAL = [Vanish(), DetectorLoss(), Mislabel(), Mislabel(target=1), Fabricate(), Fabricate(target='dog', count=3)]


@pytest.mark.parametrize('goal', EVERY_GOAL, ids=repr)
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
        torch.testing.assert_close(together.share(x[b:b + 1], torch.tensor([b])), together.share(x, torch.arange(3))[b:b + 1],
                                   equal_nan=True)


@pytest.mark.parametrize('goal', EVERY_GOAL, ids=repr)
@pytest.mark.parametrize('what', ['loss', 'margin'])
def test_gradients_agree_with_finite_differences(goal, what):
    fake = scene([[(A, 0, 1), (B, 1, 1)], [(A, 0, 1)]], [
        [(A, 0, .8), (NEAR_A, 0, .5), (B, 1, .4), (A, 1, .2), (FAR, 1, .1), (B, 2, .05)],
        [(A, 0, .6), (A, 1, .25), (FAR, 1, .2)]])
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


def test_parts_of_the_detector_loss_are_asked_for_by_name():
    fake = scene([[(A, 0, 1)]], [[(A, 0, .8)]])
    x = fake.images + 3 / 9
    whole, part = (DetectorLoss(components=names).objective(fake) for names in (None, ['loss_cls']))
    assert torch.equal(whole(x, ROW).loss, part(x, ROW).loss)
    with pytest.raises(InputError, match='there is loss_cls only'):
        DetectorLoss(components=['loss_clz']).objective(fake)
    with pytest.raises(InputError, match='name one twice, expected each once'):
        DetectorLoss(components=['loss_cls', 'loss_cls'])


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
@pytest.mark.parametrize('goal', [Vanish, DetectorLoss, Mislabel, Fabricate])
def test_thresholds_outside_the_unit_interval_are_refused(goal, options):
    with pytest.raises(InputError, match=f'{goal.__name__}: {next(iter(options))} = '):
        goal(**options)


@pytest.mark.parametrize('goal', [Vanish(), DetectorLoss()])
def test_share_counts_the_objects_that_are_hidden(goal):
    fake = scene([[(A, 0, 1), (B, 1, 1), (FAR, 2, 1)], []], [[(A, 0, .9), (B, 1, .5), (FAR, 2, .1)], [(A, 0, .9)]])
    judge, rows = goal.objective(fake), torch.arange(2)
    assert judge.parts.tolist() == [2, 0]
    assert judge.share(fake.images, rows)[0] == 0 and judge.share(fake.images, rows)[1].isnan()
    assert judge.share(fake.images + 1 / 9, rows)[0] == .5, 'one logit hides the weaker of two'
    unknown = DetectorLoss().objective(scene([[(A, 0, 1)]], [[]], boxes_known=False))
    assert unknown.parts.tolist() == [0] and unknown.share(unknown.images, ROW).isnan()


# Mislabel

def test_mislabel_known_answers():
    candidates = [(A, 0, .8), (NEAR_A, 0, .5), (A, 1, .2), (NEAR_A, 2, .1), (FAR, 1, .9), (B, 1, .2)]
    judge = Mislabel().objective(scene([[(A, 0, 1), (B, 1, 1)]], [candidates]))
    assert judge.counted.tolist() == [[True, False]] and judge.parts.tolist() == [1]
    nothing = log(1e-6)  # no candidate shows the second object as anything else
    torch.testing.assert_close(judge.clean.loss, torch.tensor([(log(.2) + log(.5) + log(.8) + log(.2) + nothing) / 2]))
    torch.testing.assert_close(judge.clean.margin, torch.tensor([logit(.8) - logit(.2)]))
    assert not judge.clean.success


@pytest.mark.parametrize('change, hidden, success', [(1.2, False, False), (1.3, True, False), (1.4, True, True), (5, True, True)])
def test_mislabel_wants_the_right_class_gone_and_a_wrong_one_there(change, hidden, success):
    """The right score falls below the threshold at 1.25 logits, the wrong one reaches it at 1.35."""
    fake = scene([[(A, 0, 1)]], [[(A, 0, .6), (NEAR_A, 1, .1)]], weight=torch.tensor([-1., 1.]))
    judge = Mislabel().objective(fake)
    x = (fake.images + change / 9).requires_grad_()
    verdict = judge(x, ROW)
    assert verdict.success.item() == success and judge.share(x, ROW).item() == success
    assert Vanish().objective(fake)(x, ROW).success.item() == hidden
    grad, = torch.autograd.grad(verdict.margin.relu().sum(), x)
    assert (verdict.margin.item() == 0 and not grad.any()) if success else (verdict.margin > 0 and grad.any())


def test_a_wrong_box_beside_a_right_one_is_no_mislabel():
    judge = Mislabel().objective(scene([[(A, 0, 1)]], [[(A, 0, .6), (A, 1, .9)]]))
    assert not judge.clean.success and judge.eligible
    torch.testing.assert_close(judge.clean.margin, torch.tensor([logit(.6) - logit(.3)]))


def test_the_right_box_of_a_neighbour_is_no_mislabel():
    """Two objects at the same place: hiding one does not turn it into the other."""
    fake = scene([[(A, 0, 1), (NEAR_A, 1, 1)]], [[(A, 0, .6), (NEAR_A, 1, .9)]], weight=torch.tensor([-1., 0.]))
    judge = Mislabel().objective(fake)
    assert judge.share(fake.images + 5 / 9, ROW).item() == 0


def test_mislabel_as_a_given_class():
    truth, candidates = [(A, 0, 1), (FAR, 1, 1)], [(A, 0, .6), (A, 1, .1), (A, 2, .2), (FAR, 1, .9)]
    for target in (1, 'dog'):
        judge = Mislabel(target=target).objective(scene([truth], [candidates]))
        assert judge.counted.tolist() == [[True, False]], 'an object of the target class does not count'
        torch.testing.assert_close(judge.clean.loss, torch.tensor([log(.4) + log(.1)]))
        torch.testing.assert_close(judge.clean.margin, torch.tensor([logit(.6) - logit(.1)]))
    judge = Mislabel(target=1).objective(scene([truth[1:]], [candidates]))
    assert not judge.defined.any() and not judge.eligible.any() and not judge.region.any()


BESIDE_A = (0, 0, 4, 1.4)  # overlaps A by 0.35: another place; NEAR_A by 0.47: one suppresses the other


@pytest.mark.parametrize('rival, label, success', [(.7, 1, False), (.4, 1, True), (.7, 2, True)])
def test_a_wrong_box_must_survive_suppression(rival, label, success):
    fake = scene([[(A, 0, 1)]], [[(A, 0, .6), (NEAR_A, 1, .5), (BESIDE_A, label, rival)]], weight=torch.tensor([-1., 0., 0.]))
    judge = Mislabel().objective(fake)
    verdict = judge(fake.images + 5 / 9, ROW)
    assert verdict.success.item() == success
    torch.testing.assert_close(verdict.margin, torch.tensor([0. if success else logit(.7) - logit(.5)]))


def test_classes_below_the_best_of_their_box_are_pushed_but_not_reported():
    """As in YOLOX, which reports one class per box: the last two candidates are other classes of the first one's box."""
    boxes = [[(A, 0, .6), (A, 1, .4), (A, 2, .01)]]
    fake = scene([[(A, 0, 1)]], boxes, weight=torch.tensor([-1., 0., 1.]), below=torch.tensor([-1, 0, 0]))
    judge = Mislabel().objective(fake)
    torch.testing.assert_close(judge.clean.margin, torch.tensor([logit(.6) - logit(.3) + logit(.6) - logit(.4)]))
    judge = Mislabel(target=2).objective(scene([[(A, 1, 1)]], boxes, below=torch.tensor([-1, 0, 0])))
    assert not judge.eligible.any(), 'the detector does not report the object'


# Fabricate

OUT, NEAR_OUT, AWAY = (40, 40, 44, 44), (40, 40, 44, 43), (60, 0, 70, 10)


def test_distinct_boxes_are_those_greedy_suppression_keeps():
    found = pad_boxes([[(A, 0, .5), (NEAR_A, 1, .8), (B, 0, .1), ((0, 0, 0, 0), 0, .3)], [(A, 0, .2)]])
    index, there = distinct(found.boxes, found.scores, 0.5)
    assert index[0].tolist() == [1, 3, 2] and there.tolist() == [[True] * 3, [True, False, False]]
    index, there = distinct(found.boxes, found.scores, 0.8, count=2)
    assert index[0].tolist() == [1, 0] and there.tolist() == [[True, True], [True, False]]


def test_fabricate_known_answers():
    candidates = [(A, 0, .8), (FAR, 0, .6), (FAR, 1, .29), (OUT, 1, .2), (NEAR_OUT, 0, .15), (AWAY, 2, .1)]
    fake = scene([[(A, 0, 1)]], [candidates])
    for count, best in ((1, [.2]), (2, [.2, .1]), (3, [.2, .1, 1e-6])):
        judge = Fabricate(count=count).objective(fake)
        assert judge.eligible.all() and judge.defined.all() and judge.parts.tolist() == [count] and not judge.clean.success
        torch.testing.assert_close(judge.clean.loss, torch.tensor([-log(.8) - log(.85) - log(.9)]))
        torch.testing.assert_close(judge.clean.margin, torch.tensor([sum(logit(.3) - logit(p) for p in best) / count]))
    judge = Fabricate(target='cow').objective(fake)
    torch.testing.assert_close(judge.clean.margin, torch.tensor([logit(.3) - logit(.1)]))


@pytest.mark.parametrize('change, made', [(0.4, 0), (0.6, 1), (1.4, 2), (5., 2)])
def test_fabricate_succeeds_when_enough_boxes_appear(change, made):
    """The first two overlap each other and count as one; thresholds are reached at 0.54 and 1.35 logits."""
    fake = scene([[]], [[(OUT, 1, .2), (NEAR_OUT, 0, .15), (AWAY, 2, .1)]], weight=1.)
    x = (fake.images + change / 9).requires_grad_()
    for count in (1, 2):
        judge = Fabricate(count=count).objective(fake)
        verdict, enough = judge(x, ROW), made >= count
        assert verdict.success.item() == enough and judge.share(x, ROW).item() == min(made / count, 1)
        grad, = torch.autograd.grad(verdict.margin.relu().sum(), x)
        assert (verdict.margin.item() == 0 and not grad.any()) if enough else (verdict.margin > 0 and grad.any())


@pytest.mark.parametrize('score, success', [(.4, False), (.7, True)])
def test_a_box_that_an_object_would_suppress_is_not_new(score, success):
    """A box apart from an object but not from its best candidate; the logit of each falls by one."""
    fake = scene([[(A, 0, 1)]], [[(NEAR_A, 0, .6), (BESIDE_A, 1, .1)]], weight=torch.tensor([0., 1.]))
    judge = Fabricate().objective(fake)
    verdict = judge(fake.images + (logit(score) - logit(.1)) / 9, ROW)
    assert verdict.success.item() == success and (verdict.margin > 0).item() != success
    assert (verdict.loss > 0).item() == success, 'below the best candidate of the object it is not even pushed'


def test_a_new_box_must_beat_every_box_of_an_object_that_overlaps_it():
    """Of the object's candidates the best is apart from the new box, the second is not."""
    wide, second, new = (0, 0, 8, 4), (0, 0, 4.5, 4), (0, 0, 3, 4)  # overlaps with the new box: 0.375, 0.67
    fake = scene([[(wide, 0, 1)]], [[(wide, 0, .9), (second, 0, .6), (new, 1, .1)]], weight=torch.tensor([0., 0., 1.]))
    judge = Fabricate().objective(fake)
    for score, success in ((.5, False), (.7, True)):
        x = fake.images + (logit(score) - logit(.1)) / 9
        verdict = judge(x, ROW)
        assert verdict.success.item() == success
        torch.testing.assert_close(verdict.margin, torch.tensor([0. if success else logit(.6) - logit(.5)]))


def test_fabricate_attacks_images_without_objects_and_without_candidates():
    fake = scene([[], []], [[(OUT, 1, .1)], []], weight=1.)
    fake.images *= 0.5
    judge = Fabricate().objective(fake)
    assert judge.defined.all() and judge.eligible.all() and judge.region.all()
    with pytest.warns(RuntimeWarning, match='the gradient is zero everywhere'):
        result = SparsePGD(k=4, steps=20)(judge)
    assert result.success.tolist() == [True, False] and not result.failed.any()


@pytest.mark.parametrize('options, message', [
    (dict(target=7), r'target = 7, but the classes are 0 to 2'), (dict(target=-1), 'target = -1'),
    (dict(target='dgo'), "no class 'dgo': did you mean 'dog'"), (dict(target=1.5), 'target = 1.5, expected a class index'),
    (dict(target=True), 'target = True'), (dict(nms_thr=1.5), 'nms_thr = 1.5')])
@pytest.mark.parametrize('goal', [Mislabel, Fabricate])
def test_targets_that_are_no_class_are_refused(goal, options, message):
    with pytest.raises(InputError, match=message):
        goal(**options).objective(scene([[(A, 0, 1)]], [[(A, 0, .9)]]))


def test_class_names_must_be_known():
    fake = scene([[(A, 0, 1)]], [[(A, 0, .9)]])
    fake.classes = None
    with pytest.raises(InputError, match="target = 'dog', but no class names are known"):
        Mislabel(target='dog').objective(fake)


@pytest.mark.parametrize('count', [0, 1.5, True])
def test_counts_that_are_no_count_are_refused(count):
    with pytest.raises(InputError, match='Fabricate: count = '):
        Fabricate(count=count)


@pytest.mark.parametrize('goal', EVERY_GOAL[1:], ids=repr)
@pytest.mark.parametrize('spec', EVERY_ATTACK, ids=lambda spec: spec[0])  # a function's address is no name
def test_every_attack_pursues_every_goal(spec, goal):
    """Bright pixels hide the object and show other things; the last image has no object."""
    truth, found = [[(A, 0, 1)], []], [[(A, 0, .4), (A, 1, .25), (OUT, 1, .2), (AWAY, 1, .2), (FAR, 1, .2)], [(OUT, 1, .1)]]
    fake = Detections(pictures(2, 1, 4, 4) * 0.5, truth, found, weight=torch.tensor([-2., 2., 2., 2., 2.]))
    fake.losses = lambda x, rows, components: ((x - fake.images[rows]).flatten(1).sum(1), fake.candidates(x, rows))
    result = make_attack(spec, steps=20)(goal.objective(fake))
    fabricates = isinstance(goal, Fabricate)
    assert result.clean_correct.tolist() == [True, fabricates] and result.defined.tolist() == [True, fabricates]
    assert result.success[0] and result.l0_pixels[0] > 0 and not result.failed.any()
    assert fabricates or result.l0_pixels[1] == 0
