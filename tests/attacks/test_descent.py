"""Descent: a unit is dropped after a success, units are exchanged otherwise."""
import itertools
from dataclasses import replace

import pytest
import torch

from sparse_dense_attacks import ASLOAddOn, Descent, InputError, SigmaZero, SparsePGD, Targeted, Verdict, attack
from sparse_dense_attacks.attacks import ImageRNG
from sparse_dense_attacks.groups import Column, Patch, Row
from sparse_dense_attacks.objectives import MeteredObjective
from sparse_dense_attacks.objectives.base import Objective
from sparse_dense_attacks.ops import changed_pixels
from tests.helpers import Linear, Net, objective, pictures

NOTHING = SigmaZero(steps=1)  # looks at the clean image only, so that the search begins with nothing


def out_of_reach(shape, seed, needed):
    """A linear model, images and the gains of their units; the ``needed`` largest gains of the first image just break it."""
    model, x = Linear(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), 0.), pictures(4, *shape, seed=seed)
    gains = torch.maximum(model.weight * (1 - x), -model.weight * x)
    model.bias -= model(x)[:, 1].max() + gains.flatten(1).topk(needed).values.sum(1).mean()
    return model, x, gains


def fewest(gains, gap):
    """(B,) the smallest number of ``gains`` (B, n) whose sum exceeds ``gap`` (B,)."""
    return 1 + (gains.sort(1, descending=True).values.cumsum(1) <= gap[:, None]).sum(1)


# Known answers

@pytest.mark.parametrize('base', [None, NOTHING], ids=['sigma-zero', 'nothing'])
@pytest.mark.parametrize('unit', ['element', 'pixel'])
@pytest.mark.parametrize('shape, needed', [((3, 6, 6), 9), ((1, 9, 7), 12), ((3, 5, 8), 4)])
def test_fewest_units_of_a_linear_model_are_found(unit, shape, needed, base):
    model, x, gains = out_of_reach(shape, seed=needed, needed=needed)
    gains = gains.sum(1).flatten(1) if unit == 'pixel' else gains.flatten(1)
    optimum = fewest(gains, -model(x)[:, 1])
    result = Descent(steps=300, unit=unit, base=base)(objective(model, x), eight_bit=False)
    found = result.l0_pixels if unit == 'pixel' else result.l0_elements
    assert result.success_float.all() and found.tolist() == optimum.tolist() and optimum.min() > 1


@pytest.mark.parametrize('kernel, gather', [
    (Row(), lambda gains: gains.sum((1, 3))), (Column(), lambda gains: gains.sum((1, 2))),
    (Patch(2, 2, 2), lambda gains: 4 * torch.nn.functional.avg_pool2d(gains.sum(1, keepdim=True), 2).flatten(1))],
    ids=['rows', 'columns', 'patches'])
def test_fewest_groups_of_a_linear_model_are_found(kernel, gather):
    model, x, gains = out_of_reach((3, 8, 10), seed=2, needed=100)
    optimum = fewest(gather(gains), -model(x)[:, 1])
    result = Descent(steps=200, unit='pixel', kernel=kernel)(objective(model, x), eight_bit=False)
    assert result.success_float.all() and result.groups.tolist() == optimum.tolist() and optimum.min() > 1


def test_two_windows_that_overlap_nothing_else_are_found():
    weight = torch.full((1, 7, 9), 0.01)
    weight[:, 1:4, 2:5], weight[:, 3:6, 6:9] = 1., 1.
    model, x = Linear(weight, -15.), torch.zeros(2, 1, 7, 9)
    result = Descent(steps=120, unit='pixel', kernel=Patch(3, 3))(objective(model, x))
    assert result.success.all() and result.groups.tolist() == [2, 2]
    assert (result.images[:, 0, 1:4, 2:5] > 0).all() and (result.images[:, 0, 3:6, 6:9] > 0).all()


def test_no_more_than_the_best_set_of_corners_of_a_crooked_model():
    model, x = Net(1, gain=0.7, seed=5), pictures(8, 1, 3, 3, seed=4)
    judge = objective(model, x)
    needed = torch.full((8,), 99)
    for count in (3, 2, 1):
        for places in itertools.combinations(range(9), count):
            for colours in itertools.product((0., 1.), repeat=count):
                z = x.flatten(1).clone()
                z[:, list(places)] = torch.tensor(colours)
                needed[judge(z.view_as(x), torch.arange(8)).success] = count
    result = Descent(steps=150)(judge, eight_bit=False)
    known = needed < 99
    assert len(needed[known].unique()) > 1, needed
    assert result.success_float[known].all() and (result.l0_elements - needed)[known].clamp(min=0).sum() <= 1


