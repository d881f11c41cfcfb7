"""What a scene tells attacks that put pictures into images."""
import torch

from ..attacks.base import Attack
from ..checks import class_index
from ..objectives.base import Objective, Surrounded
from ..types import Surroundings
from .base import Scene

__all__ = ['surrounded']


def surrounded(objective: Objective, attack: Attack, scene: Scene,
               channels: str | None) -> Objective:
    """An objective that tells the attack what it asks about; as it is where that asks nothing.

    Args:
        scene: whose places are in coordinates of the objective's images.
        channels: the order of the images' channels, 'rgb' or 'bgr'; None if unknown.

    Raises:
        InputError: no such class; the images' task has no objects.
    """
    if not attack.needs_surroundings:
        return objective
    boxes = None
    if attack.placed_at is not None:
        classes = [class_index(name, scene.classes, scene.num_classes, 'placement: classes')
                   for name in attack.placed_at]
        boxes = scene.boxes(classes or None)
        if boxes.shape[1] == 0:  # reductions over no objects have no value
            boxes = boxes.new_full((len(boxes), 1, 4), torch.nan)
    return Surrounded(objective, Surroundings(boxes, channels))
