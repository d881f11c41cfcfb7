"""A patch beside what it has to beat: clean images, and other contents in the same places."""
import contextlib
import copy
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner import TestLoop
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .. import screen
from ..attacks import UniversalPatch
from ..checks import class_index
from ..evaluation import SIZES, Found, change, detected, hallucinated, of_classes, size_of
from ..evaluation.transfer import Answer
from ..results.record import file_name
from ..victims.base import sample_key
from .attacker import Attacker
from .pictures import to_picture
from .scores import Scores, apart
from .transfer import plain
from .warn import warn

__all__ = ['Version', 'average_precisions', 'judge_versions', 'truth_of']

DRAWN = 8  # images of which there are pictures
SCORE = 0.3  # least score of a detection that counts, as in goals
NONE = Found(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))


@dataclass
class Version:
    """What was seen of one version of the images.

    Attributes:
        success: of each image that the victim had right and the patch could reach.
        changes: share of each answer that is another one than on the clean image.
        hidden: by size, of each object that was found on the clean image, whether it is gone.
        hallucinations: of each image.
        answers: of each image.
        patches, left_alone: places that were painted; objects, or images, without one.
    """
    success: list[bool] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    hidden: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    hallucinations: list[int] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    patches: int = 0
    left_alone: int = 0


def judge_versions(loop: TestLoop, evaluator_config, attacker: Attacker,
                   versions: Mapping[str, UniversalPatch],
                   scored: Sequence[str], pictures: Path) -> dict[str, dict[str, Any]]:
    """Show every version of the loop's images to its model.

    Args:
        loop: whose dataloader has the images and whose evaluator the metrics.
        evaluator_config: of the metrics.
        attacker: with victim, goal and threat model.
        versions: what is put into the images, by name; the clean images come first of themselves.
        scored: names of versions that the evaluator looks at; the clean images are among them.
        pictures: folder for the first images that the version 'learned' is painted into.

    Returns:
        For 'clean' and every version its numbers by name: the metrics of the evaluator; ``success``,
        ``changed`` and ``patches``; of detectors average precisions against the annotations
        (``AP_50``) and against what was found in the clean images (``AP_50_model``), the share of
        objects that are hidden, by size, and ``hallucinations`` per image.
    """
    runner, dataset = loop.runner, loop.dataloader.dataset
    attackers = {name: replace(attacker, attack=patch, asked=[True])
                 for name, patch in versions.items()}
    evaluators = {}
    for name in ('clean', *scored):
        evaluators[name] = runner.build_evaluator(apart(copy.deepcopy(evaluator_config), name))
        evaluators[name].dataset_meta = loop.evaluator.dataset_meta
    scores = Scores(evaluators['clean'], loop.evaluator,
                    **{name: one for name, one in evaluators.items() if name != 'clean'})
    scores.sides.pop('adv')
    seen = {name: Version() for name in ('clean', *versions)}
    truths: list[tuple[Found, Found]] = []
    classes = _classes(attacker, dataset)
    keys: set[str] = set()
    room = DRAWN
    runner.model.eval()

    def answer(batch: dict) -> list:
        return runner.model.test_step(attacker.victim.defended(batch))

    with screen.progress(len(dataset), what='judge') as advance:
        for batch in loop.dataloader:
            unreadable = batch.pop('unreadable', ())
            if len(batch['inputs']):
                right, drawn = _look(answer, batch, attackers, evaluators, seen, classes)
                truths += right
                _draw(pictures, drawn, attacker.channels, room)
                room -= len(drawn)
                keys |= {sample_key(sample) for sample in batch['data_samples']}
            advance(len(batch['inputs']) + len(unreadable))
    metrics, failed = scores.evaluate(dataset, keys)
    for name, reason in failed.items():
        warn(f'metric {name} failed and is left out ({reason})')
    found: dict[str, dict[str, Any]] = {}
    for name, version in seen.items():
        native = {key.removeprefix(f'{name}/'): value for key, value in metrics.items()
                  if key.startswith(f'{name}/') and isinstance(value, int | float)}
        found[name] = native | _numbers(version, seen['clean'], truths, classes)
    return found


@torch.no_grad()
def _look(answer: Callable[[dict], list], batch: dict, attackers: Mapping[str, Attacker], evaluators: Mapping,
          seen: Mapping[str, Version], classes: Sequence[int] | None) -> tuple[
              list[tuple[Found, Found]], dict[str, torch.Tensor]]:
    """Show one batch in all its versions.

    Args:
        answer: what the stock model says of a batch, behind its defence.

    Returns:
        What is right about its images, and those that what was learned is painted into, by their keys.
    """
    samples = copy.deepcopy(batch['data_samples'])
    outputs = answer(dict(batch, data_samples=samples))
    evaluators['clean'].process(data_samples=outputs, data_batch=batch)
    clean = [plain(output) for output in outputs]
    follow = next((getattr(one.victim, 'boxes_follow_resize', False)
                   for one in attackers.values()), False)
    truths = [truth_of(sample, follow) for sample in batch['data_samples']]
    truths = [(of_classes(one, classes), ignored) for one, ignored in truths]
    _keep(seen['clean'], clean, clean, truths, classes)
    drawn: dict[str, torch.Tensor] = {}
    for name, attacker in attackers.items():
        done = attacker.perturb(batch)
        if name == 'learned':
            every = zip(done.keys, done.pictures, done.measures, strict=True)
            drawn = {key: picture for key, picture, one in every if one['patches']}
        said = answer(done.batch)
        if name in evaluators:
            evaluators[name].process(data_samples=said, data_batch=done.batch)
        version = seen[name]
        _keep(version, [plain(output) for output in said], clean, truths, classes)
        counts = done.result.defined & done.result.clean_correct
        version.success += done.result.success[counts].tolist()
        version.patches += sum(one['patches'] for one in done.measures)
        version.left_alone += sum(one['left_alone'] for one in done.measures)
    return truths, drawn