# How it walks

class Watched(Objective):
    """Passes an objective through and keeps what the victim is shown."""

    def __init__(self, judge):
        self.judge, self.clean, self.seen = judge, judge.clean, []

    def __getattr__(self, name):
        return getattr(self.judge, name)

    def __call__(self, x, rows):
        verdict = self.judge(x, rows)
        self.seen.append((x.detach().clone(), verdict.success.clone(), verdict.margin.detach().clone()))
        return verdict


def walk(attack, judge):
    """The changes of the only image at every step, its successes and its margins."""
    watched = Watched(judge)
    meter = MeteredObjective(watched)
    attack.run(meter, ImageRNG(0, meter.keys, meter.region))
    x, success, margin = (torch.cat(part) for part in zip(*watched.seen, strict=True))
    return x - judge.images, success, margin


def hard(b=1, **options):
    return objective(Net(gain=0.4), pictures(b, 3, 6, 7, seed=3), **options)


def test_a_success_loses_a_unit_and_a_failure_exchanges_one():
    start = 12
    delta, success, margin = walk(Descent(steps=90, base=SigmaZero(steps=start), alpha=0.), hard())
    chosen, success, margin = (part[start:] for part in (delta != 0, success, margin))
    held, lowest = chosen[0], margin[0]
    unknown, drops, swaps = bool(success[0]), 0, 0  # what is left after a drop is taken as it comes
    dropped = unknown
    for now, broken, value in zip(chosen[1:], success[1:], margin[1:], strict=True):
        # what has just been dropped may enter
        assert (now & ~held).sum() <= 1 and held.sum() - now.sum() == dropped
        drops, swaps = drops + dropped, swaps + (not dropped)
        if broken or unknown or value < lowest:
            held, lowest, dropped = now, value, bool(broken)
        elif dropped:
            raise AssertionError('the first candidate after a drop is taken')
        unknown = bool(broken)
    assert drops > 3 and swaps > 10


def test_the_least_needed_unit_goes():
    model, x = Linear(torch.tensor([[[1., 2., 3., 4., 5.]]]), -3.5), torch.zeros(1, 1, 1, 5)
    delta, success, _ = walk(Descent(steps=3, base=NOTHING), objective(model, x))
    assert success.tolist()[:3] == [False, False, True] and delta[2].flatten().tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize('drop, gone', [(0., 1), (0.25, 2), (0.5, 4)])
def test_a_share_is_dropped_at_once(drop, gone):
    everything = torch.ones(1, 1, 2, 4)
    model = Linear(everything[0], -0.5)
    all_of_it = Fixed(everything)
    delta, success, _ = walk(Descent(steps=2, base=all_of_it, drop=drop), objective(model, torch.zeros_like(everything)))
    counts = (delta != 0).flatten(1).sum(1).tolist()
    assert success.all() and counts[0] == 8 and counts[1] == 8 - gone


def test_a_drop_that_is_missed_for_long_is_taken_back_by_halves():
    everything = torch.ones(1, 1, 2, 4)
    judge = objective(Linear(everything[0], -6.5), torch.zeros_like(everything))
    attack = Descent(steps=11, base=Fixed(everything), drop=0.5, patience=3)
    delta, success, _ = walk(attack, judge)
    counts = (delta != 0).flatten(1).sum(1).tolist()
    assert counts == [8, 4, 4, 4, 6, 6, 6, 7, 6, 6, 6] and success.nonzero()[:, 0].tolist() == [0, 7]
    stubborn, _, _ = walk(replace(attack, patience=0), judge)
    assert (stubborn != 0).flatten(1).sum(1).tolist() == [8] + 10 * [4]


def test_the_loss_says_what_matters_where_the_margin_is_flat():
    """Of two parts, both broken at the start, one pixel is of little use to either."""

    class Parts(Objective):
        def __init__(self, judge):
            self.judge, self.clean = judge, judge.clean

        def __getattr__(self, name):
            return getattr(self.judge, name)

        def __call__(self, x, rows):
            values = x.flatten(1)
            left = 1.5 - torch.stack([values[:, :2].sum(1), values[:, 2:6].sum(1) + 0.1 * values[:, place]], 1)
            return Verdict(-left.sum(1), left.relu().mean(1), (left < 0).all(1))

    judge = Parts(objective(Linear(torch.ones(1, 2, 4), -100.), torch.zeros(1, 1, 2, 4)))
    for place in (6, 7):
        start = torch.tensor([1., 1, 1, 1, 0, 0, 0, 0])
        start[place] = 1
        attack = Descent(steps=2, base=Fixed(start.view(1, 1, 2, 4)), alpha=0., follow='loss')
        (first, second), success, _ = walk(attack, judge)
        assert success[0] and first.sum() == 5 and second.flatten()[place] == 0 and second.sum() == 4


