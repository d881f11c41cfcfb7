"""Random pixels: the floor every sparse attack has to beat."""
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops import pixel_budget, top_k
from ..registry import ATTACKS
from .base import Best, BudgetAttack

__all__ = ['RandomPixels']


@ATTACKS.register_module()
@dataclass(frozen=True)
class RandomPixels(BudgetAttack):
    """Sets k random pixels to random corners of the colour cube, ``steps`` times independently, and keeps the best draw.

    Args:
        k: pixel budget (count, or share of the region).
        steps: draws; costs steps + 1 forwards and no backward.
        early_stop: return the first success.
    """

    def run(self, objective, rng) -> Tensor:
        region, best, rows = objective.region, Best(objective), torch.arange(len(objective.images))
        k = pixel_budget(self.k, region, objective.keys)
        k_max = int(k.max())
        for _ in range(self.steps):
            x, inside = objective.images[rows], region[rows]
            order = rng.uniform(1, rows).masked_fill_(~inside, -torch.inf).flatten(1)
            index, keep = top_k(order, k[rows], k_max)
            mask = torch.zeros_like(order, dtype=torch.bool).scatter_(1, index, keep).view_as(inside)
            z = torch.where(mask, rng.uniform(x.shape[1], rows).round_(), x)
            with torch.no_grad():
                verdict = objective(z, rows)
            done = objective.failed[rows] | (verdict.success & self.early_stop)
            better, done = torch.stack([best.improved(verdict, rows), done]).cpu()
            best.store(z, verdict, rows, better)
            rows = rows[~done]
            if not len(rows):
                break
        return best.images
