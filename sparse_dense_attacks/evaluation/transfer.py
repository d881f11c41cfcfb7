"""How much a model's answer changes, without labels, and what of a change is more than noise.

Everything works on plain arrays: classes, label maps and boxes as a stock pipeline gives them.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ..errors import InputError
from ..ops.boxes import iou
from .statistics import Interval, bootstrap

__all__ = ['Found', 'change', 'class_change', 'detection_change', 'excess', 'label_map_change',
           'relative_drop']


@dataclass(frozen=True)
class Found:
    """What a detector reports about one image.

    Attributes:
        boxes: (N, 4) float, ``x1 y1 x2 y2``.
        labels: (N,) int.
        scores: (N,) float in [0, 1].
    """
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    def above(self, score_thr: float) -> 'Found':
        """Those that score at least so much."""
        keep = self.scores >= score_thr
        return Found(self.boxes[keep], self.labels[keep], self.scores[keep])


Answer = int | np.ndarray | Found  # of a classifier, a segmenter, a detector


def change(clean: Answer, adversarial: Answer) -> float:
    """The share of an answer that is another one than on the clean image, in [0, 1].

    Args:
        clean, adversarial: a class, a label map (H, W), or the boxes that are :class:`Found`.

    Raises:
        InputError: answers of two kinds, or label maps of two sizes.

    Example:
        >>> change(3, 3), change(3, 5)
        (0.0, 1.0)
        >>> change(np.array([[1, 1], [0, 2]]), np.array([[1, 1], [1, 2]]))
        0.25
    """
    if isinstance(clean, Found) and isinstance(adversarial, Found):
        return detection_change(clean, adversarial)
    if isinstance(clean, np.ndarray) and isinstance(adversarial, np.ndarray):
        return label_map_change(clean, adversarial)
    if isinstance(clean, int) and isinstance(adversarial, int):
        return class_change(clean, adversarial)
    raise InputError(f'an answer before is a {type(clean).__name__} and after a '
                     f'{type(adversarial).__name__}')


def class_change(clean: int, adversarial: int) -> float:
    """1 where a classifier says another class, else 0."""
    return float(clean != adversarial)


def label_map_change(clean: np.ndarray, adversarial: np.ndarray) -> float:
    """Share of the pixels of label maps (H, W) whose label differs."""
    if clean.shape != adversarial.shape:
        raise InputError(f'label maps of one size expected, found {clean.shape} and '
                         f'{adversarial.shape}')
    return float((clean != adversarial).mean())


def detection_change(clean: Found, adversarial: Found, score_thr: float = 0.3,
                     iou_thr: float = 0.5) -> float:
    """1 - matched / max(clean, adversarial), counting boxes that score ``score_thr`` or more.

    As many boxes as possible are matched one to one, each with one of its class that it overlaps by
    at least ``iou_thr``. 0 where there are none before and none after.
    """
    clean, adversarial = clean.above(score_thr), adversarial.above(score_thr)
    most = max(len(clean.scores), len(adversarial.scores))
    if not most:
        return 0.0
    a, b = (torch.as_tensor(one.boxes, dtype=torch.float64).reshape(1, -1, 4)
            for one in (clean, adversarial))
    match = (iou(a, b)[0].numpy() >= iou_thr) & (clean.labels[:, None] == adversarial.labels)
    matched = match[linear_sum_assignment(match, maximize=True)].sum()
    return float(1 - matched / most)


def relative_drop(clean: float, adversarial: float) -> float:
    """(clean - adversarial) / clean; NaN where there was nothing to lose.

    Example:
        >>> relative_drop(0.5, 0.4), relative_drop(0.0, 0.0)
        (0.19999999999999996, nan)
    """
    return (clean - adversarial) / clean if clean > 0 else float('nan')


def excess(attack: Sequence[float] | np.ndarray, controls: Sequence[Sequence[float]] | np.ndarray,
           resamples: int = 2000, seed: int = 0) -> Interval:
    """By how much an attack changes more than the best of its controls, over the same images.

    In every resample of the images the best control is the best on that resample, so that it is not
    favoured by having been chosen on the images it is judged on. A transfer is real where the whole
    interval lies above 0.

    Args:
        attack: (N,) change of each image.
        controls: (K, N), that of its controls.

    Raises:
        InputError: no control, or not one value for each image.
    """
    changes, others = np.asarray(attack, float), np.asarray(controls, float)
    if not others.size or others.shape[1:] != changes.shape:
        raise InputError(f'expected (K, {len(changes)}) changes of K controls, found '
                         f'{others.shape}')
    images, lead = len(changes), (changes - others).T
    return bootstrap(lambda counts: (counts @ lead).min(1) / images, images, resamples, seed)
