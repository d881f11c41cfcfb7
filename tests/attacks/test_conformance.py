"""Every core in every variant against the conformance list and against bad input.

What docs/attacks/README.md, "What the conformance tests ask for", lists, and the tests that answer:

1. prox against brute force: test_prox::test_prox_is_the_minimiser.
2. d_{2,0} by pooling against enumeration: test_prox::test_windows_are_those_of_enumeration.
3. alone as in a batch: here test_alone_as_in_a_batch_of_equal_dimensions;
   test_attacks::test_result_does_not_depend_on_the_batch_or_its_order, test_padding_does_not_change_the_result.
4. budget and box at every candidate, finite where the gradient is zero: here test_every_candidate_keeps_budget_region_and_box and
   test_zero_gradient_shows_finite_candidates_only; test_attacks::test_budget_box_region_and_grid_are_kept.
5. linear models with a known optimum: ``*linear_model*`` in test_attacks, test_sigma_zero, test_aslo, test_sparse_rs and
   test_structured_sparse_pgd; test_gse::test_first_active_element_has_the_largest_gradient.
6. a 1 x 1 kernel is the unstructured attack:
   test_structured_sparse_pgd::test_single_pixels_are_the_unstructured_attack_bit_for_bit.
7. patterns are not mirrored: test_kernels::test_letters_are_not_mirrored,
   test_structured_sparse_pgd::test_letter_is_placed_as_it_reads.
8. misclassified input comes back, l0 = 0: here test_batch_of_misclassified_images_costs_one_look;
   test_attacks::test_misclassified_images_come_back_untouched.
9. sigma-zero with a frozen threshold: test_sigma_zero::test_every_step_is_the_published_one (t = 0), test_threshold_adapts.
10. Sparse-RS: queries are forwards, per image: here test_forwards_are_what_the_victim_was_shown (every core).

The defects of the published codes are in test_known_defects.
"""
import itertools
from dataclasses import replace

import pytest
import torch
from PIL import Image

from sparse_dense_attacks import ATTACKS, KERNELS, PGD0, InputError, RandomPixels, SparsePGD, Untargeted
from sparse_dense_attacks.attacks import (
    ASLO,
    GSE,
    WIFGSM,
    ASLOAddOn,
    Descent,
    Relay,
    ScreenedCorners,
    SigmaZero,
    SparseAutoAttack,
    SparseRS,
    StructuredSparsePGD,
    SwapPGD,
)
from sparse_dense_attacks.attacks.sparse_rs.schedule import frame_side, patch_side
from sparse_dense_attacks.groups import Column, Patch, Pattern, Row
from sparse_dense_attacks.objectives.base import Objective
from sparse_dense_attacks.ops import changed_pixels
from sparse_dense_attacks.victims import TorchClassifier
from sparse_dense_attacks.victims.base import Scene
from tests.helpers import Net, objective, pictures

