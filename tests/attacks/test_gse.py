"""GSE against a slow transcription of the published algorithm, step by step, and against its contract."""
import math
from dataclasses import replace

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from sparse_dense_attacks import InputError, Untargeted
from sparse_dense_attacks.attacks import Active, ImageRNG
from sparse_dense_attacks.attacks.gse import GSE
from sparse_dense_attacks.objectives import MeteredObjective
from sparse_dense_attacks.objectives.base import Objective
from sparse_dense_attacks.ops.prox import critical_lambda
from sparse_dense_attacks.types import Verdict
from tests.helpers import Net, objective, padded, pictures

QUICK = dict(mu=0.02, sigma=3., q=0.5, k_hat=4, iters=14, search_steps=8)  # the victims here have small logits


def mixed(b=7, shape=(3, 10, 9), gain=0.3, **options):
    return objective(Net(shape[0], gain=gain), pictures(b, *shape, seed=3), **options)


def run(attack, judge):
    meter = MeteredObjective(judge)
    meter.clean  # noqa: B018, as the wrapper does
    return attack.run(meter, ImageRNG(0, meter.keys, meter.region)), meter


def in_double(judge):
    scene = judge.scene
    return Untargeted().objective(replace(scene, images=scene.images.double()))


# The algorithm

def slow_gse(judge, row, mu, sigma, k_hat, q, iters, search_steps, averaging):
    """docs/attacks/gse.md, "Steps", for one image in [-1, 1]: two forwards a step, one element at a time where it is simpler,
    lambda by bisection, windows by enumeration. The image, the start values of lambda, and the successes."""
    x, rows = 2 * judge.images[row] - 1, torch.tensor([row])
    c, h, w_ = x.shape

    def look(w):
        w = w.detach().requires_grad_()
        verdict = judge((x + w + 1)[None] / 2, rows)
        grad, = torch.autograd.grad(torch.relu(verdict.margin).sum(), w)
        return grad, bool(verdict.success)

    def prox(a, lam):
        if abs(a) <= 54 ** (1 / 3) / 4 * lam ** (2 / 3):
            return 0.
        angle = math.acos(lam / 8 * (abs(a) / 3) ** -1.5)
        return 2 / 3 * a * (1 + math.cos(2 * math.pi / 3 - 2 / 3 * angle))

    def prox_all(a, lam):
        flat = [prox(v, m) for v, m in zip(a.flatten().tolist(), lam.expand_as(a).flatten().tolist(), strict=True)]
        return torch.tensor(flat, dtype=a.dtype).view_as(a)

    def extent(w):
        changed = (w != 0).any(0)
        tall, wide = min(8, h), min(8, w_)
        reached = sum(bool(changed[i:i + tall, j:j + wide].any()) for i in range(h - tall + 1) for j in range(w_ - wide + 1))
        return reached, int(changed.sum())

    g0, _ = look(torch.zeros_like(x))
    low, high = 0., 1e-3
    while prox(sigma * g0.abs().max().item(), high * sigma):
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if prox(sigma * g0.abs().max().item(), middle * sigma) else (low, middle)
    lam_b, lower, upper, best, best_d, tried, hits = 0.01 * (low + high) / 2, 0., None, x, None, [], []
    for s in range(search_steps):
        tried.append(lam_b)
        size = sigma * (10 if s >= search_steps - 2 and best_d is None else 1)
        w, previous, t, lam, won = torch.zeros_like(x), torch.zeros_like(x), 1., torch.full((h, w_), lam_b, dtype=x.dtype), False
        for j in range(iters):
            g = look(w)[0] + 2 * mu * w
            t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
            if j == k_hat:
                inside = (lam <= lam_b).to(x.dtype)
                w = previous = w * inside
            new = prox_all(w - size * g, lam * size) if j < k_hat else (w - size * g) * inside
            if averaging == 'published':
                w = t / t_new * new + (1 - t / t_new) * previous
            else:
                w = new + (t - 1) / t_new * (new - previous)
            previous, t = new, t_new
            if j < k_hat:
                mask = (w.abs().mean(0) > 0).to(x.dtype)
                blurred = 1 + gaussian_blur(mask[None], [5, 5], [1.5, 1.5])[0]
                lam = torch.where(blurred != 1, lam / blurred, lam / q)
            w = (x + w).clip(-1, 1) - x
            if look(w)[1]:
                won = True
                break
        hits.append(won)
        if won:
            if best_d is None or extent(w) < best_d:
                best, best_d = x + w, extent(w)
            lower = lam_b
            lam_b = 2 * lam_b if upper is None else (upper + lam_b) / 2
        else:
            upper = lam_b
            lam_b = 0.9 * lower + 0.1 * lam_b
    return (best + 1) / 2, tried, hits


