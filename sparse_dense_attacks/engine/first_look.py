"""Whether a model finds anything of the truth in the first images: weights, classes, pipeline."""
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..victims.base import sample_key

__all__ = ['Look', 'complaint', 'look']

SCORE, OVERLAP = 0.3, 0.5  # of a detection that counts, least score and intersection over union
IGNORED = 255  # of label maps, where no class names say how many there are
MARGIN = 1.1  # how far above chance a segmenter has to be
ENOUGH = 4  # images, before a model that is no better than chance is complained about
_ADVICE = ('check that the weights are those of this model, that the classes are in their order, '
           'and that the ground truth fits the images (sda attack --check shows what is found)')


@dataclass(frozen=True)
class Look:
    """One image: what it holds and what the model says, both in coordinates of the metrics.

    Attributes:
        key: sample id.
        truth, found: of the annotations and of the predictions, in words.
        parts: objects, classes of a label map, or 1 for the image; 0 where nothing can be said.
        placed: objects that some detection covers, whatever its class; ``right`` for other tasks.
        right: parts that the model has right; of a class that share of its pixels.
        chance: share of the parts that a guess would have right, 0 for objects.
    """
    key: str
    truth: str
    found: str
    parts: int
    placed: float
    right: float
    chance: float


def look(sample, output, classes: Sequence[str] | None, boxes_follow_resize: bool) -> Look | None:
    """Compare a sample of a test pipeline with the model's output; None for other outputs.

    Args:
        sample: data sample with ground truth.
        output: data sample with predictions.
        classes: their names, None if unknown.
        boxes_follow_resize: the ground truth is in coordinates of the input.
    """
    if 'pred_label' in output:
        return _classified(sample, output, classes)
    if 'pred_sem_seg' in output:
        return _segmented(sample, output, classes)
    if 'pred_instances' in output and 'bboxes' in output.pred_instances:
        return _detected(sample, output, classes, boxes_follow_resize)
    return None


def complaint(looks: Sequence[Look]) -> str | None:
    """What to say of a model that has nothing right, None where all is well."""
    seen = [one for one in looks if one.parts]
    parts, right = sum(one.parts for one in seen), sum(one.right for one in seen)
    placed = sum(one.placed for one in seen)
    if len(looks) < ENOUGH or not parts:
        return None
    by_chance = sum(one.chance * one.parts for one in seen)
    if right > by_chance:
        return None
    if by_chance:
        return (f'the model is no better than chance on the first {len(looks)} images '
                f'({right / parts:.1%} right): {_ADVICE}')
    places = f', though it finds the places of {placed}' if placed else ''
    return (f'the model finds none of the {parts} objects of the first {len(looks)} images'
            f'{places}: {_ADVICE}')


def _classified(sample, output, classes) -> Look:
    label, said = sample.get('gt_label'), int(output.pred_label[0])
    known = label is not None and len(label) == 1
    truth = _name(int(label[0]), classes) if known else 'unknown'
    right = int(known and int(label[0]) == said)
    chance = 1 / max(output.pred_score.numel(), 1)
    found = f'{_name(said, classes)} {float(output.pred_score.max()):.2f}'
    return Look(sample_key(sample), truth, found, int(known), right, right, chance)


def _segmented(sample, output, classes) -> Look:
    """Each class counts alike: otherwise one guess for all pixels would do well on most images."""
    said = output.pred_sem_seg.data[0].cpu()
    if 'gt_sem_seg' not in sample or sample.gt_sem_seg.data[0].shape != said.shape:
        return Look(sample_key(sample), 'unknown', _areas(said, classes), 0, 0, 0, 0)
    label = sample.gt_sem_seg.data[0].cpu()
    valid = (label >= 0) & (label < (len(classes) if classes else IGNORED))
    kinds = label[valid].unique()
    right = sum(float((said[label == kind] == kind).float().mean()) for kind in kinds)
    parts = len(kinds) if len(kinds) > 1 else 0  # of one class alone any guess may be right
    chance = MARGIN / max(parts, 1)
    return Look(sample_key(sample), _areas(label[valid], classes), _areas(said, classes),
                parts, right, right, chance)


def _detected(sample, output, classes, boxes_follow_resize: bool) -> Look:
    predicted = output.pred_instances
    predicted = predicted[predicted.scores >= SCORE]
    boxes, labels = _plain(predicted.bboxes), predicted.labels.cpu()
    best = predicted.scores.argsort(descending=True).tolist()
    said = [f'{_name(int(labels[i]), classes)} {float(predicted.scores[i]):.2f}' for i in best[:8]]
    found = ', '.join(said + ['...'] * (len(best) > 8)) or 'nothing'
    instances = sample.get('gt_instances', ())
    if 'bboxes' not in instances or (len(boxes) and not boxes.any()):  # heads that give masks only
        return Look(sample_key(sample), 'unknown', found, 0, 0, 0, 0.0)
    truth = _plain(instances.bboxes)
    if sample.metainfo.get('boxes_follow_resize', boxes_follow_resize):
        truth = truth / truth.new_tensor(sample.metainfo['scale_factor'][:2]).repeat(2)
    covers = box_iou(truth, boxes) >= OVERLAP
    right = covers & (instances.labels.cpu()[:, None] == labels)
    counts = Counter(_name(int(label), classes) for label in instances.labels)
    named = ', '.join(f'{count} {name}' for name, count in counts.items()) or 'nothing'
    return Look(sample_key(sample), named, found, len(truth), int(covers.any(1).sum()),
                int(right.any(1).sum()), 0.0)


def _plain(boxes) -> Tensor:
    """Boxes (n, 4) float on the CPU; mmdet wraps those of its annotations."""
    return (boxes if isinstance(boxes, Tensor) else boxes.tensor).float().cpu()


def _areas(labels: Tensor, classes) -> str:
    """The largest classes of a label map with their shares."""
    kinds, counts = torch.unique(labels, return_counts=True)
    order = counts.argsort(descending=True)[:4].tolist()
    shares = [f'{_name(int(kinds[i]), classes)} {float(counts[i]) / labels.numel():.0%}'
              for i in order]
    return ', '.join(shares) or 'nothing'


def _name(label: int, classes) -> str:
    return str(classes[label]) if classes and 0 <= label < len(classes) else str(label)