WINDOWS = dict(type='Patch', height=2, width=2)
TILES = dict(type='Patch', height=2, width=2, stride=2)
CORES = {
    'sigma-zero': SigmaZero(steps=20), 'sigma-zero pixel': SigmaZero(steps=20, unit='pixel'),
    'ASLO': ASLO(steps=20), 'ASLO pixel': ASLO(steps=20, unit='pixel', threshold='none'),
    'ASLO fixed': ASLO(steps=20, threshold='fixed'),
    'add-on': ASLOAddOn(PGD0(k=4, steps=8)), 'add-on pixel': ASLOAddOn(SparsePGD(k=4, steps=8), unit='pixel'),
    'descent': Descent(steps=30), 'descent pixel': Descent(steps=30, unit='pixel', drop=0.2, exchange=0.3),
    'descent rows': Descent(steps=30, unit='pixel', kernel='row'),
    'descent windows': Descent(steps=30, unit='pixel', kernel=WINDOWS),
    'GSE': GSE(mu=0.02, sigma=3., q=0.5, k_hat=4, iters=8, search_steps=4),
    'GSE nesterov': GSE(mu=0.02, sigma=3., q=0.5, k_hat=4, iters=8, search_steps=4, averaging='nesterov'),
    'WI-FGSM': WIFGSM(steps=12, dense_steps=4, eps=0.1),
    'WI-FGSM published': WIFGSM(steps=12, eps=0.1, l0='none', accumulate=True),
    'WI-FGSM one-sided': WIFGSM(steps=12, eps=0.1, bound='one_sided', momentum=0.5, a_final=0.05),
    'sPGD': SparsePGD(k=2, steps=8), 'sPGD unprojected': SparsePGD(k=2, steps=8, gradient='unprojected', patience=1),
    'sPGD ensemble': SparsePGD(k=2, steps=4, gradient='ensemble'),
    'corners': ScreenedCorners(k=1, steps=40), 'corner sets': ScreenedCorners(k=3, steps=40, pool=6),
    'swaps': SwapPGD(k=3, steps=12),
    'swaps of windows': SwapPGD(k=2, steps=12, kernel=WINDOWS),
    'rows': StructuredSparsePGD(k=1, steps=8, kernel='row'),
    'columns': StructuredSparsePGD(k=1, steps=8, kernel='column', patience=1),
    'windows': StructuredSparsePGD(k=2, steps=8, kernel=WINDOWS, gradient='unprojected'),
    'tiles': StructuredSparsePGD(k=1, steps=8, kernel=TILES, gradient='ensemble'),
    'RS': SparseRS(k=2, steps=20), 'RS ce': SparseRS(k=2, steps=20, loss='ce', alpha_init=0.8),
    'RS rows': SparseRS(k=1, steps=20, kernel='row'), 'RS windows': SparseRS(k=2, steps=20, kernel=WINDOWS),
    'RS patch': SparseRS(k=4, steps=20, variant='patches'), 'RS frame': SparseRS(k=1, steps=20, variant='frames'),
    'sAA': SparseAutoAttack(k=2, steps=4, queries=10), 'sAA columns': SparseAutoAttack(k=1, steps=4, queries=10, kernel='column'),
    'sAA plus': SparseAutoAttack(k=2, steps=6, queries=30, version='plus'),
    'relay': Relay(k=3, steps=12), 'PGD0': PGD0(k=2, steps=8), 'random': RandomPixels(k=2, steps=8),
}
every_core = pytest.mark.parametrize('attack', CORES.values(), ids=CORES.keys())
BUDGETS = {name: attack for name, attack in CORES.items() if hasattr(attack, 'k')}


def test_every_attack_has_a_core_here():
    composed = {'BudgetSearch', 'ForeignAttack'}  # run other attacks and have tests of their own
    composed.add('UniversalPatch')  # follows no image, and has tests of its own, too
    assert {type(attack).__name__ for attack in CORES.values()} == set(ATTACKS) - composed


def batch(b=7, shape=(3, 6, 8), gain=0.3, **options):
    """Images of which small attacks break some at once, some late and some never."""
    return objective(Net(shape[0], gain=gain), pictures(b, *shape, seed=3), **options)


class Watched(Objective):
    """Passes an objective through and keeps what the victim is shown, as ``(rows, x)``; the clean look comes first."""

    def __init__(self, judge):
        self.judge, self.clean, self.seen = judge, judge.clean, []

    def __getattr__(self, name):
        return getattr(self.judge, name)

    def __call__(self, x, rows):
        self.seen.append((rows.clone(), x.detach().clone()))
        return self.judge(x, rows)


# The same alone as among others

@every_core
def test_alone_as_in_a_batch_of_equal_dimensions(attack):
    """B = C = H = W: a wrong broadcast has a right shape here, and shows in the values only."""
    judge = objective(Net(4, gain=0.5, seed=4), pictures(4, 4, 4, 4, seed=3))
    together = attack(judge, seed=1)
    for b in (0, 3):
        alone = attack(objective(judge.scene.model, judge.images[b:b + 1], judge.scene.labels[b:b + 1], keys=[b]), seed=1)
        for name in ('images', 'success', 'success_float', 'l0_elements', 'groups', 'forwards', 'backwards', 'failed'):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[b]), name
    assert together.l0_elements.any()


# Budget, box, region

def most_pixels(attack, room):
    """Pixels a candidate may change at most, None where there is no limit."""
    if isinstance(attack, ASLOAddOn):
        return attack.base.k
    if not hasattr(attack, 'k') or isinstance(attack, Relay) or attack is CORES['sAA plus']:  # begin with more
        return None
    if getattr(attack, 'variant', 'l0') == 'frames':
        return room
    return attack.k * {Row: 8, Column: 6, Patch: 4}.get(type(getattr(attack, 'kernel', None)), 1)


@every_core
def test_every_candidate_keeps_budget_region_and_box(attack):
    region = torch.rand(7, 1, 6, 8, generator=torch.Generator().manual_seed(0)) < 0.9
    judge = Watched(batch(gain=1., region=region))
    result = attack(judge, eight_bit=False)
    shown = 0
    for rows, x in judge.seen:
        changed = changed_pixels(x, judge.images[rows])
        assert x.min() >= -1e-6 and x.max() <= 1 + 1e-6 and not (changed & ~region[rows, 0]).any()
        shown += int(changed.any())
        if (most := most_pixels(attack, 24)) is not None:
            assert changed.flatten(1).sum(1).max() <= most
            if isinstance(getattr(attack, 'kernel', None), Row | Column) or attack is CORES['tiles']:
                assert attack.kernel.cover(changed, attack.kernel.usable(region[rows])).max() <= attack.k
    assert shown > 4 and result.images.min() >= 0 and result.images.max() <= 1


