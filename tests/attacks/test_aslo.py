"""ASLO against SigmaZero, its feedback and pruning against known answers, and the add-on against its base attacks."""
import math
from dataclasses import dataclass, replace

import pytest
import torch

from sparse_dense_attacks import ATTACKS, PGD0, InputError, SparsePGD
from sparse_dense_attacks.attacks import Active, Attack, ImageRNG
from sparse_dense_attacks.attacks.aslo import ASLO, ASLOAddOn, Penalised, prune
from sparse_dense_attacks.attacks.gse import GSE
from sparse_dense_attacks.attacks.sigma_zero import SigmaZero
from sparse_dense_attacks.objectives import MeteredObjective
from sparse_dense_attacks.ops.smooth_l0 import smooth_l0
from sparse_dense_attacks.types import Verdict
from tests.helpers import Linear, Net, objective, pictures

units = pytest.mark.parametrize('unit', ['element', 'pixel'])
OFF = dict(kappa=0, rho=1, step_rule='cosine', prune=False)


def mixed(b=7, shape=(3, 5, 7), gain=0.3, **options):
    return objective(Net(shape[0], gain=gain), pictures(b, *shape, seed=3), **options)


def linear_case(shape, seed, share):
    """A linear model with images on the wrong side, and how much each element can raise the gap."""
    model, x = Linear(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), 0.), pictures(5, *shape, seed=seed)
    gains = torch.maximum(model.weight * (1 - x), -model.weight * x)
    model.bias -= model(x)[:, 1].max() + share * gains.flatten(1).sum(1).mean()
    return model, x, gains


def recorded(judge):
    """The judge, and the list of all candidates it is shown."""
    seen = []

    class Watched(type(judge)):
        def __call__(self, x, rows):
            seen.append((x.detach().clone(), rows))
            return super().__call__(x, rows)

    judge = Watched(judge.scene)
    judge.clean  # noqa: B018, it asks once
    seen.clear()
    return judge, seen


# Known answers

@units
@pytest.mark.parametrize('shape, share', [((3, 6, 6), 0.2), ((1, 9, 7), 0.3)])
def test_linear_model_needs_no_more_than_the_sorted_gains(unit, shape, share):
    model, x, gains = linear_case(shape, seed=len(unit), share=share)
    gains = gains.sum(1).flatten(1) if unit == 'pixel' else gains.flatten(1)
    optimum = 1 + (gains.sort(1, descending=True).values.cumsum(1) <= -model(x)[:, 1:]).sum(1)
    result = ASLO(steps=300, unit=unit)(objective(model, x), eight_bit=False)
    found = result.l0_pixels if unit == 'pixel' else result.l0_elements
    assert result.success_float.all() and optimum.min() > 1
    assert (found >= optimum).all() and (found <= (optimum * 1.25).ceil()).all(), (found, optimum)


@units
@pytest.mark.parametrize('sigma', [1e-3 ** 0.5, 0.05])
def test_without_feedback_it_is_sigma_zero_bit_for_bit(unit, sigma):
    judge, seen = recorded(mixed())
    aslo = ASLO(steps=40, sigma=sigma, unit=unit, **OFF)(judge)
    shown = list(seen)
    seen.clear()
    reference = SigmaZero(steps=40, sigma=sigma ** 2, unit=unit)(judge)
    assert len(shown) == len(seen) and all(torch.equal(a, b) for (a, _), (b, _) in zip(shown, seen, strict=True))
    assert torch.equal(aslo.images, reference.images) and aslo.success.all()
    assert torch.equal(aslo.forwards, reference.forwards) and torch.equal(aslo.backwards, reference.backwards)


@pytest.mark.parametrize('switch', [dict(kappa=0.3), dict(rho=0.8), dict(step_rule='feedback'), dict(threshold='fixed'),
                                    dict(threshold='none'), dict(lam=100.)])
def test_every_switch_matters(switch):
    judge, seen = recorded(mixed())
    ASLO(steps=30, **OFF)(judge)
    before = list(seen)
    seen.clear()
    ASLO(steps=30, **(OFF | switch))(judge)
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(before, seen, strict=False))


@pytest.mark.parametrize('threshold, low, high', [('fixed', 0.25, 0.25), ('none', 0., 0.)])
def test_threshold_stays_where_it_is_told(threshold, low, high):
    attack = ASLO(threshold=threshold, tau0=0.25)
    s = Active(**{name: torch.full((2, 1, 1, 1), value) for name, value in attack.start().items()})
    for success in (torch.tensor([True, False]), torch.tensor([False, True])):
        s.success = success.view(2, 1, 1, 1)
        attack.adapt(s, 1)
        assert (s.tau >= low).all() and (s.tau <= high).all()


