"""The label-free change by hand, and what of a change is more than its controls."""
import math

import numpy as np
import pytest

from sparse_dense_attacks import InputError
from sparse_dense_attacks.evaluation import Found, change, excess, relative_drop
from sparse_dense_attacks.evaluation.transfer import detection_change

RNG = np.random.default_rng(0)


def found(*rows):
    """Boxes from (x1, y1, x2, y2, label, score)."""
    table = np.array(rows, float).reshape(-1, 6)
    return Found(table[:, :4], table[:, 4].astype(int), table[:, 5])


BALL, CUBE = (0, 0, 10, 10, 1, 0.9), (20, 20, 40, 40, 2, 0.8)
MANY = found(*[(x, x, x + 9, x + 9, x % 3, 0.5) for x in range(0, 90, 3)])


@pytest.mark.parametrize('answer', [4, RNG.integers(0, 5, (7, 9)), found(BALL, CUBE), found(), MANY,
                                    found(BALL, BALL, BALL)])
def test_against_itself_nothing_changes(answer):
    assert change(answer, answer) == 0


@pytest.mark.parametrize(('before', 'after', 'expected'), [
    ([], [], 0),
    ([BALL], [], 1),
    ([], [BALL], 1),
    ([BALL, CUBE], [BALL], 1 / 2),
    ([BALL], [BALL, CUBE], 1 / 2),
    ([BALL], [BALL, BALL, BALL], 2 / 3),  # duplicates match nothing
    ([BALL, BALL], [BALL], 1 / 2),
    ([BALL], [(0, 0, 10, 10, 2, 0.9)], 1),  # of another class
    ([BALL], [(0, 0, 10, 5, 1, 0.3)], 0),  # half of it: an overlap of exactly 0.5; just enough score
    ([BALL], [(0, 0, 10, 4.9, 1, 0.9)], 1),
    ([BALL], [(0, 0, 10, 10, 1, 0.29)], 1),  # not reported any more
    ([(0, 0, 10, 10, 1, 0.29)], [], 0),  # never reported
])
def test_detections_by_hand(before, after, expected):
    assert change(found(*before), found(*after)) == pytest.approx(expected)
    assert change(found(*after), found(*before)) == pytest.approx(expected)


def test_as_many_as_possible_are_matched():
    """The middle box fits both of the clean ones, of which one has no other partner."""
    clean = found((0, 0, 10, 10, 0, 0.9), (3, 0, 13, 10, 0, 0.9))
    adversarial = found((3, 0, 13, 10, 0, 0.9), (-3, 0, 7, 10, 0, 0.9))
    assert change(clean, adversarial) == 0
    assert change(found(*[(0, 0, 10, 10, 0, 0.9)] * 2), found((0, 0, 10, 10, 0, 0.9))) == 0.5


def test_order_of_boxes_does_not_matter():
    order = RNG.permutation(len(MANY.scores))
    turned = Found(MANY.boxes[order], MANY.labels[order], MANY.scores[order])
    assert change(MANY, turned) == 0


def test_thresholds_are_arguments():
    half = found((0, 0, 10, 5, 1, 0.9))
    assert detection_change(found(BALL), half, iou_thr=0.51) == 1
    assert detection_change(found(BALL), half, score_thr=0.91) == 0


def test_a_constant_model_never_changes():
    blank = np.zeros((4, 4), int)
    assert [change(7, 7), change(blank, blank.copy()), change(found(), found())] == [0, 0, 0]


def test_label_maps_and_classes_by_hand():
    clean = np.array([[0, 1, 2], [3, 4, 255]])
    assert change(clean, np.array([[0, 1, 2], [3, 0, 0]])) == pytest.approx(2 / 6)
    assert [change(1, 1), change(1, 2)] == [0, 1]


def test_answers_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match='one size'):
        change(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(InputError, match='ndarray and after a int'):
        change(np.zeros((2, 3)), 1)


def test_relative_drop():
    assert relative_drop(0.8, 0.2) == pytest.approx(0.75)
    assert relative_drop(0.5, 0.6) == pytest.approx(-0.2)
    assert math.isnan(relative_drop(0, 0)) and math.isnan(relative_drop(math.nan, 1))


def test_excess_is_over_the_best_control():
    attack = [1, 1, 0, 1]
    controls = [[0, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0]]
    assert excess(attack, controls).value == pytest.approx(3 / 4 - 2 / 4)


def test_excess_of_what_equals_a_control_is_never_above_it():
    attack = RNG.random(30)
    same = excess(attack, [attack, attack - 0.5])
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_excess_lies_above_zero_where_the_attack_always_wins():
    attack = 0.5 + RNG.random(30) / 2
    result = excess(attack, RNG.random((4, 30)) / 4)
    assert 0 < result.low < result.value < result.high and result.images == 30


def test_excess_does_not_gain_from_the_choice_of_the_best_control():
    """Of controls like the attack itself the best is better than it, on the whole."""
    found = [excess(rng.random(20), rng.random((4, 20)), 200).value
             for rng in map(np.random.default_rng, range(50))]
    assert np.mean(found) < 0


def test_excess_needs_a_control_for_every_image():
    for controls in ([], [[1, 2]]):
        with pytest.raises(InputError, match='changes of K controls'):
            excess([1, 2, 3], controls)
