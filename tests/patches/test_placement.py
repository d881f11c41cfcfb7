"""Places worked out by hand, and pixels painted by hand."""
import pytest
import torch

from sparse_dense_attacks.errors import InputError
from sparse_dense_attacks.patches import (
    BesideObjects,
    Fixed,
    Frame,
    Looks,
    OnObjects,
    Pixels,
    Places,
    Random,
    paint,
    room_of,
)
from sparse_dense_attacks.testing import pictures

ROOM = torch.tensor([[0., 0., 10., 6.], [2., 1., 8., 7.]])  # 10 x 6, and 6 x 6 at (2, 1)
DRAWS = torch.zeros(2, 2)
NAN = float('nan')


def corners(places):
    """(B, P, 4) y1 x1 y2 x2."""
    return torch.cat([places.centre - places.size / 2, places.centre + places.size / 2], 2)


def test_fixed_places_are_shares_of_the_free_way():
    low = corners(Fixed(position=(0, 1)).places(ROOM, (2, 4), None, DRAWS))
    assert low[:, 0].tolist() == [[0, 6, 2, 10], [1, 4, 3, 8]]
    low = corners(Fixed(size=0.5, position=(1, 0)).places(ROOM, (7, 7), None, DRAWS))
    assert low[:, 0].tolist() == [[3, 0, 6, 3], [4, 2, 7, 5]]  # half of the shorter side, 6
    low = corners(Fixed(size=4).places(ROOM, (2, 8), None, DRAWS))  # the area of a square of 4 x 4: 2 x 8
    assert low[0, 0].tolist() == [2, 1, 4, 9]


def test_what_does_not_fit_has_no_place_and_is_counted():
    found = Fixed(size=4).places(ROOM, (2, 8), None, DRAWS)
    assert found.valid.tolist() == [[True], [False]] and found.left_alone.tolist() == [0, 1]
    found = Random(size=7).places(torch.zeros(1, 4), (7, 7), None, DRAWS[:1])
    assert not found.valid.any() and found.left_alone.tolist() == [1]


def test_random_places_reach_from_end_to_end_and_no_further():
    for draw, expected in ((0., [0, 0, 2, 2]), (0.999, [4, 8, 6, 10])):
        found = Random(size=2).places(ROOM[:1], (2, 2), None, torch.full((1, 2), draw))
        assert corners(found)[0, 0].tolist() == expected


BOXES = torch.tensor([[[10., 20., 40., 60.], [0., 0., 6., 100.]], [[NAN] * 4, [50., 50., 90., 80.]]])
WIDE = torch.tensor([[0., 0., 100., 100.]]).expand(2, 4)


def test_patches_on_objects():
    found = OnObjects().places(WIDE, (8, 8), BOXES, DRAWS)
    assert found.valid.tolist() == [[True, False], [False, True]]  # the second is 6 wide, the third none
    assert found.left_alone.tolist() == [1, 0]
    assert found.centre[0, 0].tolist() == [36, 25]  # a tenth of 40 above the middle
    assert found.size[0, 0].tolist() == pytest.approx([10, 10])  # 0.2 x the diagonal of 30 x 40
    found = OnObjects(scale=0.5, measure='area', raised=0).places(WIDE, (8, 2), BOXES, DRAWS)
    side = 0.5 * 1200 ** 0.5
    assert found.size[0, 0].tolist() == pytest.approx([2 * side, side / 2])
    assert found.centre[1, 1].tolist() == [65, 70]


@pytest.mark.parametrize(('side', 'centre'), [('right', (40, 47.5)), ('left', (40, 2.5)), ('above', (12.5, 25)),
                                              ('below', (67.5, 25))])
def test_patches_beside_objects(side, centre):
    found = BesideObjects(side=side, gap=0.05).places(WIDE, (8, 8), BOXES[:, :1], DRAWS)
    assert found.centre[0, 0].tolist() == pytest.approx(centre)  # half a box, half a patch of 10, and 2.5 between


def test_a_patch_goes_to_the_other_side_where_there_is_no_room():
    box = torch.tensor([[[80., 20., 98., 60.]]])
    found = BesideObjects(gap=0).places(WIDE[:1], (8, 8), box, DRAWS[:1])
    assert found.valid.all() and found.centre[0, 0, 1] < 80
    box[0, 0, 0] = 0
    assert not BesideObjects(gap=0).places(WIDE[:1], (8, 8), box, DRAWS[:1]).valid.any()


def shown(places, pattern, mask=None, size=(6, 10), looks=None):
    images = pictures(len(places.valid), 3, *size, seed=5)
    region = torch.ones_like(images[:, :1], dtype=torch.bool)
    mask = torch.ones(pattern.shape[1:], dtype=torch.bool) if mask is None else mask
    looks = looks or Looks.plain(*places.valid.shape, images.device)
    found, painted = paint(images, region, pattern, mask, places, looks)
    return images, found, painted


def at(*boxes, size=None):
    """Places of one image from y1 x1 y2 x2."""
    boxes = torch.tensor([boxes], dtype=torch.float)
    return Places((boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2],
                  torch.ones(1, boxes.shape[1], dtype=torch.bool), torch.zeros(1, dtype=torch.int64))


def test_a_patch_of_its_own_size_is_copied_pixel_for_pixel():
    pattern = pictures(1, 3, 3, 4)[0]
    images, found, painted = shown(at((2, 5, 5, 9)), pattern)
    expected = images.clone()
    expected[0, :, 2:5, 5:9] = pattern
    assert torch.allclose(found, expected, atol=1e-5) and painted.sum() == 12
    assert torch.equal((found * 255).round(), (expected * 255).round())