def test_feedback_follows_success_per_image_and_stops_at_its_range():
    attack = ASLO(eta0=2., kappa=0.1, rho=0.5, sigma=0.02, lam_range=(0.5, 1.2), sigma_range=(0.01, 0.1))
    four = {name: torch.full((2, 1, 1, 1), value, dtype=torch.double) for name, value in attack.start().items()}
    s = Active(**four, success=torch.tensor([True, False]).view(2, 1, 1, 1))
    attack.adapt(s, 1)
    lam, sigma, eta, tau = (getattr(s, name).flatten().tolist() for name in four)
    assert lam == pytest.approx([1.1, 0.9], rel=1e-6) and eta == pytest.approx([0.995 * 2, 2])
    assert sigma == pytest.approx([0.01 ** 2, 0.04 ** 2], rel=1e-6)
    assert tau == pytest.approx([0.3 + 0.01 * eta[0], 0.3 - 0.01 * eta[1]])
    for step in range(2000):
        attack.adapt(s, step)
    lam, sigma, eta, tau = (getattr(s, name).flatten().tolist() for name in four)
    assert lam == pytest.approx([1.2, 0.5]) and sigma == pytest.approx([0.01 ** 2, 0.1 ** 2])
    assert eta == pytest.approx([0.2, 2]) and tau == [1, 0]


# Pruning

@units
@pytest.mark.parametrize('keep_all', [False, True])
def test_pruning_keeps_the_shortest_prefix_that_succeeds(unit, keep_all):
    """On the linear model all changes below help, so success is monotone and the shortest prefix can be counted."""
    model, x, gains = linear_case((3, 6, 5), seed=2, share=0.3)
    judge = MeteredObjective(objective(model, x))
    share = torch.rand(gains.shape, generator=torch.Generator().manual_seed(0)) ** 0.25
    goal = (model.weight > 0).float()
    z = (x + (goal - x) * (1 if keep_all else share)).float()
    rows = judge(z, torch.arange(5)).success.nonzero()[:, 0]
    assert len(rows) >= 4
    before = judge.forwards.clone()
    pruned = prune(judge, z, rows, unit == 'pixel')
    changes = z - x
    size = changes.abs().amax(1, keepdim=True) if unit == 'pixel' else changes.abs()
    for b in rows.tolist():
        order = size[b].flatten().argsort(descending=True, stable=True)
        for n in range(len(order) + 1):
            mask = torch.zeros(len(order)).index_fill_(0, order[:n], 1).view_as(size[b]).bool()
            candidate = torch.where(mask, z[b], x[b])
            if judge.objective(candidate[None], torch.tensor([b])).success:
                break
        assert torch.equal(pruned[b], candidate) and 1 < n < len(order)
        spent = int(judge.forwards[b] - before[b])
        assert 1 < spent <= math.ceil(math.log2((size[b] > 0).sum()))
    others = [b for b in range(5) if b not in rows]
    assert torch.equal(pruned[others], z[others]) and torch.equal(judge.forwards[others], before[others])


def test_pruning_of_nothing_and_of_one_change_costs_nothing():
    judge = MeteredObjective(mixed(3))
    z = judge.images.clone()
    z[1, 0, 2, 2] = 1 - z[1, 0, 2, 2].round()
    for rows in (torch.arange(3), torch.arange(0)):
        assert torch.equal(prune(judge, z, rows, False), z) and not judge.forwards.any()


def test_aslo_prunes_what_it_found():
    judge = mixed()
    plain, pruned = (ASLO(steps=30, threshold='none', prune=flag)(judge, eight_bit=False) for flag in (False, True))
    assert plain.success_float.all() and pruned.success_float.all()
    assert (pruned.l0_elements < plain.l0_elements / 1.5).all() and (pruned.forwards > plain.forwards).all()
    assert (pruned.forwards - plain.forwards <= 7).all() and torch.equal(pruned.backwards, plain.backwards)
    assert torch.equal(plain.images[pruned.images != judge.images], pruned.images[pruned.images != judge.images])


def test_pruning_respects_the_budget_of_forwards():
    result = ASLO(steps=20, threshold='none')(mixed(), max_forwards=23)
    assert set(result.queries.tolist()) == {23} and result.success.all()


# Add-on

def metered(judge):
    meter = MeteredObjective(judge)
    meter.clean  # noqa: B018, as the wrapper does
    return meter


