"""Crowds, difficult and ignored objects are neither object nor background."""
import pytest
import torch

from sparse_dense_attacks import Fabricate, Mislabel, Vanish
from sparse_dense_attacks.ops.boxes import within
from sparse_dense_attacks.testing import Detections, pictures

CROWD = ((0, 0, 16, 16), 0, 1.0)
IN_IT = ((2, 2, 6, 6), 0, 0.9)  # small beside the crowd: their union says little
ELSEWHERE = ((20, 20, 28, 28), 0, 0.2)


def scene(candidates, truth=(), unjudged=(CROWD,), weight=1.0):
    return Detections(pictures(1, 3, 32, 32), [list(truth)], [list(candidates)], weight=weight,
                      unjudged=[list(unjudged)])


def brighter(task, amount):
    """The verdict on an image whose scores have risen by ``amount`` logits."""
    x = task.images.clone()
    x[0, 0, 0, 0] += amount
    return task(x, torch.tensor([0]))


def test_share_of_a_box_within_another():
    a = torch.tensor([[[2., 2, 6, 6], [14, 0, 18, 16], [20, 20, 28, 28]]])
    b = torch.tensor([[[0., 0, 16, 16]]])
    assert within(a, b, 0.5)[0, :, 0].tolist() == [True, True, False]
    assert within(a, b, 0.51)[0, :, 0].tolist() == [True, False, False]


@pytest.mark.parametrize(('unjudged', 'expected'), [((CROWD,), False), ((), True)])
def test_a_box_in_a_crowd_is_no_fabrication(unjudged, expected):
    """Rising scores in the crowd fabricate nothing; without the crowd they do."""
    low = (IN_IT[0], 0, 0.1)
    task = Fabricate(score_thr=0.5).objective(scene([low], unjudged=unjudged))
    assert brighter(task, 9.0).success.tolist() == [expected]
    assert (brighter(task, 9.0).loss > brighter(task, 0.0).loss).item() == expected


def test_a_box_elsewhere_is_one():
    task = Fabricate(score_thr=0.5).objective(scene([ELSEWHERE]))
    assert brighter(task, 9.0).success.item()


@pytest.mark.parametrize(('label', 'expected'), [(1, False), (2, True)])
def test_a_box_that_is_right_about_an_ignored_object_mislabels_nothing(label, expected):
    """An object of class 0, inside a crowd of class 1: a box of class 1 is no error, one of class 2 is."""
    thing = (IN_IT[0], 0, 1.0)
    crowd = (CROWD[0], 1, 1.0)
    weight = torch.tensor([-1.0, 1.0])
    found = [(IN_IT[0], 0, 0.6), (IN_IT[0], label, 0.2)]
    task = Mislabel(score_thr=0.3).objective(scene(found, [thing], [crowd], weight))
    assert task.eligible.item() and brighter(task, 9.0).success.item() == expected


def test_ignored_objects_need_not_vanish():
    task = Vanish().objective(scene([IN_IT]))
    assert task.parts.tolist() == [0] and not task.defined.item() and not task.region.any()
