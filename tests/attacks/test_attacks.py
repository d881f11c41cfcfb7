"""Every attack against known answers, against itself in other batches, and against its contract."""
import gc
import warnings
import weakref
from dataclasses import dataclass, replace

import pytest
import torch
from PIL import Image
from torch import nn

from sparse_dense_attacks import PGD0, InputError, RandomPixels, SparsePGD, SwapPGD, Untargeted, Vanish
from sparse_dense_attacks.attacks import Attack, ImageRNG, SparseAutoAttack, SparseRS, StructuredSparsePGD, cascade
from sparse_dense_attacks.groups import Patch
from sparse_dense_attacks.objectives import EightBit, MeteredObjective
from sparse_dense_attacks.objectives.base import Objective
from sparse_dense_attacks.ops import count_pixels
from sparse_dense_attacks.types import Verdict
from sparse_dense_attacks.victims import TorchClassifier
from sparse_dense_attacks.victims.base import Scene
from tests.helpers import (
    BUDGET_ATTACKS,
    DETERMINISTIC,
    EVERY_ATTACK,
    Detections,
    Linear,
    Net,
    corner_images,
    make_attack,
    objective,
    padded,
    pictures,
)


def spec_id(spec):
    return '-'.join([spec[0], *(spec[1][name] for name in ('gradient',) if name in spec[1])])


every_attack = pytest.mark.parametrize('spec', EVERY_ATTACK, ids=spec_id)
budget_attack = pytest.mark.parametrize('spec', BUDGET_ATTACKS, ids=spec_id)
gradient_attack = pytest.mark.parametrize('attack', [PGD0(alpha=10), SparsePGD(), SparsePGD(gradient='unprojected')],
                                          ids=['PGD0', 'projected', 'unprojected'])
FIELDS = ('images', 'success', 'success_float', 'clean_correct', 'l0_pixels', 'l0_elements', 'linf', 'forwards', 'backwards',
          'failed')


def assert_same(first, second, rows=slice(None), other_rows=slice(None)):
    for name in FIELDS:
        assert torch.equal(getattr(first, name)[rows], getattr(second, name)[other_rows]), name


def mixed(b=7, shape=(3, 5, 7), gain=0.3, **options):
    """A batch of which three pixels break some images at once, some late and some never."""
    return objective(Net(shape[0], gain=gain), pictures(b, *shape, seed=3), **options)


def stubborn(**options):
    """A batch that no three pixels break."""
    return mixed(gain=1.0, **options)


# Known answers