@units
def test_the_base_attack_pays_for_changes(unit):
    meter, attack = metered(mixed()), ASLOAddOn(lam=5., sigma=0.05, unit=unit, kappa=0.2, rho=0.9)
    judge, rows = Penalised(attack, meter), torch.tensor([4, 1, 6])
    x = (judge.images[rows] + torch.linspace(-0.5, 0.5, 105).view(3, 5, 7)).clamp(0, 1).requires_grad_()
    plain = meter(x, rows)
    lam, sigma = torch.full((7,), 5.), torch.full((7,), 0.05 ** 2)
    for _ in range(3):
        verdict = judge(x, rows)
        price = lam[rows] / (35 if unit == 'pixel' else 105) * smooth_l0(x - judge.images[rows], sigma[rows, None, None, None],
                                                                        unit == 'pixel')
        torch.testing.assert_close(verdict.loss, plain.loss - price)
        torch.testing.assert_close(verdict.margin, plain.margin + price * ~plain.success)
        assert torch.equal(verdict.success, plain.success) and price.min() > 1
        lam[rows] *= torch.where(plain.success, 1.2, 0.8)
        sigma[rows] *= torch.where(plain.success, 0.81, 1 / 0.81)
    assert 0 < plain.success.sum() < 3
    expected = torch.autograd.grad((plain.loss - 0).sum(), x, retain_graph=True)[0]
    assert not torch.equal(torch.autograd.grad(verdict.loss.sum(), x)[0], expected)
    untouched = judge(judge.images, torch.arange(7))
    torch.testing.assert_close(untouched.loss, judge.clean.loss)


def test_region_decides_what_one_change_costs():
    region = torch.zeros(1, 1, 5, 7, dtype=torch.bool)
    region[:, :, 0, :4] = True
    judge = Penalised(ASLOAddOn(lam=1., sigma=1e-3), metered(mixed(1, region=region)))
    x = judge.images.clone()
    x[0, 0, 0, 0] = 1 - x[0, 0, 0, 0].round()
    price = judge.objective(x, torch.tensor([0])).loss - judge(x, torch.tensor([0])).loss
    assert price.item() == pytest.approx(1 / 12, rel=1e-3)


@pytest.mark.parametrize('base', [PGD0(k=20, steps=20), SparsePGD(k=20, steps=20), SigmaZero(steps=20),
                                  GSE(mu=0.02, sigma=3., k_hat=4, iters=14, search_steps=4)], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize('eight_bit', [True, False])
def test_add_on_makes_attacks_sparser_and_costs_what_it_says(base, eight_bit):
    judge = mixed()
    plain, full = base(judge, eight_bit=eight_bit), ASLOAddOn(base)(judge, eight_bit=eight_bit)
    assert plain.success_float.all() and full.success_float.all()
    assert full.l0_elements.float().mean() <= plain.l0_elements.float().mean()
    if isinstance(base, PGD0 | SparsePGD):
        assert (full.l0_elements < 40).all() and full.l0_elements.float().mean() < plain.l0_elements.float().mean() / 1.5


@units
def test_add_on_prunes_in_its_unit_within_its_price(unit):
    model, x, _ = linear_case((3, 6, 6), seed=4, share=0.1)

    @dataclass(frozen=True)
    class Flood(Attack):
        def run(self, objective, rng):
            return (model.weight > 0).float().expand_as(objective.images)

    result = ASLOAddOn(Flood(), unit=unit)(objective(model, x), eight_bit=False)
    gap = lambda images: model(images)[:, 1]  # noqa: E731
    assert result.success_float.all()
    for b in range(5):
        changes = (result.images[b] - x[b]).abs()
        weakest = changes.amax(0) if unit == 'pixel' else changes
        i = weakest.masked_fill(weakest == 0, 9).argmin()
        without = result.images[b].clone()
        (without.flatten(1)[:, i] if unit == 'pixel' else without.flatten()[i:i + 1]).copy_(
            x[b].flatten(1)[:, i] if unit == 'pixel' else x[b].flatten()[i:i + 1])
        assert gap(result.images[b:b + 1]) > 0 >= gap(without[None]), 'one change less and it fails'
    assert (result.forwards <= 2 + math.ceil(math.log2(36 if unit == 'pixel' else 108))).all() and not result.backwards.any()


def test_the_budget_of_the_base_attack_holds():
    judge = objective(Linear(torch.full((3, 5, 7), 0.1), -6.), pictures(4, 3, 5, 7) * 0 + 0.5, torch.zeros(4, dtype=torch.int64))
    base = SigmaZero(steps=40, budget=1)
    assert SigmaZero(steps=40)(judge).success.all() and not base(judge).success.any()
    assert not ASLOAddOn(base=base)(judge).success.any()


def test_failures_of_the_base_attack_come_back_as_they_are():
    judge = mixed(gain=1.0)
    base = PGD0(k=1, steps=5)
    result = ASLOAddOn(base, lam=1e-12, kappa=0, lam_range=(1e-12, 1.))(judge)
    assert not result.success.any() and torch.equal(result.l0_pixels, base(judge).l0_pixels)


def test_attacks_that_go_on_are_not_pruned_where_the_victim_was_wrong():
    judge = mixed()
    judge = objective(judge.scene.model, judge.images, (judge.scene.labels + torch.tensor([1, 0, 0, 0, 0, 0, 0])) % 4)
    base = PGD0(k=6, steps=5, early_stop=False)
    result = ASLOAddOn(base)(judge)
    assert result.l0_pixels[0] == base(judge).l0_pixels[0] == 6


def test_add_on_respects_the_budget_of_forwards():
    result = ASLOAddOn(PGD0(k=20, steps=30, early_stop=False))(mixed(), max_forwards=10)
    assert set(result.queries.tolist()) == {10} and result.images.isfinite().all()


def test_base_may_be_a_cascade():
    result = ASLOAddOn(SparsePGD(k=20, steps=20, gradient='ensemble'))(mixed())
    assert result.success.all() and result.l0_pixels.float().mean() < 15


@pytest.mark.parametrize('base', ['sparse_pgd', dict(type='SparsePGD'), SparsePGD()])
def test_base_may_be_named_configured_or_built(base):
    attack = ATTACKS.build(dict(type='ASLOAddOn', base=base))
    assert attack.base == SparsePGD() and ASLOAddOn().base == PGD0()


# Contract

@pytest.mark.parametrize('attack', [ASLO(steps=25), ASLO(steps=25, threshold='none', unit='pixel'), ASLOAddOn(PGD0(k=9, steps=9)),
                                    ASLOAddOn(SparsePGD(k=5, steps=9), unit='pixel')],
                         ids=lambda a: f'{type(a).__name__}-{a.unit}')
def test_batch_of_one_equals_batch_of_seven(attack):
    judge = mixed()
    together = attack(judge, seed=1)
    assert together.success.sum() > 3
    for b in range(7):
        alone = attack(objective(judge.scene.model, judge.images[b:b + 1], judge.scene.labels[b:b + 1], keys=[b]), seed=1)
        for name in ('images', 'success', 'l0_elements', 'forwards', 'backwards'):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[b]), name


