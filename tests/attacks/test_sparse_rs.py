"""Sparse-RS: schedules, budgets, queries and the search itself."""
import pytest
import torch

from sparse_dense_attacks import InputError, UntargetedPixels, attack
from sparse_dense_attacks.attacks.sparse_rs import SparseRS
from sparse_dense_attacks.attacks.sparse_rs.paint import another, flipped
from sparse_dense_attacks.attacks.sparse_rs.schedule import L0_STEPS, PATCH_STEPS, frame_side, patch_side, schedule
from sparse_dense_attacks.groups import Column, Patch, Row
from sparse_dense_attacks.victims import TorchSegmenter
from tests.helpers import Linear, Net, objective, pictures

VARIANTS = [dict(k=3), dict(k=5, alpha_init=0.8, loss='ce'), dict(k=0.1), dict(k=9, variant='patches'),
            dict(k=1, variant='frames'), dict(k=2, variant='frames', loss='ce'), dict(k=2, kernel='row'), dict(k=2,
            kernel=dict(type='Patch'))]
every_variant = pytest.mark.parametrize('options', VARIANTS, ids=lambda o: '-'.join(map(str, o.values())))


def batch(b=7, shape=(3, 6, 8), gain=0.3, **options):
    return objective(Net(shape[0], gain=gain), pictures(b, *shape, seed=3), **options)


@pytest.mark.parametrize('table, expected', [
    (L0_STEPS, {0: 1, 1: 2, 50: 2, 51: 4, 200: 4, 201: 5, 500: 5, 501: 6, 1000: 6, 1001: 8, 2000: 8, 2001: 10, 4000: 10, 4001: 12,
                6000: 12, 6001: 15, 8000: 15, 8001: 20, 9999: 20}),
    (PATCH_STEPS, {0: 1, 10: 1, 11: 2, 50: 2, 51: 4, 200: 4, 201: 8, 500: 8, 501: 16, 1001: 32, 2001: 64, 4001: 128, 6001: 256,
                   8000: 256, 8001: 512})])
def test_schedules_are_the_published_tables(table, expected):
    assert {it: schedule(table, it) for it in expected} == expected


def test_sides_are_the_published_ones():
    assert [patch_side(it, 0.4, 20) for it in (0, 11, 51, 201, 501, 9000)] == [12, 8, 6, 4, 3, 1]
    assert [frame_side(it, 0.5, 3) for it in (0, 1000, 4999, 5000, 9999)] == [9, 6, 3, 1, 1]


@every_variant
@pytest.mark.parametrize('early_stop', [True, False])
def test_queries_are_counted_and_images_stop_at_success(options, early_stop):
    judge, seen = batch(), []
    judge.scene.model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    result = SparseRS(steps=40, early_stop=early_stop, **options)(judge)
    assert not result.backwards.any() and sum(seen) == result.queries.sum() - 7  # the clean images were shown before
    assert (result.forwards[~result.success] == 41).all()
    assert (result.forwards == 41).all() if not early_stop else (result.forwards[result.success] <= 41).all()


@every_variant
def test_budget_region_and_corners_are_kept(options):
    region = torch.ones(7, 1, 6, 8, dtype=torch.bool)
    region[1, :, 5:], region[2, ..., 7:] = False, False
    region[3] = torch.rand(6, 8, generator=torch.Generator().manual_seed(0)) < 0.95
    judge = batch(gain=1., region=region)
    result = SparseRS(steps=60, early_stop=False, **options)(judge)
    changed = result.images != judge.images
    assert not (changed & ~region).any() and result.l0_pixels.any()
    assert ((result.images == 0) | (result.images == 1) | ~changed).all()
    room, k = region.flatten(1).sum(1), options['k']
    if 'kernel' in options:
        assert result.groups.max() <= k and result.l0_pixels.max() > 3
    elif options.get('variant') != 'frames':
        assert (result.l0_pixels <= (room * k if k < 1 else k)).all()
    if options.get('variant') == 'patches':
        for one in changed.any(1):
            where = one.nonzero()
            assert len(where) == 0 or ((where.amax(0) - where.amin(0)) < 3).all()
    if options.get('variant') == 'frames':
        extent = torch.tensor([[6, 8], [5, 8], [6, 7]])
        for one, (h, w) in zip(changed.any(1)[:3], extent.tolist(), strict=True):
            assert not one[k:h - k, k:w - k].any()


