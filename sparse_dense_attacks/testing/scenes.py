"""What attacks and goals are given, without a model library."""
import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..objectives import Objective, Untargeted
from ..types import Boxes
from ..victims import TorchClassifier
from ..victims.base import Geometry, Scene
from .data import pad_boxes
from .models import Answers

__all__ = ['Detections', 'objective']


def objective(model: nn.Module | Callable[[Tensor], Tensor], images: Tensor, labels: Tensor | None = None,
              **options) -> Objective:
    """The untargeted objective of a classifier.

    Args:
        model: module, or any function, from (B, C, H, W) images in [0, 1] to logits.
        images: (B, C, H, W) float in [0, 1].
        labels: (B,) int64, the classes to leave; what the model says now by default.
        options: ``region``, ``keys`` and ``targets`` as :meth:`TorchClassifier.open` takes them.

    Example:
        >>> from sparse_dense_attacks.testing import Net, pictures
        >>> objective(Net(), pictures(2, 3, 5, 5)).eligible
        tensor([True, True])
    """
    if labels is None:
        with torch.no_grad():
            labels = model(images).argmax(1)
    victim = TorchClassifier(model if isinstance(model, nn.Module) else Answers(model))
    return Untargeted().objective(victim.open(images, labels, **options))


class Detections(Scene):
    """A detection scene without a detector: hand-made boxes whose scores move with the image.

    The score of candidate n has the logit of its hand-made score plus ``weight[n]`` times the
    change of the image's sum, so the clean image has exactly the hand-made scores. ``losses`` is
    the sum of all score logits.

    Args:
        images: (B, C, H, W) float in [0, 1].
        truth: objects of every image, see :func:`pad_boxes`.
        candidates: what the detector finds, likewise.
        weight: (N,) or a number, how much brighter images raise each score.
        boxes_known: whether ``losses`` gives the candidates too.
        below: (N,) int64, the candidate of the same box that is reported in place of each, -1 where
            it is reported itself.
        unjudged: crowds, difficult and ignored objects of every image, as ``truth``; none by default.

    Example:
        >>> from sparse_dense_attacks import Vanish
        >>> from sparse_dense_attacks.testing import pictures
        >>> ball = ((0, 0, 4, 4), 1, 0.75)
        >>> scene = Detections(pictures(1, 3, 8, 8), truth=[[ball]], candidates=[[ball]])
        >>> vanish = Vanish().objective(scene)
        >>> vanish.eligible, vanish(torch.ones(1, 3, 8, 8), torch.tensor([0])).success
        (tensor([True]), tensor([True]))
    """

    model = nn.Identity()  # there is none, and no layer either
    classes = ('cat', 'dog', 'cow')
    num_classes = 3

    def __init__(self, images: Tensor, truth: Sequence, candidates: Sequence,
                 weight: float | Tensor = -1.0, boxes_known: bool = True,
                 below: Tensor | None = None, unjudged: Sequence | None = None):
        self.images = images
        self.region = torch.ones_like(images[:, :1], dtype=torch.bool)
        self.keys = list(range(len(images)))
        self.geometry = Geometry.of_memory(images)
        self.truth = pad_boxes(truth)
        self.unjudged = pad_boxes(unjudged or [[] for _ in images])
        self.found = pad_boxes(candidates)
        self.weight = weight
        self.boxes_known = boxes_known
        self.below = below

    def restricted(self, region: Tensor | None) -> 'Detections':
        """A scene in which only pixels of ``region`` (B, 1, H, W) bool may change; None for all."""
        part = copy.copy(self)
        part.region = self.region if region is None else self.region & region
        return part

    def boxes(self, classes: Sequence[int] | None = None) -> Tensor:
        """(B, N, 4) boxes of the truth, NaN at padding and where they are of another class."""
        there = self.truth.valid
        if classes is not None:
            there = there & torch.isin(self.truth.labels, torch.tensor(classes))
        return self.truth.boxes.masked_fill(~there[..., None], torch.nan)

    def candidates(self, x: Tensor, rows: Tensor, rivals: Sequence = ()) -> Boxes:
        """The hand-made boxes of the images ``rows``, with the scores that ``x`` gives them."""
        found = self.found[rows]
        change = (x - self.images[rows]).flatten(1).sum(1, keepdim=True)
        logits = torch.logit(found.scores.to(x.dtype), eps=1e-9) + self.weight * change
        scores = logits.sigmoid() * found.valid
        if self.below is None:
            return Boxes(found.boxes, found.labels, scores)
        reported = torch.where(self.below >= 0, scores[:, self.below.clamp(min=0)], 0)
        return Boxes(found.boxes, found.labels, scores, reported)

    def losses(self, x: Tensor, rows: Tensor,
               components: Sequence[str] | None = None) -> tuple[Tensor, Boxes | None]:
        """(b,) float, and what :meth:`candidates` says, without a gradient.

        Raises:
            InputError: components other than 'loss_cls', which the whole loss is called.
        """
        if set(components or ['loss_cls']) != {'loss_cls'}:
            raise InputError(f'components: {components}, but there is loss_cls only')
        loss = -(self.weight * (x - self.images[rows])).flatten(1).sum(1)
        with torch.no_grad():
            return loss, self.candidates(x, rows) if self.boxes_known else None
