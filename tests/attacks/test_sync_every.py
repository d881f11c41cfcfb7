"""Looking at the active images every few iterations only: the same results and costs, and the device is waited for less often."""
import dataclasses
from dataclasses import replace

import pytest
import torch

from sparse_dense_attacks import PGD0, BudgetSearch, SigmaZero, SparsePGD
from sparse_dense_attacks.objectives.base import Objective
from tests.attacks.test_conformance import CORES, batch, every_core
from tests.attacks.test_one_look_at_the_device import cost, unending

# These know in advance when they need not look. The others draw for the images that are left, in every iteration, or decide by
# what was found where to look next.
PATIENT = ['sigma-zero', 'sigma-zero pixel', 'ASLO', 'GSE', 'WI-FGSM', 'PGD0', 'sPGD', 'windows']


def equal(one, other):
    for field in dataclasses.fields(one):
        if field.name != 'seconds':
            a, b = getattr(one, field.name), getattr(other, field.name)
            assert torch.equal(a, b) or (a.is_floating_point() and torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))), field.name


@every_core
@pytest.mark.parametrize('every', [4])
def test_results_and_costs_are_the_same(attack, every):
    equal(attack(batch(), seed=1), attack(batch(), seed=1, sync_every=every))


@pytest.mark.parametrize('attack', [SigmaZero(steps=20, budget=4), SparsePGD(k=2, steps=9, early_stop=False, patience=2),
                                    SparsePGD(k=2, steps=9, stagnation='batch', published=('sigmoid',)),
                                    BudgetSearch(base=SparsePGD(k=1, steps=7, patience=1), searches=4), PGD0(k=3, steps=9)])
@pytest.mark.parametrize('options', [dict(max_forwards=8), dict(max_forwards=100), dict(eight_bit=False)])
def test_within_a_budget_and_without_8_bits(attack, options):
    for every in (2, 3, 50):
        equal(attack(batch(), seed=1, **options), attack(batch(), seed=1, sync_every=every, **options))


class Spoilt(Objective):
    """An objective that is not finite any more, in value and gradient, once an image has been broken."""

    def __init__(self, inner):
        self.inner, self.broken, self.asked = inner, torch.zeros(len(inner.images), dtype=torch.bool), 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, x, rows):
        verdict = self.inner(x, rows)
        self.asked += len(rows)
        before = self.broken[rows] & x.requires_grad
        self.broken[rows] |= verdict.success
        return replace(verdict, loss=torch.where(before, torch.nan, verdict.loss))


def test_what_becomes_of_an_image_that_is_done_counts_nowhere():
    attack = PGD0(k=2, steps=8)
    first, second = Spoilt(batch()), Spoilt(batch())
    found, later = attack(first, seed=1), attack(second, seed=1, sync_every=5)
    assert found.success.any() and not found.success.all() and not found.failed.any()
    equal(found, later)
    assert second.asked > first.asked, 'it was asked in vain'


@pytest.mark.parametrize('name', PATIENT)
def test_the_device_is_waited_for_less_often(name):
    attack = unending(CORES[name])
    attack = replace(attack, patience=12) if hasattr(attack, 'patience') else attack
    queries, reads, found = cost(attack)
    queries_4, reads_4, found_4 = cost(attack, sync_every=4)
    assert torch.equal(found.images.near, found_4.images.near)
    # what an attack does once is in both
    spared = len(reads) - len(reads_4)
    assert spared >= 0.6 * min(queries, queries_4) - 8 and spared > 3, (queries, len(reads), len(reads_4))