@pytest.mark.parametrize('averaging', ['published', 'nesterov'])
@pytest.mark.parametrize('options', [dict(mu=0.02, sigma=3., k_hat=4, q=0.25, iters=12, search_steps=9),
                                     dict(mu=0.1, sigma=0.6, k_hat=6, q=0.9, iters=10, search_steps=7)])
def test_every_step_is_the_published_one(options, averaging):
    judge = in_double(mixed(4))
    images, _ = run(GSE(**options, averaging=averaging), judge)
    outcomes = []
    for b in range(4):
        expected, _, hits = slow_gse(judge, b, **options, averaging=averaging)
        torch.testing.assert_close(images[b], expected, rtol=0, atol=1e-6)
        assert torch.equal(images[b] != judge.images[b], (expected - judge.images[b]).abs() > 1e-12)
        outcomes += hits
    assert {True, False} == set(outcomes), 'the case must exercise both ways of the search'


class Valley(Objective):
    """Images of 0.5 with hinge gradient -``slope``; never broken, unless it is by ``rule(z)``; remembers the candidates."""

    def __init__(self, slope, rule=lambda z: torch.zeros(len(z), dtype=torch.bool), b=1):
        self.images, self.slope, self.rule = torch.full((b, *slope.shape), 0.5), slope, rule
        self.region, self.keys, self.candidates = torch.ones(b, 1, *slope.shape[1:], dtype=torch.bool), list(range(b)), []
        self.clean = Verdict(torch.zeros(b), torch.ones(b), torch.zeros(b, dtype=torch.bool))
        self.eligible = self.defined = torch.ones(b, dtype=torch.bool)

    def __call__(self, x, rows):
        self.candidates.append(x.detach().clone())
        margin = 1000 - (self.slope * (x - 0.5)).flatten(1).sum(1)
        return Verdict(-margin, margin, self.rule(x.detach()))


def descend(attack, judge, grad, lam):
    """One search step of all images from ``lam`` (B,)."""
    start = Active(x=judge.images, region=judge.region, weight=judge.region / 2, grad=grad, lam=lam)
    return attack._descend(judge, start, torch.full_like(lam, attack.sigma))


def test_first_active_element_has_the_largest_gradient():
    slope = torch.randn(3, 9, 10, generator=torch.Generator().manual_seed(0))
    valley = Valley(slope)
    _, grad = torch.zeros(1), -slope[None] / 2
    attack, meter = GSE(k_hat=1, iters=1), MeteredObjective(valley)
    lam = 0.999 * critical_lambda(grad, attack.sigma)
    descend(attack, meter, grad, lam)
    changed = (valley.candidates[-1] != 0.5).flatten().nonzero().flatten()
    assert changed.tolist() == [slope.abs().argmax().item()]
    descend(attack, meter, grad, lam / 0.998)
    assert torch.equal(valley.candidates[-1], valley.images)


def test_changes_grow_around_the_first_pixel():
    """One pixel stands out; the price falls within two pixels of it and soars elsewhere."""
    slope = torch.ones(1, 11, 11)
    slope[0, 5, 5] = 2.
    valley = Valley(slope)
    attack, meter = GSE(sigma=0.01, k_hat=30, iters=30), MeteredObjective(valley)
    lam = critical_lambda(-slope[None] / 2, attack.sigma) * 0.9
    descend(attack, meter, -slope[None] / 2, lam)
    counts = [int((z != 0.5).sum()) for z in valley.candidates]
    assert counts[0] == 1 and counts == sorted(counts) and counts[-1] > 4
    assert (valley.candidates[-1] != 0.5)[0, 0, 3:8, 3:8].sum() == counts[-1]


