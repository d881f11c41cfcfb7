"""Goals on the features of an inner layer: no labels, no head, so that any model will do.

What they break is no answer but the ground that answers stand on, which models of other tasks may
share. Success is a statement about the features, too: that they have changed by so much.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..checks import check_number, check_text
from ..errors import InputError
from ..registry import GOALS
from ..types import Verdict
from .base import Objective

__all__ = ['FeatureDispersion', 'FeatureDistance']

SHRUNK = 0.01
TINY = 1e-12  # keeps the slope of a root, and a quotient, finite


@dataclass(frozen=True)
class _FeatureGoal:
    task: ClassVar[str] = 'any'
    layer: str = 'backbone'

    def __post_init__(self):
        check_text(self, 'layer')
        if not self.layer:
            raise InputError(f"{type(self).__name__}: layer = '', expected the name of a layer")


@GOALS.register_module()
@dataclass(frozen=True)
class FeatureDispersion(_FeatureGoal):
    """Flatten an inner feature map: dispersion reduction, arXiv 1911.11616.

    ``loss`` is minus the standard deviation of all entries of the map, as a share of what it is on
    the clean image: -1 there, 0 for a constant map. ``success``: no more than ``until`` is left of
    it, and ``margin`` is how much more. The attack of the paper has no success and spends all of
    its steps, as attacks do with ``early_stop=False``.

    Args:
        layer: dotted name of the module, such as ``'backbone.layer3'``. Of several maps that it
            gives the last is taken: of a whole ``'backbone'`` the deepest.
        until: the share of the dispersion at which an image counts as broken.
    """
    until: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'until', 0, 1)

    def objective(self, scene) -> '_FeatureObjective':
        return _FeatureObjective(self, scene)

    def judge(self, features: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and margin, each (n,), of flat features (n, D), given those of the clean images."""
        left = _deviation(features) / _deviation(clean)
        return -left, left - self.until


@GOALS.register_module()
@dataclass(frozen=True)
class FeatureDistance(_FeatureGoal):
    """Lead an inner feature map away from what it is on the clean image.

    ``loss`` is the squared distance from the clean features, as a share of their own square; they
    are shrunk by 1 % before, because at the clean image itself a distance has no slope to follow.
    ``success``: that share is at least ``until``, and ``margin`` is what is missing.

    Args:
        layer: dotted name of the module, such as ``'backbone.layer3'``. Of several maps that it
            gives the last is taken: of a whole ``'backbone'`` the deepest.
        until: the distance at which an image counts as broken; 1 is as far away as 0 is.
    """
    until: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'until', SHRUNK ** 2)

    def objective(self, scene) -> '_FeatureObjective':
        return _FeatureObjective(self, scene)

    def judge(self, features: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and margin, each (n,), of flat features (n, D), given those of the clean images."""
        moved = (features - (1 - SHRUNK) * clean).square().mean(1)
        distance = moved / clean.square().mean(1).clamp(min=TINY)
        return distance, self.until - distance


def _deviation(features: Tensor) -> Tensor:
    return (features.var(1, correction=0) + TINY).sqrt()


class _FeatureObjective(Objective):
    """Every image is attacked, whatever the model says of it."""

    def __init__(self, goal: FeatureDispersion | FeatureDistance, scene):
        self.goal, self.scene = goal, scene
        self.images, self.region = scene.images, scene.region
        self.keys = scene.keys
        rows = torch.arange(len(self.images))
        with torch.no_grad():
            self.reference = self.look(self.images, rows)
            self.clean = self.judge(self.reference, rows)
        self.eligible = ~self.clean.success
        self.defined = torch.ones_like(self.eligible)

    def look(self, x: Tensor, rows: Tensor) -> Sequence[Tensor]:
        """Features of each image, (b, ...) or, where maps differ in size, a list of b."""
        return self.scene.features(x, rows, self.goal.layer)

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        return self.judge(self.look(x, rows), rows)

    def judge(self, features: Sequence[Tensor], rows: Tensor) -> Verdict:
        clean = [self.reference[row] for row in rows.tolist()]
        loss, margin = _each(self.goal.judge, features, clean)
        return Verdict(loss, margin, margin <= 0)


Pair = tuple[Tensor, Tensor]


def _each(function: Callable[[Tensor, Tensor], Pair], features: Sequence[Tensor],
          clean: Sequence[Tensor]) -> Pair:
    """What a function of flat features (n, D) says of each image, twice (b,)."""
    if isinstance(features, Tensor):
        return function(_flat(features), _flat(torch.stack(tuple(clean))))
    said = [function(_flat(a[None]), _flat(b[None]))
            for a, b in zip(features, clean, strict=True)]
    loss, margin = zip(*said, strict=True)
    return torch.cat(loss), torch.cat(margin)


def _flat(features: Tensor) -> Tensor:
    """(n, D), at least float32: a variance of half floats is none."""
    wide = torch.promote_types(features.dtype, torch.float32)
    return features.flatten(1).to(wide)
