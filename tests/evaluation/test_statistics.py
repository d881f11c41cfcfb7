"""Intervals hold what they promise: 95 % of them contain the truth."""
import math

import numpy as np
import pytest

from sparse_dense_attacks import InputError
from sparse_dense_attacks.evaluation import (
    Interval,
    bootstrap,
    difference_interval,
    mean_interval,
)

SIMULATIONS = 1000


@pytest.mark.parametrize('images', [12, 32])
@pytest.mark.parametrize('shape', ['normal', 'share'])
def test_coverage_of_the_mean(images, shape):
    rng = np.random.default_rng(images)
    draw, truth = dict(normal=(lambda size: rng.normal(3, 2, size), 3),
                       share=(lambda size: rng.beta(2, 3, size), 2 / 5))[shape]
    held = 0
    for number in range(SIMULATIONS):
        found = mean_interval(draw(images), 500, seed=number)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / SIMULATIONS <= 0.97


def test_coverage_of_paired_differences():
    rng = np.random.default_rng(1)
    held, wide = 0, []
    for number in range(SIMULATIONS):
        image = rng.normal(0, 5, 24)  # what both have in common cancels out
        found = difference_interval(image + rng.normal(0.5, 1, 24), image, 500, seed=number)
        held += found.low <= 0.5 <= found.high
        wide.append(found.high - found.low)
    assert 0.93 <= held / SIMULATIONS <= 0.97 and np.mean(wide) < 1


def test_width_is_that_of_student():
    values = np.random.default_rng(2).normal(size=16)
    found = mean_interval(values, 20000)
    half = 2.131 * values.std(ddof=1) / math.sqrt(16)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_any_statistic_of_the_images():
    """A ratio of sums, as a mean IoU is."""
    rng = np.random.default_rng(3)
    shared, union = rng.integers(1, 5, 40), rng.integers(5, 9, 40)
    found = bootstrap(lambda counts: (counts @ shared) / (counts @ union), 40)
    assert found.value == pytest.approx(shared.sum() / union.sum())
    assert found.low < found.value < found.high


def test_same_seed_same_interval():
    values = np.arange(9.0)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values) != mean_interval(values, seed=1)


def test_few_images():
    one = mean_interval([0.5])
    assert one.value == 0.5 and math.isnan(one.low) and math.isnan(one.high)
    assert mean_interval([1, 1, 1]) == Interval(1, 1, 1, 3)
    for bad in (lambda: mean_interval([]), lambda: mean_interval([1, 2], 0)):
        with pytest.raises(InputError, match='expected at least 1'):
            bad()


def test_sets_without_a_value_are_left_out():
    known = np.array([0, 0, 0, 1])  # one image has an object
    found = bootstrap(lambda counts: np.where(counts @ known > 0, 0.5, np.nan), 4)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    none = bootstrap(lambda counts: np.full(len(counts), np.nan), 4)
    assert math.isnan(none.value) and math.isnan(none.low)


def test_pairs_need_the_same_images():
    with pytest.raises(InputError, match='same images'):
        difference_interval([1, 2], [1])
