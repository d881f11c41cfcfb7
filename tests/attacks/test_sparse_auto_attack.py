"""The cascade at least equals its members and attacks only what is left."""
import torch

from sparse_dense_attacks.attacks import ImageRNG
from sparse_dense_attacks.attacks.sparse_auto_attack import SparseAutoAttack
from sparse_dense_attacks.attacks.sparse_rs import SparseRS
from sparse_dense_attacks.attacks.structured_sparse_pgd import StructuredSparsePGD
from sparse_dense_attacks.groups import Row
from sparse_dense_attacks.objectives import MeteredObjective
from sparse_dense_attacks.objectives.base import Restricted
from tests.helpers import Net, objective, pictures

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
