"""Non-maximum suppression; boxes are (N, 4) as x1, y1, x2, y2, and ``offset`` 1 counts x2 and y2 in, as in old pixel boxes."""
import torch
from torch import Tensor

# What soft suppression does to the score of an overlapping box.
NAIVE = 0
LINEAR = 1
GAUSSIAN = 2


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that are kept, best first."""
    if offset:
        groups = _suppress(boxes, scores, offset, lambda overlap: overlap > iou_threshold)
        return torch.tensor([group[0] for group in groups], dtype=torch.long, device=boxes.device)
    import torchvision
    order = _best_first(scores)
    # torchvision compares with the threshold in double precision, mmcv in that of the boxes.
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    return order[torchvision.ops.nms(boxes[order], scores[order], threshold)]


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """For every box that is kept, best first: its index and those of the boxes it suppresses. ``dets``: (N, 5) with scores."""
    return _suppress(dets[:, :4], dets[:, 4], 0, lambda overlap: overlap >= iou_threshold)


def softnms(
    boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float,
    min_score: float, method: int, offset: int,
) -> Tensor:  # fmt: skip
    """Indices of the boxes in the order in which they were taken; the boxes with their new scores go into ``dets`` (N, 5).

    The best box is taken, the scores of those that overlap it are lowered, those below ``min_score`` are dropped, and so on.
    """
    indices, scores = torch.arange(len(boxes), device=boxes.device), scores.clone()
    taken = 0
    while taken < len(indices):
        best = taken + int(scores[indices[taken:]].argmax())
        indices[[taken, best]] = indices[[best, taken]]
        chosen, others = indices[taken], indices[taken + 1:]
        dets[taken] = torch.cat((boxes[chosen], scores[chosen, None]))
        overlaps = _overlaps(boxes[chosen], boxes[others], offset)
        scores[others] *= _decay(overlaps, iou_threshold, sigma, method)
        indices = torch.cat((indices[:taken + 1], _drop(others, scores[others] < min_score)))
        taken += 1
    return indices


def _decay(overlap: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    if method == GAUSSIAN:
        return torch.exp(-(overlap * overlap) / sigma)
    return torch.where(overlap >= iou_threshold, 1 - overlap if method == LINEAR else 0.0, 1.0)


def _drop(indices: Tensor, dropped: Tensor) -> Tensor:
    """Fill the gaps with elements from the end, the last one first; the order decides between boxes of equal score."""
    rest = len(indices) - int(dropped.sum())
    indices, fillers = indices.clone(), indices[rest:][~dropped[rest:]]
    indices[:rest][dropped[:rest]] = fillers.flip(0)
    return indices[:rest]


def _best_first(scores: Tensor) -> Tensor:
    """The order mmcv takes boxes in: its sort is not stable, torchvision's is, which matters between equal scores."""
    return scores.contiguous().sort(descending=True).indices


def _suppress(boxes: Tensor, scores: Tensor, offset: int, suppressed_by) -> list[list[int]]:
    order, groups = _best_first(scores), []
    while len(order):
        best, rest = order[0], order[1:]
        gone = suppressed_by(_overlaps(boxes[best], boxes[rest], offset))
        groups.append([int(best), *rest[gone].tolist()])
        order = rest[~gone]
    return groups


def _overlaps(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
    """Intersection over union of one box with N others."""
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    intersection = (high - low + offset).clamp(min=0).prod(1)
    area = (box[2:] - box[:2] + offset).prod()
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(1)
    return intersection / (area + areas - intersection)
