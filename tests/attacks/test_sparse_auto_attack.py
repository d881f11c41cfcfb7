"""The cascade at least equals its members and attacks only what is left."""
from dataclasses import dataclass, field, replace

import pytest
import torch

from sparse_dense_attacks import BudgetSearch, InputError, SwapPGD
from sparse_dense_attacks.attacks import Attack, ImageRNG, cascade
from sparse_dense_attacks.attacks.descent import Descent
from sparse_dense_attacks.attacks.sparse_auto_attack import SparseAutoAttack
from sparse_dense_attacks.attacks.sparse_rs import SparseRS
from sparse_dense_attacks.attacks.structured_sparse_pgd import StructuredSparsePGD
from sparse_dense_attacks.groups import Row
from sparse_dense_attacks.objectives import MeteredObjective
from sparse_dense_attacks.objectives.base import Restricted
from tests.helpers import Linear, Net, objective, pictures

ATTACK = SparseAutoAttack(k=2, steps=4, queries=60)


def batch(gain=0.4):
    return objective(Net(gain=gain), pictures(30, 3, 5, 7, seed=3))


def stages(attack, judge):
    meter = MeteredObjective(judge)
    part = Restricted(meter, (~meter.clean.success).nonzero()[:, 0])
    images, stage = attack.stages(part, ImageRNG(0, part.keys, part.region))
    return meter, part, images, stage


def test_members_are_as_published():
    first, second, third = ATTACK.members
    assert (first.gradient, second.gradient) == ('projected', 'unprojected') and first.steps == second.steps == 4
    assert third == SparseRS(k=2, steps=60, alpha_init=0.8, loss='ce')
    assert all(member.k == 2 for member in ATTACK.members)


def test_cascade_is_at_least_its_first_member_and_breaks_what_the_others_leave():
    judge = batch()
    whole, first = ATTACK(judge), ATTACK.members[0](judge)
    assert (whole.success >= first.success).all() and whole.success.sum() > first.success.sum()
    assert torch.equal(whole.images[first.success], first.images[first.success])
    assert (whole.l0_pixels <= 2).all()


def test_stages_tell_who_broke_it_and_survivors_only_are_attacked():
    meter, part, images, stage = stages(ATTACK, batch())
    success = part(images, torch.arange(30)).success
    assert torch.equal(stage >= 0, success) and {0, 2} <= set(stage.tolist())
    assert (meter.forwards[stage == 0] <= 1 + 5 + 1 + 1).all(), 'clean, steps + 1, judged, and the look above'
    assert (meter.forwards[stage == -1] == 2 * (4 + 2) + 60 + 2 + 1).all() and (meter.backwards[stage == -1] == 8).all()
    assert not meter.backwards[stage >= 0].gt(8).any()


def test_without_early_stop_everybody_meets_every_member():
    attack = SparseAutoAttack(k=2, steps=4, queries=20, early_stop=False)
    result = attack(batch())
    assert set(result.forwards.tolist()) == {2 * (4 + 2) + 20 + 2}
    stopped = SparseAutoAttack(k=2, steps=4, queries=20)(batch())
    assert (result.success >= stopped.success).all()


def test_structured_cascade():
    attack = SparseAutoAttack(k=1, steps=3, queries=20, kernel='row')
    assert attack.members[0] == StructuredSparsePGD(k=1, steps=3, kernel=Row()) and attack.members[2].kernel == Row()
    result = attack(batch())
    assert result.groups.max() == 1 and result.l0_pixels.max() > 1


# Version plus

PLUS = replace(ATTACK, version='plus')


def test_members_of_plus():
    swap, unprojected, walk, again, search = PLUS.members
    assert swap == again == SwapPGD(k=2, steps=4) and unprojected == ATTACK.members[1]
    assert walk == Descent(steps=4, budget=2, unit='pixel') and search == replace(ATTACK.members[2], steps=60 - 2 * 4 - 3 - 10)


def test_plus_costs_as_many_forwards_and_says_who_broke_it():
    meter, part, images, stage = stages(PLUS, batch())
    success = part(images, torch.arange(30)).success
    assert torch.equal(stage >= 0, success) and 0 in stage and -1 in stage
    spent = meter.forwards[stage == -1] - 1  # less the look above
    assert spent.max() <= 2 * (4 + 2) + 60 + 2 and meter.backwards.max() <= 16
    judge = batch()
    result = PLUS(judge)
    assert result.forwards.max() <= ATTACK(judge).forwards.max() and result.backwards.max() <= 16 + 9
    assert torch.equal(result.stage[~meter.clean.success], stage) and (result.stage[meter.clean.success] == -1).all()
    assert torch.equal(result.success[~meter.clean.success], success) and (result.l0_pixels <= 2).all()


@dataclass(frozen=True)
class Scripted(Attack):
    """Paints the first pixels white, as many as the next number of a script says, and notes whom."""
    script: tuple = ()
    asked: list = field(default_factory=list)

    def run(self, objective, rng):
        count = self.script[len(self.asked)]
        self.asked.append(list(objective.keys))
        x = objective.images.clone().flatten(2)
        for row, key in enumerate(objective.keys):
            x[row, :, :count[key]] = 1
        return x.view_as(objective.images)


def test_what_is_asked_again_gets_only_the_images_that_it_made_worse():
    judge = objective(Linear(torch.ones(1, 2, 2), -3.5), torch.zeros(3, 1, 2, 2), keys=list('abc'))
    twice = Scripted(script=(dict(a=1, b=0, c=4), dict(a=4)))
    meter = MeteredObjective(judge)
    part = Restricted(meter, torch.arange(3))
    _, stage = cascade((twice, twice), part, ImageRNG(0, part.keys, part.region))
    assert twice.asked == [['a', 'b', 'c'], ['a']] and stage.tolist() == [1, -1, 0]


def test_plus_warns_where_gradients_break_less_than_queries():
    class Stairs(torch.nn.Module):
        """Any change breaks it, but the slope of whatever lies between black and white says the opposite."""

        def forward(self, x):
            total = x.flatten(1).sum(1)
            return torch.stack([0 * total + 0.5, (2 * total).floor() - total], 1)

    black = torch.zeros(4, 1, 3, 3)
    with pytest.warns(RuntimeWarning, match='Sparse-RS broke 4 images, the attacks along gradients 0'):
        result = replace(PLUS, k=1, steps=1)(objective(Stairs(), black, torch.zeros(4, dtype=torch.int64)))
    assert result.success.all()


def test_images_that_every_pixel_leaves_alone_are_named():
    """A linear model: two images are out of reach, the third needs five pixels where two are allowed."""
    judge = objective(Linear(torch.ones(1, 3, 3), -4.5), torch.zeros(3, 1, 3, 3))
    judge.region[:2, :, 1:] = False
    with pytest.warns(RuntimeWarning, match='2 of 3 images that survived do so with every pixel free'):
        result = PLUS(judge)
    assert not result.success.any() and result.stage.tolist() == [-1] * 3


def test_attacks_without_members_have_no_stages():
    search = BudgetSearch(replace(ATTACK, k=1), searches=2)
    assert search.member_names == () and set(search(batch()).stage.tolist()) == {-1}
    assert len(ATTACK.member_names) == len(ATTACK.members) and len(PLUS.member_names) == len(PLUS.members)


def test_versions_are_two():
    with pytest.raises(InputError, match="version = 'best'"):
        SparseAutoAttack(version='best')
