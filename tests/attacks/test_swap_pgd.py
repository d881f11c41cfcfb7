"""Sparse-PGD by exchanging pixels."""
from dataclasses import dataclass

import pytest
import torch

from sparse_dense_attacks import InputError, ScreenedCorners, SigmaZero, SparsePGD, SwapPGD
from sparse_dense_attacks.attacks import Active, BudgetAttack, ImageRNG
from sparse_dense_attacks.groups import Column, Patch, Pixel, Row
from sparse_dense_attacks.objectives import EightBit, MeteredObjective
from tests.helpers import Linear, Net, objective, pictures


def mixed(b=7, gain=0.3, **options):
    return objective(Net(gain=gain), pictures(b, 3, 5, 7, seed=3), **options)


@pytest.mark.parametrize('early_stop', [True, False])
@pytest.mark.parametrize('start', [0.0, 0.15])
@pytest.mark.parametrize('k, shape, steps', [(1, (3, 4, 4), 200), (3, (1, 5, 7), 400), (9, (3, 6, 5), 2000),
                                             (30, (3, 6, 5), 100)])
def test_best_pixels_of_a_linear_model_are_found(k, shape, steps, start, early_stop):
    model, x = Linear(torch.randn(shape, generator=torch.Generator().manual_seed(k)), 0.), pictures(3, *shape, seed=k)
    optimum = model.pixel_gains(x).topk(k)
    model.bias -= 1 + model(x)[:, 1].max() + optimum.values.sum(1).max()  # out of reach, so that the search goes on
    result = SwapPGD(k=k, steps=steps, start=start, early_stop=early_stop)(objective(model, x), eight_bit=False)
    gain = (model(result.images) - model(x))[:, 1].double()
    torch.testing.assert_close(gain, optimum.values.sum(1), rtol=1e-5, atol=1e-5)
    for changed, best in zip((result.images != x).any(1).flatten(1), optimum.indices, strict=True):
        assert set(changed.nonzero()[:, 0].tolist()) == set(best.tolist())


@pytest.mark.parametrize('kernel', [Row(), Patch(2, 2), Patch(2, 3, 2)], ids=str)
def test_groups_keep_apart_as_long_as_there_is_room(kernel):
    """Every candidate has k groups; none share a pixel while disjoint ones are left."""
    meter = candidates(SwapPGD(k=2, kernel=kernel, steps=30, apart=True, early_stop=False), mixed(4, gain=1.))
    size = kernel.expand(torch.ones(1, 1, *kernel.grid(5, 7), dtype=torch.bool), (5, 7)).shape[2:]
    area = 7 if isinstance(kernel, Row) else kernel.height * kernel.width
    touched = [(x != meter.images[rows]).any(1).flatten(1).sum(1) for x, rows in meter.seen[2:]]
    assert tuple(size) == (5, 7) and max(int(one.max()) for one in touched) == 2 * area
    groups = SwapPGD(k=50, kernel=Patch(2, 2), steps=4, apart=True)(mixed(2, gain=1.)).groups
    assert (groups >= 6).all(), 'where there is no room apart, the budget is spent all the same'


def test_between_exchanges_the_same_groups_go_on():
    attack = SwapPGD(k=1, kernel=Patch(2, 2), steps=26, start=0.0, rest=4, early_stop=False)
    meter = candidates(attack, mixed(3, gain=1.))
    masks = torch.stack([(x != meter.images[rows]).any(1) for x, rows in meter.seen])
    for first in range(2, 25, 5):  # after an exchange at step 1, 6, 11, ...
        block = masks[first:first + 5]
        assert all((part <= block.any(0)).all() for part in block)
        assert (block.any(0).flatten(1).sum(1) <= 4).all(), 'one group for five looks'


def test_resting_moves_magnitudes_along_the_gradient_of_the_candidate():
    weight = torch.zeros(1, 4, 4)
    weight[0, 1:3, 1:3] = 1
    judge = objective(Linear(weight, -9.), torch.full((1, 1, 4, 4), 0.25))
    attack = SwapPGD(k=1, kernel=Patch(2, 2, 1), steps=12, start=0.0, rest=3, alpha=0.1, early_stop=False)
    result = attack(judge, eight_bit=False)
    torch.testing.assert_close(result.images[0, 0, 1:3, 1:3], torch.ones(2, 2))


@pytest.mark.parametrize('options', [dict(rest=-1), dict(rest=1.5), dict(apart=1)])
def test_rest_and_apart_are_checked(options):
    with pytest.raises(InputError, match=f'SwapPGD: {next(iter(options))} = '):
        SwapPGD(**options)


class Candidates(MeteredObjective):
    """Notes what the victim is shown."""

    def __call__(self, x, rows):
        self.seen.append((x.detach().clone(), rows))
        return super().__call__(x, rows)


def candidates(attack, judge):
    meter = Candidates(EightBit(judge))
    meter.clean, meter.seen = meter.clean, []
    attack.run(meter, ImageRNG(0, meter.keys, meter.region))
    return meter


