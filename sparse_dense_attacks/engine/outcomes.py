"""What a detector's stock predictions say of the annotated objects, for records and as a metric."""
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from ..checks import check_flag, check_number
from ..errors import InputError
from ..evaluation.detections import Answer, Objects, answer
from ..evaluation.measures import pooled
from ..evaluation.transfer import Found
from ..victims.base import sample_key

__all__ = ['AttackMeasures', 'DetectionOutcomes', 'outcome']


def outcome(sample: Any, output: Any, boxes_follow_resize: bool = False, score_thr: float = 0.3,
            iou_thr: float = 0.5) -> Answer:
    """What became of the objects of a data sample.

    Args:
        sample: with ground truth, as the test pipeline packs it.
        output: with ``pred_instances`` in coordinates of the original image.
        boxes_follow_resize: the ground truth is in coordinates of the network input.
        score_thr, iou_thr: see :func:`~sparse_dense_attacks.evaluation.answer`.

    Raises:
        InputError: no predicted boxes, or no annotated ones.
    """
    predicted = output.get('pred_instances')
    if predicted is None or 'bboxes' not in predicted:
        raise InputError("the measure 'detections' needs a model that predicts boxes")
    instances = sample.get('gt_instances', ())
    if 'bboxes' not in instances or 'labels' not in instances:
        raise InputError(f"sample '{sample_key(sample)}' has no annotated boxes, which the measure "
                         "'detections' needs: add LoadAnnotations(with_bbox=True) to the test "
                         'pipeline')
    scale = np.ones(4)
    if sample.metainfo.get('boxes_follow_resize', boxes_follow_resize):
        scale = np.tile(np.asarray(sample.metainfo['scale_factor'][:2], float), 2)
    boxes, labels = _arrays(instances)
    crowds, kinds = _arrays(sample.get('ignored_instances', ()))
    truth = Objects(boxes / scale, labels, crowds / scale, kinds)
    found = Found(*_arrays(predicted), predicted['scores'].detach().cpu().numpy())
    return answer(found, truth, score_thr, iou_thr)


def _arrays(instances) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) and labels (n,); mmdet wraps annotated boxes."""
    if 'bboxes' not in instances:
        return np.zeros((0, 4)), np.zeros(0, np.int64)
    boxes = instances['bboxes']
    boxes = getattr(boxes, 'tensor', boxes)
    labels = instances['labels'].cpu().numpy()
    return boxes.detach().cpu().numpy().astype(float).reshape(-1, 4), labels


@METRICS.register_module()
class DetectionOutcomes(BaseMetric):
    """Shares of objects found, found as another class and missing; of predictions that match, are of
    another class, are duplicates or hallucinated.

    From the model's own output after its suppression, over all images, by size of the object's box
    (COCO's small, medium, large). An evaluator of :class:`~.loops.AttackLoop` says it of the clean
    and of the attacked images.

        test_evaluator = [dict(type='CocoMetric', ...), dict(type='DetectionOutcomes')]

    Args:
        score_thr: least score of a prediction that counts.
        iou_thr: least overlap.
        boxes_follow_resize: the pipeline loads annotations before it resizes.
        collect_device, prefix: as of every metric of mmengine.
    """
    default_prefix = 'objects'

    def __init__(self, score_thr: float = 0.3, iou_thr: float = 0.5,
                 boxes_follow_resize: bool = False, collect_device: str = 'cpu',
                 prefix: str | None = None):
        super().__init__(collect_device, prefix)
        self.score_thr, self.iou_thr = score_thr, iou_thr
        self.boxes_follow_resize = boxes_follow_resize
        check_number(self, 'score_thr', 0, 1, low_ok=True)
        check_number(self, 'iou_thr', 0, 1)
        check_flag(self, 'boxes_follow_resize')

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample, output in zip(data_batch['data_samples'], data_samples, strict=True):
            found = outcome(sample, output, self.boxes_follow_resize, self.score_thr, self.iou_thr)
            self.results.append(found.counts())

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        return pooled(results)


@METRICS.register_module()
class AttackMeasures(BaseMetric):
    """The mean of every measure over the images on which it is defined, for loops of your own.

    An :class:`~.attacker.Attacker` or :class:`~.hooks.AttackHook` with ``measures`` leaves them in the
    samples' meta data, as ``attack_measures``.

    Args:
        collect_device, prefix: as of every metric of mmengine.
    """
    default_prefix = 'attack'

    def __init__(self, collect_device: str = 'cpu', prefix: str | None = None):
        super().__init__(collect_device, prefix)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            if 'attack_measures' not in sample:
                raise InputError("AttackMeasures: the samples have no 'attack_measures': give the "
                                 "AttackHook or the Attacker measures=['anc', ...]; without an "
                                 'attack there are no clean images to compare with')
            self.results.append(sample['attack_measures'])

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        names = dict.fromkeys(name for one in results for name in one)
        known = {name: [one[name] for one in results if one.get(name) is not None]
                 for name in names}
        return {name: float(np.mean(values)) if values else float('nan')
                for name, values in known.items()}
