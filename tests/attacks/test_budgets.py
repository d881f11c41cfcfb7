"""Budgets that are missed and images that are too small: what is reported never exceeds what was asked for."""
import dataclasses

import pytest
import torch

from sparse_dense_attacks import GSE, WIFGSM, ASLOAddOn, SigmaZero, SparsePGD, SparseRS
from sparse_dense_attacks.groups import Patch
from sparse_dense_attacks.results import Record
from sparse_dense_attacks.types import AttackResult
from tests.helpers import BUDGET_ATTACKS, Net, make_attack, objective, pictures

# A missed budget

MINIMUM = [SigmaZero(steps=40, unit='pixel'), SigmaZero(steps=40), WIFGSM(steps=20),
           GSE(iters=30, k_hat=6, search_steps=3)]


@pytest.mark.parametrize('attack', MINIMUM, ids=lambda one: f'{type(one).__name__}-{one.unit}')
@pytest.mark.parametrize('budget', [1, 2, 0.03])
@pytest.mark.parametrize('eight_bit', [True, False])
def test_no_result_exceeds_its_budget(attack, budget, eight_bit):
    """Not in the images, nor in counts and share; where nothing within it does harm the clean image stays."""
    task = objective(Net(gain=0.3), pictures(8, 3, 6, 6, seed=2))
    free = attack(task, eight_bit=eight_bit)
    count = 'l0_pixels' if attack.unit == 'pixel' else 'l0_elements'
    places = 36 if attack.unit == 'pixel' else 108
    limit = budget if isinstance(budget, int) else int(places * budget + 1e-6)
    assert (getattr(free, count) > limit).any(), 'else there is nothing to see'
    result = dataclasses.replace(attack, budget=budget)(task, eight_bit=eight_bit)
    changed = result.images != task.images
    counted = changed.any(1) if attack.unit == 'pixel' else changed
    assert (counted.flatten(1).sum(1) <= limit).all()
    assert torch.equal(getattr(result, count), counted.flatten(1).sum(1))
    with torch.no_grad():
        said = task(result.images, torch.arange(8))
    assert torch.equal(said.success, result.success if eight_bit else result.success_float)
    assert (said.loss >= task.clean.loss - 1e-6)[~said.success].all(), 'no better than clean'


def test_the_add_on_keeps_the_budget_of_its_base():
    task = objective(Net(gain=0.3), pictures(6, 3, 6, 6, seed=2))
    result = ASLOAddOn(base=SigmaZero(steps=20, unit='pixel', budget=1))(task)
    assert (result.l0_pixels <= 1).all()


def test_a_spent_budget_of_forwards_leaves_the_clean_image():
    task = objective(Net(gain=0.3), pictures(6, 3, 6, 6, seed=2))
    result = SigmaZero(steps=40, unit='pixel', budget=1)(task, max_forwards=20)
    assert (result.forwards <= 20).all() and (result.l0_pixels <= 1).all()


# Images that are too small

def sizes(*extents):
    """One image for each (height, width), padded to a common canvas."""
    region = torch.zeros(len(extents), 1, 8, 8, dtype=torch.bool)
    for one, (h, w) in zip(region, extents, strict=True):
        one[:, :h, :w] = True
    return objective(Net(gain=0.3), pictures(len(extents), 3, 8, 8, seed=1), region=region,
                     keys=[f'{h}x{w}' for h, w in extents])


@pytest.mark.parametrize('spec', BUDGET_ATTACKS, ids=lambda spec: spec[0])
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_an_image_too_small_is_marked_whatever_the_batch(spec):
    attack = make_attack(spec, k=20, early_stop=False)
    together, alone = attack(sizes((1, 1), (8, 8), (4, 4))), attack(sizes((1, 1)))
    assert together.short.tolist() == [True, False, True] and alone.short.tolist() == [True]
    assert (together.l0_pixels <= torch.tensor([1, 20, 16])).all()
    assert torch.equal(together.l0_pixels[:1], alone.l0_pixels)
    notes = [Record.of(str(row), together, row).note for row in range(3)]
    assert notes == ['too small for the budget', '', 'too small for the budget']


@pytest.mark.parametrize(('attack', 'short'), [
    (SparsePGD(k=0.5, steps=3), [False, False]),
    (SigmaZero(steps=5, unit='pixel', budget=9), [True, False]),
    (SigmaZero(steps=5, budget=9), [True, False]),
    (SigmaZero(steps=5, budget={'1x2': 7, '8x8': 7}), [True, False]),
    (SparsePGD(k={'1x2': 3, '8x8': 3}, steps=3), [True, False]),
    (SparseRS(variant='patches', k=9, steps=3), [True, False]),
    (SparseRS(variant='frames', k=2, steps=3), [True, False]),
    (SparseRS(kernel=Patch(2, 2), k=1, steps=3), [True, False])])
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_budgets_of_every_kind_know_what_is_too_small(attack, short):
    assert attack(sizes((1, 2), (8, 8))).short.tolist() == short


def test_nothing_may_change_is_not_too_small():
    task = sizes((8, 8), (8, 8))
    task.region[0] = False
    assert SparsePGD(k=20, steps=3)(task).short.tolist() == [False, False]


def test_results_keep_the_mark():
    result = SparsePGD(k=3, steps=3)(sizes((8, 8), (4, 4)))
    assert isinstance(AttackResult.joined([result, result]).short, torch.Tensor)
    assert not Record.of('a', result, 0).too_small and not Record.of('a', result, 0).failed