@pytest.mark.parametrize('kernel', [Pixel(), Row(), Column(), Patch(2, 2), Patch(2, 3, 2)], ids=str)
@pytest.mark.parametrize('k', [1, 2, 0.3])
def test_every_candidate_changes_at_most_k_groups_inside_the_region(kernel, k):
    region = torch.ones(4, 1, 5, 7, dtype=torch.bool)
    region[1, :, 4:], region[2, ..., 5:] = False, False
    meter = candidates(SwapPGD(k=k, kernel=kernel, steps=20, early_stop=False), mixed(4, gain=1., region=region))
    room = kernel.usable(region).flatten(1).sum(1)
    limit = torch.full_like(room, k) if isinstance(k, int) else (room * k + 1e-6).long().clamp(min=1)
    largest = {Pixel: 1, Row: 7, Column: 5}.get(type(kernel)) or kernel.height * kernel.width
    assert len(meter.seen) == 21 and torch.equal(meter.seen[0][0], meter.images), 'the first look gives the first gradient'
    for x, rows in meter.seen:
        changed = (x != meter.images[rows]).any(1)
        assert not (changed & ~region[rows, 0]).any()
        assert (changed.flatten(1).sum(1) <= limit[rows] * largest).all()
        if isinstance(kernel, Pixel | Row | Column):
            assert (kernel.cover(changed, kernel.usable(region[rows])) <= limit[rows]).all()


def test_gradients_outside_the_region_have_no_say():
    region = torch.ones(2, 1, 5, 7, dtype=torch.bool)
    region[..., 4:] = False
    net, call = Net(), iter(range(10 ** 6))

    def noisy(x):
        outside = (x * ~region[:1]).sum((1, 2, 3))
        return net(x) + (next(call) % 3 * (outside - outside.detach()))[:, None] * torch.tensor([1e3, 0, 0, 0])

    plain, disturbed = (SwapPGD(k=3, steps=12, start=1., early_stop=False)(
        objective(model, pictures(2, 3, 5, 7), torch.zeros(2, dtype=torch.int64), region=region)) for model in (net, noisy))
    assert torch.equal(plain.images, disturbed.images)


def test_a_swap_exchanges_one_pixel_of_the_best_point_so_far():
    judge, everyone = mixed(3, gain=1.), torch.arange(3)
    meter = candidates(SwapPGD(k=4, steps=40, start=0.1, early_stop=False), judge)
    pictures_, loss = None, judge.clean.loss
    exchanged = 0
    for step, (x, _) in enumerate(meter.seen[1:], 1):
        new, now = x != judge.images, judge(x, everyone).loss
        if step > 4:
            fresh = (new.any(1) & ~pictures_.any(1)).flatten(1).sum(1)
            assert (fresh <= 1).all()
            exchanged += int(fresh.sum())
        better = (now >= loss) | (step == 1)
        pictures_ = new if pictures_ is None else torch.where(better[:, None, None, None], new, pictures_)
        loss = torch.where(better, now, loss)
    assert exchanged > 90


def test_a_share_of_the_pixels_is_exchanged_at_first_and_one_at_the_end():
    meter = candidates(SwapPGD(k=10, steps=20, start=0.05, exchange=0.5, early_stop=False), mixed(3, gain=1.))
    first, *swaps = (x != meter.images for x, _ in meter.seen[1:])
    sets = [first.any(1), *(s.any(1) for s in swaps)]
    fresh = [min(int((now & ~old)[b].sum()) for old in sets[:i]) for i, now in enumerate(sets) if i for b in range(3)]
    fresh = torch.tensor(fresh).view(-1, 3)  # of all earlier points, the one a candidate came from has most in common with it
    assert fresh[0].tolist() == [5, 5, 5] and (fresh[-2:] <= 1).all()
    assert (fresh.amax(1) <= torch.tensor([max(round(5 * (1 - step / 20)), 1) for step in range(1, 20)])).all()


class Misleading(torch.nn.Module):
    """Gains are smooth over the image, but slopes at the clean image are random."""

    def __init__(self, size=16):
        super().__init__()
        self.slope = 9 * torch.rand(size, size, generator=torch.Generator().manual_seed(0))
        y, x = torch.meshgrid(*[torch.arange(float(size))] * 2, indexing='ij')
        self.gain = torch.exp(-((y - 11) ** 2 + (x - 4) ** 2) / 18)

    def forward(self, x):
        d = x.mean(1)
        value = (self.slope * d * (1 - d) + self.gain * d ** 2).sum((1, 2))
        return torch.stack([torch.zeros_like(value), value - 1000], 1)


def test_real_gains_are_learned_where_gradients_mislead():
    model, x = Misleading(), torch.zeros(8, 3, 16, 16)
    near, far = (SwapPGD(k=3, steps=80, alpha=0., reach=reach)(objective(model, x), eight_bit=False) for reach in (2.0, 1e-3))
    near, far = (model(result.images)[:, 1].mean() + 1000 for result in (near, far))
    assert near > 2.5 and far < near - 0.3, (near, far)