class Fixed:
    """Stands in for a first attack: gives back an image, without a forward."""

    def __new__(cls, image):
        from dataclasses import dataclass

        from sparse_dense_attacks.attacks import Attack

        @dataclass(frozen=True, eq=False)
        class Given(Attack):
            def run(self, objective, rng):
                return image.clone()
        return Given()


def test_flat_margins_at_success_leave_the_last_gradient():
    """Hinges say nothing at success; what goes then is what mattered least just before."""

    class Hinge(Objective):
        def __init__(self, judge):
            self.judge = judge
            self.clean = judge.clean

        def __getattr__(self, name):
            return getattr(self.judge, name)

        def __call__(self, x, rows):
            verdict = self.judge(x, rows)
            return replace(verdict, margin=verdict.margin.clamp(min=0) * ~verdict.success)

    model, x, gains = out_of_reach((3, 6, 6), seed=9, needed=9)
    optimum = fewest(gains.flatten(1), -model(x)[:, 1])
    result = Descent(steps=300)(Hinge(objective(model, x)), eight_bit=False)
    assert result.success_float.all() and result.l0_elements.tolist() == optimum.tolist()


def test_units_enter_until_there_is_a_success():
    model, x, _ = out_of_reach((3, 8, 8), seed=4, needed=40)
    delta, success, _ = walk(Descent(steps=30, base=NOTHING), objective(model, x[:1]))
    counts = (delta != 0).flatten(1).sum(1).tolist()
    first = success.tolist().index(True)
    assert counts[:6] == [0, 0, 1, 2, 3, 4][:6] and counts[first] > 30 and counts[first + 1] < counts[first]


# What it keeps

def test_budget_stops_an_image():
    judge = hard(6)
    free, stopped = Descent(steps=90)(judge), Descent(steps=90, budget=6)(judge)
    within = stopped.success & (stopped.l0_elements <= 6)
    assert within.any() and (stopped.l0_elements <= 6).all()
    assert (stopped.forwards < free.forwards)[within & (free.l0_elements > 1)].any()


def test_groups_are_cut_to_the_budget():
    judge = objective(Net(gain=0.05), pictures(5, 3, 6, 8, seed=3))
    result = Descent(steps=12, unit='pixel', kernel=Row(), budget=2)(judge)
    assert (result.groups <= 2).all() and (changed_pixels(result.images, judge.images).any(2).sum(1) <= 2).all()


def test_cost_counts_what_the_base_spends():
    judge = hard(6)
    result = Descent(steps=40)(judge)
    left = result.l0_elements > 1
    assert left.any() and (result.forwards[left] == 41).all() and (result.forwards <= 41).all()
    assert (result.backwards[left] == 39).all(), 'sigma-zero takes none at its last candidate'
    early = Descent(steps=40, base=SparsePGD(k=20, steps=30))(judge)
    assert (early.forwards[early.l0_elements > 1] == 41).all(), 'where the base stops early more steps are left'
    late = Descent(steps=5, base=SigmaZero(steps=20))(judge)
    assert (late.forwards == 22).all(), 'one step is always left'


def test_seed_and_key_decide_the_result_and_nothing_else():
    judge, attack_ = objective(Net(gain=0.4), pictures(6, 3, 12, 12, seed=3)), Descent(steps=60)
    first, again, other = attack_(judge, seed=0), attack_(judge, seed=0), attack_(judge, seed=1)
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)


def test_the_add_on_takes_it_as_a_base():
    result = ASLOAddOn(Descent(steps=60))(hard(6))
    assert result.success.any() and (result.forwards > 61).any(), 'it prunes what the descent leaves'


def test_targets_are_reached():
    model, x = Net(classes=5), pictures(6, 3, 6, 7, seed=3)
    labels = model(x).argmax(1)
    result = attack(model, x, labels, Descent(steps=90), goal=Targeted('runner_up'))
    runner_up = model(x).topk(2).indices[:, 1]
    assert result.success.any() and torch.equal(model(result.images).argmax(1) == runner_up, result.success)


@pytest.mark.parametrize('options, message', [
    (dict(unit='row'), "unit = 'row'"), (dict(kernel='row'), "set unit='pixel'"), (dict(base='sigma'), 'did you mean'),
    (dict(steps=0), 'steps = 0'), (dict(drop=1.5), 'drop = 1.5'), (dict(exchange=-1.), 'exchange'), (dict(noise=-1.), 'noise'),
    (dict(patience=-1), 'patience = -1'), (dict(follow='both'), 'follow')])
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Descent(**options)
