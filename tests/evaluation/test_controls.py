"""Controls change exactly as many pixels as the attack, and nothing but what their name says."""
from collections import Counter

import numpy as np
import pytest

from sparse_dense_attacks import InputError
from sparse_dense_attacks.evaluation import CONTROLS, control, donor_of
from sparse_dense_attacks.evaluation.controls import changed

SHAPES = [(1, 1, 3), (1, 7, 3), (9, 5, 3), (12, 17, 1), (40, 30, 3)]


def attacked(shape, count, seed=0, kind='noise'):
    """A clean image and one with ``count`` changed pixels, half of them corners."""
    rng = np.random.default_rng(seed)
    h, w, c = shape
    if kind == 'noise':
        clean = rng.integers(0, 256, shape, dtype=np.uint8)
    else:  # a page: corners nearly everywhere
        clean = np.full(shape, 255, np.uint8)
        clean[rng.random((h, w)) < 0.1] = 0
    adversarial = clean.copy()
    for place in rng.choice(h * w, count, replace=False):
        y, x = divmod(place, w)
        colour = clean[y, x]
        while (colour == clean[y, x]).all():
            colour = rng.choice([0, 255], c) if rng.random() < 0.5 else rng.integers(0, 256, c)
        adversarial[y, x] = colour
    return clean, adversarial


def colours(clean, image):
    return Counter(map(tuple, image[changed(clean, image)].tolist()))


@pytest.mark.parametrize('page', ['noise', 'page'])
@pytest.mark.parametrize('share', [0, 0.05, 0.5, 1])
@pytest.mark.parametrize('shape', SHAPES)
def test_counts_are_exactly_equal(shape, share, page):
    count = int(np.ceil(share * shape[0] * shape[1]))
    clean, adversarial = attacked(shape, count, kind=page)
    donor = attacked((11, 8, shape[2]), 20, seed=1, kind=page)
    for kind in CONTROLS:
        before = clean.copy(), adversarial.copy()
        image = control(kind, clean, adversarial, 'a.png', donor=donor)
        assert image.dtype == np.uint8 and image.shape == clean.shape
        assert changed(clean, image).sum() == count, kind
        assert (clean == before[0]).all() and (adversarial == before[1]).all()