@gradient_attack
@pytest.mark.parametrize('k, shape', [(1, (3, 4, 4)), (3, (1, 5, 7)), (5, (3, 6, 5))])
def test_linear_model_optimum_is_found(attack, k, shape):
    model, x = Linear(torch.randn(shape, generator=torch.Generator().manual_seed(k)), 0.), pictures(3, *shape, seed=k)
    optimum = model.pixel_gains(x).topk(k)
    model.bias -= model(x)[:, 1].max() + optimum.values.sum(1).max() / 2  # neither broken from the start nor hopeless
    result = replace(attack, k=k, steps=600, early_stop=False)(objective(model, x), eight_bit=False)
    gain = (model(result.images) - model(x))[:, 1].double()
    assert (gain >= optimum.values.sum(1) / 1.25).all()
    for changed, best in zip((result.images != x).any(1).flatten(1), optimum.indices, strict=True):
        assert set(changed.nonzero()[:, 0].tolist()) == set(best.tolist())
    torch.testing.assert_close(gain, optimum.values.sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('c, k', [(1, 2), (3, 1), (1, 1)])
def test_random_pixels_find_the_best_corner_of_all(c, k):
    model, x = Net(c), pictures(1, c, 3, 3, seed=5)
    judge = objective(model, x)
    corners = corner_images(x[0], k)
    losses = judge(corners, torch.zeros(len(corners), dtype=torch.long)).loss
    result = RandomPixels(k=k, steps=10 * len(corners), early_stop=False)(judge)
    verdict = judge(result.images, torch.tensor([0]))
    success = model(corners).argmax(1) != judge.scene.labels
    torch.testing.assert_close(verdict.loss[0], torch.where(success | ~success.any(), losses, -torch.inf).max())


@gradient_attack
@pytest.mark.parametrize('c, k', [(3, 2), (1, 2)])
def test_gradient_attacks_reach_the_best_corner_of_all(attack, c, k):
    x = pictures(4, c, 3, 3, seed=3)
    judge = objective(Net(c, gain=0.5), x)
    result = replace(attack, k=k, steps=300, early_stop=False)(judge, eight_bit=False)
    for b in range(len(x)):
        corners = corner_images(x[b], k)
        best = judge(corners, torch.full((len(corners),), b)).loss.max()
        reached = judge(result.images[b:b + 1], torch.tensor([b])).loss[0]
        assert reached - judge.clean.loss[b] >= (best - judge.clean.loss[b]) / 1.25


@budget_attack
def test_whole_image_may_change(spec):
    result = make_attack(spec, k=35, steps=20)(mixed())
    assert result.success.any() and result.l0_pixels.max() <= 35


# The same result in every company

@every_attack
@pytest.mark.parametrize('options', [{}, dict(early_stop=False)])
def test_result_does_not_depend_on_the_batch_or_its_order(spec, options):
    attack, together = make_attack(spec, **options), mixed(keys=list('abcdefg'))
    result = attack(together, seed=1)
    order = torch.tensor([4, 2, 6, 0, 5, 1, 3])
    shuffled = attack(objective(together.scene.model, together.images[order], together.scene.labels[order],
                                keys=[together.keys[i] for i in order]), seed=1)
    assert_same(shuffled, result, slice(None), order)
    for b in (0, 3, 6):
        alone = attack(objective(together.scene.model, together.images[b:b + 1], together.scene.labels[b:b + 1],
                                 keys=[together.keys[b]]), seed=1)
        assert_same(alone, result, slice(None), slice(b, b + 1))


@every_attack
@pytest.mark.parametrize('k', [3, 0.1])
def test_padding_does_not_change_the_result(spec, k):
    alone, attack = mixed(1, (3, 4, 6), keys=['a']), make_attack(spec, k=k)
    found, expected = attack(padded(alone, (7, 8))), attack(alone)
    assert torch.equal(found.images[0, :, :4, :6], expected.images[0])
    assert not found.images[0, :, 4:].any() and not found.images[0, :, :, 6:].any()
    assert found.forwards[0] == expected.forwards[0]


@every_attack
def test_seed_decides_the_result(spec):
    attack, judge = make_attack(spec, steps=2, early_stop=False), stubborn()
    first = attack(judge, seed=0)
    assert_same(attack(judge, seed=0), first)
    if spec[0] not in (*DETERMINISTIC, 'Descent'):  # that has nothing to vary until it has a success
        least = 1 if spec[0] in ('ASLOAddOn', 'WIFGSM') else 6  # these return images they do not break untouched
        assert (attack(judge, seed=1).images != first.images).flatten(1).any(1).sum() >= least


@every_attack
@pytest.mark.parametrize('shape', [(3, 5, 7), (1, 5, 7), (3, 1, 6), (3, 6, 1), (1, 1, 1), (4, 2, 2)])
@pytest.mark.parametrize('b', [0, 1])
def test_odd_shapes(spec, shape, b):
    result = make_attack(spec, k=1)(mixed(b, shape))
    assert result.images.shape == (b, *shape) and all(len(getattr(result, name)) == b for name in FIELDS)
    assert spec not in BUDGET_ATTACKS or (result.l0_pixels <= 1).all()


# Contract

@budget_attack
@pytest.mark.parametrize('k', [1, 3, 0.1, 0.5])
@pytest.mark.parametrize('eight_bit', [True, False])
def test_budget_box_region_and_grid_are_kept(spec, k, eight_bit):
    region = torch.rand(7, 1, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.7
    region[5], region[6, :, 1:] = False, False
    judge = stubborn(region=region)
    result = make_attack(spec, k=k, early_stop=False)(judge, eight_bit=eight_bit)
    room = region.flatten(1).sum(1)
    limit = (room * k).long().clamp(min=1).minimum(room) if k < 1 else room.clamp(max=k)
    assert (result.l0_pixels <= limit).all() and result.l0_pixels[:5].all()
    assert torch.equal(result.l0_pixels, count_pixels(result.images, judge.images))
    assert torch.equal(result.groups, result.l0_pixels)
    assert torch.equal(result.l0_elements, (result.images != judge.images).flatten(1).sum(1))
    assert not (result.images != judge.images)[~region.expand_as(judge.images)].any()
    assert torch.equal(result.images, result.images.clamp(0, 1))
    if eight_bit:
        assert torch.equal(result.images * 255, (result.images * 255).round())


@pytest.mark.parametrize('eps_inf', [0.1, 0.5])
@pytest.mark.parametrize('gradient', ['projected', 'unprojected'])
def test_largest_change_is_kept(eps_inf, gradient):
    result = SparsePGD(k=3, steps=10, eps_inf=eps_inf, gradient=gradient, early_stop=False)(mixed(), eight_bit=False)
    assert 0.9 * eps_inf < result.linf.max() <= eps_inf + 1e-6


@pytest.mark.parametrize('options', [dict(k=0), dict(k=-1), dict(k=True), dict(k=1.0), dict(k=1.5), dict(k=0.0), dict(k='3'),
                                     dict(k=float('nan')), dict(k={0: 3, 1: 0.5}), dict(steps=0),
                                     dict(steps=2.5), dict(steps=True)])
@pytest.mark.parametrize('cls', [SparsePGD, PGD0, RandomPixels, StructuredSparsePGD, SparseRS, SparseAutoAttack])
def test_impossible_budgets_are_refused(cls, options):
    with pytest.raises(InputError, match=f'{next(iter(options))} = .*expected'):
        cls(**options)


@budget_attack
def test_too_large_budget(spec):
    """One beyond the region or the image is all of it, with a warning that names the image (issue 13, kind J)."""
    model = Linear(torch.ones(1, 2, 2), -10.)
    region = torch.ones(2, 1, 2, 2, dtype=torch.bool)
    region[1, :, 1] = False
    images = pictures(2, 1, 2, 2)
    for first in (0, 1):  # also when images before it are not attacked
        task = objective(model, images, torch.tensor([first, 0]), region=region, keys=['a.png', 'street.png'])
        with pytest.warns(RuntimeWarning, match='2 of street.png'):
            result = make_attack(spec, k=3)(task)
        assert result.l0_pixels[1] <= 2 and not ((result.images != images) & ~region).any()
        assert result.short.tolist() == [False, True]
        with pytest.warns(RuntimeWarning, match='4 of a.png|2 of street.png'):
            result = make_attack(spec, k=5)(task)
        assert result.short.all() and (result.l0_pixels <= torch.tensor([4, 2])).all()


@every_attack
def test_misclassified_images_come_back_untouched(spec):
    judge = mixed()
    wrong = torch.tensor([1, 0, 1, 0, 0, 0, 1])
    judge = objective(judge.scene.model, judge.images, (judge.scene.labels + wrong) % 4)
    result = make_attack(spec)(judge)
    rows = wrong.bool()
    assert torch.equal(result.images[rows], judge.images[rows]) and not result.l0_pixels[rows].any()
    assert result.success[rows].all() and result.success_float[rows].all()
    assert result.forwards[rows].tolist() == [1, 1, 1] and not result.backwards[rows].any() and not result.seconds[rows].any()
    assert torch.equal(result.clean_correct, ~rows) and (result.forwards[~rows] > 1).all()


@budget_attack
def test_without_early_stop_misclassified_images_are_attacked_too(spec):
    judge = mixed()
    judge = objective(judge.scene.model, judge.images, (judge.scene.labels + 1) % 4)
    result = make_attack(spec, steps=20, early_stop=False)(judge)
    final = judge(result.images, torch.arange(7))
    assert result.success.all() and result.l0_pixels.all() and not result.clean_correct.any()
    assert (final.loss > judge.clean.loss).all()


@budget_attack
def test_without_early_stop_all_steps_are_spent_and_the_loss_is_no_lower(spec):
    judge = mixed()
    stopped, result = (make_attack(spec, early_stop=early)(judge) for early in (True, False))
    assert (result.success >= stopped.success).all() and len(result.forwards.unique()) == 1
    rows = stopped.success & result.clean_correct
    early, late = (judge(images, torch.arange(7)).loss for images in (stopped.images, result.images))
    assert rows.any() and (late >= early - 1e-6)[rows].all()


@pytest.mark.parametrize('attack, forwards, backwards', [
    (SparsePGD(k=1, steps=6), 8, 6), (SparsePGD(k=1, steps=6, gradient='unprojected'), 8, 6), (PGD0(k=1, steps=6), 8, 6),
    (RandomPixels(k=1, steps=6), 7, 0), (SparsePGD(k=1, steps=6, gradient='ensemble'), 17, 12)])
@pytest.mark.parametrize('early_stop', [True, False])
def test_costs_are_as_documented(attack, forwards, backwards, early_stop):
    judge = stubborn()
    passes = []
    judge.scene.model.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    result = replace(attack, early_stop=early_stop)(judge)
    assert not result.success.any()
    assert set(result.forwards.tolist()) == {forwards} and set(result.backwards.tolist()) == {backwards}
    # the clean images were looked at before, when they were opened
    assert sum(passes) + len(judge.images) == result.queries.sum()
    assert torch.equal(result.queries - result.forwards, (result.l0_pixels > 0).long())


@pytest.mark.parametrize('attack', [SparsePGD, PGD0, RandomPixels])
def test_early_stop_ends_the_image_at_its_first_success(attack):
    judge = mixed()
    verdicts = []

    class Watched(type(judge)):
        def __call__(self, x, rows):
            verdict = super().__call__(x, rows)
            verdicts.append(dict(zip(rows.tolist(), verdict.success.tolist(), strict=True)))
            return verdict

    judge = Watched(judge.scene)
    result = attack(k=3, steps=20)(judge)
    for b in range(7):
        seen = [verdict[b] for verdict in verdicts if b in verdict][:result.forwards[b] - 1]  # no clean look, no re-check
        assert not any(seen[:-1]) and seen[-1] == result.success[b]
    assert len(result.forwards.unique()) > 2, 'the batch has images that stop at different times'


@every_attack
@pytest.mark.parametrize('budget', [3, 4, 9])
@pytest.mark.parametrize('early_stop', [True, False])
def test_budget_of_forwards_is_never_exceeded(spec, budget, early_stop):
    judge, shown = mixed(), torch.zeros(7, dtype=torch.long)
    attack = make_attack(spec, steps=12, early_stop=early_stop)

    class Counting(type(judge)):
        def __call__(self, x, rows):
            shown[rows] += 1
            return super().__call__(x, rows)

    result = attack(Counting(judge.scene), max_forwards=budget)
    assert (result.queries <= budget).all() and (result.forwards.max() == budget - 1) and not result.failed.any()
    assert torch.equal(shown + 1, result.queries), 'the look at the clean image came before'


@pytest.mark.parametrize('options, least', [({}, 3), (dict(eight_bit=False), 4), (dict(rechecks=3), 5)])
def test_a_budget_that_leaves_nothing_to_attack_with_is_refused(options, least):
    with pytest.raises(InputError, match=f'max_forwards = {least - 1}: expected at least {least} .int.: the look'):
        RandomPixels(k=1, steps=4)(mixed(), max_forwards=least - 1, **options)
    assert RandomPixels(k=1, steps=4)(mixed(), max_forwards=least, **options).forwards.max() == 2


@budget_attack
def test_budget_cuts_an_attack_short_but_keeps_what_it_found(spec):
    judge = mixed()
    unlimited = make_attack(spec, steps=40)(judge)
    late = unlimited.success & (unlimited.forwards > 3)
    assert late.any()
    for b in late.nonzero()[:, 0].tolist():
        one = objective(judge.scene.model, judge.images[b:b + 1], judge.scene.labels[b:b + 1], keys=[b])
        result = make_attack(spec, steps=40)(one, max_forwards=int(unlimited.queries[b]))
        assert result.success.all() and torch.equal(result.images[0], unlimited.images[b])


class Sick(Scene):
    """A scene in which image ``sick`` has a bad loss or gradient from its ``after``-th call on."""

    def __init__(self, scene, sick, kind, after):
        self.scene, self.sick, self.kind, self.after, self.calls = scene, sick, kind, after, 0
        self.images, self.region, self.keys, self.labels = scene.images, scene.region, scene.keys, scene.labels

    def logits(self, x, rows):
        here = (rows == self.sick).nonzero()[:, 0]
        self.calls += len(here)
        bad = self.calls > self.after and len(here)
        if bad and self.kind.startswith('grad') and x.requires_grad:
            value = torch.tensor(float(self.kind[5:]))
            x = x * 1
            x.register_hook(lambda g: g.index_put((here[:1], *torch.zeros(3, 1, dtype=torch.long)), value))
        logits = self.scene.logits(x, rows)
        if bad and self.kind.startswith('loss'):
            logits = logits.index_put((here[:1],), torch.tensor(float(self.kind[5:])))
        return logits


@every_attack
@pytest.mark.parametrize('kind', ['loss nan', 'loss inf', 'grad nan', 'grad inf', 'grad -inf'])
@pytest.mark.parametrize('after', [0, 1, 4])
def test_one_bad_image_is_failed_and_untouched_and_the_others_do_not_notice(spec, kind, after):
    healthy = stubborn()
    attack = make_attack(spec)
    expected = attack(healthy)
    if kind.startswith('grad') and expected.backwards[2] < max(after, 1):
        kind = 'loss nan'  # an attack without gradients, or without one that late
    with pytest.warns(RuntimeWarning, match=r'1 of 7 images: loss or gradient is not finite.* \(2\)'):
        result = attack(Untargeted().objective(Sick(healthy.scene, 2, kind, after)))
    assert result.failed.tolist() == [b == 2 for b in range(7)]
    assert torch.equal(result.images[2], healthy.images[2]) and result.l0_pixels[2] == 0
    assert not result.success[2] and not result.success_float[2]
    others = torch.arange(7) != 2
    assert_same(result, expected, others, others)


class Flat(nn.Module):
    def forward(self, x):
        return torch.tensor([1., 0.]).expand(len(x), 2) + 0 * x.sum()


@every_attack
def test_zero_gradient_gives_a_defined_result(spec):
    attack = make_attack(spec, steps=12)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        result = attack(objective(Flat(), pictures(3, 3, 5, 7), keys=list('abc')))
    told = [str(warning.message) for warning in caught if 'gradient is zero everywhere' in str(warning.message)]
    assert len(told) == bool(result.backwards.any()) and all('(a, b, c)' in text for text in told)
    assert result.images.isfinite().all() and not result.success.any() and not result.failed.any()
    assert (result.l0_pixels <= 3).all()


class Pooled(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


@every_attack
@pytest.mark.parametrize('eight_bit', [True, False])
def test_expanded_gradients_are_not_written_to(spec, eight_bit):
    make_attack(spec)(objective(Pooled(), pictures(3, 3, 5, 7)), eight_bit=eight_bit)


@every_attack
def test_works_where_the_caller_has_switched_gradients_off(spec):
    attack, judge = make_attack(spec), mixed()
    expected = attack(judge)
    with torch.no_grad():
        result = attack(judge)
        assert not torch.is_grad_enabled()
    assert_same(result, expected)
    assert not result.images.requires_grad


@every_attack
@pytest.mark.parametrize('eight_bit', [True, False])
def test_success_agrees_with_the_png(spec, eight_bit, tmp_path):
    judge = mixed()
    result = make_attack(spec, steps=15)(judge, eight_bit=eight_bit)
    for b, image in enumerate((result.images * 255).round().to(torch.uint8)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f'{b}.png')
        stored = Image.open(tmp_path / f'{b}.png')
        pixels = torch.frombuffer(bytearray(stored.tobytes()), dtype=torch.uint8).view(1, *stored.size[::-1], 3)
        logits = judge.scene.model(pixels.permute(0, 3, 1, 2) / 255)
        assert (logits.argmax(1) != judge.scene.labels[b]).item() == result.success[b]
    if not eight_bit:
        assert torch.equal(result.success_float, judge(result.images, torch.arange(7)).success)


@pytest.mark.parametrize('value, success_float, success', [(100.1, False, False), (100.3, True, False), (100.6, True, True)])
def test_success_is_what_rounding_keeps(value, success_float, success):
    @dataclass(frozen=True)
    class Paint(Attack):
        def run(self, objective, rng):
            return torch.full_like(objective.images, value / 255)

    judge = objective(Linear(torch.ones(1, 1, 1), -100.2 / 255), torch.zeros(1, 1, 1, 1))
    for eight_bit in (True, False):
        result = Paint()(judge, eight_bit=eight_bit)
        # an 8-bit attack gives back what it has rounded
        assert (result.success_float.item(), result.success.item()) == (success if eight_bit else success_float, success)
        assert result.images.item() == pytest.approx((round(value) if eight_bit else value) / 255)


def test_what_a_core_returns_is_not_trusted():
    class Cheat(Attack):
        def run(self, objective, rng):
            return objective.images + 2

    region = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    region[:, :, 0] = True
    judge = objective(Linear(torch.ones(1, 2, 2), -9.), pictures(2, 1, 2, 2) * 0, region=region)
    result = Cheat()(judge)
    assert result.images.max() == 1 and not result.images[:, :, 1].any() and not result.success.any()
    assert result.l0_pixels.tolist() == [2, 2]


def test_a_result_that_is_no_image_is_a_failure():
    class Broken(Attack):
        def run(self, objective, rng):
            return objective.images.clone().index_fill_(0, torch.tensor(0), torch.nan)

    judge = objective(Linear(torch.ones(1, 2, 2), -9.), pictures(2, 1, 2, 2))
    with pytest.warns(RuntimeWarning, match='not finite.*(0)'):
        result = Broken()(judge)
    assert result.failed.tolist() == [True, False] and not result.success.any() and torch.equal(result.images, judge.images)


def test_an_image_without_a_finite_loss_is_none_the_victim_got_right():
    model = Net()
    judge = objective(lambda x: model(x) * torch.tensor([torch.nan, 1])[:len(x), None], pictures(2, 3, 4, 4),
                      torch.tensor([0, 0]))
    with pytest.warns(RuntimeWarning, match='not finite'):
        result = RandomPixels(k=1, steps=1)(judge)
    assert result.failed.tolist() == [True, False] and not result.clean_correct[0]


@pytest.mark.parametrize('eight_bit', [True, False])
def test_images_that_are_not_attacked_are_judged_before_and_after_rounding_too(eight_bit):
    """Class 1 from 127.3 of 255 on: the image, 127.499, is beyond it, what a PNG keeps of it, 127, is not."""
    judge = objective(Linear(torch.ones(1, 1, 1), -127.3 / 255), torch.full((1, 1, 1, 1), 127.499 / 255), torch.tensor([0]))
    judge.region = judge.region & False
    result = RandomPixels(k=1, steps=1)(judge, eight_bit=eight_bit)
    assert not result.success.item() and result.success_float.item() is not eight_bit


@every_attack
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('max_forwards', [None, 4])
def test_models_may_compute_in_another_type(spec, dtype, max_forwards):
    model = Net(gain=0.3)
    judge = objective(lambda x: model(x).to(dtype), pictures(3, 3, 5, 7), model(pictures(3, 3, 5, 7)).argmax(1))
    result = make_attack(spec)(judge, max_forwards=max_forwards)
    assert result.images.dtype == torch.float32 and not result.failed.any()


@every_attack
def test_images_that_record_gradients_are_left_alone(spec):
    images = pictures(3, 3, 5, 7).requires_grad_()
    result = make_attack(spec)(objective(Net(gain=0.3), images, torch.zeros(3, dtype=torch.int64)))
    assert not result.images.requires_grad and images.grad is None


@pytest.mark.parametrize('attack', [StructuredSparsePGD, SwapPGD, SparseRS, SparseAutoAttack])
def test_images_without_room_for_a_group_cost_nothing(attack):
    region = torch.ones(2, 1, 5, 7, dtype=torch.bool)
    region[0, :, :, 1::2] = False
    judge = objective(Net(), pictures(2, 3, 5, 7), region=region)
    result = attack(k=2, steps=4, kernel=Patch(2, 2), early_stop=False)(judge)
    assert result.forwards[0] == 1 and not result.backwards[0] and not result.l0_pixels[0]
    assert result.forwards[1] > 4 and result.l0_pixels[1]


class Moody(nn.Module):
    """Batch norm, dropout, a frozen layer: everything an attack could disturb."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 5, 1))

    def forward(self, x):
        return self.body(x).sum((2, 3))


def traces(model):
    return ([t.clone() for t in model.state_dict().values()], [m.training for m in model.modules()],
            [p.requires_grad for p in model.parameters()], [p.grad for p in model.parameters()], torch.get_rng_state(),
            [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()])


@every_attack
def test_no_trace_is_left(spec):
    torch.manual_seed(0)
    model, images, labels = Moody(), pictures(4, 3, 5, 7), torch.tensor([0, 1, 2, 3])
    model.train()
    model.body[1].training, model.body[0].training = False, False
    model.body[3].weight.requires_grad_(False)
    region = torch.ones(4, 1, 5, 7, dtype=torch.bool)
    region[:, :, 2] = False
    copies = [t.clone() for t in (images, labels, region)]
    before = traces(model)
    victim = TorchClassifier(model)
    with victim.session():
        make_attack(spec, early_stop=False)(Untargeted().objective(victim.open(images, labels, region)))
    for old, new in zip(before, traces(model), strict=True):
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a is b or a == b for a, b in zip(old, new, strict=True))
    assert all(torch.equal(old, new) for old, new in zip(copies, (images, labels, region), strict=True))


class Marked(torch.autograd.Function):
    """Counts the graphs that are alive."""
    alive: weakref.WeakSet = weakref.WeakSet()

    class Token:
        pass

    @staticmethod
    def forward(ctx, x):
        ctx.token = Marked.Token()
        Marked.alive.add(ctx.token)
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Marking(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.most = model, 0

    def forward(self, x):
        self.most = max(self.most, len(Marked.alive))
        return self.model(Marked.apply(x))


@every_attack
@pytest.mark.parametrize('eight_bit', [True, False])
def test_no_graph_outlives_its_iteration(spec, eight_bit):
    model = Marking(Net())
    Marked.alive.clear()
    gc.disable()  # reference counts alone must do
    try:
        result = make_attack(spec, steps=10, early_stop=False)(objective(model, pictures(3, 3, 5, 7)), eight_bit=eight_bit)
        assert model.most <= 1 and not Marked.alive
    finally:
        gc.enable()
    assert result.images.grad_fn is None


@every_attack
def test_hidden_objects_on_a_detection_scene_keep_the_contract(spec):
    truth, found = [[((0, 0, 4, 4), 0, 1)], [], [((0, 0, 4, 4), 0, 1)]], [[((0, 0, 4, 4), 0, .6)], [], [((0, 0, 4, 4), 1, .6)]]
    fake = Detections(pictures(3, 1, 4, 4) * 0.5, truth, found, weight=-2.0)
    result = make_attack(spec, steps=20)(Vanish(score_thr=0.3).objective(fake))
    assert result.clean_correct.tolist() == [True, False, False] and result.defined.tolist() == [True, False, True]
    assert result.success[0] and result.l0_pixels[1:].tolist() == [0, 0]


# Cascade

@pytest.mark.parametrize('early_stop', [True, False])
def test_ensemble_is_never_worse_than_its_members(early_stop):
    judge, rows = mixed(b=16), torch.arange(16)
    attacks = [SparsePGD(k=2, steps=8, gradient=g, early_stop=early_stop) for g in ('projected', 'unprojected', 'ensemble')]
    meter, rng = MeteredObjective(EightBit(judge)), ImageRNG(0, judge.keys, judge.region)
    members = [meter(attack.run(meter, rng), rows) for attack in attacks[:2]]  # each image's streams go on in the second
    ensemble = meter(attacks[2](judge).images, rows)
    best = torch.stack([member.success for member in members]).any(0)
    assert torch.equal(ensemble.success, best)
    assert 0 < members[0].success.sum() < best.sum() < 16, 'each member must matter'
    strongest = torch.stack([member.loss for member in members]).amax(0)
    assert (ensemble.loss >= strongest - 1e-6)[~best].all()


def test_cascade_gives_later_attacks_the_survivors_only():
    judge, shown = mixed(), []

    class Spy(Attack):
        def run(self, objective, rng):
            shown.append(objective.keys)
            return objective.images

    first = SparsePGD(k=3, steps=10)
    meter = MeteredObjective(judge)
    x, stage = cascade([first, Spy()], meter, ImageRNG(0, judge.keys, judge.region))
    broken = meter(x, torch.arange(7)).success
    assert broken.any() and shown == [[key for key, gone in zip(judge.keys, broken.tolist(), strict=True) if not gone]]
    assert stage.tolist() == [0 if gone else -1 for gone in broken.tolist()]


# Sparse-PGD step by step

def slow_sparse_pgd(judge, row, k, steps, rng, projected, patience, stagnation, alpha=0.25, beta=0.25, eps=1.0):
    """docs/attacks/sparse_pgd.md, "Steps", for one image: full sorts, no batch, nothing in place. Image and redraws."""
    x, rows = judge.images[row], torch.tensor([row])
    c, h, w = x.shape
    box = lambda p: torch.minimum(torch.maximum(p, -x), 1 - x)  # noqa: E731
    p = box(2 * eps * rng.uniform(c)[0] - eps)
    u = rng.normal(1)[0, 0]

    def mask_of(u):
        order = sorted(range(h * w), key=lambda i: -u.flatten()[i].item())
        mask = torch.zeros(h * w)
        mask[order[:k]] = 1
        return mask.view(h, w)

    def look(p, u):
        mask = mask_of(u)
        delta = (p * mask).requires_grad_()
        verdict = judge((x + delta)[None], rows)
        g, = torch.autograd.grad(verdict.loss[0], delta)
        s = u.sigmoid()
        return (x + p * mask, verdict.loss[0].item(), verdict.success[0].item(), mask, (g * p).sum(0) * s * (1 - s),
                g * mask if projected else g * s)

    best, best_loss, redraws, counter = x, judge.clean.loss[row].item(), 0, 0
    z, loss, success, mask, g_u, g_p = look(p, u)
    if success:
        return z, redraws
    if loss >= best_loss:
        best, best_loss = z, loss
    for _ in range(steps):
        before = mask
        if g_u.norm() >= 2e-10:
            u = u + beta * (h * w) ** 0.5 * g_u / (g_u.norm() + 1e-10)
        p = box((p + alpha * eps * g_p.sign()).clamp(-eps, eps))
        z, loss, success, mask, g_u, g_p = look(p, u)
        if success:
            return z, redraws
        if loss >= best_loss:
            best, best_loss = z, loss
        same = torch.equal(mask, before)
        counter = counter + 1 if same else counter if stagnation == 'total' else 0
        if counter >= patience:
            u, counter, redraws = rng.normal(1)[0, 0], 0, redraws + 1
            g_u, g_p = torch.zeros_like(g_u), torch.zeros_like(g_p)
    return best, redraws


@pytest.mark.parametrize('gradient', ['projected', 'unprojected'])
@pytest.mark.parametrize('gain, patience', [(0.3, 3), (1.0, 1), (1.0, 2)])
@pytest.mark.parametrize('stagnation', ['total', 'row'])
def test_sparse_pgd_is_the_published_algorithm(gradient, gain, patience, stagnation):
    judge = mixed(gain=gain)
    attack = SparsePGD(k=3, steps=15, gradient=gradient, patience=patience, stagnation=stagnation)
    result = attack(judge, eight_bit=False)
    redraws = 0
    for b in range(7):
        rng = ImageRNG(0, judge.keys[b:b + 1], judge.region[b:b + 1])
        expected, more = slow_sparse_pgd(judge, b, 3, 15, rng, gradient == 'projected', patience, stagnation)
        redraws += more
        torch.testing.assert_close(result.images[b], expected.detach().clamp(0, 1), rtol=0, atol=1e-5)
    assert gain < 0.5 or redraws > 3, 'the case must exercise re-initialisation'


class SpyRNG(ImageRNG):
    """Notes which images draw normals, and when (in calls of the objective)."""

    def __init__(self, objective, calls):
        super().__init__(0, objective.keys, objective.region)
        self.calls, self.drawn = calls, []

    def normal(self, channels, rows=None):
        self.drawn.append((len(self.calls), None if rows is None else rows.tolist()))
        return super().normal(channels, rows)


class Script(Objective):
    """An objective with prescribed gradients: ``gradient(row, call) -> (1, H, W)``; never succeeds."""
    sync_every = 1

    def __init__(self, b, shape, gradient):
        self.images, self.region = torch.full((b, *shape), 0.5), torch.ones(b, 1, *shape[1:], dtype=torch.bool)
        self.keys, self.gradient, self.calls, self.candidates = list(range(b)), gradient, [], []
        self.failed = torch.zeros(b, dtype=torch.bool)
        self.clean = self(self.images, torch.arange(b))
        self.calls.clear(), self.candidates.clear()
        self.eligible = self.defined = torch.ones(b, dtype=torch.bool)

    def __call__(self, x, rows):
        weight = torch.stack([self.gradient(row, len(self.calls)) for row in rows.tolist()])
        self.calls.append(rows.tolist()), self.candidates.append(x.detach().clone())
        loss = (weight * x).flatten(1).sum(1)
        return type('Verdict', (), dict(loss=loss, margin=1 - 0 * loss, success=torch.zeros(len(x), dtype=torch.bool)))


@pytest.mark.parametrize('patience', [1, 3])
@pytest.mark.parametrize('stagnation', ['total', 'row', 'batch'])
def test_mask_is_drawn_anew_after_patience_unchanged_masks(patience, stagnation):
    """Image 0 has no gradient, so its mask stays; the others' masks wander."""
    wander = torch.Generator().manual_seed(0)
    script = Script(3, (1, 4, 4), lambda row, call: torch.randn(1, 4, 4, generator=wander) * (row > 0))
    rng = SpyRNG(script, script.calls)
    SparsePGD(k=4, steps=20, patience=patience, stagnation=stagnation, alpha=0.01, beta=4.0).run(script, rng)
    assert rng.drawn[0] == (0, None)
    redraws = [call for call, rows in rng.drawn[1:] if 0 in rows]
    # The mask of call 0 is unchanged in calls 1 .. patience, and drawn anew after the latter; then the same again.
    assert redraws == list(range(patience + 1, 21, patience + 1))
    masks = [(z != 0.5).any(1) for z in script.candidates]
    for b in range(3):
        still, expected = 0, []
        for call in range(1, 20):
            same = torch.equal(masks[call][b], masks[call - 1][b])
            # image 0 keeps its mask nearly always, so that counts of the batch are hardly ever reset
            anyone = any(torch.equal(masks[call][i], masks[call - 1][i]) for i in range(3))
            kept = dict(total=still, row=0, batch=still * anyone)[stagnation]
            still = still + 1 if same else kept
            if still == patience:
                expected.append(call + 1)
                still = 0
        assert [call for call, rows in rng.drawn[1:] if b in rows] == expected


@pytest.mark.parametrize('patience', [1, 3])
def test_mask_that_cannot_change_is_drawn_anew_at_the_same_pace(patience):
    script = Script(1, (1, 4, 4), lambda row, call: torch.zeros(1, 4, 4))
    rng = SpyRNG(script, script.calls)
    SparsePGD(k=16, steps=20, patience=patience).run(script, rng)
    assert [call for call, _ in rng.drawn[1:]] == list(range(patience + 1, 21, patience + 1))


@pytest.mark.parametrize('published', [(), ('stale gradient',)])
def test_only_a_stale_gradient_moves_a_fresh_mask(published):
    """The mask is everything and the slope always the same: all iterations move but those that draw the mask anew."""
    script = Script(1, (1, 4, 4), lambda row, call: torch.ones(1, 4, 4))
    SparsePGD(k=16, steps=9, patience=2, alpha=0.01, published=published).run(script, SpyRNG(script, script.calls))
    stood = [call for call in range(1, 10) if torch.equal(script.candidates[call], script.candidates[call - 1])]
    assert stood == ([] if published else [3, 6, 9])


def test_masks_of_the_largest_sigmoids_have_ties_but_stay_in_the_region():
    attack, u = SparsePGD(published=('sigmoid',)), torch.tensor([20.0, 30.0, 0.0, -200.0, -torch.inf])
    assert attack._ranked(u).tolist() == [1.0, 1.0, 0.5, 0.0, -torch.inf] and SparsePGD()._ranked(u) is u
    region = torch.zeros(7, 1, 5, 7, dtype=torch.bool)
    region[..., :2] = True
    judge = mixed(region=region)
    result = replace(attack, k=9, steps=20, beta=50.)(judge)
    assert not ((result.images != judge.images) & ~region).any() and result.l0_pixels.max() <= 9


def test_the_last_gradient_costs_a_backward_and_changes_nothing():
    plain, more = (SparsePGD(k=1, steps=6, published=published)(stubborn()) for published in ((), ['last gradient']))
    assert torch.equal(plain.images, more.images) and torch.equal(plain.forwards, more.forwards)
    assert torch.equal(plain.backwards + 1, more.backwards)


def test_unknown_behaviour_of_the_published_code_is_refused():
    with pytest.raises(InputError, match=r"published = \('speed',\), expected a list of some of 'stale gradient', 'sigmoid'"):
        SparsePGD(published=('speed',))
    with pytest.raises(InputError, match="stagnation = 'never'"):
        SparsePGD(stagnation='never')


def test_every_mask_lies_in_the_region():
    script = Script(1, (1, 6, 6), lambda row, call: torch.zeros(1, 6, 6))
    script.region[..., 2:] = False
    SparsePGD(k=5, steps=12, patience=1).run(script, ImageRNG(0, [0], script.region))
    masks = [(z != 0.5)[0, 0] for z in script.candidates]
    assert all(mask.sum() == 5 and not mask[:, 2:].any() for mask in masks)
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 4, 'drawn anew'


@pytest.mark.parametrize('attack', [SparsePGD(k=100, steps=1), PGD0(k=100, steps=1)], ids=lambda a: type(a).__name__)
def test_magnitudes_start_anywhere_in_the_box(attack):
    script = Script(1, (1, 10, 10), lambda row, call: torch.zeros(1, 10, 10))
    attack.run(script, ImageRNG(0, [0], script.region))
    start = script.candidates[0]
    assert start.min() < 0.05 and start.max() > 0.95 and 0.4 < start.mean() < 0.6


def test_no_stale_gradient_meets_a_new_mask():
    script = Script(1, (1, 4, 4), lambda row, call: 1 + torch.arange(16.).view(1, 4, 4))
    rng = SpyRNG(script, script.calls)
    twin = ImageRNG(0, [0], script.region)
    twin.uniform(1), twin.normal(1)
    SparsePGD(k=15, steps=12, patience=1, alpha=1e-4).run(script, rng)
    for call, _ in rng.drawn[1:]:
        fresh = twin.normal(1).flatten()
        chosen = torch.zeros(16).index_fill_(0, fresh.topk(15).indices, 1).view(1, 1, 4, 4).bool()
        z = script.candidates[call]
        assert torch.equal((z != 0.5), chosen), 'the new mask is the draw itself, not the draw plus a step'
        known = script.candidates[call - 1]
        both = chosen & (known != 0.5)
        assert torch.equal(z[both], known[both]), 'magnitudes have not moved along the old gradient'
    assert len(rng.drawn) > 2


@pytest.mark.parametrize('eps', [1., 0.4])
@pytest.mark.parametrize('gradient', ['projected', 'unprojected'])
def test_unprojected_moves_all_magnitudes_and_projected_the_selected_ones(gradient, eps):
    script = Script(1, (1, 4, 4), lambda row, call: torch.ones(1, 4, 4))
    rng = ImageRNG(0, [0], script.region)
    p0 = ((2 * rng.uniform(1) - 1) * eps).clamp(-0.5, 0.5)
    attack = SparsePGD(k=2, steps=8, beta=50.0, alpha=0.01, eps_inf=eps, patience=99, gradient=gradient)
    attack.run(script, ImageRNG(0, [0], script.region))
    masks = [z != 0.5 for z in script.candidates]
    moved = torch.stack(masks[:-1])
    steps = (moved if gradient == 'projected' else torch.ones_like(moved)).cumsum(0)
    for z, mask, taken in zip(script.candidates[1:], masks[1:], steps, strict=True):
        expected = (p0 + 0.01 * eps * taken).clamp(-min(eps, 0.5), min(eps, 0.5)) + 0.5
        torch.testing.assert_close(z[mask], expected[mask])
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 2, 'the mask must move for this to mean anything'


def test_gradients_below_gamma_do_not_move_the_mask_but_the_magnitudes():
    script = Script(1, (1, 4, 4), lambda row, call: torch.full((1, 4, 4), 1e-10))
    SparsePGD(k=3, steps=3, patience=99, alpha=0.01, beta=50.).run(script, ImageRNG(0, [0], script.region))
    masks = [z != 0.5 for z in script.candidates]
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert not torch.equal(script.candidates[0], script.candidates[-1])
    script.calls.clear(), script.candidates.clear()
    SparsePGD(k=3, steps=3, patience=99, alpha=0.01, gamma=0., beta=50.).run(script, ImageRNG(0, [0], script.region))
    assert not torch.equal(script.candidates[0] != 0.5, script.candidates[-1] != 0.5)


def test_huge_mask_logits_do_not_break_the_mask():
    """In float32 sigmoid(u) is 1 from 17 on; the mask must still be the largest u, and exactly k pixels."""
    class Huge(ImageRNG):
        def normal(self, channels, rows=None):
            return 50 + torch.arange(16.).view(1, 1, 4, 4)

    script = Script(1, (1, 4, 4), lambda row, call: torch.ones(1, 4, 4))
    SparsePGD(k=3, steps=10, alpha=0.01, beta=100.).run(script, Huge(0, [0], script.region))
    for z in script.candidates:
        assert z.isfinite().all() and (z != 0.5).flatten().nonzero()[:, 0].tolist() == [13, 14, 15]


def test_image_that_nothing_makes_worse_comes_back_clean():
    script = Script(2, (3, 4, 4), lambda row, call: torch.zeros(3, 4, 4))
    script.clean.loss = torch.tensor([1., -1.])
    x = SparsePGD(k=2, steps=5).run(script, ImageRNG(0, [0, 1], script.region))
    assert torch.equal(x[0], script.images[0]) and not torch.equal(x[1], script.images[1])


SEARCHES = [SparsePGD(), SparsePGD(gradient='unprojected'), PGD0(), RandomPixels(), SparseRS(), SparseRS(loss='ce')]
every_search = pytest.mark.parametrize('attack', [replace(a, k=2, steps=8, early_stop=False) for a in SEARCHES],
                                       ids=['projected', 'unprojected', 'PGD0', 'RandomPixels', 'margin', 'ce'])


@every_search
@pytest.mark.parametrize('order', [{3: -5., 5: -9., 6: -5.5}, {1: 2., 2: 1.}])
def test_success_beats_any_failure_and_the_strongest_success_wins(attack, order):
    """Failures get stronger with every call; the calls of ``order`` succeed, with low losses, the first with the highest."""
    class Fickle(Script):
        def __call__(self, x, rows):
            call = len(self.calls)
            super().__call__(x, rows)
            loss = 0 * x.flatten(1).sum(1) + order.get(call, call + 10.)
            return Verdict(loss, -loss, torch.full((len(x),), call in order))

    script = Fickle(1, (1, 4, 4), lambda row, call: torch.zeros(1, 4, 4))
    x = attack.run(script, ImageRNG(0, [0], script.region))
    assert torch.equal(x, script.candidates[min(order)]) and len(script.candidates) > max(order)


@pytest.mark.parametrize('attack', [a for a in SEARCHES if not isinstance(a, SparseRS)], ids=lambda a: type(a).__name__)
def test_of_equal_losses_the_latest_counts(attack):
    script = Script(1, (1, 4, 4), lambda row, call: torch.zeros(1, 4, 4))
    x = replace(attack, k=2, steps=8).run(script, ImageRNG(0, [0], script.region))
    assert torch.equal(x, script.candidates[-1]) and not torch.equal(x, script.images)


def test_gradient_outside_the_region_does_not_shorten_pgd0_steps():
    region = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    region[..., 2:] = False
    inside = Linear(torch.ones(1, 4, 4) * region[0], -100.)
    outside = Linear(torch.where(region[0], 1., 1000.) * torch.ones(1, 4, 4), -100000.)
    x = pictures(1, 1, 4, 4)
    attack = PGD0(k=2, steps=2, early_stop=False)
    first, second = (attack(objective(model, x, region=region), eight_bit=False) for model in (inside, outside))
    assert torch.equal(first.images, second.images)


@every_attack
def test_attacks_are_frozen_and_comparable(spec):
    attack = make_attack(spec)
    with pytest.raises(AttributeError):
        attack.k = 5
    assert attack == make_attack(spec)
