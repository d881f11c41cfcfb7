"""Goals on candidate boxes and on detector losses; they know no model library."""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_flag, check_int, check_names, check_number, class_index, shown
from ..errors import InputError
from ..ops.boxes import distinct, overlaps, take, within
from ..registry import GOALS
from ..types import Boxes, Verdict
from .base import Objective

__all__ = ['DetectorLoss', 'Fabricate', 'Mislabel', 'Vanish', 'matches', 'object_scores']


def matches(candidates: Boxes, truth: Boxes, iou_thr: float) -> Tensor:
    """(B, N, G) bool, candidates of an object's class that overlap it enough."""
    same = candidates.labels[:, :, None] == truth.labels[:, None]
    return overlaps(candidates.boxes, truth.boxes, iou_thr) & same & truth.valid[:, None]


def object_scores(candidates: Boxes, match: Tensor) -> Tensor:
    """Highest matching score of each object, (B, G), 0 without a match."""
    if not candidates.scores.shape[1]:
        return match.new_zeros(match.shape[0], match.shape[2], dtype=candidates.scores.dtype)
    return torch.where(match, candidates.scores[..., None], 0).amax(1)


def inside(p: Tensor, eps: float = 1e-6) -> Tensor:
    """Probabilities kept off 0 and 1 in value but not in gradient: a clamp would give the surest detections none."""
    eps = max(eps, torch.finfo(p.dtype).eps)
    return p + (p.clamp(eps, 1 - eps) - p).detach()


def logit(p: Tensor) -> Tensor:
    """``log(p / (1 - p))``, finite everywhere."""
    p = inside(p)
    return p.log() - (-p).log1p()


def unlikely(p: Tensor) -> Tensor:
    """``log(1 - p)``, finite everywhere."""
    return (-inside(p)).log1p()


def excess(score: Tensor, bar: Tensor | float) -> Tensor:
    """How far a score is above a bar, in logits; 0 below."""
    bar = torch.as_tensor(bar, dtype=score.dtype, device=score.device)
    return F.relu(logit(score) - logit(bar))


def _never_empty(found: Boxes) -> Boxes:
    """At least one candidate per image, if only padding, so that a maximum over candidates exists."""
    if found.scores.shape[1]:
        return found
    return Boxes(boxes=F.pad(found.boxes, (0, 0, 0, 1)),
                 labels=F.pad(found.labels, (0, 1), value=-1),
                 scores=F.pad(found.scores, (0, 1)))


class Survey(NamedTuple):
    """What is found out about the P parts of each image.

    Attributes:
        loss: (b,).
        missing: (b, P), what is missing for a part to be broken, in logits; 0 if nothing.
        broken: (b, P) bool.
    """
    loss: Tensor
    missing: Tensor
    broken: Tensor


class _DetectionObjective(Objective):
    """An image is broken when all its parts are: objects that have to be lost, or boxes that have to appear.

    Attributes:
        counted: (B, P) bool, the parts of each image.
        parts: (B,) int64, how many they are; 0 where success is undefined.
    """

    parts: Tensor
    all_count = False  # objects, too, that are not detected on the clean image

    def __init__(self, goal, scene):
        self.goal, self.scene = goal, scene
        self.images, self.region = scene.images, scene.region
        self.keys = scene.keys
        rows = torch.arange(len(self.images))
        with torch.no_grad():
            found, loss = self.look(self.images, rows)
            self.prepare(found)
        self.parts = self.counted.sum(1) * self.defined
        self.clean = self.judge(found, loss, rows)

    def prepare(self, found: Boxes | None) -> None:
        """Count the ground-truth objects that are detected on the clean image, or all of them."""
        self.aimed = self.aim(self.scene.truth)
        detected = torch.ones_like(self.aimed)
        if found is not None:
            match = self.reported(found, matches(found, self.scene.truth, self.goal.iou_thr))
            detected = self.aimed & (object_scores(found, match) >= self.goal.score_thr)
        self.counted = self.aimed if self.all_count else detected
        self.eligible = detected.any(1)
        self.defined = self.aimed.any(1) & (found is not None)

    def aim(self, truth: Boxes) -> Tensor:
        """(B, G) bool, the objects the goal is about."""
        return truth.valid

    def reported(self, found: Boxes, match: Tensor) -> Tensor:
        """Those of ``match`` (b, N, G) that the detector reports."""
        return match if found.below is None else match & (found.below == 0)[..., None]

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        return self.judge(*self.look(x, rows), rows)

    def look(self, x: Tensor, rows: Tensor) -> tuple[Any, Tensor | None]:
        """What the detector finds, and its own loss if the goal wants it."""
        return self.scene.candidates(x, rows), None

    def survey(self, found: Boxes, loss: Tensor | None, rows: Tensor) -> Survey:
        """What the candidates ``found``, or the detector's own ``loss``, say about every part of the images ``rows``."""
        raise NotImplementedError

    def judge(self, found: Any, loss: Tensor | None, rows: Tensor) -> Verdict:
        survey, counted = self.survey(found, loss, rows), self.counted[rows]
        margin = torch.where(counted, survey.missing, 0).sum(1) / counted.sum(1).clamp(min=1)
        return Verdict(survey.loss, margin, (survey.broken | ~counted).all(1))

    def share(self, x: Tensor, rows: Tensor) -> Tensor:
        """(b,) float64 in [0, 1], share of the image's parts that candidates ``x`` (b, C, H, W) break; NaN where it has none."""
        with torch.no_grad():
            broken = self.survey(*self.look(x, rows), rows).broken
        return (broken & self.counted[rows]).sum(1).double() / self.parts[rows]

    def hidden(self, found: Boxes, match: Tensor) -> tuple[Tensor, Tensor]:
        """How far the best of each object's candidates ``match`` (b, N, G) is above the threshold, in logits; whether below."""
        score = object_scores(found, match)
        return excess(score, self.goal.score_thr), score < self.goal.score_thr