def test_the_map_of_real_gains():
    attack, exchanged, zero = SwapPGD(reach=1.5), torch.zeros(2, 1, 9, 8), torch.zeros(2, 1, 9, 8)
    exchanged[:, :, 3, 4], exchanged[:, :, 4, 6] = 1, -1
    change = torch.tensor([2., -torch.inf]).view(2, 1, 1, 1)
    nothing = torch.zeros(2, 1, 1, 1)
    s = Active(x=zero, v=exchanged > 0, home_v=exchanged < 0, value=change, home_value=nothing, real=zero, usual=nothing)
    attack._learn(s)
    real, usual = s.real, s.usual
    torch.testing.assert_close((real * exchanged).sum((1, 2, 3)), torch.tensor([1.4, 0.]))
    assert usual[0].unique() == 4 and not usual[1].any() and not real[1].any()
    y, x = torch.meshgrid(torch.arange(9.), torch.arange(8.), indexing='ij')
    bumps = [torch.exp(-((y - i) ** 2 + (x - j) ** 2) / 4.5) * ((y - i).abs() <= 4) * ((x - j).abs() <= 4)
             for i, j in ((3, 4), (4, 6))]
    torch.testing.assert_close(attack._spread(exchanged)[0, 0], bumps[0] - bumps[1])


@pytest.mark.parametrize('early_stop', [True, False])
def test_cost_is_that_of_sparse_pgd_and_what_is_ascended_rises(early_stop):
    judge, options = mixed(gain=1.), dict(k=1, steps=8, early_stop=early_stop)
    result, plain = SwapPGD(**options)(judge), SparsePGD(**options)(judge)
    assert torch.equal(result.forwards, plain.forwards) and torch.equal(result.backwards, plain.backwards)
    final = judge(result.images, torch.arange(7))
    assert (final.margin < judge.clean.margin if early_stop else final.loss > judge.clean.loss).all()


def test_a_spent_budget_is_no_improvement():
    judge = mixed(gain=1.)
    result = SwapPGD(k=3, steps=30)(judge, max_forwards=12)
    assert (judge(result.images, torch.arange(7)).margin < judge.clean.margin).all() and result.forwards.tolist() == [11] * 7


@pytest.mark.parametrize('options, message', [
    (dict(start=1.5), r'start = 1.5, expected a number in \[0, 1\]'), (dict(momentum=1.), 'momentum = 1.0'),
    (dict(alpha=-0.1), 'alpha = -0.1'), (dict(noise=(1.,)), 'noise'), (dict(noise=0.5), 'noise'),
    (dict(noise=(-1., 0.)), 'noise'), (dict(exchange=2.), 'exchange = 2.0'), (dict(reach=0), 'reach = 0')])
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SwapPGD(**options)


# Another attack to begin with

@dataclass(frozen=True)
class White(BudgetAttack):
    """Paints the first pixels white, one fewer than it may."""

    def run(self, objective, rng):
        x, count = objective.images.clone().flatten(2), self.k - 1
        x[:, :, :count] = 1
        return x.view_as(objective.images)


@pytest.mark.parametrize('k', [1, 2, 5])
def test_begins_with_what_its_base_found(k):
    judge = mixed(gain=0.3)
    meter = candidates(SwapPGD(k=k, steps=20, early_stop=False, base=White()), judge)
    expected = judge.images.clone().flatten(2)
    expected[:, :, :k - 1] = 1
    assert torch.equal(meter.seen[0][0].flatten(2), expected) and len(meter.seen) == 21
    for x, rows in meter.seen[1:]:
        changed = (x != judge.images[rows]).any(1).flatten(1)
        assert (changed.sum(1) <= k).all() and changed[:, k - 1:].any(1).all(), 'a pixel enters'


def test_never_worse_than_its_base_and_given_the_same_budget():
    judge, base = mixed(30, gain=0.6), ScreenedCorners(k=1, steps=12)
    alone, both = ScreenedCorners(k=2, steps=12)(judge), SwapPGD(k=2, steps=30, base=base)(judge)
    assert SwapPGD(k=2, base=base).base == ScreenedCorners(k=2, steps=12)
    assert SwapPGD(k=2, base=base, early_stop=False).base.early_stop is False
    assert (both.success >= alone.success).all() and both.success.sum() > alone.success.sum()
    assert torch.equal(both.images[alone.success], alone.images[alone.success])
    assert (both.forwards == alone.forwards + torch.where(alone.success, 1, 31))[alone.success | ~both.success].all()


@pytest.mark.parametrize('most', [12, 20, 33])
def test_what_its_base_found_is_looked_at_where_forwards_are_few(most):
    judge = objective(Linear(torch.ones(3, 4, 4), -20.0), torch.zeros(2, 3, 4, 4))
    base = SparsePGD(k=8, steps=30)
    alone = SparsePGD(k=8, steps=30, early_stop=False)(judge, max_forwards=most)
    both = SwapPGD(k=8, steps=30, early_stop=False, base=base)(judge, max_forwards=most)
    assert alone.success.all() and both.success.all() and (both.queries <= most).all()


def test_a_base_has_to_have_a_budget():
    with pytest.raises(InputError, match='base = SigmaZero.*expected an attack with a budget k'):
        SwapPGD(base=SigmaZero())