class Flat(torch.nn.Module):
    """No parameters, no gradient; the first of equal logits wins, so the margin is 0 and yet nothing is broken."""

    def forward(self, x):
        return torch.zeros(len(x), 3) + 0 * x.sum()


@every_core
@pytest.mark.filterwarnings('ignore:.*gradient is zero everywhere:RuntimeWarning')
def test_zero_gradient_shows_finite_candidates_only(attack):
    judge = Watched(objective(Flat(), pictures(3, 3, 6, 8)))
    result = attack(judge)
    assert all(x.isfinite().all() for _, x in judge.seen) and result.images.isfinite().all()
    assert not result.success.any() and not result.success_float.any() and not result.failed.any()


class Resisting(torch.nn.Module):
    """Every change of a black image makes class 0 more certain."""

    def forward(self, x):
        total = x.sum((1, 2, 3)) / 10
        return torch.stack([total + 0.1, 0 * total], 1)


@every_core
def test_image_that_every_change_strengthens_comes_back_clean(attack):
    result = attack(objective(Resisting(), torch.zeros(2, 3, 6, 8)))
    assert not result.images.any() and not result.success.any() and not result.failed.any()


# What it cost

@every_core
@pytest.mark.parametrize('eight_bit', [True, False])
@pytest.mark.parametrize('max_forwards', [None, 5])
def test_a_foreign_meter_sees_what_is_reported(attack, eight_bit, max_forwards):
    """Whoever counts what the model is shown finds the queries of the result, and never more than was allowed."""
    model, shown = Net(), torch.zeros(7, dtype=torch.long)
    images = pictures(7, 3, 6, 8, seed=2)
    labels = model(images).argmax(1)
    region = torch.ones(7, 1, 6, 8, dtype=torch.bool)
    region[..., 5, 7] = False  # this pixel says which image it is

    def count(module, args):
        for pixel in args[0].detach()[:, :, 5, 7]:
            shown[(images[:, :, 5, 7] == pixel).all(1)] += 1

    model.register_forward_pre_hook(count)
    scene = TorchClassifier(model).open(images, labels, region)
    result = attack(Untargeted().objective(scene), eight_bit=eight_bit, max_forwards=max_forwards)
    assert result.queries.tolist() == shown.tolist()
    assert max_forwards or (result.forwards < result.queries).any()
    assert max_forwards is None or (result.queries <= max_forwards).all()


# Bad input

@every_core
def test_batch_of_misclassified_images_costs_one_look(attack):
    judge = batch()
    judge = Watched(objective(judge.scene.model, judge.images, (judge.scene.labels + 1) % 4))
    result = attack(judge)
    assert torch.equal(result.images, judge.images) and result.success.all() and result.success_float.all()
    assert not result.clean_correct.any() and not judge.seen and result.forwards.tolist() == [1] * 7
    assert not result.backwards.any() and not result.l0_pixels.any() and not result.l0_elements.any() and not result.groups.any()


@every_core
def test_batch_of_no_images(attack):
    result = attack(batch(0))
    assert result.images.shape == (0, 3, 6, 8) and result.success.shape == result.groups.shape == result.seconds.shape == (0,)


class Sick(Scene):
    """A scene in which image 2 has a bad logit of its true class after ``after`` forwards; it wins the arg max."""

    def __init__(self, scene, after, value):
        self.scene, self.after, self.value, self.calls = scene, after, value, 0
        self.images, self.region, self.keys, self.labels = scene.images, scene.region, scene.keys, scene.labels

    def logits(self, x, rows):
        logits, here = self.scene.logits(x, rows), rows == 2
        self.calls += int(here.any())
        bad = here[:, None] & (torch.arange(logits.shape[1]) == self.labels[2])
        return logits.masked_fill(bad, self.value) if self.calls > self.after else logits