def test_only_pixels_of_the_mask_the_image_and_the_region_are_painted():
    pattern, mask = torch.ones(3, 2, 2), torch.tensor([[True, False], [True, True]])
    images, found, painted = shown(at((-1, 9, 1, 11)), pattern, mask)  # only its lower left pixel is in the image
    assert painted.nonzero().tolist() == [[0, 0, 0, 9]]
    assert torch.equal(found[..., 1:, :], images[..., 1:, :]) and torch.equal(found[..., :9], images[..., :9])
    region = torch.zeros_like(painted)
    _, none = paint(images, region, pattern, mask, at((1, 1, 3, 3)), Looks.plain(1, 1, images.device))
    assert not none.any()


def test_where_patches_overlap_the_later_one_is_seen():
    pattern = torch.stack([torch.full((2, 2), value) for value in (0., 0.5, 1.)])
    images, found, painted = shown(at((0, 0, 2, 2), (1, 1, 3, 3)), pattern)
    assert painted.sum() == 7 and torch.allclose(found[0, :, 1, 1], torch.tensor([0., 0.5, 1.]))


def test_a_quarter_turn_is_counter_clockwise():
    pattern = pictures(1, 3, 4, 4)[0]
    looks = Looks.plain(1, 1, torch.device('cpu'), rotation=90)
    _, found, painted = shown(at((1, 3, 5, 7)), pattern, looks=looks)
    assert torch.allclose(found[0, :, 1:5, 3:7], pattern.rot90(1, (1, 2)), atol=1e-5) and painted.sum() == 16


def test_a_patch_at_half_its_size_is_the_mean_of_its_pixels():
    pattern = pictures(1, 3, 8, 8)[0]
    _, found, _ = shown(at((1, 2, 5, 6)), pattern)
    mean = pattern.unflatten(2, (4, 2)).unflatten(1, (4, 2)).mean((2, 4))
    # the averaged pattern is brought back to its size and read between its pixels: exact only where it is flat
    assert (found[0, :, 1:5, 2:6] - mean).abs().mean() < 0.06
    flat = torch.full((3, 8, 8), 0.25)
    assert torch.allclose(shown(at((1, 2, 5, 6)), flat)[1][0, :, 1:5, 2:6], flat[:, :4, :4])


def test_a_frame_is_as_wide_as_it_says_whatever_the_image():
    room = torch.tensor([[0., 0., 10., 6.]])
    places = Frame(width=1).places(room, (12, 12), None, DRAWS[:1])
    _, _, painted = shown(places, torch.zeros(3, 12, 12))
    expected = torch.ones(6, 10, dtype=torch.bool)
    expected[1:-1, 1:-1] = False
    assert torch.equal(painted[0, 0], expected)
    assert Frame(width=0.34).places(room, (3, 3), None, DRAWS[:1]).border.tolist() == [[2]]


@pytest.mark.parametrize('size', [(6, 10), (4, 5), (9, 12)])
def test_pixels_are_never_stretched(size):
    mask = torch.zeros(6, 10, dtype=torch.bool)
    mask[0, 0] = mask[2, 3] = mask[5, 9] = True
    room = torch.tensor([[0., 0., size[1], size[0]]])
    places = Pixels().places(room, (6, 10), None, DRAWS[:1])
    _, _, painted = shown(places, torch.zeros(3, 6, 10), mask, size)
    inside = [[0, 0], [2, 3], [5, 9]] if size[0] > 4 else [[0, 0], [2, 3]]
    assert painted[0, 0].nonzero().tolist() == inside


def test_the_room_is_what_may_change():
    region = torch.zeros(2, 1, 5, 6, dtype=torch.bool)
    region[0, 0, 1:4, 2:6] = True
    assert room_of(region).tolist() == [[2, 1, 6, 4], [0, 0, 0, 0]]


def test_an_image_has_the_same_patch_alone_as_in_a_batch():
    pattern, images = pictures(1, 3, 9, 7)[0], pictures(2, 3, 40, 50)
    region = torch.ones_like(images[:, :1], dtype=torch.bool)
    boxes = torch.tensor([[[5., 5., 25., 33.], [NAN] * 4], [[8., 3., 46., 39.], [0., 0., 9., 9.]]])
    places = OnObjects(scale=0.5).places(room_of(region), (9, 7), boxes, DRAWS)
    looks = Looks.plain(2, 2, images.device, rotation=17)
    together, _ = paint(images, region, pattern, torch.ones(9, 7) > 0, places, looks)
    first, _ = paint(images[:1], region[:1], pattern, torch.ones(9, 7) > 0, places[torch.tensor([0])],
                     Looks.plain(1, 2, images.device, rotation=17))
    assert torch.equal(first[0], together[0]) and not torch.equal(first[0], images[0])


@pytest.mark.parametrize('nonsense', [
    lambda: Fixed(size=0), lambda: Fixed(size=1.5), lambda: Fixed(position=(0, 2)), lambda: Random(size='big'),
    lambda: OnObjects(classes='person'), lambda: OnObjects(scale=0), lambda: OnObjects(measure='side'),
    lambda: BesideObjects(side='behind'), lambda: BesideObjects(gap=-1), lambda: Frame(width=0)])
def test_nonsense_is_refused(nonsense):
    with pytest.raises(InputError):
        nonsense()