@pytest.mark.parametrize('shape', [(1, 6, 8), (3, 1, 6), (4, 6, 1), (2, 1, 1)])
@pytest.mark.parametrize('variant', ['l0', 'patches', 'frames'])
def test_odd_shapes(variant, shape):
    result = SparseRS(k=1, steps=15, variant=variant)(batch(3, shape))
    assert result.images.shape == (3, *shape)


@every_variant
def test_result_does_not_depend_on_the_batch(options):
    judge, attack = batch(), SparseRS(steps=40, **options)
    together = attack(judge)
    for b in (0, 3, 6):
        alone = attack(objective(judge.scene.model, judge.images[b:b + 1], judge.scene.labels[b:b + 1], keys=[b]))
        assert torch.equal(alone.images[0], together.images[b]) and alone.forwards[0] == together.forwards[b]


def test_images_do_not_share_positions():
    judge = objective(Net(), pictures(1, 3, 6, 8).expand(5, -1, -1, -1).contiguous())
    changed = (SparseRS(k=4, steps=1, early_stop=False)(judge).images != judge.images).any(1).flatten(1)
    assert len({tuple(one.tolist()) for one in changed if one.any()}) > 1


@pytest.mark.parametrize('loss', ['margin', 'ce'])
@pytest.mark.parametrize('k, kernel', [(2, 'pixel'), (1, 'row'), (1, dict(type='Patch', height=2, width=2))])
def test_optimum_of_a_linear_model_is_found_or_nearly(loss, k, kernel):
    model, x = Linear(torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(0)), 0.), pictures(3, 1, 5, 6)
    kernel = SparseRS(kernel=kernel).kernel
    grid = kernel.grid(5, 6)
    masks = kernel.expand(torch.eye(grid[0] * grid[1]).view(-1, 1, *grid), (5, 6)).flatten(1).bool()
    best = (model.pixel_gains(x)[:, None] * masks).sum(2).topk(k).values.sum(1)
    model.bias -= 1 + model(x)[:, 1].max() + best.max()  # out of reach, so that the search goes on
    result = SparseRS(k=k, steps=1200, loss=loss, kernel=kernel)(objective(model, x))
    gain = (model(result.images) - model(x))[:, 1].double()
    if grid == (5, 6):
        torch.testing.assert_close(gain, best, rtol=1e-4, atol=1e-4)
    else:  # a new group starts in one colour: at least the best such one, and painting improves on that
        plain = [(model.weight * (colour - x)).flatten(1)[:, None] * masks for colour in (0, 1)]
        plain = torch.stack(plain).sum(3).amax((0, 2))
        assert (gain <= best + 1e-4).all() and (gain >= plain - 1e-4).all() and (gain > plain + 0.01).any()


@pytest.mark.parametrize('variant, k', [('patches', 4), ('frames', 1)])
def test_patches_and_frames_approach_the_optimum_of_a_linear_model(variant, k):
    model, x = Linear(torch.randn(1, 6, 7, generator=torch.Generator().manual_seed(0)), 0.), pictures(3, 1, 6, 7)
    gains = model.pixel_gains(x).view(3, 1, 6, 7)
    border = torch.ones(6, 7)
    border[1:-1, 1:-1] = 0
    best = (gains * border).flatten(1).sum(1) if variant == 'frames' else Patch(2, 2).correlate(gains).flatten(1).amax(1) * 4
    model.bias -= 1 + model(x)[:, 1].max() + best.max()
    result = SparseRS(k=k, steps=1200, variant=variant)(objective(model, x))
    gain = (model(result.images) - model(x))[:, 1].double()
    assert (gain <= best + 1e-4).all() and (gain >= best * (0.95 if variant == 'frames' else 0.6)).all(), gain / best


def test_failed_images_keep_their_best_candidate():
    model, x = Linear(torch.ones(1, 4, 4), -100.), pictures(2, 1, 4, 4)
    result = SparseRS(k=3, steps=200)(objective(model, x))
    assert not result.success.any() and (model(result.images)[:, 1] > model(x)[:, 1] + 1).all()


