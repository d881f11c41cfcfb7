"""Where changed pixels lie; curves with their intervals."""
import numpy as np

from sparse_dense_attacks.evaluation import success_at
from sparse_dense_attacks.evaluation.curves import band_of
from sparse_dense_attacks.evaluation.places import CELLS, Places, heat_picture
from sparse_dense_attacks.evaluation.thumbnails import Allowance, base_uri, label_uri, overlay_uri


def test_everything_changed_is_even():
    places = Places()
    places.add(np.ones((37, 53), bool), [[15, 15, 30, 25]])
    assert np.allclose(places.on_image[places.on_image > 0], 1) and np.allclose(places.on_objects, 1)
    assert places.inside == 1


def test_one_cell_has_it_all():
    changed = np.zeros((CELLS * 2, CELLS * 3), bool)
    changed[0:2, 3:6] = True  # row 0, column 1 of the cells
    places = Places()
    places.add(changed)
    expected = np.zeros((CELLS, CELLS))
    expected[0, 1] = CELLS ** 2
    assert np.allclose(places.on_image, expected)


def test_relative_to_an_object_by_brute_force():
    """Boxes half outside the image, counted pixel by pixel."""
    rng = np.random.default_rng(0)
    changed, boxes = rng.random((40, 50)) < 0.2, [[5.0, 6.0, 25.0, 30.0], [40.0, 30.0, 60.0, 50.0], [3, 3, 3.2, 9]]
    places = Places()
    places.add(changed, boxes)
    found, even = np.zeros((2, CELLS, CELLS))
    for x1, y1, x2, y2 in boxes[:2]:  # the third is no object
        for y in range(40):
            for x in range(50):
                row = (y + 0.5 - (y1 - (y2 - y1) / 2)) / (2 * (y2 - y1)) * CELLS
                column = (x + 0.5 - (x1 - (x2 - x1) / 2)) / (2 * (x2 - x1)) * CELLS
                if 0 <= row < CELLS and 0 <= column < CELLS:
                    found[int(row), int(column)] += changed[y, x]
                    even[int(row), int(column)] += changed.mean()
    assert places.boxes == 2
    seen = even > 0
    assert np.allclose(places.on_objects[seen], (found / np.where(seen, even, 1))[seen])
    assert np.isnan(places.on_objects[~seen]).all() and (heat_picture(places.on_objects)[~seen][:, 3] == 0).all()


def test_padding_and_unchanged_images_do_not_count():
    padded, alone = Places(), Places()
    changed = np.random.default_rng(1).random((32, 32)) < 0.3
    whole = np.zeros((48, 64), bool)
    whole[:32, :32] = changed
    padded.add(whole, content=(32, 32))
    padded.add(np.zeros((9, 9), bool))
    alone.add(changed)
    assert padded.images == 1 and np.array_equal(padded.on_image, alone.on_image) and np.isnan(padded.inside)


def test_a_band_holds_its_curve_and_is_no_wider_than_a_bootstrap_of_each_point():
    from sparse_dense_attacks.evaluation import mean_interval
    rng = np.random.default_rng(2)
    sizes, success = rng.integers(1, 9, 40), rng.random(40) < 0.8
    budgets, low, high = band_of(sizes, success, resamples=4000)
    assert budgets.tolist() == sorted(set(sizes[success].tolist()))
    share = success_at(budgets, sizes, success)
    assert (low <= share).all() and (share <= high).all()
    for budget, ends in zip(budgets, np.stack([low, high], 1), strict=True):
        one = mean_interval((sizes <= budget) & success, resamples=4000)
        assert np.allclose(ends, [one.low, one.high], atol=0.03)


def test_pictures_grow_small_until_they_fit():
    image = np.random.default_rng(3).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    sides = [base_uri(image, most)[1] for most in (10 ** 6, 20_000, 3_000, 10)]
    assert sides[0] == 300 and sides == sorted(sides, reverse=True) and sides[-1] == 0
    changed = np.zeros((200, 300, 4), np.uint8)
    changed[::7, ::7] = 255
    for most in (10 ** 6, 1500, 10):
        assert len(overlay_uri(changed, most)[0]) <= most
    assert label_uri(np.full((4, 4), 255, np.uint8)).startswith('data:image/png')


def test_what_one_image_leaves_is_for_the_others():
    allowance = Allowance(1000, 4)
    assert allowance.share() == 250
    allowance.spend(10)
    assert allowance.share() == 330 and Allowance(10, 0).share() == 10
