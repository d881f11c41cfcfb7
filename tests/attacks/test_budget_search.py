"""The search over the budget of fixed-budget attacks."""
from dataclasses import dataclass, replace

import pytest
import torch

from sparse_dense_attacks import PGD0, BudgetSearch, InputError, SigmaZero, SparsePGD, SparseRS, StructuredSparsePGD, Verdict
from sparse_dense_attacks.attacks import BudgetAttack
from sparse_dense_attacks.evaluation import success_at
from sparse_dense_attacks.objectives.base import Objective
from sparse_dense_attacks.ops import pixel_budget
from tests.helpers import Linear, Net, objective, pictures

NEEDED = (1, 3, 17, 40)


@dataclass(frozen=True)
class Whiten(BudgetAttack):
    """Paints the first k pixels white, and notes the budgets it was given."""
    log: tuple = ()

    def run(self, objective, rng):
        k = pixel_budget(self.k, objective.region, objective.keys)
        self.log[0].append(dict(zip(objective.keys, k.tolist(), strict=True)))
        white = (torch.arange(objective.images[0].numel()) < k[:, None]).view(objective.images.shape)
        return torch.where(white, 1., objective.images)


class Threshold(Objective):
    """An objective that is broken once ``needed[b]`` pixels of image b are white."""

    def __init__(self, needed):
        self.needed = torch.tensor(needed)
        base = objective(Linear(torch.ones(1, 7, 7), -1e3), torch.zeros(len(needed), 1, 7, 7), keys=list('abcdef')[:len(needed)])
        self.images, self.region, self.keys = base.images, base.region, base.keys
        self.eligible, self.defined = base.eligible, base.defined
        self.clean = self(self.images, torch.arange(len(needed)))

    def __call__(self, x, rows):
        white = x.flatten(1).sum(1)
        margin = self.needed[rows] - white
        return Verdict(-margin, margin, margin <= 0)


def test_smallest_budget_is_found_per_image():
    log = ([],)
    result = BudgetSearch(Whiten(k=4, log=log), searches=12)(Threshold(NEEDED))
    assert result.success.all() and result.l0_pixels.tolist() == list(NEEDED)
    tried = {key: [k[key] for k in log[0] if key in k] for key in 'abcd'}
    assert all(first[0] == 4 for first in tried.values()), 'the base attack\'s own k is the first guess'
    assert tried['d'][:2] == [4, 16] and all(k <= 49 for k in tried['d'])
    assert all(len(set(ks)) == len(ks) for ks in tried.values()), 'no budget is tried twice'
    assert tried['a'] == [4, 2, 1], 'an image is left alone once its bracket is closed'


def test_an_image_that_never_breaks_ends_at_its_whole_region():
    log = ([],)
    result = BudgetSearch(Whiten(k=4, log=log), searches=12)(Threshold((50, 2)))
    assert result.success.tolist() == [False, True] and result.l0_pixels.tolist() == [0, 2]
    assert [k['a'] for k in log[0] if 'a' in k] == [4, 16, 49]


def test_searches_end_after_the_given_number():
    log = ([],)
    BudgetSearch(Whiten(k=4, log=log), searches=3)(Threshold(NEEDED))
    assert len(log[0]) == 3


def test_the_curve_of_one_search_equals_separate_runs():
    judge = objective(Net(gain=0.4), pictures(12, 3, 5, 7, seed=3))
    found = BudgetSearch(PGD0(k=3, steps=40, alpha=10), searches=8)(judge, eight_bit=False)
    budgets = [1, 2, 3, 5, 8, 12]
    curve = success_at(budgets, found.l0_pixels, found.success_float)
    apart = [PGD0(k=k, steps=40, alpha=10)(judge, eight_bit=False).success_float.double().mean().item() for k in budgets]
    assert (curve >= torch.tensor(apart).numpy() - 0.1).all() and (curve[1:] >= curve[:-1]).all() and 0 < curve[0] < curve[-1]


def test_groups_are_searched_in_groups():
    judge = objective(Net(gain=0.25), pictures(6, 3, 6, 8, seed=1))
    result = BudgetSearch(StructuredSparsePGD(k=2, kernel='row', steps=30))(judge)
    assert result.success.any() and (result.groups[result.success] * 8 >= result.l0_pixels[result.success]).all()
    assert result.groups.max() <= 6


