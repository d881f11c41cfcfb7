"""Metrics of resampled images equal those of a data set in which images really occur twice."""
import contextlib
import copy
import io

import numpy as np
import pytest

from sparse_dense_attacks.evaluation import average_precision, bootstrap, mean_iou

IMAGES, CLASSES = 7, 3
RNG = np.random.default_rng(0)


def evaluated(annotations, detections, ids):
    coco = pytest.importorskip('pycocotools.coco')
    from pycocotools.cocoeval import COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = dict(images=[dict(id=i, width=99, height=99) for i in ids],
                             categories=[dict(id=c) for c in range(CLASSES)],
                             annotations=annotations)
        truth.createIndex()
        found = COCOeval(truth, truth.loadRes(copy.deepcopy(detections)), 'bbox')
        found.params.imgIds = list(ids)
        found.evaluate()
        found.accumulate()
        found.summarize()
    return found


def scene():
    """Annotations, some of them crowds, and detections near them; scores tie across images."""
    annotations, detections = [], []
    for image in range(IMAGES):
        scores = iter(RNG.permutation(20) / 20)
        for _ in range(RNG.integers(0, 6)):
            x, y, w, h = RNG.integers(1, 40, 4).tolist()
            one = dict(image_id=image, category_id=int(RNG.integers(CLASSES)), bbox=[x, y, w, h])
            annotations.append(dict(one, id=len(annotations) + 1, area=w * h,
                                    iscrowd=int(RNG.random() < 0.15)))
            for _ in range(RNG.integers(0, 4)):
                moved = (np.array([x, y, w, h]) + RNG.integers(-3, 4, 4)).clip(1).tolist()
                detections.append(dict(one, bbox=moved, score=next(scores)))
    return annotations, detections


def repeated(rows, ids):
    """The rows of each image in ``ids`` as those of images 0, 1, ...; ids may occur twice."""
    found = [dict(row, image_id=new) for new, old in enumerate(ids) for row in rows
             if row['image_id'] == old]
    return [dict(row, id=n + 1) if 'id' in row else row for n, row in enumerate(found)]


@pytest.mark.parametrize('trial', range(4))
def test_average_precision_is_that_of_coco(trial):
    annotations, detections = scene()
    once = evaluated(annotations, detections, range(IMAGES))
    counts = RNG.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), size=5)
    counts[0] = 1
    for which, stat in ((None, 0), (0, 1), (5, 2)):
        values = average_precision(once.evalImgs, range(IMAGES), which)(counts)
        assert values[0] == pytest.approx(once.stats[stat], abs=1e-12)
        for count, value in zip(counts, values, strict=True):
            ids = np.repeat(range(IMAGES), count)
            twice = evaluated(repeated(annotations, ids), repeated(detections, ids),
                              range(len(ids)))
            assert value == pytest.approx(twice.stats[stat], abs=1e-12)


def test_without_objects_there_is_no_precision():
    annotations = [dict(id=1, image_id=0, category_id=0, bbox=[1, 1, 9, 9], area=81, iscrowd=0)]
    detections = [dict(image_id=0, category_id=0, bbox=[1, 1, 9, 9], score=0.5)]
    statistic = average_precision(evaluated(annotations, detections, range(2)).evalImgs, range(2))
    assert np.isnan(statistic(np.array([[0, 2]]))).all()
    assert statistic(np.array([[1, 1]]))[0] == pytest.approx(1)
    assert np.isnan(average_precision([], range(2))(np.ones((1, 2), int))).all()


def test_mean_iou_by_counting():
    truth, said = RNG.integers(0, 4, (2, IMAGES, 5, 6))
    classes = range(5)  # of which one does not occur
    shared, united = (np.stack([join(truth == c, said == c).sum((1, 2)) for c in classes], 1)
                      for join in (np.logical_and, np.logical_or))
    statistic = mean_iou(shared, united)
    for ids in ([0, 1, 2, 3, 4, 5, 6], [0, 0, 3, 3, 3, 1, 5]):
        ratios = [np.logical_and(truth[ids] == c, said[ids] == c).sum()
                  / np.logical_or(truth[ids] == c, said[ids] == c).sum() for c in classes[:4]]
        assert statistic(np.bincount(ids, minlength=IMAGES)[None])[0] == pytest.approx(
            np.mean(ratios))
    interval = bootstrap(statistic, IMAGES)
    assert interval.low < interval.value < interval.high