class _ObjectsObjective(_DetectionObjective):
    """Nothing is attacked where the goal is about no object."""

    def prepare(self, found):
        super().prepare(found)
        self.region = self.region & self.aimed.any(1)[:, None, None, None]


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
        check_number(self, 'score_thr', 0, 1)
        check_number(self, 'iou_thr', 0, 1)


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
        undetected: hide all objects, those too that the clean image already scores below ``score_thr``, so that none of them
            comes up. With the detector's own lowest threshold as ``score_thr`` (0.01 or 0.05 in many configs), an image that is
            broken is then one that adds nothing to average precision.
        classes: of the objects to hide, names or indices; None for all.
    """
    undetected: bool = False
    classes: Sequence[str | int] | None = None

    def __post_init__(self):
        super().__post_init__()
        check_flag(self, 'undetected')
        if self.classes is not None:
            check_names(self, 'classes', indices=True)

    def objective(self, scene) -> '_DetectionObjective':
        return _VanishObjective(self, scene)


class _VanishObjective(_ObjectsObjective):

    @property
    def all_count(self) -> bool:
        return self.goal.undetected

    def aim(self, truth):
        if self.goal.classes is None:
            return truth.valid
        scene = self.scene
        classes = [class_index(name, scene.classes, scene.num_classes, 'Vanish: classes')
                   for name in self.goal.classes]
        return torch.isin(truth.labels, truth.labels.new_tensor(classes))

    def survey(self, found, _, rows):
        truth, aimed = self.scene.truth[rows], self.aimed[rows]
        match = matches(found, truth, self.goal.iou_thr)
        total = torch.where((match & aimed[:, None]).any(2), unlikely(found.scores), 0).sum(1)
        loss = total / aimed.sum(1).clamp(min=1)
        return Survey(loss, *self.hidden(found, match))


@dataclass(frozen=True)
class _ClassGoal(_DetectionGoal):
    """A detection goal that may name a class."""
    target: int | str | None = None
    nms_thr: float = 0.45

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'nms_thr', 0, 1)
        if isinstance(self.target, int) and not isinstance(self.target, bool):
            check_int(self, 'target', low=None)
        elif not isinstance(self.target, str | None):
            raise InputError(f'{type(self).__name__}: target = {shown(self.target)}, expected a '
                             'class index, a class name or None')

    def target_index(self, scene) -> int | None:
        """The index of the target class.

        Raises:
            InputError: the detector has no such class.
        """
        if self.target is None:
            return None
        who = f'{type(self).__name__}: target'
        return class_index(self.target, scene.classes, scene.num_classes, who)


class _ClassObjective(_DetectionObjective):
    """Raises scores of a class, or of any: looks at classes, too, that are not (yet) the best of their box."""

    def __init__(self, goal, scene):
        self.target = goal.target_index(scene)
        self.wanted = range(scene.num_classes or 0) if self.target is None else (self.target,)
        super().__init__(goal, scene)

    def look(self, x, rows):
        return _never_empty(self.scene.candidates(x, rows, self.wanted)), None

    def fitting(self, found: Boxes) -> Tensor:
        """(b, N) bool, candidates of a wanted class."""
        return found.valid if self.target is None else found.labels == self.target

    def bar(self, found: Boxes, index: Tensor, rivals: Tensor) -> Tensor:
        """(b, P), the score that candidates ``index`` (b, P) must exceed to be reported.

        That of the best class of the same box, and of those among ``rivals`` (b, N, P) whose box would suppress them.
        """
        rivals = rivals & overlaps(found.boxes, take(found.boxes, index), self.goal.nms_thr)
        bar = object_scores(found, rivals)
        return bar if found.below is None else torch.maximum(bar, found.below.gather(1, index))

    def lacking(self, score: Tensor, bar: Tensor) -> tuple[Tensor, Tensor]:
        """How far a score is below the threshold or its bar, whichever is higher, in logits; and whether it is above both."""
        # without a candidate there is no bar either
        needed = torch.where(score > 0, bar, 0).clamp(min=self.goal.score_thr)
        return F.relu(logit(needed) - logit(score)), (score >= self.goal.score_thr) & (score > bar)


@GOALS.register_module()
@dataclass(frozen=True)
class Mislabel(_ClassGoal):
    """Let the objects of an image be detected, but as something else.

    The objects are those detected on the clean image, less those of the target class. An object is mislabelled when no candidate
    of its own class at its place scores ``score_thr`` any more, and one of another class (of ``target``, if given) does. A
    candidate that rightly detects another object at the same place does not count, be it an
    ignored one.

    ``loss`` is the mean over ground-truth objects of ``sum log(1 - score)`` over the candidates of the own class at their place
    plus the log of the best score of a wrong one there. ``margin`` is the mean over the objects that count of how far the best
    score of the own class is above ``score_thr``, plus how far that of the best wrong one is below it, in logits. ``success``:
    all of them are mislabelled. In images without an object of another class success is undefined; where none is detected the
    victim was wrong from the start.

    Non-maximum suppression works within a class, as in mmdet's default: it keeps a wrong box beside a right one, which is why the
    right one must go, and it could remove the wrong box for a better one of that class at another place, which is why the wrong
    box must beat those that overlap it by ``nms_thr``.

    Args:
        score_thr: an object counts as detected when a candidate of its class scores at least this much.
        iou_thr: and overlaps it at least this much.
        target: index or name of the wrong class; None for any.
        nms_thr: overlap at which a box may suppress another; the detector's own threshold or less.
    """

    def objective(self, scene) -> '_DetectionObjective':
        return _MislabelObjective(self, scene)


class _MislabelObjective(_ClassObjective, _ObjectsObjective):

    def aim(self, truth):
        return truth.valid if self.target is None else truth.valid & (truth.labels != self.target)

    def survey(self, found, _, rows):
        truth, aimed = self.scene.truth[rows], self.aimed[rows]
        unjudged = self.scene.unjudged[rows]
        held = within(found.boxes, unjudged.boxes, self.goal.iou_thr) & unjudged.valid[:, None]
        right = matches(found, truth, self.goal.iou_thr)
        place = overlaps(found.boxes, truth.boxes, self.goal.iou_thr) & truth.valid[:, None]
        # right about an object, or about one that is ignored
        true = right.any(2) | (held & (found.labels[..., None] == unjudged.labels[:, None])).any(2)
        wrong = place & (self.fitting(found) & ~true)[..., None]
        score, best = torch.where(wrong, found.scores[..., None], 0).max(1)

        own = torch.where((right & aimed[:, None]).any(2), unlikely(found.scores), 0).sum(1)
        loss = (own + torch.where(aimed, inside(score).log(), 0).sum(1)) / aimed.sum(1).clamp(min=1)

        same = found.labels[..., None] == found.labels.gather(1, best)[:, None]
        present, hidden = self.hidden(found, self.reported(found, right))
        absent, shown = self.lacking(score, self.bar(found, best, same & ~wrong))
        return Survey(loss, present + absent, hidden & shown)


@GOALS.register_module()
@dataclass(frozen=True)
class Fabricate(_ClassGoal):
    """Let boxes appear where nothing is; works on images without objects, too.

    A candidate is in the background when it overlaps every ground-truth object and every box
    detected on the clean image by less than ``iou_thr``, and less than that share of it lies in an
    ignored region (a crowd, a difficult object). Of candidates that overlap each other by
    ``nms_thr`` only the best counts, whatever their classes.

    ``loss`` is ``-sum log(1 - score)`` over the background candidates. ``margin`` is the mean over the ``count`` best of them of
    how far they are below ``score_thr`` in logits. ``success``: ``count`` of them score at least that. Suppression cannot take
    them away: they must beat whatever is at the place of an object and overlaps them by ``nms_thr``.

    Args:
        score_thr: a box counts when it scores at least this much; also what counts as detected on the clean image.
        iou_thr: overlap from which a box belongs to an object.
        target: index or name of the class of the new boxes; None for any.
        nms_thr: overlap at which a box may suppress another; the detector's own threshold or less.
        count: how many boxes must appear.
    """
    count: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_int(self, 'count')

    def objective(self, scene) -> '_FabricateObjective':
        return _FabricateObjective(self, scene)


class _FabricateObjective(_ClassObjective):

    def prepare(self, found):
        truth, goal = self.scene.truth, self.goal
        # taken are the objects, and what is detected on the clean image
        seen = found.scores * (found.scores >= goal.score_thr)
        if found.below is not None:
            seen = seen * (found.below == 0)
        index, there = distinct(found.boxes, seen, goal.iou_thr)
        labels = torch.where(there, found.labels.gather(1, index), -1)
        scores = found.scores.gather(1, index) * there
        self.taken = Boxes(boxes=torch.cat([truth.boxes, take(found.boxes, index)], 1),
                           labels=torch.cat([truth.labels, labels], 1),
                           scores=torch.cat([truth.scores, scores], 1))
        shape = len(self.images), goal.count
        self.counted = torch.ones(shape, dtype=torch.bool, device=self.images.device)
        self.eligible = self.defined = self.counted[:, 0]

    def background(self, found: Boxes, taken: Boxes, unjudged: Boxes) -> tuple[Tensor, Tensor]:
        """(b, N) bool, candidates that may become new boxes, and those that belong to an object.

        The best candidate of an object suppresses its neighbours even where these overlap the
        object itself too little: such candidates are neither, and so are those in ignored regions.
        """
        place = overlaps(found.boxes, taken.boxes, self.goal.iou_thr) & taken.valid[:, None]
        occupied = place.any(2)
        held = within(found.boxes, unjudged.boxes, self.goal.iou_thr) & unjudged.valid[:, None]
        free = self.fitting(found) & ~held.any(2)
        if not taken.scores.shape[1]:
            return free, occupied
        score, best = torch.where(place, found.scores[..., None], 0).max(1)
        hidden = overlaps(found.boxes, take(found.boxes, best), self.goal.nms_thr)
        hidden = hidden & (score[:, None] >= found.scores[..., None]) & (score > 0)[:, None]
        return free & ~occupied & ~hidden.any(2), occupied

    def survey(self, found, _, rows):
        free, occupied = self.background(found, self.taken[rows], self.scene.unjudged[rows])
        loss = -torch.where(free, unlikely(found.scores), 0).sum(1)
        best, there = distinct(found.boxes, found.scores * free, self.goal.nms_thr, self.goal.count)
        score = torch.where(there, found.scores.gather(1, best), 0)
        rivals = occupied[..., None].expand(-1, -1, self.goal.count)
        return Survey(loss, *self.lacking(score, self.bar(found, best, rivals)))


@GOALS.register_module()
@dataclass(frozen=True)
class DetectorLoss(_DetectionGoal):
    """Ascend the detector's own training loss on the ground truth; works for any head.

    ``success`` is that of :class:`Vanish`. The training loss has no zero to reach, so ``margin`` is a constant 1 that carries the
    gradient of ``-loss`` until success, and 0 after. For detectors without boxes success is undefined.

    Args:
        score_thr: an object counts as detected when a candidate of its class scores at least this much.
        iou_thr: and overlaps it at least this much.
        components: the loss is the sum of these parts of the training loss, by the names the model
            gives them, such as ``['loss_cls', 'loss_obj']``; all of them by default.

    Raises:
        InputError: when the first image is opened, for a name that the model's loss does not have.
    """
    components: Sequence[str] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.components is None:
            return
        check_names(self, 'components', what='parts of the training loss')
        if len({*self.components}) < len(self.components):
            raise InputError(f'DetectorLoss: components = {shown(self.components)} name one twice, '
                             'expected each once')
        object.__setattr__(self, 'components', tuple(self.components))

    def objective(self, scene) -> '_DetectionObjective':
        return _DetectorLossObjective(self, scene)


class _DetectorLossObjective(_DetectionObjective):

    def look(self, x, rows):
        loss, found = self.scene.losses(x, rows, self.goal.components)
        return found, loss

    def survey(self, found, loss, rows):
        if found is None:
            broken = torch.zeros_like(self.counted[rows])
            return Survey(loss, broken.to(loss.dtype), broken)
        match = matches(found, self.scene.truth[rows], self.goal.iou_thr)
        return Survey(loss, *self.hidden(found, match))

    def judge(self, found, loss, rows) -> Verdict:
        success = super().judge(found, loss, rows).success & (found is not None)
        return Verdict(loss, torch.where(success, 0, 1 + loss.detach() - loss), success)
