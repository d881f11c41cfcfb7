"""Curves, the worst case over attacks and local optimality, by hand and by brute force."""
from pathlib import Path

import numpy as np
import pytest

from sparse_dense_attacks import InputError
from sparse_dense_attacks.evaluation import (
    accuracy_at,
    local_optimality,
    mean_interval,
    metric_at,
    success_at,
    success_band,
    worst_case,
)
from sparse_dense_attacks.results import Record, Run


def record(key, pixels=0, success=True, right=True, **more):
    return Record(str(key), success, success, right, l0_pixels=pixels, file=f'images/{key}.png', **more)


FIRST = [record('a', 3), record('b', 9), record('c', 20, False), record('d', 0, right=False)]
SECOND = [record('c', 5), record('b', 12), record('a', 2, False), record('d', 0, right=False)]


def test_worst_case_takes_of_each_image_the_least():
    found = worst_case(dict(one=FIRST, two=SECOND))
    assert [(one.key, one.l0_pixels, one.success) for one in found] == [
        ('a', 3, True), ('b', 9, True), ('c', 5, True), ('d', 0, True)]


def test_worst_case_in_another_unit():
    runs = dict(few=[record('a', 1, forwards=90)], fast=[record('a', 7, forwards=4)])
    assert worst_case(runs)[0].l0_pixels == 1 and worst_case(runs, 'forwards')[0].l0_pixels == 7


def test_worst_case_is_of_the_images_that_all_have():
    assert [one.key for one in worst_case(dict(one=FIRST, two=SECOND[:2]))] == ['b', 'c']
    with pytest.raises(InputError, match='no image in common'):
        worst_case(dict(one=FIRST[:1], two=SECOND[:1]))
    with pytest.raises(InputError, match='at least one run'):
        worst_case({})


def test_runs_of_other_models_have_no_worst_case():
    with pytest.raises(InputError, match="clean image 'a' right"):
        worst_case(dict(one=FIRST, two=[record('a', 2, right=False)]))


def test_accuracy_falls_with_the_budget():
    assert accuracy_at([0, 3, 9, 99], FIRST).tolist() == [0.75, 0.5, 0.25, 0.25]
    assert accuracy_at([5], [record('a', right=False)]).tolist() == [0]
    assert np.isnan(accuracy_at([5], [])).all()
    with pytest.raises(InputError, match="unit = 'pixel', expected one of pixels"):
        accuracy_at([1], FIRST, 'pixel')


def test_without_structure_a_group_is_a_pixel():
    assert accuracy_at([1, 4], [record('a', 40, groups=2), record('b', 4)], 'groups').tolist() == [1, 0]


def test_band_holds_the_curve_and_is_that_of_the_mean():
    rng = np.random.default_rng(0)
    sizes, success = rng.integers(1, 30, 40), rng.random(40) < 0.8
    band = success_band([0, 10, 29], sizes, success)
    assert [one.value for one in band] == pytest.approx(success_at([0, 10, 29], sizes, success))
    assert str(band[1]) == str(mean_interval(success & (sizes <= 10)))
    assert band[0].high == 0 and band[1].low < band[1].value < band[1].high


def area(sizes, most, images):
    """Between clean and robust accuracy, summed over whole budgets."""
    return sum(sum(size <= budget for size in sizes) / images for budget in range(most + 1))


def test_local_optimality_is_a_ratio_of_areas():
    runs = dict(one=FIRST, two=SECOND)
    union, images = [3, 9, 5], 3  # d was wrong from the start
    found = local_optimality(runs)
    assert found['one'] == pytest.approx(area([3, 9], 9, images) / area(union, 9, images))
    assert found['two'] == pytest.approx(area([5, 12], 9, images) / area(union, 9, images))


def test_local_optimality_at_its_ends():
    none = [record('a', 5, False), record('b', 5, False)]
    best = [record('a', 5), record('b', 5)]
    assert local_optimality(dict(best=best, none=none)) == dict(best=1, none=0)
    assert np.isnan(local_optimality(dict(none=none))['none'])
    assert local_optimality(dict(alone=FIRST)) == dict(alone=1)


def run(name, spent, attacked, clean=0.9):
    return Run(Path(name), dict(identity={}), (record('a', spent), record('b', spent + 2)),
               {'clean/mIoU': clean, 'adv/mIoU': attacked})


def test_a_metric_against_several_budgets():
    assert metric_at([run('w', 50, 0.2), run('v', 10, 0.6)], 'mIoU') == [(0, 0.9), (11, 0.6), (51, 0.2)]
    with pytest.raises(InputError, match="v has no metric 'mAP'"):
        metric_at([run('v', 10, 0.6)], 'mAP')
    with pytest.raises(InputError, match='other models or images'):
        metric_at([run('v', 10, 0.6), run('w', 20, 0.5, clean=0.8)], 'mIoU')
