"""What a library's metric keeps of each image, as a statistic of any resample of the images."""
import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..evaluation import average_precision, mean_iou
from ..evaluation.statistics import Statistic

__all__ = ['statistics_of']

CLOSE = 0.006  # metrics of percents round to two digits


def statistics_of(metric, results: Sequence, values: dict[str, float]) -> dict[str, Statistic]:
    """The measures of a metric on any resample of its images.

    Args:
        metric: of a library, after its evaluation.
        results: what it kept of each image.
        values: what it said, by name; a statistic that does not agree on all images is left out.

    Returns:
        By the measure's name; empty for metrics that are not known.
    """
    found: dict[str, Statistic] = {}
    for kind in type(metric).__mro__:
        if kind.__name__ in _KNOWN:
            found = _KNOWN[kind.__name__](metric, results)
            break
    once = np.ones((1, len(results)), dtype=np.int64)
    kept = {}
    for name, statistic in found.items():
        whole = next((key for key in values if key.rpartition('/')[2] == name), None)
        if whole is not None and abs(float(statistic(once)[0]) - values[whole]) <= CLOSE:
            kept[whole] = statistic
    return kept


def _accuracy(metric, results: Sequence) -> dict[str, Statistic]:
    right = np.array([_said(one) == int(one['gt_label'][0]) for one in results], dtype=float)
    return {'top1': lambda counts: 100 * (counts @ right) / counts.sum(1)}


def _said(result: dict) -> int:
    if 'pred_score' in result:
        return int(result['pred_score'].argmax())
    return int(result['pred_label'].reshape(-1)[0])


def _iou(metric, results: Sequence) -> dict[str, Statistic]:
    shared, united = (np.stack([np.asarray(one[place]) for one in results]).round().astype(np.int64)
                      for place in (0, 1))
    statistic = mean_iou(shared, united)
    return {'mIoU': lambda counts: 100 * statistic(counts)}


def _coco(metric, results: Sequence) -> dict[str, Statistic]:
    if 'bbox' not in metric.metrics:
        return {}
    from pycocotools.cocoeval import COCOeval
    ids = [truth['img_id'] for truth, _ in results]
    boxes = [dict(image_id=found['img_id'], score=float(score), category_id=metric.cat_ids[label],
                  bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]])
             for _, found in results
             for box, score, label in zip(found['bboxes'].tolist(), found['scores'].tolist(),
                                          found['labels'].tolist(), strict=True)]
    if not boxes:
        return {}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCOeval(metric._coco_api, metric._coco_api.loadRes(boxes), 'bbox')
        coco.params.catIds, coco.params.imgIds = metric.cat_ids, ids
        coco.params.iouThrs = metric.iou_thrs
        coco.evaluate()
    return {'bbox_mAP': average_precision(coco.evalImgs, ids),
            'bbox_mAP_50': average_precision(coco.evalImgs, ids, 0)}


_KNOWN: dict[str, Callable[[Any, Sequence], dict[str, Statistic]]] = dict(
    Accuracy=_accuracy, IoUMetric=_iou, CocoMetric=_coco)
