"""Goals on candidate boxes and on detector losses; they know no model library."""
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..registry import GOALS
from ..types import Boxes, Verdict

__all__ = ['DetectorLoss', 'Vanish', 'iou', 'object_scores']


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (B, N, 4) and (B, M, 4): (B, N, M). Torchvision's takes no batches."""
    a, b = a[:, :, None], b[:, None]
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b))
    return overlap / (area_a + area_b - overlap).clamp(min=1e-9)


def matches(candidates: Boxes, truth: Boxes, iou_thr: float) -> Tensor:
    """(B, N, G) bool, candidates of an object's class that overlap it enough."""
    with torch.no_grad():
        overlap = iou(candidates.boxes, truth.boxes) >= iou_thr
    return overlap & (candidates.labels[:, :, None] == truth.labels[:, None]) & truth.valid[:, None]


def object_scores(candidates: Boxes, match: Tensor) -> Tensor:
    """Highest matching score of each object, (B, G), 0 without a match."""
    if not candidates.scores.shape[1]:
        return match.new_zeros(match.shape[0], match.shape[2], dtype=candidates.scores.dtype)
    return torch.where(match, candidates.scores[..., None], 0).amax(1)


class _DetectionObjective:
    """Success over the ground-truth objects that were detected on the clean image: none of them may be detected any more."""

    def __init__(self, goal, scene):
        self.goal, self.scene = goal, scene
        self.images, self.region, self.keys = scene.images, scene.region, scene.keys
        self.detected = torch.ones_like(scene.truth.valid)
        rows = torch.arange(len(self.images))
        with torch.no_grad():
            boxes, clean = self.look(self.images, rows)
            if boxes is not None:
                scores = object_scores(boxes, matches(boxes, scene.truth, goal.iou_thr))
                self.detected = (scores >= goal.score_thr) & scene.truth.valid
        self.eligible = self.detected.any(1)
        self.defined = scene.truth.valid.any(1) & (boxes is not None)
        self.clean = self.judge(boxes, clean, rows)

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        return self.judge(*self.look(x, rows), rows)

    def surviving(self, boxes: Boxes, match: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """How far each object's score is above the threshold, in logits, (b, G), 0 for objects that do not count; and success."""
        scores = object_scores(boxes, match)
        detected = self.detected[rows]
        above = torch.where(detected, logit(scores) - logit(torch.full_like(scores, self.goal.score_thr)), 0)
        return F.relu(above), ~(detected & (scores >= self.goal.score_thr)).any(1)


def inside(p: Tensor, eps: float = 1e-6) -> Tensor:
    """Probabilities kept off 0 and 1 in value but not in gradient: a clamp would give the surest detections none."""
    return p + (p.clamp(eps, 1 - eps) - p).detach()


def logit(p: Tensor) -> Tensor:
    """``log(p / (1 - p))``, finite everywhere."""
    p = inside(p)
    return p.log() - (-p).log1p()


@dataclass(frozen=True)
class _DetectionGoal:
    """
    Args:
        score_thr: an object counts as detected when a candidate of its class scores at least this much.
        iou_thr: and overlaps it at least this much.
    """
    task: ClassVar[str] = 'detection'
    score_thr: float = 0.3
    iou_thr: float = 0.5

    def __post_init__(self):
        for name in ('score_thr', 'iou_thr'):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f'{type(self).__name__}: {name} = {getattr(self, name)}, expected a number between 0 and 1')


@GOALS.register_module()
@dataclass(frozen=True)
class Vanish(_DetectionGoal):
    """Hide the objects of an image.

    ``loss`` is the mean over ground-truth objects of ``sum log(1 - score)`` over the matching candidates; all objects count,
    detected or not, because average precision reads low scores too. ``margin`` is the mean over the objects detected on the clean
    image of how far their best matching score is above ``score_thr`` in logits. ``success``: none of those is detected any more.
    Candidates are taken before non-maximum suppression, which can only remove more. Images without objects have zero loss,
    nothing to attack and undefined success.

    Args:
        score_thr: an object counts as detected when a candidate of its class scores at least this much.
        iou_thr: and overlaps it at least this much.
    """

    def objective(self, scene) -> '_DetectionObjective':
        return _VanishObjective(self, scene)


class _VanishObjective(_DetectionObjective):

    def __init__(self, goal, scene):
        super().__init__(goal, scene)
        self.region = self.region & scene.truth.valid.any(1)[:, None, None, None]

    def look(self, x, rows):
        return self.scene.candidates(x, rows), None

    def judge(self, boxes, _, rows) -> Verdict:
        truth = self.scene.truth[rows]
        match = matches(boxes, truth, self.goal.iou_thr)
        objects = truth.valid.sum(1).clamp(min=1)
        hidden = (-inside(boxes.scores)).log1p()
        loss = torch.where(match.any(2), hidden, 0).sum(1) / objects
        above, success = self.surviving(boxes, match, rows)
        return Verdict(loss, above.sum(1) / self.detected[rows].sum(1).clamp(min=1), success)


@GOALS.register_module()
@dataclass(frozen=True)
class DetectorLoss(_DetectionGoal):
    """Ascend the detector's own training loss on the ground truth; works for any head.

    ``success`` is that of :class:`Vanish`. The training loss has no zero to reach, so ``margin`` is a constant 1 that carries the
    gradient of ``-loss`` until success, and 0 after. For detectors without boxes success is undefined.

    Args:
        score_thr: an object counts as detected when a candidate of its class scores at least this much.
        iou_thr: and overlaps it at least this much.
    """

    def objective(self, scene) -> '_DetectionObjective':
        return _DetectorLossObjective(self, scene)


class _DetectorLossObjective(_DetectionObjective):

    def look(self, x, rows):
        loss, boxes = self.scene.losses(x, rows)
        return boxes, loss

    def judge(self, boxes, loss, rows) -> Verdict:
        success = torch.zeros_like(loss, dtype=torch.bool)
        if boxes is not None:
            truth = self.scene.truth[rows]
            _, success = self.surviving(boxes, matches(boxes, truth, self.goal.iou_thr), rows)
        margin = torch.where(success, 0, 1 + loss.detach() - loss)
        return Verdict(loss, margin, success)
