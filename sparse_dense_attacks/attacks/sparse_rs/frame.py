"""What Sparse-RS changes when all that may change is a border."""
import torch
from torch import Tensor

from ...objectives.base import Restricted
from ..rng import ImageRNG
from .paint import paint_square, rectangle
from .schedule import first_single, frame_side, rescaled

__all__ = ['FrameSearch']


class FrameSearch:
    """A border per image, ``mask`` (B, 1, H, W), coloured by ``paint`` (B, C, H, W)."""

    def __init__(self, attack, objective: Restricted, rng: ImageRNG):
        self.attack, self.rng = attack, rng
        self.x = objective.images
        inner = torch.tensor(rng.sizes, device=self.x.device).view(-1, 2) - 2 * attack.k
        corner = torch.full_like(inner, attack.k)
        self.mask = objective.region & ~rectangle(corner, inner, self.x)
        self.paint = rng.uniform(self.x.shape[1]).round_()
        # the step from which single pixels change in one channel only
        first = first_single(lambda it: frame_side(it, attack.alpha, attack.k), attack.steps)
        self.refine = (first + attack.steps) // 2

    def propose(self, step: int, rows: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        paint, mask = self.paint[rows], self.mask[rows]
        if step:
            side = frame_side(rescaled(step, self.attack.steps), self.attack.alpha, self.attack.k)
            sides = torch.full((len(rows),), side, device=paint.device)
            paint = paint_square(paint, mask, sides, step > self.refine, self.rng, rows)
        return torch.where(mask, paint, self.x[rows]), (paint,)

    def keep(self, rows: Tensor, change: tuple[Tensor, ...]) -> None:
        self.paint[rows] = change[0]