class Flat(torch.nn.Module):
    def forward(self, x):
        return torch.tensor([1., 0.]).expand(len(x), 2) + 0 * x.sum()


@pytest.mark.parametrize('attack', [ASLO(steps=8), ASLOAddOn(PGD0(k=3, steps=4))], ids=['attack', 'add-on'])
def test_zero_gradient_misclassified_images_and_odd_shapes(attack):
    result = attack(objective(Flat(), pictures(3, 3, 5, 7)))
    assert result.images.isfinite().all() and not result.success.any() and not result.failed.any()
    judge = mixed()
    wrong = attack(objective(judge.scene.model, judge.images, (judge.scene.labels + 1) % 4))
    assert torch.equal(wrong.images, judge.images) and wrong.success.all()
    for shape in ((3, 1, 6), (3, 6, 1), (4, 2, 2)):
        for b in (0, 1):
            assert attack(mixed(b, shape)).images.shape == (b, *shape)


@pytest.mark.parametrize('options', [
    dict(lam=0.), dict(lam=1e4), dict(lam=float('nan')), dict(sigma=0.5), dict(sigma=1e-4), dict(kappa=1.), dict(kappa=-0.1),
    dict(rho=0), dict(rho=1.1), dict(lam_range=(1., 0.5)), dict(sigma_range=(0., 1.)), dict(sigma_range=3),
    dict(lam_range=('a', 1))])
@pytest.mark.parametrize('cls', [ASLO, ASLOAddOn])
def test_nonsense_is_refused(cls, options):
    with pytest.raises(InputError, match=f'{cls.__name__}: {next(iter(options))} = .*expected'):
        cls(**options)


@pytest.mark.parametrize('cls, options', [
    (ASLO, dict(threshold='adaptiv')), (ASLO, dict(step_rule='linear')), (ASLO, dict(steps=0)), (ASLO, dict(unit='pixels')),
    (ASLO, dict(budget=0)), (ASLOAddOn, dict(unit='voxel')), (ASLOAddOn, dict(base=3))])
def test_other_nonsense_is_refused(cls, options):
    name, value = next(iter(options.items()))
    with pytest.raises(InputError, match=f'{cls.__name__}: {name} = {value!r}, expected'):
        cls(**options)
    with pytest.raises(InputError, match='unknown attack'):
        replace(ASLOAddOn(), base='spgdd')


def test_verdicts_out_of_budget_stay_hopeless():
    judge = Penalised(ASLOAddOn(), MeteredObjective(mixed(2), max_forwards=1))
    verdict = judge(judge.images, torch.arange(2))
    assert isinstance(verdict, Verdict) and (verdict.loss == -torch.inf).all() and not verdict.success.any()
    assert ImageRNG(0, judge.keys, judge.region).sizes == [(5, 7), (5, 7)]