def test_minimum_and_budget_questions_agree_with_a_minimum_attack():
    """On a linear model the fewest pixels are known."""
    model, x = Linear(torch.linspace(1, 2, 35).view(1, 5, 7), 0.), torch.zeros(3, 1, 5, 7)
    gains = model.pixel_gains(x).sort(descending=True).values.cumsum(1)
    model.bias -= gains[0, 5] - 0.5  # six pixels
    found = BudgetSearch(PGD0(k=2, steps=60, alpha=10))(objective(model, x), eight_bit=False)
    assert found.l0_pixels.tolist() == [6, 6, 6]
    assert SigmaZero(steps=300, unit='pixel')(objective(model, x), eight_bit=False).l0_pixels.tolist() == [6, 6, 6]


# Warm: a descent from the first success

@pytest.mark.parametrize('guess', [1, 20])
def test_a_warm_search_walks_down_to_what_is_known(guess):
    """Six pixels of a linear model: from below the budget grows first, and no budget is tried after the first success."""
    model, x = Linear(torch.linspace(1, 2, 35).view(1, 5, 7), 0.), torch.zeros(3, 1, 5, 7)
    gains = model.pixel_gains(x).sort(descending=True).values.cumsum(1)
    model.bias -= gains[0, 5] - 0.5
    attack = BudgetSearch(PGD0(k=guess, steps=30, alpha=10), warm=True)
    found = attack(objective(model, x), eight_bit=False)
    assert found.success.all() and found.l0_pixels.tolist() == [6, 6, 6]
    assert found.forwards.max() <= 1 + 8 * 30


def test_a_warm_search_tries_no_budget_below_a_success():
    log = ([],)
    result = BudgetSearch(Whiten(k=4, log=log, steps=20), searches=3, warm=True)(Threshold(NEEDED))
    assert [list(tried) for tried in log[0]] == [list('abcd'), list('cd'), list('cd')]
    assert result.success.all() and result.l0_pixels.tolist() == list(NEEDED), 'the descent found the rest'


def test_a_warm_search_counts_groups():
    judge = objective(Net(gain=0.25), pictures(6, 3, 6, 8, seed=1))
    search = BudgetSearch(StructuredSparsePGD(k=2, kernel='row', steps=30), searches=6)
    cold, warm = search(judge), replace(search, warm=True)(judge)
    assert (warm.success >= cold.success).all() and warm.groups.sum() <= cold.groups.sum()
    changed_rows = (warm.images != judge.images).any(1).any(2).sum(1)
    assert torch.equal(changed_rows, warm.groups)


def test_a_warm_search_keeps_what_it_found_when_its_forwards_are_spent():
    judge = objective(Net(gain=0.4), pictures(12, 3, 5, 7, seed=3))
    search = BudgetSearch(PGD0(k=8, steps=10, alpha=10), searches=3, warm=True)
    once = PGD0(k=8, steps=10, alpha=10)(judge, max_forwards=13)
    assert (search(judge, max_forwards=15).success >= once.success).all() and once.success.any()


def test_what_restricts_more_than_the_count_is_not_searched_warm():
    for base in (SparseRS(k=4, variant='patches'), SparsePGD(k=3, eps_inf=0.5)):
        with pytest.raises(InputError, match='restricts more than how many'):
            BudgetSearch(base, warm=True)


def test_images_of_one_key_are_refused():
    with pytest.raises(InputError, match='same key'):
        BudgetSearch('PGD0')(objective(Net(), pictures(2, 3, 4, 4), keys=['a', 'a']))


def test_patches_are_searched_up_to_the_largest_square_that_fits():
    judge = objective(Linear(torch.ones(1, 8, 16), -1e3), torch.zeros(1, 1, 8, 16))
    assert not BudgetSearch(SparseRS(k=4, steps=3, variant='patches'))(judge).success.any()


def test_base_must_have_a_budget():
    with pytest.raises(InputError, match='BudgetSearch: base'):
        BudgetSearch('sigma_zero')
    with pytest.raises(InputError, match='searches'):
        BudgetSearch(searches=0)
    assert BudgetSearch(dict(type='PGD0', k=5)).base == PGD0(k=5)


def test_budget_per_image():
    region = torch.ones(2, 1, 2, 3, dtype=torch.bool)
    assert pixel_budget(dict(a=2, b=5, c=9), region, ['b', 'a']).tolist() == [5, 2]
    with pytest.raises(InputError, match='no entry for image z'):
        pixel_budget(dict(a=2), region, ['a', 'z'])
    with pytest.warns(RuntimeWarning, match='6 of a'):
        assert pixel_budget(dict(a=7, b=1), region, ['b', 'a']).tolist() == [1, 6]
