"""What scenes tell attacks of their objects."""
import numpy as np
import pytest
import torch

from sparse_dense_attacks import InputError, Untargeted, Vanish
from sparse_dense_attacks.attacks import RandomPixels
from sparse_dense_attacks.objectives.base import EightBit, MeteredObjective, Restricted, Surrounded
from sparse_dense_attacks.testing import Detections, Net, objective, pictures
from sparse_dense_attacks.types import Surroundings
from sparse_dense_attacks.victims import TorchClassifier
from sparse_dense_attacks.victims.base import Scene, padded_boxes
from sparse_dense_attacks.victims.surroundings import surrounded


class Outlined(Scene):
    """A scene that knows masks only."""

    def __init__(self, masks):
        self.masks, self.region = masks, torch.ones_like(masks)

    def objects(self, classes=None):
        return self.masks


def test_where_outlines_are_pixels_each_connected_area_is_an_object():
    masks = torch.zeros(3, 1, 8, 9, dtype=torch.bool)
    masks[0, 0, 1:4, 2:5] = masks[0, 0, 6, 7:9] = True
    masks[2, 0, :, 0] = True
    boxes = Outlined(masks).boxes()
    assert boxes[0].tolist() == [[2, 1, 5, 4], [7, 6, 9, 7]]
    assert boxes[1].isnan().all() and boxes[2, 0].tolist() == [0, 0, 1, 8] and boxes[2, 1].isnan().all()


def test_no_object_at_all():
    assert Outlined(torch.zeros(2, 1, 4, 4, dtype=torch.bool)).boxes().shape == (2, 0, 4)
    assert padded_boxes([torch.zeros(0, 4), torch.zeros(1, 4)]).shape == (2, 1, 4)


def test_a_classifier_has_no_objects():
    scene = TorchClassifier(Net()).open(pictures(1, 3, 5, 5), torch.tensor([0]))
    with pytest.raises(InputError, match='outlined objects'):
        scene.boxes()


def test_attacks_that_do_not_ask_are_told_nothing():
    scene = TorchClassifier(Net()).open(pictures(1, 3, 5, 5), torch.tensor([0]))
    inner = Untargeted().objective(scene)
    assert surrounded(inner, RandomPixels(), scene, 'bgr') is inner and inner.surroundings is None


def test_every_wrapper_passes_on_what_it_was_told():
    told = Surroundings(torch.arange(24.).view(3, 2, 4), 'bgr')
    meter = MeteredObjective(EightBit(Surrounded(objective(Net(), pictures(3, 3, 5, 5)), told)))
    part = Restricted(meter, torch.tensor([2, 0]))
    assert torch.equal(part.surroundings.boxes, told.boxes[[2, 0]]) and part.surroundings.channels == 'bgr'


def test_vanish_of_some_classes_is_about_those_only():
    def one(x, label, score):
        return (x, 0, x + 4, 4), label, score
    objects = [[one(0, 0, 0.9), one(8, 1, 0.8)], [one(0, 1, 0.9)]]
    scene = Detections(pictures(2, 3, 8, 12), objects, objects)
    both, cats = Vanish().objective(scene), Vanish(classes=['cat']).objective(scene)
    assert both.parts.tolist() == [2, 1] and cats.parts.tolist() == [1, 0]
    assert cats.defined.tolist() == [True, False] and not cats.region[1].any() and cats.region[0].all()
    rows = torch.arange(1)
    assert cats(scene.images[:1], rows).loss.item() == pytest.approx(np.log(0.1), abs=1e-4)
    assert both(scene.images[:1], rows).loss.item() == pytest.approx((np.log(0.1) + np.log(0.2)) / 2, abs=1e-4)
    assert Vanish(classes=[0]).objective(scene).parts.tolist() == [1, 0]
    with pytest.raises(InputError, match="did you mean 'cat'"):
        Vanish(classes=['cta']).objective(scene)