def test_never_broken_images_get_ten_times_the_step_in_the_last_two_search_steps():
    slope = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(1))
    moved = {}
    for b, rule in ((0, lambda z: torch.zeros(len(z), dtype=torch.bool)), (1, lambda z: (z != 0.5).flatten(1).any(1))):
        valley = Valley(slope, rule)
        GSE(mu=0., k_hat=0, iters=1, search_steps=4).run(MeteredObjective(valley), ImageRNG(0, [0], valley.region))
        moved[b] = [(z - 0.5).abs().max().item() for z in valley.candidates[1:]]
    first = moved[0][0]
    assert first > 0
    assert moved[0] == pytest.approx([first, first, 10 * first, 10 * first], rel=1e-4)
    assert moved[1] == pytest.approx([first] * 4, rel=1e-4)


def test_lambda_is_searched_per_image():
    slope, seen = torch.ones(1, 8, 8), []

    class Spy(GSE):
        def _descend(self, objective, start, sigma):
            seen.append(start.lam.tolist())
            return start.x + 0.1, torch.tensor([start.lam[0].item() <= 3 * seen[0][0], False])

    Spy(search_steps=5).run(MeteredObjective(Valley(slope, b=2)), ImageRNG(0, [0, 1], torch.ones(2, 1, 8, 8, dtype=torch.bool)))
    start = 0.01 * critical_lambda(slope[None] / 2, 0.005).item()
    wins, loses = ([row[b] / start for row in seen] for b in (0, 1))
    assert wins == pytest.approx([1, 2, 4, 0.9 * 2 + 0.4, (4 + 2.2) / 2])
    assert loses == pytest.approx([1, 0.1, 0.01, 1e-3, 1e-4])


def test_the_success_that_touches_the_fewest_windows_is_kept():
    x = torch.full((1, 1, 9, 9), 0.5)
    middle, column, shorter = x.clone(), x.clone(), x.clone()
    middle[:, :, 4, 4] = 0.7  # one pixel in all four windows
    column[:, :, :, 0], shorter[:, :, 1:, 0] = 0.1, 0.2  # many pixels in two
    script = [(middle, True), (x, False), (column, True), (shorter, True), (column, True), (x, False)]

    class Spy(GSE):
        def _descend(self, objective, start, sigma):
            z, hit = next(steps)
            return z, torch.tensor([hit])

    for used, expected in ((2, middle), (3, column), (4, shorter), (6, shorter)):
        valley, steps = Valley(torch.ones(1, 9, 9)), iter(script)
        images = Spy(search_steps=used).run(MeteredObjective(valley), ImageRNG(0, [0], valley.region))
        assert torch.equal(images, expected)


# Contract

def test_images_are_broken_with_neighbouring_pixels():
    result = GSE(**QUICK)(mixed(), eight_bit=False)
    assert result.success_float.all() and (result.l0_pixels < 90).all() and result.l0_pixels.min() > 0
    assert result.l0_pixels.float().mean() < 60
    assert torch.equal(result.images, result.images.clamp(0, 1))


def test_batch_of_one_equals_batch_of_seven():
    judge, attack = mixed(), GSE(**QUICK)
    together = attack(judge)
    assert len(together.forwards.unique()) > 2
    for b in range(7):
        alone = attack(objective(judge.scene.model, judge.images[b:b + 1], judge.scene.labels[b:b + 1], keys=[b]))
        for name in ('images', 'success', 'l0_pixels', 'forwards', 'backwards'):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[b]), name


@pytest.mark.parametrize('h, w', [(4, 6), (9, 8), (1, 5)])
def test_padding_changes_nothing(h, w):
    alone = mixed(1, (3, h, w), keys=['a'])
    attack = GSE(**QUICK)
    found, expected = attack(padded(alone, (10, 11))), attack(alone)
    assert expected.success.all() and torch.equal(found.images[:1, :, :h, :w], expected.images)
    assert found.forwards[0] == expected.forwards[0]