@every_core
@pytest.mark.parametrize('after, value', [(0, torch.nan), (1, torch.nan), (2, torch.inf)])
@pytest.mark.filterwarnings('ignore:.*not finite:RuntimeWarning')
def test_bad_output_fails_one_image_at_once_and_no_other(attack, after, value):
    healthy = batch(gain=1.)
    expected = attack(healthy)
    result = attack(Untargeted().objective(Sick(healthy.scene, after, value)))
    assert result.failed.tolist() == [b == 2 for b in range(7)]
    assert torch.equal(result.images[2], healthy.images[2]) and not result.success[2] and not result.success_float[2]
    assert result.l0_pixels[2] == result.l0_elements[2] == result.groups[2] == 0
    several = ASLO | ASLOAddOn | Relay | SparseAutoAttack | WIFGSM
    if getattr(attack, 'gradient', '') != 'ensemble' and not isinstance(attack, several):
        assert result.forwards[2] == after + 1, 'cores of one loop ask about it no more'
    others = torch.arange(7) != 2
    for name in ('images', 'success', 'l0_pixels', 'forwards', 'backwards'):
        assert torch.equal(getattr(result, name)[others], getattr(expected, name)[others]), name


@pytest.mark.parametrize('name', [name for name in BUDGETS if name != 'RS frame'])
def test_budget_beyond_the_image_is_noted(name):
    """One small image must not stop a run (issue 13, kind J)."""
    unit = 'pixels'
    if name in ('windows', 'tiles') or name.endswith(('rows', 'columns', 'windows')):
        unit = 'groups'
    with pytest.warns(RuntimeWarning, match=f'fewer {unit} may change .* of street.png'):
        result = replace(BUDGETS[name], k=49)(batch(1, gain=1., keys=['street.png']))
    assert result.short.tolist() == [True]


@pytest.mark.parametrize('name', ['StructuredSparsePGD', 'SparseRS', 'SparseAutoAttack'])
@pytest.mark.parametrize('kernel, message', [
    (dict(type='Patch', stride=0), 'stride = 0, expected an int >= 1'),
    (dict(type='Shape', stride=0), 'stride = 0, expected an int >= 1'),
    (dict(type='Patch', stride=1.5), 'stride = 1.5, expected an int >= 1'),
    (dict(type='Patch', height=0), 'height = 0, expected an int >= 1'),
    (dict(type='Patch', size=3), "Patch has no argument 'size'"),
    ('pach', "did you mean 'Patch'")])
def test_bad_kernels_are_refused_with_one_line(name, kernel, message):
    with pytest.raises(InputError, match=message) as error:
        ATTACKS.build(name, k=1, kernel=kernel)(batch(2, gain=1.))
    assert '\n' not in str(error.value)


def test_kernels_without_ones_are_refused(tmp_path):
    Image.new('L', (3, 3)).save(tmp_path / 'black.png')
    Image.new('RGBA', (3, 3), (255, 255, 255, 0)).save(tmp_path / 'clear.png')
    for name in ('black', 'clear'):
        for attack in ('StructuredSparsePGD', 'SparseRS', 'SparseAutoAttack'):
            with pytest.raises(InputError, match='the pattern is empty, expected at least one pixel'):
                ATTACKS.build(attack, kernel=dict(type='Picture', path=str(tmp_path / f'{name}.png')))
    with pytest.raises(InputError, match='stride = 0'):
        KERNELS.build(dict(type='Picture', path=str(tmp_path / 'black.png'), stride=0))

    class Nothing(Pattern):
        stride, pattern = 1, torch.zeros(2, 2, dtype=torch.bool)

    with pytest.raises(InputError, match='at least one pixel'):
        Nothing().__post_init__()


# Published constants and moves

@pytest.mark.parametrize('name, published', [
    ('SigmaZero', dict(steps=1000, eta0=1., sigma=1e-3, tau0=0.3, t=0.01, unit='element')),
    ('SparsePGD', dict(alpha=0.25, beta=0.25, eps_inf=1., patience=3, gamma=2e-10, early_stop=True)),
    ('StructuredSparsePGD', dict(k=1, alpha=0.25, beta=0.25, eps_inf=1., patience=3, gamma=2e-10, kernel=Row())),
    ('SparseRS', dict(k=150, steps=10000, variant='l0', loss='margin', alpha=0.3)),
    ('SparseAutoAttack', dict(steps=300, queries=10000)),
    ('GSE', dict(mu=1., sigma=0.005, k_hat=30, q=0.25, iters=200, search_steps=10, search_factor=2., averaging='published')),
    ('WIFGSM', dict(steps=200, dense_steps=10, eps=6 / 255, lam=1e3, beta=1e2, lr=1e-2, tau=0.45, a=0.1, l0='gaussian')),
    ('ASLO', dict(steps=1000, eta0=1., lam=1., sigma=1e-3 ** 0.5, kappa=0.01, rho=0.995, lam_range=(1e-3, 1e3),
                  sigma_range=(1e-3, 0.1)))])
