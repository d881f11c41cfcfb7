"""Goals on class logits."""
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import GOALS
from ..types import Verdict

__all__ = ['Untargeted']


@GOALS.register_module()
@dataclass(frozen=True)
class Untargeted:
    """Any wrong class.

    ``loss`` is the cross-entropy of the true class, ``margin`` the true logit less the largest other one, ``success`` a different
    arg max.
    """
    task: ClassVar[str] = 'classification'

    def objective(self, scene) -> 'UntargetedObjective':
        return UntargetedObjective(scene)


class UntargetedObjective:
    """``scene`` offers ``images``, ``region``, ``keys``, ``labels`` (B,) and ``logits(x, rows) -> (b, K)``."""

    def __init__(self, scene):
        self.scene = scene
        self.images, self.region, self.keys = scene.images, scene.region, scene.keys

    @cached_property
    def clean(self) -> Verdict:
        with torch.no_grad():
            return self(self.images, torch.arange(len(self.images)))

    @property
    def eligible(self) -> Tensor:
        return ~self.clean.success

    @cached_property
    def defined(self) -> Tensor:
        return torch.ones(len(self.images), dtype=torch.bool, device=self.images.device)

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        logits, labels = self.scene.logits(x, rows), self.scene.labels[rows]
        true = logits.gather(1, labels[:, None])[:, 0]
        others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        return Verdict(loss=F.cross_entropy(logits, labels, reduction='none'), margin=true - others,
                       success=logits.argmax(1) != labels)
