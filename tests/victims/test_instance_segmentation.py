"""Hiding what an instance segmenter finds hides its masks: mmdet's own CocoMetric before and after."""
import copy
import json

import pytest
import torch

pytest.importorskip('mmdet', reason='instance segmentation is tested on mmdet: make setup')

import numpy as np
import pycocotools.mask
from mmdet.evaluation import CocoMetric

from sparse_dense_attacks import SparsePGD, Vanish
from sparse_dense_attacks.engine.attacker import with_inputs
from sparse_dense_attacks.victims.mmdet import MMDetDetector
from tests.zoo import CLASSES, FAMILIES, build, make_batch

pytestmark = pytest.mark.openmmlab


def predict(model, batch) -> list:
    """What the model predicts for each image alone."""
    with torch.no_grad():
        return [model.test_step({name: [copy.deepcopy(values[b])] for name, values in batch.items()})[0] for b in range(2)]


def annotate(samples, path) -> None:
    """Predictions as a COCO annotation file."""
    annotations = []
    for sample in samples:
        found = sample.pred_instances
        for box, label, mask in zip(found.bboxes.tolist(), found.labels.tolist(), found.masks.cpu().numpy(), strict=True):
            rle = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(dict(
                id=len(annotations) + 1, image_id=sample.img_id, category_id=int(label) + 1, iscrowd=0, area=float(mask.sum()),
                bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]], segmentation=dict(rle, counts=rle['counts'].decode())))
    images = [dict(id=s.img_id, height=s.ori_shape[0], width=s.ori_shape[1], file_name=s.img_path) for s in samples]
    categories = [dict(id=c + 1, name=str(c)) for c in range(CLASSES)]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def score(samples, path, kinds) -> list:
    metric = CocoMetric(ann_file=str(path), metric=kinds)
    metric.dataset_meta = dict(classes=tuple(str(c) for c in range(CLASSES)))
    metric.process({}, [sample.to_dict() for sample in samples])
    found = metric.evaluate(len(samples))
    return [found.get(f'coco/{kind}_mAP_50', 0.0) for kind in kinds]  # without any prediction there are no metrics


@pytest.mark.parametrize('family, kinds', [('mask_rcnn', ['bbox', 'segm']), ('solov2', ['segm'])])
def test_vanish_hides_masks(tmp_path, family, kinds):
    """Random weights and the model's own three best detections as truth; it reports nothing below the threshold of the goal."""
    model, path = build(FAMILIES[family]), tmp_path / 'truth.json'
    batch = make_batch(scale=1.0)
    thr = float(torch.cat([sample.pred_instances.scores for sample in predict(model, batch)]).sort().values[-4:-2].mean())
    if family == 'solov2':
        model.mask_head.test_cfg.filter_thr = thr
    else:
        model.roi_head.test_cfg.score_thr = thr
    clean = predict(model, batch)
    annotate(clean, path)
    assert score(clean, path, kinds) == [1.0] * len(kinds)

    victim = MMDetDetector(model, reference='prediction', reference_thr=thr)
    with victim.session():
        result = SparsePGD(k=0.2, steps=30)(Vanish(score_thr=thr).objective(victim.open(batch)))
    assert result.success[result.clean_correct].all() and result.clean_correct.any()
    assert score(predict(model, with_inputs(batch, result.images)), path, kinds) == [0.0] * len(kinds)