def test_defaults_are_the_published_constants(name, published):
    attack = ATTACKS.build(name)
    assert {field: getattr(attack, field) for field in published} == published


def deaf(attack, *shape):
    """All candidates of two grey images on which nothing has an effect: each differs from the first by one move."""
    judge = Watched(objective(Flat(), torch.full((2, 3, *shape), 128 / 255)))
    attack(judge)
    return [x for _, x in judge.seen[:attack.steps]], judge.images


def longest(where):
    """The longer side of the rectangle around the True of a mask (H, W), 0 around none."""
    where = where.nonzero()
    return int((where.amax(0) - where.amin(0)).max()) + 1 if len(where) else 0


def test_moves_of_sparse_rs_shrink_as_published():
    """k = 20, alpha_init = 0.8, 100 queries: the published divisors at 100 times the query."""
    shown, grey = deaf(SparseRS(k=20, steps=100, alpha_init=0.8), 5, 6)
    first = changed_pixels(shown[0], grey)
    divisors = {2: 4, 5: 5, 10: 6, 20: 8, 40: 10, 60: 12, 80: 15, 100: 20}
    for query, x in enumerate(shown[1:], 1):
        expected = max(1, int(0.8 / divisors[min(last for last in divisors if query <= last)] * 20))
        moved, stayed = changed_pixels(x, grey) & ~first, changed_pixels(x, grey) & first
        assert moved.flatten(1).sum(1).tolist() == [expected] * 2 and stayed.flatten(1).sum(1).tolist() == [20 - expected] * 2
        assert torch.equal(x.movedim(1, 3)[stayed], shown[0].movedim(1, 3)[stayed]), 'what stays keeps its colour'
    tried = torch.stack([changed_pixels(x, grey) & ~first for x in shown[1:]]).any(0)
    left = torch.stack([first & ~changed_pixels(x, grey) for x in shown[1:]]).any(0)
    assert torch.equal(tried, ~first) and torch.equal(left, first), 'sooner or later every pixel takes part'


def test_accepted_moves_of_sparse_rs_keep_the_budget_full():
    judge = Watched(objective(Net(gain=1.), torch.full((2, 3, 5, 6), 128 / 255)))
    SparseRS(k=6, steps=60, early_stop=False)(judge)
    assert all((changed_pixels(x, judge.images[rows]).flatten(1).sum(1) == 6).all() for rows, x in judge.seen[:60])


def test_moves_of_patches_are_the_published_ones():
    """Every fourth query moves the patch, ever less far; the others change a square in it, at last a channel of a pixel."""
    attack = SparseRS(k=64, steps=100, variant='patches', alpha_init=0.4)
    shown, grey = deaf(attack, 12, 14)

    def cut(x, b):
        corner = changed_pixels(x, grey)[b].nonzero().amin(0).tolist()
        return corner, x[b, :, corner[0]:corner[0] + 8, corner[1]:corner[1] + 8]

    sides, shifts = set(), []
    for query, b in itertools.product(range(1, 100), range(2)):
        (place, patch), (before, old) = cut(shown[query], b), cut(shown[0], b)
        shift = max(abs(now - then) for now, then in zip(place, before, strict=True))
        if query % 4 == 0 and query <= 90:
            assert torch.equal(patch, old) and shift <= 0.75 * (1 - query / 100) * 14
            shifts.append(shift)
            continue
        side = patch_side(100 * query, 0.4, 8)
        assert shift == 0 and longest((patch != old).any(0)) <= side
        sides.add((side, longest((patch != old).any(0))))
        if side == 1:
            assert (patch != old).sum() == 1 if query > 60 else (patch != old).any()
    assert (2, 2) in sides and (1, 1) in sides and max(shifts) > 3


def test_moves_of_frames_are_the_published_ones():
    """Squares on the border, then single pixels, at last single channels."""
    shown, grey = deaf(SparseRS(k=2, steps=40, variant='frames', alpha_init=0.5), 12, 14)
    border, sizes = torch.ones(12, 14, dtype=torch.bool), set()
    border[2:-2, 2:-2] = False
    for query, x in enumerate(shown[1:], 1):
        side = frame_side(250 * query, 0.5, 2)
        for one, before in zip(x, shown[0], strict=True):
            assert torch.equal((one != grey[0]).any(0), border) and longest((one != before).any(0)) <= side
            sizes.add((side, longest((one != before).any(0))))
            if side == 1:
                assert (one != before).sum() == 1 if query > 30 else (one != before).any()
    assert (3, 3) in sizes and (1, 1) in sizes
