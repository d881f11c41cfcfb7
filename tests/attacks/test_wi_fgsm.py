"""The interpretable attack: its surrogate gradient, box, region and both modes."""
import pytest
import torch

from sparse_dense_attacks import InputError
from sparse_dense_attacks.attacks.wi_fgsm import WIFGSM, gaussian_delta
from sparse_dense_attacks.objectives.base import Objective
from tests.helpers import Linear, Net, objective, pictures

MODES = [{}, dict(l0='none'), dict(bound='one_sided', tau=0.8), dict(accumulate=True), dict(momentum=0.5), dict(a_final=0.01)]
every_mode = pytest.mark.parametrize('options', MODES, ids=lambda o: '-'.join(map(str, o.values())) or 'default')


def batch(b=7, shape=(3, 5, 7), gain=0.3, **options):
    return objective(Net(shape[0], gain=gain), pictures(b, *shape, seed=3), **options)


@pytest.mark.parametrize('width', [0.05, 0.1, 1.])
def test_gradient_is_that_of_the_smooth_count(width):
    w, step = torch.linspace(-2, 2, 401, dtype=torch.double) * width, 1e-5 * width
    smooth = [(1 + torch.erf((w + sign * step) / width)) / 2 for sign in (1, -1)]
    torch.testing.assert_close((smooth[0] - smooth[1]) / (2 * step), gaussian_delta(w, width), rtol=1e-5, atol=1e-7)
    grid = torch.linspace(-10, 10, 20001, dtype=torch.double) * width
    torch.testing.assert_close(torch.trapezoid(gaussian_delta(grid, width), grid), torch.tensor(1., dtype=torch.double))


class Watched(Objective):
    """Passes an objective through and keeps every candidate."""

    def __init__(self, judge):
        self.judge, self.seen = judge, []

    def __getattr__(self, name):
        return getattr(self.judge, name)

    def __call__(self, x, rows):
        self.seen.append(x.detach().clone())
        return self.judge(x, rows)


@every_mode
def test_every_candidate_keeps_box_and_region(options):
    region = torch.rand(7, 1, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.7
    judge = Watched(batch(region=region))
    WIFGSM(steps=20, eps=0.1, **options)(judge, eight_bit=False)
    assert len(judge.seen) > 30
    for z in judge.seen:
        assert z.min() >= -1e-6 and z.max() <= 1 + 1e-6
        if len(z) == 7:
            assert not ((z != judge.images) & ~region).any()


@every_mode
def test_success_is_sparser_than_the_dense_attack_and_failure_is_clean(options):
    judge = batch(gain=0.15)
    result = WIFGSM(steps=60, eps=0.1, **options)(judge)
    assert result.success.sum() > 3 and not result.l0_pixels[~result.success].any()
    assert result.l0_elements[result.success].median() < 105 / 2, 'of 105 in the dense perturbation'


def test_values_at_the_ends_of_the_box_are_frozen_unless_the_bound_is_one_sided():
    model, x = Linear(torch.ones(1, 4, 4), -3.), torch.zeros(1, 1, 4, 4)
    frozen, moved = (WIFGSM(eps=0.1, bound=bound, steps=40, tau=0.3)(objective(model, x)) for bound in ('symmetric', 'one_sided'))
    assert not frozen.success.any() and torch.equal(frozen.images, x)
    assert moved.success.all() and moved.l0_elements.item() < 16


def test_zero_gradient_changes_nothing():
    result = WIFGSM(steps=5)(objective(Linear(torch.zeros(3, 4, 4), -1.), pictures(2, 3, 4, 4)))
    assert not result.success.any() and not result.failed.any() and not result.l0_pixels.any()


@pytest.mark.parametrize('accumulate', [True, False])
def test_dense_start_is_the_corner_of_the_ball_for_a_linear_model(accumulate):
    weight = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    x = pictures(2, 3, 4, 4)
    judge = objective(Linear(weight, -50.), x)
    eta, _ = WIFGSM(eps=0.05, accumulate=accumulate)._dense(judge)
    torch.testing.assert_close(eta, torch.clamp(0.05 * weight.sign().expand_as(x), -x, 1 - x))


def test_failed_dense_attack_still_leads_to_success():
    weight = torch.full((1, 4, 4), 0.1)
    weight[0, :2] = 2.
    model, x = Linear(weight, -8.9), torch.full((1, 1, 4, 4), 0.5)
    judge = objective(model, x)
    attack = WIFGSM(eps=0.01, steps=60, tau=0.01)
    assert model(x + attack._dense(judge)[0])[0, 1] < 0
    result = attack(judge)
    assert result.success.all() and result.l0_elements.item() < 16


def test_with_steepness_the_scale_of_the_margin_does_not_matter():
    net, x = Net(), pictures(4, 3, 6, 8)
    labels = net(x).argmax(1)

    def counts(gain, steepness):
        result = WIFGSM(eps=0.4, steps=15, steepness=steepness)(objective(lambda z: gain * net(z), x, labels))
        assert result.success.all()
        return result.l0_elements

    dense = counts(1e-6, None)
    assert (dense > 100).all(), 'nothing but the dense perturbation'
    assert (counts(1e-6, 1) < 0.85 * dense).all() and torch.equal(counts(1e-6, 1), counts(1e-3, 1))


def test_an_image_that_is_finished_costs_what_it_costs_alone():
    model, x = Linear(torch.ones(3, 8, 8), -96.), torch.tensor([0.498, 0.25]).view(2, 1, 1, 1).expand(2, 3, 8, 8).contiguous()
    together, alone = (WIFGSM(steps=9, budget=192)(objective(model, part)) for part in (x, x[:1]))
    assert together.backwards[0] == alone.backwards[0] and together.forwards[0] == alone.forwards[0]


@every_mode
def test_cost_and_batch_independence(options):
    judge, attack = batch(), WIFGSM(steps=12, dense_steps=4, eps=0.1, **options)
    together = attack(judge)
    assert set(together.forwards.tolist()) == {1 + 4 + 1 + 12 + 1} and set(together.backwards.tolist()) == {16}
    for b in (0, 6):
        alone = attack(objective(judge.scene.model, judge.images[b:b + 1], judge.scene.labels[b:b + 1], keys=[b]))
        assert torch.equal(alone.images[0], together.images[b])


@pytest.mark.parametrize('options, message', [
    (dict(l0='gauss'), "did you mean 'gaussian'"), (dict(bound='both'), "bound = 'both', expected one of"),
    (dict(steps=0), 'steps = 0'),
    (dict(eps=0), 'eps = 0'), (dict(momentum=1), 'momentum = 1'), (dict(tau=-1), 'tau = -1')])
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        WIFGSM(**options)