def test_region_is_kept():
    region = torch.rand(7, 1, 10, 9, generator=torch.Generator().manual_seed(0)) < 0.6
    shown = []

    judge = mixed(region=region)

    class Watched(type(judge)):
        def __call__(self, x, rows):
            shown.append((x.detach().clone(), rows))
            return super().__call__(x, rows)

    judge = Watched(judge.scene)
    result = GSE(**QUICK)(judge, eight_bit=False)
    assert result.success_float.all()
    for x, rows in shown:
        assert not ((x != judge.images[rows]) & ~region[rows]).any() and x.min() > -1e-6 and x.max() < 1 + 1e-6


def test_misclassified_images_come_back_untouched():
    judge = mixed()
    judge = objective(judge.scene.model, judge.images, (judge.scene.labels + torch.tensor([1, 0, 0, 1, 0, 0, 0])) % 4)
    result = GSE(**QUICK)(judge)
    assert result.success[[0, 3]].all() and result.l0_elements[[0, 3]].tolist() == [0, 0]
    assert result.forwards[[0, 3]].tolist() == [1, 1]


class Flat(torch.nn.Module):
    def forward(self, x):
        return torch.tensor([1., 0.]).expand(len(x), 2) + 0 * x.sum()


def test_zero_gradient_gives_the_clean_image():
    result = GSE(**QUICK)(objective(Flat(), pictures(3, 3, 5, 7)))
    assert not result.success.any() and not result.failed.any() and not result.l0_elements.any()


@pytest.mark.parametrize('shape', [(3, 1, 6), (3, 6, 1), (1, 1, 1), (4, 2, 2), (3, 5, 9)])
@pytest.mark.parametrize('b', [0, 1])
def test_odd_shapes(shape, b):
    result = GSE(**QUICK)(mixed(b, shape))
    assert result.images.shape == (b, *shape) and result.images.isfinite().all() and not result.failed.any()
    assert min(shape[1:]) * b * shape[2] < 5 or result.success.all()


def test_costs_of_hopeless_images_are_as_documented():
    judge = mixed(gain=0.)  # all logits 0, a tie that the first class wins
    result = GSE(search_steps=3, iters=5, k_hat=2)(judge)
    assert not result.success.any()
    assert set(result.forwards.tolist()) == {3 * 5 + 2} and set(result.backwards.tolist()) == {3 * 4 + 1}


def test_budget_of_forwards_is_kept():
    result = GSE(**QUICK)(mixed(), max_forwards=9)
    assert result.queries.max() == 9 and result.images.isfinite().all() and not result.failed.any()


@pytest.mark.parametrize('options', [
    dict(mu=-1.), dict(sigma=0), dict(sigma=float('nan')), dict(k_hat=-1), dict(k_hat=1.5), dict(q=0), dict(q=1.), dict(q='1'),
    dict(iters=0), dict(search_steps=0), dict(search_factor=1), dict(averaging='nesterow'), dict(iters=True)])
def test_nonsense_is_refused(options):
    name, value = next(iter(options.items()))
    with pytest.raises(InputError, match=f'GSE: {name} = {value!r}, expected'):
        GSE(**options)


def test_steepness_makes_up_for_a_faint_margin():
    """With it a model whose logits are a thousand times smaller is attacked alike; without it the squared norm outweighs them."""
    net, images = Net(gain=0.3), pictures(7, 3, 10, 9, seed=3)

    class Faint(torch.nn.Module):
        def forward(self, x):
            return net(x) * 1e-3

    for options, alike in ((dict(QUICK, steepness=0.02), True), (QUICK, False)):
        plain, faint = (GSE(**options)(objective(model, images), eight_bit=False) for model in (net, Faint()))
        assert plain.success_float.all() and torch.allclose(plain.images, faint.images, atol=1e-3) == alike
    assert not faint.success_float.any()


def test_budget_ends_the_search_at_the_first_result_within_it():
    judge = mixed(b=12)
    free = GSE(**QUICK)(judge, eight_bit=False)
    budget = int(free.l0_pixels.max())
    result = GSE(**QUICK, budget=budget)(judge, eight_bit=False)
    assert result.success_float.all() and (result.l0_pixels <= budget).all() and (result.forwards < free.forwards).any()
    strict = GSE(**QUICK, budget=1)(judge, eight_bit=False)
    assert (strict.l0_pixels <= 1).all() and not strict.success_float.all()
