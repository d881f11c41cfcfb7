"""What becomes of single objects: which are found, by their size, and what is found that is none."""
from collections.abc import Sequence

import numpy as np
import torch

from ..ops.boxes import iou, within
from .transfer import Found

__all__ = ['SIZES', 'detected', 'hallucinated', 'of_classes', 'size_of']

SIZES = ('small', 'medium', 'large')
ENDS = 32 ** 2, 96 ** 2  # COCO's, of the area in pixels of the image file


def of_classes(found: Found, classes: Sequence[int] | None) -> Found:
    """Those of some classes; all where that is None."""
    if classes is None:
        return found
    keep = np.isin(found.labels, classes)
    return Found(found.boxes[keep], found.labels[keep], found.scores[keep])


def size_of(boxes: np.ndarray) -> np.ndarray:
    """(N,) int, the index in :data:`SIZES` of boxes (N, 4) ``x1 y1 x2 y2``.

    Example:
        >>> size_of(np.array([[0, 0, 31, 31], [0, 0, 32, 32], [0, 0, 96, 96]])).tolist()
        [0, 1, 2]
    """
    return np.searchsorted(ENDS, np.prod(boxes[:, 2:] - boxes[:, :2], 1), side='right')


def detected(truth: Found, found: Found, score_thr: float = 0.3, iou_thr: float = 0.5) -> np.ndarray:
    """(G,) bool, objects that a box of their class covers and scores ``score_thr`` or more."""
    return _covers(truth, found.above(score_thr), iou_thr).max(1, initial=False)


def hallucinated(truth: Found, found: Found, ignored: Found, score_thr: float = 0.3,
                 iou_thr: float = 0.5) -> int:
    """How many boxes of that score cover no object of their class and do not lie in what is ignored."""
    found = found.above(score_thr)
    wrong = ~_covers(truth, found, iou_thr).any(0)
    if len(ignored.labels):
        held = within(_boxes(found), _boxes(ignored), iou_thr)[0].numpy()
        wrong &= ~(held & (found.labels[:, None] == ignored.labels)).any(1)
    return int(wrong.sum())


def _covers(truth: Found, found: Found, iou_thr: float) -> np.ndarray:
    """(G, N) bool, which box covers which object."""
    overlap = iou(_boxes(truth), _boxes(found))[0].numpy()
    return np.where(truth.labels[:, None] == found.labels, overlap >= iou_thr, False)


def _boxes(found: Found) -> torch.Tensor:
    return torch.as_tensor(found.boxes, dtype=torch.float64).reshape(1, -1, 4)
