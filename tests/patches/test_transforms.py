"""Gradients by finite differences through every transformation, its own draws, and penalties by hand."""
import pytest
import torch

from sparse_dense_attacks.checks import from_fields
from sparse_dense_attacks.errors import InputError
from sparse_dense_attacks.patches import Fixed, Looks, OnObjects, Transforms, paint, room_of
from sparse_dense_attacks.patches.penalties import non_printability, total_variation
from sparse_dense_attacks.patches.transforms import median_pool

EVERY = dict(rotation=20, scale=(0.7, 1.3), perspective=0.3, brightness=0.1, contrast=(0.8, 1.2), noise=0.05, median=3)


@pytest.mark.parametrize('which', [*EVERY, 'all', 'none'])
def test_gradients_are_those_of_finite_differences(which):
    chosen = EVERY if which == 'all' else {} if which == 'none' else {which: EVERY[which]}
    transforms = Transforms(**chosen)
    generator = torch.Generator().manual_seed(1)
    pattern = 0.3 + 0.4 * torch.rand(3, 5, 4, dtype=torch.float64, generator=generator)  # far from 0 and 1
    images = torch.rand(2, 3, 14, 16, dtype=torch.float64, generator=generator)
    region = torch.ones_like(images[:, :1], dtype=torch.bool)
    boxes = torch.tensor([[[1., 2., 9., 10.], [4., 3., 15., 13.]]] * 2)
    places = OnObjects(scale=0.4, smallest=1).places(room_of(region), (5, 4), boxes, torch.zeros(2, 2))
    mask = torch.ones(5, 4) > 0

    def shown(pattern):
        looks = transforms.draw(0, ['a', 'b'], 3, 2, pattern.float())
        return paint(images, region, median_pool(pattern, transforms.median), mask, places, looks)[0]

    assert torch.autograd.gradcheck(shown, pattern.requires_grad_(), eps=1e-5, atol=1e-6)
    assert torch.autograd.grad(shown(pattern).sum(), pattern)[0].abs().sum() > 1


def draws(transforms, keys=('a', 'b'), step=0, patches=2, seed=0):
    return transforms.draw(seed, list(keys), step, patches, torch.zeros(3, 2, 2))


def test_draws_depend_on_seed_image_step_and_nothing_else():
    every = Transforms(**EVERY)
    first = draws(every)
    for name, value in vars(first).items():
        assert torch.equal(value[1:], getattr(draws(every, keys='b'), name)), 'no other image'
        assert torch.equal(value[:, :1], getattr(draws(every, patches=1), name)), 'no other patch'
        for other in (draws(every, step=1), draws(every, seed=1), draws(every, keys='cd')):
            assert not torch.equal(value, getattr(other, name))
        assert not torch.equal(value[0], value[1])


def test_one_switch_moves_no_other_draw():
    alone, together = draws(Transforms(rotation=20)), draws(Transforms(**EVERY))
    assert torch.equal(alone.angle, together.angle)
    plain = Looks.plain(2, 2, torch.device('cpu'))
    assert torch.equal(alone.zoom, plain.zoom) and torch.equal(alone.contrast, plain.contrast)
    assert not alone.tilt.any() and not alone.brightness.any() and alone.noise is None


def test_draws_keep_to_their_ranges_and_use_them():
    many = draws(Transforms(**EVERY), keys=map(str, range(400)))
    for value, low, high in ((many.angle * 180 / torch.pi, -20, 20), (many.zoom, 0.7, 1.3), (many.tilt, -0.3, 0.3),
                             (many.brightness, -0.1, 0.1), (many.contrast, 0.8, 1.2), (many.noise, -0.05, 0.05)):
        span = high - low
        assert low <= value.min() < low + 0.05 * span and high - 0.05 * span < value.max() <= high


def test_brightness_and_contrast_by_hand():
    pattern, images = torch.full((3, 2, 2), 0.4), torch.zeros(1, 3, 4, 4)
    region = torch.ones(1, 1, 4, 4) > 0
    places = Fixed(position=(0, 0)).places(room_of(region), (2, 2), None, torch.zeros(1, 2))
    plain = Looks.plain(1, 1, images.device, brightness=0.1)
    looks = Looks(plain.angle, plain.zoom, plain.tilt, plain.contrast * 2, plain.brightness)
    found, _ = paint(images, region, pattern, torch.ones(2, 2) > 0, places, looks)
    assert torch.allclose(found[0, :, :2, :2], torch.full((3, 2, 2), 0.9)) and not found[..., 2:].any()


def test_the_median_of_a_window():
    pattern = torch.rand(3, 9, 8, generator=torch.Generator().manual_seed(0))
    found = median_pool(pattern, 7)
    assert torch.equal(found[1, 4, 4], pattern[1, 1:8, 1:8].median())
    assert torch.equal(median_pool(pattern, 1), pattern) and median_pool(pattern[:, :2, :2], 7).shape == (3, 2, 2)


def test_penalties_by_hand():
    pattern = torch.tensor([[[0., 1., 1.], [0.5, 1., 0.]]])
    whole = torch.ones(2, 3) > 0
    assert total_variation(pattern, whole).item() == pytest.approx((0.5 + 0 + 1 + 1 + 0 + 0.5 + 1) / 7)
    part = torch.tensor([[True, True, False], [False, False, True]])
    assert total_variation(pattern, part) == 1
    assert total_variation(pattern, torch.zeros(2, 3) > 0) == 0
    colours = torch.tensor([[0., 0, 0], [1, 1, 1]])
    grey = torch.full((3, 2, 3), 0.25)
    assert non_printability(grey, whole, colours).item() == pytest.approx(0.25 * 3 ** 0.5)
    assert non_printability(torch.ones(3, 2, 3), whole, colours).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize('penalty', [total_variation, non_printability])
def test_gradients_of_penalties(penalty):
    pattern = torch.rand(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(1)) > 0.3
    assert torch.autograd.gradcheck(lambda p: penalty(p, mask), pattern)


@pytest.mark.parametrize('nonsense', [dict(rotation=-1), dict(scale=(1.2, 0.8)), dict(perspective=0.5), dict(noise=2),
                                      dict(median=4), dict(median=0), dict(turn=1)])
def test_nonsense_is_refused(nonsense):
    with pytest.raises(InputError) as error:
        from_fields(Transforms, nonsense, 'transforms')
    assert next(iter(nonsense)) in str(error.value)