@pytest.mark.parametrize('page', ['noise', 'page'])
@pytest.mark.parametrize('shape', SHAPES[1:])
def test_each_keeps_what_its_name_says(shape, page):
    clean, adversarial = attacked(shape, max(3, shape[0] * shape[1] // 4), kind=page)
    where = changed(clean, adversarial)
    found = {kind: control(kind, clean, adversarial, 'a.png') for kind in CONTROLS[:3]}
    assert colours(clean, found['shuffled']) == colours(clean, adversarial)
    assert colours(clean, found['recoloured']) == colours(clean, adversarial)
    assert (changed(clean, found['recoloured']) == where).all()
    assert not (changed(clean, found['shuffled']) == where).all()
    corners = found['random'][changed(clean, found['random'])]
    assert np.isin(corners, (0, 255)).all()
    assert not (found['recoloured'] == adversarial).all()


def test_a_colour_that_fits_one_place_only_finds_it():
    """White on a white page changes nothing, so that it must go where the one black pixel is."""
    clean = np.full((6, 6, 3), 255, np.uint8)
    clean[2, 3] = 0
    adversarial = clean.copy()
    adversarial[2, 3] = 255
    adversarial[0, :4] = [[255, 0, 0], [0, 0, 0], [0, 255, 0], [0, 0, 0]]
    for seed in range(40):
        for kind in ('shuffled', 'recoloured'):
            image = control(kind, clean, adversarial, 'a', seed)
            assert (image[2, 3] == 255).all()
            assert colours(clean, image) == colours(clean, adversarial)


def test_random_places_and_corners_are_uniform():
    clean = np.full((2, 4, 3), 128, np.uint8)
    clean[:, 2:] = 255
    adversarial = clean.copy()
    adversarial[0, 0] = 7
    seen = Counter()
    for seed in range(4000):
        image = control('random', clean, adversarial, 'a', seed)
        [[y, x]] = np.argwhere(changed(clean, image))
        seen[bool(x >= 2), tuple(image[y, x].tolist())] += 1
    assert len(seen) == 8 + 7, 'white pixels have seven other corners'
    grey, white = (np.array([n for (is_white, _), n in seen.items() if is_white == kind])
                   for kind in (False, True))
    assert abs(grey.sum() - 2000) < 160 and grey.min() > 180 and white.min() > 210


def test_swapped_is_the_perturbation_of_the_other_image():
    clean = np.full((6, 8, 3), 100, np.uint8)
    adversarial = clean.copy()
    adversarial[5, 5:8] = 0
    other = np.zeros((6, 8, 3), np.uint8)
    theirs = other.copy()
    theirs[[0, 1, 2], [4, 5, 6]] = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    image = control('swapped', clean, adversarial, 'a', donor=(other, theirs))
    assert (changed(clean, image) == changed(other, theirs)).all()
    assert (image[changed(clean, image)] == theirs[changed(other, theirs)]).all()


def test_swapped_from_another_size_wraps_around():
    clean, other = np.full((4, 4, 3), 100, np.uint8), np.zeros((6, 9, 3), np.uint8)
    adversarial, theirs = clean.copy(), other.copy()
    adversarial[0, :2] = 0
    theirs[5, 6] = theirs[2, 8] = 255  # -> (1, 2) and (2, 0)
    image = control('swapped', clean, adversarial, 'a', donor=(other, theirs))
    assert np.argwhere(changed(clean, image)).tolist() == [[1, 2], [2, 0]]


def test_swapped_takes_a_part_of_many_and_makes_up_for_few():
    clean, adversarial = attacked((10, 10, 3), 12)
    for count in (0, 5, 40):
        donor = attacked((10, 10, 3), count, seed=2)
        image = control('swapped', clean, adversarial, 'a', donor=donor)
        where = changed(clean, image)
        kept = (image == donor[1]).all(2) & changed(*donor) & where
        assert where.sum() == 12 and kept.sum() >= min(count, 12) - 1


def test_draws_depend_on_seed_key_and_kind_only():
    clean, adversarial = attacked((20, 20, 3), 30)
    for kind in CONTROLS:
        donor = attacked((20, 20, 3), 30, seed=3)
        same = [control(kind, clean, adversarial, 'a', 1, donor) for _ in range(2)]
        assert (same[0] == same[1]).all()
    first, other, later = (control('random', clean, adversarial, key, seed)
                           for key, seed in (('a', 1), ('b', 1), ('a', 2)))
    assert (first != other).any() and (first != later).any()


def test_donors_are_a_cycle_of_all_images_in_any_order():
    keys = [f'{n}.png' for n in range(9)]
    donors = donor_of(keys)
    assert sorted(donors.values()) == sorted(keys) and donors == donor_of(keys[::-1])
    key, seen = keys[0], []
    while key not in seen:
        seen.append(key)
        key = donors[key]
    assert len(seen) == 9
    assert donor_of(['a']) == {} and donor_of([]) == {} and donor_of(['a', 'b']) == {'a': 'b', 'b': 'a'}


def test_what_cannot_be_compared_is_refused():
    clean, adversarial = attacked((4, 4, 3), 2)
    for bad, message in ((adversarial[:3], 'not on one grid'), (adversarial / 255, 'uint8'),
                         (adversarial[..., 0], 'uint8')):
        with pytest.raises(InputError, match=message):
            control('random', clean, bad, 'a')
    with pytest.raises(InputError, match='needs another image'):
        control('swapped', clean, adversarial, 'a')
    with pytest.raises(InputError, match='channels'):
        control('swapped', clean, adversarial, 'a', donor=attacked((4, 4, 1), 2))
    with pytest.raises(InputError, match='valid are random'):
        control('rotated', clean, adversarial, 'a')
