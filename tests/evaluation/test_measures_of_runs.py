"""Measures of many images as one number: means over successes, shares over all objects."""
import numpy as np
import pytest

from sparse_dense_attacks.evaluation import mean_interval, measure_intervals, pooled
from sparse_dense_attacks.evaluation.detections import Answer
from sparse_dense_attacks.results import Record


def answer(fates, kinds=()):
    return Answer(np.array(fates, int), np.zeros(len(fates), int), np.array(kinds, int))


def record(key, measures, success=True, right=True):
    return Record(key, success, success, right, measures=measures)


def test_means_are_over_the_successes_of_images_that_were_right():
    records = [record('a', dict(anc=2, is_50=0.5)), record('b', dict(anc=4, is_50=None)),
               record('c', dict(anc=99), success=False), record('d', dict(anc=99), right=False)]
    found = measure_intervals(records)
    assert found['anc'].value == 3 and found['is_50'].value == 0.5 and found['is_50'].images == 1
    assert str(found['anc']) == str(mean_interval([2, 4]))


def test_flags_are_no_measure_and_no_record_gives_none():
    assert measure_intervals([record('a', dict(geometry_disagrees=False))]) == {}
    assert measure_intervals([]) == {} and pooled([]).keys() >= {'found', 'duplicate'}


def counts(when, *given):
    return {f'{when}{name}': value for name, value in answer(*given).counts().items()}


def test_detections_are_pooled_over_all_images():
    first = counts('before_', [0, 0, 0], [0, 0, 0]) | counts('after_', [0, 2, 1], [0, 1, 3, 3])
    second = counts('before_', [0], [0, 2]) | counts('after_', [2], [])
    found = measure_intervals([record('a', first), record('b', second, success=False)])
    assert found['before_found'].value == 1 and found['before_duplicate'].value == 1 / 5
    assert found['after_found'].value == 1 / 4 and found['after_missing'].value == 2 / 4
    assert found['after_other_class'].value == 1 / 4 and found['after_hallucinated'].value == 2 / 4
    assert found['after_found_small'].value == 1 / 4 and 'after_found_large' not in found
    assert found['after_found'].low <= 0.25 <= found['after_found'].high


def test_images_without_objects_count_for_predictions_only():
    shares = pooled([answer([], [3, 3]).counts(), answer([0, 2], [0]).counts()])
    assert shares['found'] == 0.5 and shares['hallucinated'] == pytest.approx(2 / 3)
    assert shares['hallucinated_per_image'] == 1 and np.isnan(shares['found_large'])
