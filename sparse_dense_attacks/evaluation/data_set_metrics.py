"""Metrics of whole data sets, on any resample of the images and without showing them again.

What a metric keeps of each image is enough: shared and united areas for a mean IoU, matched
detections for an average precision. Both are ``Statistic`` of :func:`.statistics.bootstrap`.
"""
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from .statistics import Statistic

__all__ = ['average_precision', 'mean_iou']

RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision


def mean_iou(shared: np.ndarray, united: np.ndarray) -> Statistic:
    """The mean over classes of intersection over union, areas being summed over the images.

    Args:
        shared, united: (N, K), pixels of each class in each image where prediction and annotation
            agree, and where either says so.

    Returns:
        Takes how often each image occurs, (R, N), and gives (R,) in [0, 1]; classes that do not
        occur do not count.

    Example:
        >>> statistic = mean_iou(np.array([[2, 0], [0, 3]]), np.array([[4, 0], [4, 3]]))
        >>> statistic(np.array([[1, 1], [0, 1], [2, 0]])).tolist()
        [0.625, 0.5, 0.5]
    """
    def statistic(counts: np.ndarray) -> np.ndarray:
        union = counts @ united
        ratio = counts @ shared / np.where(union, union, 1)
        return _mean_of(ratio, union > 0)

    return statistic


def average_precision(evaluations: Sequence[Mapping | None], image_ids: Sequence,
                      threshold: int | None = None) -> Statistic:
    """COCO's average precision over all sizes of objects.

    An image that occurs twice counts as two images with the same content. (Of one image's
    detections of one class with one score, which hardly occur, the order is not that of COCO.)

    Args:
        evaluations: ``evalImgs`` of a pycocotools ``COCOeval`` after ``evaluate()``; of the ranges
            of areas the first one, COCO's 'all', is read.
        image_ids: the images, in the order of the counts.
        threshold: index of the IoU threshold (0 for mAP_50); None for the mean over all of them.

    Returns:
        Takes how often each image occurs, (R, N), and gives (R,) in [0, 1]; NaN for a set without
        an object.
    """
    row = {image: number for number, image in enumerate(image_ids)}
    known = [one for one in evaluations if one is not None and one['image_id'] in row]
    every = next((one['aRng'] for one in known), None)
    categories = defaultdict(list)
    for one in known:
        if one['aRng'] == every:
            categories[one['category_id']].append(one)
    tables = [_Category(entries, row, threshold) for entries in categories.values()]

    def statistic(counts: np.ndarray) -> np.ndarray:
        there = np.stack([counts @ one.objects for one in tables], 1) if tables else \
            np.zeros((len(counts), 0))
        found = np.stack([one.precision(counts) for one in tables], 1) if tables else there
        return _mean_of(found, there > 0)

    return statistic


class _Category:
    """What is known of one category: its objects in each image, its detections by score."""

    def __init__(self, entries: Sequence[Mapping], row: Mapping, threshold: int | None):
        self.objects = np.zeros(len(row), dtype=np.int64)
        for one in entries:
            self.objects[row[one['image_id']]] = np.count_nonzero(np.equal(one['gtIgnore'], 0))
        # in the order of the images, by which COCO breaks ties of scores
        entries = sorted(entries, key=lambda one: row[one['image_id']])
        scores = np.concatenate([one['dtScores'] for one in entries])
        order = np.argsort(-scores, kind='stable')
        image = np.repeat([row[one['image_id']] for one in entries],
                          [len(one['dtScores']) for one in entries])
        which = slice(None) if threshold is None else slice(threshold, threshold + 1)
        matched, ignored = (np.concatenate([one[name] for one in entries], 1)[which, order] > 0
                            for name in ('dtMatches', 'dtIgnore'))
        self.image, self.hits, self.misses = image[order], matched & ~ignored, ~(matched | ignored)

    def precision(self, counts: np.ndarray) -> np.ndarray:
        """(R,), the mean over recalls and thresholds; 0 without objects."""
        often = counts[:, self.image]  # (R, D)
        objects = np.maximum(counts @ self.objects, 1)
        if not often.shape[1]:
            return np.zeros(len(counts))
        found = np.zeros((len(counts), len(self.hits)))
        for number, (hit, miss) in enumerate(zip(self.hits, self.misses, strict=True)):
            right, wrong = np.cumsum(often * hit, 1), np.cumsum(often * miss, 1)
            recall = right / objects[:, None]
            precision = right / (right + wrong + np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]  # from each recall on
            for r in range(len(counts)):
                place = np.searchsorted(recall[r], RECALLS, side='left')
                reached = place < recall.shape[1]
                found[r, number] = best[r, place[reached]].sum() / len(RECALLS)
        return found.mean(1)


def _mean_of(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The mean of those of the values (R, K) that are there; NaN where none is."""
    number = there.sum(1)
    total = np.where(there, values, 0).sum(1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
