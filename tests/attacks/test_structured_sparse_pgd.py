"""Sparse-PGD on groups: known optima, the unstructured attack as a special case, and budgets in groups."""
import itertools

import pytest
import torch

from sparse_dense_attacks import ASLOAddOn, BudgetSearch, SigmaZero, SparsePGD
from sparse_dense_attacks.attacks.structured_sparse_pgd import StructuredSparsePGD
from sparse_dense_attacks.groups import Column, Patch, Pixel, Row, Shape
from tests.helpers import Linear, Net, objective, pictures

KERNELS = [Row(), Column(), Patch(2, 2), Patch(2, 3, 2), Shape('L', 7)]
every_kernel = pytest.mark.parametrize('kernel', KERNELS, ids=str)
SHAPE = 3, 9, 8


@pytest.mark.parametrize('gradient', ['projected', 'unprojected', 'ensemble'])
@pytest.mark.parametrize('kernel', [Pixel(), Patch(1, 1)], ids=str)
def test_single_pixels_are_the_unstructured_attack_bit_for_bit(kernel, gradient):
    options = dict(k=3, steps=25, gradient=gradient, early_stop=False)
    judge = objective(Net(), pictures(5, 3, 5, 7, seed=3))
    plain, grouped = SparsePGD(**options)(judge), StructuredSparsePGD(kernel=kernel, **options)(judge)
    assert torch.equal(plain.images, grouped.images) and torch.equal(plain.groups, grouped.groups)
    assert torch.equal(plain.backwards, grouped.backwards) and plain.l0_pixels.all()


@every_kernel
@pytest.mark.parametrize('gradient', ['projected', 'unprojected'])
def test_best_group_of_a_linear_model_is_found(kernel, gradient):
    model, x = Linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)), 0.), pictures(3, *SHAPE, seed=1)
    gains = model.pixel_gains(x).view(3, 1, *SHAPE[1:])
    grid = kernel.grid(*SHAPE[1:])
    groups = torch.eye(grid[0] * grid[1]).view(-1, 1, *grid)
    masks = kernel.expand(groups, SHAPE[1:])
    totals = (gains[:, None] * masks).flatten(2).sum(2)
    model.bias -= model(x)[:, 1].max() + totals.max() / 2
    # masks that are drawn anew more often, as the published code does it, leave less time for the colours of each
    for stagnation, steps in (('row', 300), ('total', 600)):
        attack = StructuredSparsePGD(k=1, kernel=kernel, steps=steps, gradient=gradient, early_stop=False, stagnation=stagnation)
        result = attack(objective(model, x), eight_bit=False)
        reached = (model(result.images) - model(x))[:, 1].double()
        torch.testing.assert_close(reached, totals.max(1).values, rtol=1e-5, atol=1e-5)
        for changed, best in zip((result.images != x).any(1), totals.argmax(1), strict=True):
            assert not (changed & ~masks[best, 0].bool()).any()


@every_kernel
@pytest.mark.parametrize('k', [1, 2, 0.2])
def test_changes_lie_in_k_groups_inside_the_region(kernel, k):
    region = torch.ones(4, 1, *SHAPE[1:], dtype=torch.bool)
    region[1, :, 7:], region[2, ..., 5:] = False, False
    judge = objective(Net(), pictures(4, *SHAPE), region=region)
    result = StructuredSparsePGD(k=k, kernel=kernel, steps=5, early_stop=False)(judge)
    changed = (result.images != judge.images).any(1)
    assert not (changed & ~region[:, 0]).any() and result.l0_pixels.all()
    room = kernel.usable(region).flatten(1).sum(1)
    limit = torch.full_like(room, k) if isinstance(k, int) else (room * k + 1e-6).long().clamp(min=1)
    placements = kernel.expand(torch.eye(room.new_tensor(kernel.grid(*SHAPE[1:])).prod()).view(-1, 1, *kernel.grid(*SHAPE[1:])),
                               SHAPE[1:])[:, 0].bool()
    for one, most in zip(changed, limit.tolist(), strict=True):
        if most <= 2:
            assert any(not (one & ~placements[list(chosen)].any(0)).any()
                       for chosen in itertools.combinations(range(len(placements)), most))
    assert torch.equal(result.groups, kernel.cover(changed, kernel.usable(region)).minimum(limit))


def test_an_attack_says_whether_it_has_groups():
    rows = StructuredSparsePGD(k=1, kernel='row')
    assert rows.structured and BudgetSearch(rows).structured and ASLOAddOn(rows).structured
    plain = StructuredSparsePGD(k=1, kernel='pixel')
    assert not plain.structured and not BudgetSearch(plain).structured and not SigmaZero().structured


def test_letter_is_placed_as_it_reads():
    judge = objective(Net(), torch.full((2, 3, 10, 9), 0.5))
    attack = StructuredSparsePGD(k=1, kernel=dict(type='Shape', name='F'), steps=3, early_stop=False, alpha=1.0)
    result = attack(judge, eight_bit=False)
    for changed in (result.images != judge.images).any(1):
        rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
        assert torch.equal(changed[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1], Shape('F').pattern)
    assert result.groups.tolist() == [1, 1]


@every_kernel
def test_result_does_not_depend_on_the_batch(kernel):
    judge = objective(Net(gain=0.3), pictures(7, *SHAPE, seed=3))
    attack = StructuredSparsePGD(k=2, kernel=kernel, steps=6)
    together = attack(judge)
    for b in (0, 6):
        alone = attack(objective(judge.scene.model, judge.images[b:b + 1], judge.scene.labels[b:b + 1], keys=[b]))
        assert torch.equal(alone.images[0], together.images[b]) and alone.forwards[0] == together.forwards[b]


def test_budget_beyond_the_groups_names_the_image():
    """Then it is all of them; where no group fits the image is left alone (issue 13, kind J)."""
    region = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    region[1, :, 3:] = False  # three places for a patch
    judge = objective(Net(), pictures(2, 3, 5, 5), region=region, keys=['a.png', 'street.png'])
    with pytest.warns(RuntimeWarning, match='fewer groups may change .* 3 of street.png'):
        assert StructuredSparsePGD(k=4, steps=2, kernel=Patch())(judge).groups[1] <= 3
    with pytest.warns(RuntimeWarning, match='fewer groups may change .* 9 of a.png'):
        assert StructuredSparsePGD(k=10, steps=2, kernel=Patch())(judge).short.all()
    with pytest.warns(RuntimeWarning, match='2 of 2 images: no group of pixels fits'):
        result = StructuredSparsePGD(kernel=Patch(6, 6))(judge)
    assert result.short.all() and not result.l0_pixels.any() and not result.groups.any()


@pytest.mark.parametrize('k', [1, 0.2])
def test_image_without_room_for_a_group_stays_as_it_is(k):
    region = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    region[1, :, 2:] = False
    judge = objective(Net(), pictures(2, 3, 5, 5), region=region)
    result = StructuredSparsePGD(k=k, kernel=Patch(), steps=5, early_stop=False)(judge)
    assert result.l0_pixels[0] > 0 == result.l0_pixels[1] and not result.failed.any()


def test_kernels_come_from_configs():
    assert StructuredSparsePGD(kernel='column') == StructuredSparsePGD(kernel=Column())
    assert StructuredSparsePGD(kernel=dict(type='Patch', height=5)).kernel == Patch(5, 3)