@pytest.mark.parametrize('loss', ['margin', 'ce'])
def test_without_early_stop_it_goes_on_where_the_margin_is_flat(loss):
    """More and more pixels of a segmenter are wrong although one would do."""
    model = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1., 1, 1], [0, 0, 0]])[..., None, None])
        model.bias.copy_(torch.tensor([0., 1.5]))
    images, labels, goal = torch.full((2, 3, 6, 8), 0.3), torch.ones(2, 6, 8, dtype=torch.int64), UntargetedPixels(theta=0.02)
    few, many = (attack(TorchSegmenter(model), images, labels, SparseRS(k=16, steps=steps, loss=loss, early_stop=False),
                        goal=goal) for steps in (4, 300))
    assert few.success.all() and (few.share < 0.25).all() and (many.share > 0.3).all()


def test_an_image_that_was_wrong_is_never_made_less_wrong():
    images = torch.ones(20, 3, 8, 8)
    result = SparseRS(k=5, steps=3, loss='ce', early_stop=False)(
        objective(Linear(torch.ones(3, 8, 8), -90.), images, torch.zeros(20, dtype=torch.int64)))
    assert torch.equal(result.images, images)


def test_a_share_of_an_oblong_image_is_a_square_that_fits():
    judge = objective(Linear(torch.ones(1, 5, 9), -46.), torch.zeros(1, 1, 5, 9))
    assert SparseRS(k=0.99, steps=3, variant='patches')(judge).l0_pixels.item() <= 25


def test_alpha_may_exceed_one():
    assert [patch_side(it, 4., 3) for it in (0, 10, 100, 10000)] == [3, 3, 3, 1]
    SparseRS(k=9, steps=100, variant='patches', alpha_init=4.)(batch())


@pytest.mark.parametrize('kernel', [Row(), Column()])
def test_colours_of_groups_are_those_within_the_region(kernel):
    """A white row is white although the padding beside it is black, so it is painted in another colour."""
    judge = objective(Linear(torch.ones(3, 9, 11), -1e3), torch.zeros(1, 3, 9, 11))
    judge.images[..., :5, :4] = 1
    judge.region = (judge.images > 0).any(1, keepdim=True)
    shown = []

    class Watched(type(judge)):
        def __call__(self, x, rows):
            shown.append(x)
            return super().__call__(x, rows)

    judge.__class__ = Watched
    SparseRS(k=1, steps=60, kernel=kernel, early_stop=False)(judge, eight_bit=False)
    assert all((x != judge.images).any() for x in shown[1:60:2]), 'every other query paints a group anew'


@pytest.mark.parametrize('loss', ['margin', 'ce'])
def test_spent_budget_does_not_change_the_candidate(loss):
    judge = batch(gain=1.)
    attack = SparseRS(k=2, steps=30, loss=loss, early_stop=False)
    result = attack(judge, max_forwards=10)
    assert result.forwards.tolist() == [9] * 7 and result.queries.max() == 10
    clean, final = judge.clean, judge(result.images, torch.arange(7))
    assert ((final.margin <= clean.margin) if loss == 'margin' else (final.loss >= clean.loss)).all()


def test_recoloured_pixels_differ():
    u = torch.rand(50, 3, 4, generator=torch.Generator().manual_seed(0))
    old = torch.rand(50, 3, 4, generator=torch.Generator().manual_seed(1)).round()
    assert (another(old, u) != old).any(1).all() and ((flipped(old, u) != old).sum(1) == 1).all()


@pytest.mark.parametrize('options, message', [
    (dict(variant='patch'), "did you mean 'patches'"), (dict(loss='cw'), "loss = 'cw', expected one of margin, ce"),
    (dict(alpha_init=0), 'alpha_init = 0'), (dict(k=0.1, variant='frames'), 'width of the frame'), (dict(variant='patches',
    kernel=Row()), 'takes no kernel')])
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SparseRS(**options)


@pytest.mark.parametrize('variant, k', [('patches', 9), ('frames', 2)])
def test_square_or_frame_larger_than_the_image_is_as_large_as_fits(variant, k):
    result = SparseRS(k=k, variant=variant, steps=5)(batch(1, (3, 2, 9), gain=1.))
    assert result.short.tolist() == [True]
    assert result.l0_pixels.item() <= (4 if variant == 'patches' else 18)
    assert not SparseRS(k=1, variant=variant, steps=5)(batch(1, (3, 2, 9), gain=1.)).short
