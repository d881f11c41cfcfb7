"""Several models as one: by hand, gradients, success of all, members without a say, tasks together."""
import pytest
import torch

from sparse_dense_attacks import (
    FeatureDispersion,
    InputError,
    SigmaZero,
    SparsePGD,
    Targeted,
    Untargeted,
    Vanish,
)
from sparse_dense_attacks.objectives import Ensemble, Objective
from sparse_dense_attacks.testing import Detections, Net, objective, pictures
from sparse_dense_attacks.types import Verdict
from sparse_dense_attacks.victims import TorchClassifier
from tests.helpers import EVERY_ATTACK, make_attack

IMAGES = pictures(4, 3, 6, 7)
ROWS = torch.arange(4)
BALL = ((0, 0, 4, 4), 1, 0.75)


class Said(Objective):
    """An objective with a fixed verdict."""

    def __init__(self, loss, margin, success, clean=0.0, defined=None, eligible=None, region=None):
        self.images, self.keys = IMAGES, list(range(4))
        self.verdict = Verdict(*map(torch.tensor, (loss, margin, success)))
        nobody = torch.zeros(4, dtype=torch.bool)
        self.clean = Verdict(torch.full((4,), clean), torch.ones(4), nobody)
        self.defined = ~nobody if defined is None else torch.tensor(defined)
        self.eligible = ~nobody if eligible is None else torch.tensor(eligible)
        self.region = torch.ones(4, 1, 6, 7, dtype=torch.bool) if region is None else region

    def __call__(self, x, rows):
        return self.verdict[rows]


A = Said([1., 2., 3., 4.], [2., 0.5, -1., 0.], [False, False, True, True], clean=1.0)
B = Said([-9., -8., -3., -1.], [1., -2., -5., 3.], [False, True, True, False], clean=-10.0)


def nets(count, gain=0.4):
    """Networks that are not sure of themselves, so that no loss hides behind another."""
    return [objective(Net(seed=seed, gain=gain), IMAGES) for seed in range(count)]


def test_mean_by_hand():
    said = Ensemble([A, B])(IMAGES, ROWS)
    assert said.loss.tolist() == [(0 + 1) / 2, (1 + 2) / 2, (2 + 7) / 2, (3 + 9) / 2]
    assert said.margin.tolist() == [1.5, 0.25, 0, 1.5], 'one that is beyond makes up for none'
    assert said.success.tolist() == [False, False, True, False]


def test_worst_by_hand():
    said = Ensemble([A, B], 'worst')(IMAGES, ROWS)
    assert said.loss.tolist() == [0, 1, 2, 3] and said.margin.tolist() == [2, 0.5, 0, 3]
    turned = Ensemble([B, A], 'worst', weights=[0.1, 1])(IMAGES[[3, 0]], torch.tensor([3, 0]))
    assert turned.loss.tolist() == pytest.approx([0.9, 0])


def test_of_one_member_it_is_that_member():
    alone, = nets(1)
    x = pictures(4, 3, 6, 7, seed=5)
    for combine in ('mean', 'worst'):
        joint = Ensemble([alone], combine)
        one, other = alone(x, ROWS), joint(x, ROWS)
        torch.testing.assert_close(other.loss, one.loss - alone.clean.loss)
        torch.testing.assert_close(other.margin, one.margin.clamp(min=0))
        assert torch.equal(other.success, one.success)
        assert torch.equal(joint.eligible, alone.eligible) and torch.equal(joint.region, alone.region)


@pytest.mark.parametrize('combine', ['mean', 'worst'])
def test_gradients_agree_with_finite_differences(combine):
    joint, rows = Ensemble(nets(3), combine), torch.tensor([2, 0])
    x = pictures(2, 3, 6, 7, seed=3).double().requires_grad_()
    for member in joint.members:
        member.scene.model.double()
    for what in ('loss', 'margin'):
        assert torch.autograd.gradcheck(lambda z, what=what: getattr(joint(z, rows), what).double(), x,
                                        eps=1e-3, atol=1e-2, rtol=1e-2)


def test_success_is_success_of_all():
    joint = Ensemble(nets(2), 'worst')
    result = SparsePGD(k=20, steps=80)(joint)
    members = torch.stack([one(result.images, ROWS).success for one in joint.members])
    assert torch.equal(result.success, members.all(0)) and result.success.any()


@pytest.mark.parametrize('combine', ['mean', 'worst'])
def test_a_hinge_at_success_has_no_slope(combine):
    joint = Ensemble(nets(2), combine)
    result = SigmaZero(steps=80)(joint)  # which follows the margin
    rows = result.success.nonzero()[:, 0]
    x = result.images[rows].requires_grad_()
    slope, = torch.autograd.grad(joint(x, rows).margin.sum(), x)
    assert len(rows) and not slope.any()


@pytest.mark.parametrize('spec', EVERY_ATTACK, ids=lambda s: f'{s[0]}{"-".join(map(str, s[1].values()))}'[:40])
def test_every_attack_takes_it(spec):
    if spec[0] == 'ForeignAttack':
        pytest.skip('foreign attacks want logits')
    joint = Ensemble(nets(2))
    result = make_attack(spec)(joint)
    members = torch.stack([one(result.images, ROWS).success for one in joint.members])
    assert torch.equal(result.success, members.all(0))


