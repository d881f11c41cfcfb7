"""What went wrong in a detector's answer: which objects it lost, and what its boxes are.

Everything works on plain arrays, as the stock model gives them after its own suppression.
"""
from dataclasses import dataclass, field

import numpy as np
import torch

from ..errors import InputError
from ..ops.boxes import iou, within
from .transfer import Found

__all__ = ['FATES', 'KINDS', 'SIZES', 'Answer', 'Objects', 'answer', 'size_of']

FATES = ('found', 'other_class', 'missing')  # of an object
KINDS = ('match', 'other_class', 'duplicate', 'hallucinated')  # of a prediction
SIZES = ('small', 'medium', 'large')
EDGES = (32 ** 2, 96 ** 2)  # areas between them, COCO's


@dataclass(frozen=True)
class Objects:
    """What is right about an image.

    Attributes:
        boxes: (G, 4) float, ``x1 y1 x2 y2``.
        labels: (G,) int.
        ignored_boxes: (I, 4) float, crowds and other regions in which nothing is judged.
        ignored_labels: (I,) int.
    """
    boxes: np.ndarray
    labels: np.ndarray
    ignored_boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    ignored_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Answer:
    """What became of every object and what every prediction is.

    Attributes:
        fates: (G,) int, indices into :data:`FATES`.
        sizes: (G,) int, indices into :data:`SIZES`, by the area of the object's box.
        kinds: (D,) int, indices into :data:`KINDS`, of the predictions that are judged.
    """
    fates: np.ndarray
    sizes: np.ndarray
    kinds: np.ndarray

    def counts(self) -> dict[str, int]:
        """How many there are of each, by names such as 'found', 'found_small' and 'duplicate'.

        ``objects`` and ``predictions`` are all of them; a prediction of the wrong class is
        'as_other_class'.

        Example:
            >>> one = Answer(np.array([0, 2]), np.array([0, 0]), np.array([0, 3]))
            >>> counts = one.counts()
            >>> counts['objects'], counts['missing_small'], counts['hallucinated']
            (2, 1, 1)
        """
        counts = dict(objects=len(self.fates))
        for number, size in enumerate(SIZES):
            counts[f'objects_{size}'] = int((self.sizes == number).sum())
        for number, fate in enumerate(FATES):
            hit = self.fates == number
            counts[fate] = int(hit.sum())
            for order, size in enumerate(SIZES):
                counts[f'{fate}_{size}'] = int((hit & (self.sizes == order)).sum())
        counts['predictions'] = len(self.kinds)
        for number, kind in enumerate(KINDS):
            name = 'as_other_class' if kind == 'other_class' else kind
            counts[name] = int((self.kinds == number).sum())
        return counts


def size_of(boxes: np.ndarray) -> np.ndarray:
    """(G,) int, indices into :data:`SIZES` of boxes (G, 4)."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return np.digitize(sides.prod(1), EDGES)


def answer(found: Found, truth: Objects, score_thr: float = 0.3, iou_thr: float = 0.5) -> Answer:
    """Judge predictions as COCO matches them, and say what those without a match are.

    The best scoring prediction first, each takes the object of its class, not yet taken, that it
    overlaps most, by at least ``iou_thr``: the object is *found*, the prediction a *match*. Of the
    others, those that lie in an ignored region of their class are not judged, and those that overlap
    an object of their class are *duplicates*. Of what is left, again by score, each takes the
    untaken object that it overlaps most: that is *found as another class*. All others are
    *hallucinated*, those too that call a rightly found object something else besides.

    Args:
        found: what the model reports, after its own suppression.
        truth: what is right.
        score_thr: least score of a prediction that counts.
        iou_thr: least overlap.
    """
    for name, value in (('score_thr', score_thr), ('iou_thr', iou_thr)):
        if not 0 <= value <= 1:
            raise InputError(f'{name} = {value}, expected a number in [0, 1]')
    found = found.above(score_thr)
    order = np.argsort(-found.scores, kind='stable')
    boxes, labels = found.boxes[order].reshape(-1, 4), found.labels[order]
    overlap = _pairs(iou, boxes, truth.boxes)
    same = labels[:, None] == truth.labels
    fates = np.full(len(truth.labels), FATES.index('missing'))

    matched = _take(overlap, same, fates, 'found', iou_thr)
    covered = _pairs(lambda a, b: within(a, b, iou_thr), boxes, truth.ignored_boxes)
    ignored = ~matched & (covered & (labels[:, None] == truth.ignored_labels)).any(1)
    twice = ~matched & ~ignored & ((overlap >= iou_thr) & same).any(1)
    left = ~(matched | ignored | twice)
    renamed = _take(overlap, left[:, None] & ~same, fates, 'other_class', iou_thr)

    kinds = np.select([matched, renamed, twice], range(3), KINDS.index('hallucinated'))
    return Answer(fates, size_of(truth.boxes.reshape(-1, 4)), kinds[~ignored])


def _take(overlap: np.ndarray, allowed: np.ndarray, fates: np.ndarray, fate: str,
          iou_thr: float) -> np.ndarray:
    """Let predictions take objects, in their order, and write that into ``fates``.

    Returns:
        (D,) bool, which have taken one.
    """
    taken = np.zeros(len(overlap), dtype=bool)
    for row in allowed.any(1).nonzero()[0]:
        free = allowed[row] & (fates == FATES.index('missing')) & (overlap[row] >= iou_thr)
        if free.any():
            fates[np.where(free, overlap[row], -1).argmax()] = FATES.index(fate)
            taken[row] = True
    return taken


def _pairs(function, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) of boxes (N, 4) and (M, 4)."""
    tensors = (torch.as_tensor(one, dtype=torch.float64).reshape(1, -1, 4) for one in (a, b))
    return function(*tensors)[0].numpy()
