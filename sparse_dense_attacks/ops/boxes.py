"""Arithmetic of boxes ``x1 y1 x2 y2``, batched."""
import torch
from torch import Tensor

__all__ = ['covered', 'distinct', 'iou', 'overlaps', 'take', 'within']


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (B, N, 4) and (B, M, 4): (B, N, M). Torchvision's takes no batches."""
    a, b = a[:, :, None], b[:, None]
    shared = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    overlap = shared.clamp(min=0).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b))
    return overlap / (area_a + area_b - overlap).clamp(min=1e-9)


def overlaps(a: Tensor, b: Tensor, thr: float) -> Tensor:
    """(B, N, M) bool, boxes that overlap by at least ``thr``; where boxes are is never differentiated."""
    with torch.no_grad():
        return iou(a, b) >= thr


def within(a: Tensor, b: Tensor, thr: float) -> Tensor:
    """(B, N, M) bool, boxes ``a`` of which at least the share ``thr`` lies in a box of ``b``.

    The overlap that COCO takes for crowds, whose outline is larger than any object in it.
    """
    with torch.no_grad():
        a, b = a[:, :, None], b[:, None]
        shared = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
        area = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1)
        return shared.clamp(min=0).prod(-1) / area.clamp(min=1e-9) >= thr


def covered(boxes: Tensor, chosen: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W) bool, pixels whose centre lies in one of the ``chosen`` (B, N) bool of ``boxes`` (B, N, 4)."""
    rows, columns = (torch.arange(side, device=boxes.device) + 0.5 for side in size)
    low, up = boxes[..., :2, None], boxes[..., 2:, None]
    wide = (low[:, :, 0] <= columns) & (columns < up[:, :, 0])
    high = (low[:, :, 1] <= rows) & (rows < up[:, :, 1]) & chosen[..., None]
    found = torch.zeros(len(boxes), *size, dtype=torch.bool, device=boxes.device)
    for box in range(boxes.shape[1]):  # all at once would be a map for each of them
        found |= high[:, box, :, None] & wide[:, box, None]
    return found


def distinct(boxes: Tensor, scores: Tensor, iou_thr: float,
             count: int | None = None) -> tuple[Tensor, Tensor]:
    """Greedy suppression without classes: the best box, then the best of those that overlap none taken so far, and so on.

    Args:
        boxes: (B, N, 4), N >= 1.
        scores: (B, N); boxes with score 0 are not there.
        count: how many to take, M; None takes all (and waits for the device at each).

    Returns:
        (B, M) int64 indices and (B, M) bool, False where the boxes ran out.
    """
    left = scores.detach()
    index = left.new_zeros(len(left), 0, dtype=torch.int64)
    there = left.new_zeros(len(left), 0, dtype=torch.bool)
    while index.shape[1] != count and (count is not None or left.any()):
        score, best = left.max(1, keepdim=True)
        index, there = torch.cat([index, best], 1), torch.cat([there, score > 0], 1)
        hidden = overlaps(boxes, take(boxes, best), iou_thr)[..., 0]
        # an empty box does not even overlap itself
        left = left.masked_fill(hidden, 0).scatter(1, best, 0)
    return index, there


def take(boxes: Tensor, index: Tensor) -> Tensor:
    """Boxes (B, N, 4) at ``index`` (B, M): (B, M, 4)."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))
