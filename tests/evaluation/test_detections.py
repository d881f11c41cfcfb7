"""What became of objects and what predictions are, by hand and beside pycocotools."""
import contextlib
import io

import numpy as np
import pytest

from sparse_dense_attacks import InputError
from sparse_dense_attacks.evaluation import Found
from sparse_dense_attacks.evaluation.detections import Objects, answer, size_of

A, B, C = (0., 0, 20, 20), (100., 0, 150, 50), (0., 200, 200, 400)  # small, medium, large
CAT, DOG = 0, 1


def found(*predictions):
    boxes, labels, scores = zip(*predictions, strict=True) if predictions else ((), (), ())
    return Found(np.array(boxes, float).reshape(-1, 4), np.array(labels, int), np.array(scores, float))


def objects(*given, ignored=()):
    boxes, labels = ([one[part] for one in given] for part in (0, 1))
    crowds, kinds = ([one[part] for one in ignored] for part in (0, 1))
    return Objects(np.array(boxes, float).reshape(-1, 4), np.array(labels, int),
                   np.array(crowds, float).reshape(-1, 4), np.array(kinds, int))


def test_every_case_once():
    truth = objects((A, CAT), (B, DOG), (C, CAT))
    said = found((A, CAT, .9), (A, CAT, .8), (B, CAT, .7), ((300, 0, 350, 50), DOG, .6), (C, CAT, .2))
    counts = answer(said, truth).counts()
    assert (counts['found'], counts['other_class'], counts['missing']) == (1, 1, 1)
    assert (counts['match'], counts['duplicate'], counts['as_other_class'],
            counts['hallucinated'], counts['predictions']) == (1, 1, 1, 1, 4)
    assert counts['found_small'] == counts['other_class_medium'] == counts['missing_large'] == 1
    assert counts['objects'] == 3


def test_the_best_score_comes_first_and_the_right_class_before_the_wrong():
    truth = objects((A, CAT))
    assert answer(found((A, DOG, .99), (A, CAT, .4)), truth).fates.tolist() == [0]
    assert answer(found((A, DOG, .99), (A, CAT, .4)), truth).kinds.tolist() == [3, 0]


def test_one_prediction_takes_one_object():
    near = (1., 0, 21, 20)
    assert answer(found((A, CAT, .9)), objects((A, CAT), (near, CAT))).fates.tolist() == [0, 2]
    both = answer(found((A, CAT, .5), (near, CAT, .9)), objects((A, CAT), (near, CAT)))
    assert both.fates.tolist() == [0, 0] and both.kinds.tolist() == [0, 0]


def test_nothing_is_judged_in_a_crowd_of_the_class():
    crowd = objects((B, DOG), ignored=[(C, CAT)])
    said = found(((10, 210, 40, 240), CAT, .9), ((10, 210, 40, 240), DOG, .8))
    assert answer(said, crowd).kinds.tolist() == [3]  # the dog is none of the crowd


@pytest.mark.parametrize('said', [found(), found((A, CAT, .9))])
@pytest.mark.parametrize('truth', [objects(), objects((A, CAT))])
def test_empty_images(said, truth):
    counts = answer(said, truth).counts()
    assert counts['objects'] == len(truth.labels) and counts['predictions'] == len(said.labels)
    assert counts['found'] == min(counts['objects'], counts['predictions'])


def test_sizes_are_those_of_coco():
    boxes = np.array([[0, 0, 32, 31.9], [0, 0, 32, 32], [0, 0, 96, 95.9], [0, 0, 96, 96]])
    assert size_of(boxes).tolist() == [0, 1, 1, 2]


def test_thresholds_are_shares():
    with pytest.raises(InputError, match='iou_thr = 2, expected a number in'):
        answer(found(), objects(), iou_thr=2)


def random_image(rng, classes=3):
    corner = rng.uniform(0, 100, (rng.integers(0, 9), 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 150, corner.shape)], 1)
    labels = rng.integers(classes, size=len(boxes))
    near = boxes[rng.integers(len(boxes), size=12)] if len(boxes) else np.zeros((0, 4))
    near = near + rng.normal(0, 6, near.shape)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    crowd = rng.random(len(boxes)) < 0.15
    truth = Objects(boxes[~crowd], labels[~crowd], boxes[crowd], labels[crowd])
    return truth, Found(near, rng.integers(classes, size=len(near)), rng.uniform(0.2, 1, len(near)))


def matches_of_pycocotools(truth, said):
    """Which objects are matched, and how many predictions, at IoU 0.5 and score 0.3."""
    coco = pytest.importorskip('pycocotools.coco').COCO()
    from pycocotools.cocoeval import COCOeval

    def entries(boxes, labels, **more):
        return [dict(image_id=1, category_id=int(label), bbox=[*box[:2], *(box[2:] - box[:2])],
                     area=float((box[2:] - box[:2]).prod()), **more)
                for box, label in zip(boxes, labels, strict=True)]

    annotations = (entries(truth.boxes, truth.labels, iscrowd=0)
                   + entries(truth.ignored_boxes, truth.ignored_labels, iscrowd=1))
    coco.dataset = dict(images=[dict(id=1)], categories=[dict(id=n) for n in range(3)],
                        annotations=[dict(one, id=n) for n, one in enumerate(annotations, 1)])
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        keep = said.scores >= 0.3
        shown = [dict(one, score=float(score)) for one, score in
                 zip(entries(said.boxes[keep], said.labels[keep]), said.scores[keep], strict=True)]
        if not shown:
            return 0, 0, 0
        judge = COCOeval(coco, coco.loadRes(shown), 'bbox')
        judge.params.iouThrs, judge.params.areaRng = np.array([0.5]), [[0, 1e10]]
        judge.params.areaRngLbl = ['all']
        judge.evaluate()
    known = [one for one in judge.evalImgs if one is not None]
    hits = sum(int(((one['dtMatches'] > 0) & ~one['dtIgnore']).sum()) for one in known)
    ignored = sum(int(one['dtIgnore'].sum()) for one in known)
    matched = sum(int(((one['gtMatches'] > 0) & (one['gtIgnore'] == 0)).sum()) for one in known)
    return matched, hits, ignored


def test_found_objects_are_those_that_pycocotools_matches():
    rng = np.random.default_rng(0)
    seen = np.zeros(3, int)
    for _ in range(150):
        truth, said = random_image(rng)
        matched, hits, ignored = matches_of_pycocotools(truth, said)
        counts = answer(said, truth).counts()
        above = int((said.scores >= 0.3).sum())
        assert (counts['found'], counts['match']) == (matched, hits)
        assert counts['predictions'] == above - ignored
        seen += (matched, ignored, counts['other_class'])
    assert (seen > 30).all()