def _draw(folder: Path, drawn: Mapping[str, torch.Tensor], channels: str | None, most: int) -> None:
    for key, image in list(drawn.items())[:max(most, 0)]:
        path = folder / f'{file_name(key)}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_picture(image, channels or 'bgr')).save(path)


def _keep(version: Version, answers: Sequence[Answer], clean: Sequence[Answer],
          truths: Sequence[tuple[Found, Found]], classes: Sequence[int] | None) -> None:
    for answer, before, (truth, ignored) in zip(answers, clean, truths, strict=True):
        version.changes.append(change(before, answer))
        version.answers.append(answer)
        if isinstance(answer, Found) and isinstance(before, Found):
            known = detected(truth, before, SCORE)
            gone = ~detected(truth, answer, SCORE)
            for size, was, now in zip(size_of(truth.boxes), known, gone, strict=True):
                if was:
                    version.hidden[SIZES[size]].append(bool(now))
            mine = of_classes(answer, classes)
            version.hallucinations.append(hallucinated(truth, mine, ignored, SCORE))


def _numbers(version: Version, clean: Version, truths: Sequence[tuple[Found, Found]],
             classes: Sequence[int] | None) -> dict[str, Any]:
    found: dict[str, Any] = dict(changed=float(np.mean(version.changes)))
    if version is not clean:
        found |= dict(success=float(np.mean(version.success)) if version.success else None,
                      patches=version.patches, left_alone=version.left_alone)
    if not version.hallucinations:
        return found
    mine, before = ([of_classes(one, classes) for one in answers if isinstance(one, Found)]
                    for answers in (version.answers, clean.answers))
    annotated, ignored = (list(part) for part in zip(*truths, strict=True))
    found['AP'], found['AP_50'] = average_precisions(annotated, mine, ignored)
    model = [one.above(SCORE) for one in before]
    found['AP_model'], found['AP_50_model'] = average_precisions(model, mine)
    every = [one for size in SIZES for one in version.hidden[size]]
    for size, gone in (('all', every), *((size, version.hidden[size]) for size in SIZES)):
        found[f'hidden_{size}'] = float(np.mean(gone)) if gone else None
        found[f'objects_{size}'] = len(gone)
    found['hallucinations'] = float(np.mean(version.hallucinations))
    return found


def _classes(attacker: Attacker, dataset) -> list[int] | None:
    """The classes of the objects that the goal is about; None for all."""
    wanted = getattr(attacker.goal, 'classes', None)
    if wanted is None:
        return None
    names = dataset.metainfo.get('classes')
    return [class_index(name, names, attacker.victim.num_classes, 'goal: classes')
            for name in wanted]


def truth_of(sample, boxes_follow_resize: bool) -> tuple[Found, Found]:
    """The annotated objects of a sample, and what is ignored, in coordinates of predictions.

    Args:
        boxes_follow_resize: the annotations are in coordinates of the input.
    """
    scale = np.ones(2)
    if sample.metainfo.get('boxes_follow_resize', boxes_follow_resize):
        scale = np.asarray(sample.metainfo.get('scale_factor', scale)[:2], float)
    found = []
    for name in ('gt_instances', 'ignored_instances'):
        instances = sample.get(name)
        if instances is None or 'bboxes' not in instances or 'labels' not in instances:
            found.append(NONE)
            continue
        boxes = getattr(instances.bboxes, 'tensor', instances.bboxes).double().cpu().numpy()
        labels = instances.labels.cpu().numpy()
        found.append(Found(boxes / np.tile(scale, 2), labels, np.ones(len(labels))))
    return found[0], found[1]


def average_precisions(truths: Sequence[Found], found: Sequence[Found],
                       ignored: Sequence[Found] | None = None) -> tuple[float | None, float | None]:
    """COCO's average precision over all thresholds and at an overlap of one half.

    Args:
        truths: the objects of each image, whatever they score.
        found: the detections in each image.
        ignored: crowds and the like of each image, in which detections count for nothing.

    Returns:
        Both in [0, 1]; None where there is no object.
    """
    ignored = ignored or [NONE] * len(truths)
    kinds = sorted({int(label) for one in truths for label in one.labels})
    if not kinds:
        return None, None
    annotations = [dict(_box(image, box, label), iscrowd=crowd, id=0)
                   for image, parts in enumerate(zip(truths, ignored, strict=True))
                   for crowd, part in enumerate(parts)
                   for box, label in zip(part.boxes, part.labels, strict=True)]
    results = [dict(_box(image, box, label), score=float(score))
               for image, one in enumerate(found)
               for box, label, score in zip(one.boxes, one.labels, one.scores, strict=True)]
    if not results:
        return 0.0, 0.0
    truth = COCO()
    truth.dataset = dict(images=[dict(id=image) for image in range(len(truths))],
                         annotations=[dict(one, id=n) for n, one in enumerate(annotations, 1)],
                         categories=[dict(id=n) for n in {one['category_id'] for one in (
                             *annotations, *results)}])
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        coco = COCOeval(truth, truth.loadRes(results), 'bbox')
        coco.params.catIds = kinds
        coco.evaluate()
        coco.accumulate()
        coco.summarize()
    return float(coco.stats[0]), float(coco.stats[1])


def _box(image: int, box: np.ndarray, label: int) -> dict[str, Any]:
    """A box as COCO has it."""
    x1, y1, x2, y2 = (float(side) for side in box)
    return dict(image_id=image, category_id=int(label), bbox=[x1, y1, x2 - x1, y2 - y1],
                area=(x2 - x1) * (y2 - y1))