def test_the_worst_looks_after_whichever_is_behind():
    """The mean gives one up, because what is broken already can be broken further without end."""
    broken = [SparsePGD(k=20, steps=80)(Ensemble(nets(2), combine)).success.sum().item()
              for combine in ('mean', 'worst')]
    assert broken == [0, 4]


def test_a_minimum_attack_breaks_all_members():
    joint = Ensemble(nets(2))
    result = SigmaZero(steps=80)(joint)
    assert result.success.all()
    for alone in joint.members:
        assert (SigmaZero(steps=80)(alone).l0_elements <= result.l0_elements).float().mean() > 0.5


def test_a_member_without_an_object_has_no_say():
    """A detector that has to hide nothing in the second image, together with a classifier."""
    images = IMAGES[:2]
    detector = Vanish().objective(Detections(images, truth=[[BALL], []], candidates=[[BALL], []]))
    classifier = objective(Net(), images)
    joint = Ensemble([classifier, detector])
    assert joint.defined.tolist() == [True, True] and joint.eligible.tolist() == [True, True]
    assert joint.region.all(), 'nothing to attack for the one is no veto'
    assert joint.parts.tolist() == [1, 0]
    result = SparsePGD(k=20, steps=60)(joint)
    assert result.success[1] == classifier(result.images, ROWS[:2]).success[1]
    share = joint.share(result.images, ROWS[:2])
    assert share[0] == detector.share(result.images, ROWS[:2])[0] and share[1].isnan()


def test_where_none_is_defined_success_is_undefined_but_there_is_a_slope():
    nobody = [False] * 4
    joint = Ensemble([Said([1.] * 4, [1., 2., 3., 4.], nobody, defined=nobody)] * 2)
    assert not joint.defined.any() and not joint(IMAGES, ROWS).success.any()
    assert joint(IMAGES, ROWS).margin.tolist() == [1, 2, 3, 4]


def test_eligible_where_all_that_count_are():
    one = Said([1.] * 4, [1.] * 4, [False] * 4, eligible=[True, True, False, False],
               defined=[True, True, True, False])
    other = Said([1.] * 4, [1.] * 4, [False] * 4, eligible=[True, False, True, True])
    assert Ensemble([one, other]).eligible.tolist() == [True, False, False, True]


def test_regions_are_shared():
    left = torch.zeros(4, 1, 6, 7, dtype=torch.bool)
    left[..., :4] = True
    right = ~left
    right[..., 3] = True
    nothing = torch.zeros_like(left)
    made = [Said([1.] * 4, [1.] * 4, [False] * 4, region=region) for region in (left, right, nothing)]
    assert torch.equal(Ensemble(made).region, left & right)
    assert not Ensemble(made[2:] * 2).region.any()


def test_goals_of_several_kinds_together():
    """Another class for one model, a certain class for another, and features of a third."""
    opened = [TorchClassifier(Net(seed=seed, gain=0.4), reference='prediction').open(IMAGES) for seed in range(3)]
    goals = Untargeted(), Targeted('runner_up'), FeatureDispersion('conv', until=0.9)
    members = [goal.objective(scene) for goal, scene in zip(goals, opened, strict=True)]
    joint = Ensemble(members, 'worst')
    result = SparsePGD(k=25, steps=60, early_stop=False)(joint)
    gained = torch.stack([member(result.images, ROWS).loss - member.clean.loss for member in members])
    assert (gained > 0).all()
    torch.testing.assert_close(joint(result.images, ROWS).loss, gained.amin(0).float())


def test_verdicts_do_not_depend_on_the_batch():
    x, turned = pictures(4, 3, 6, 7, seed=9), torch.tensor([3, 1, 0])
    joint = Ensemble(nets(3), 'worst')
    torch.testing.assert_close(joint(x[turned], turned).loss, joint(x, ROWS).loss[turned])


def test_what_is_no_ensemble_is_refused():
    with pytest.raises(InputError, match='at least one'):
        Ensemble([])
    with pytest.raises(InputError, match="member 2 sees other pixels than member 1: .*grid='original'"):
        Ensemble([A, objective(Net(), pictures(4, 3, 6, 7, seed=1))])
    with pytest.raises(InputError, match='member 2 sees other pixels'):
        Ensemble([A, objective(Net(), pictures(4, 3, 7, 7))])
    with pytest.raises(InputError, match="combine = 'median', expected 'mean' or 'worst'"):
        Ensemble([A], 'median')
    for weights in ([1], [1, -1], [1, float('nan')], [1, True]):
        with pytest.raises(InputError, match='expected 2 positive numbers'):
            Ensemble([A, B], weights=weights)


def test_a_margin_without_a_say_keeps_nobody_from_success():
    never = Said([0.] * 4, [1.] * 4, [False] * 4, defined=[False] * 4)
    done = Said([0.] * 4, [-1.] * 4, [True] * 4)
    for combine in ('mean', 'worst'):
        said = Ensemble([never, done], combine)(IMAGES, ROWS)
        assert said.success.all() and not said.margin.any()
