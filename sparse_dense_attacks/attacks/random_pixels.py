"""Random pixels: the floor every sparse attack has to beat."""
from dataclasses import dataclass

import torch
from torch import Tensor

from ..objectives.base import Restricted
from ..ops import largest, pixel_budget
from ..registry import ATTACKS
from .active import Active
from .base import Best, BudgetAttack
from .rng import ImageRNG

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

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        best = Best(objective)
        k = pixel_budget(self.k, objective.region, objective.keys)
        k_max = int(k.max())
        s = Active(x=objective.images, region=objective.region, k=k)

        for _ in range(self.steps):
            # k pixels and their colours
            order = rng.uniform(1, s.rows).masked_fill_(~s.region, -torch.inf)
            colours = rng.uniform(s.x.shape[1], s.rows).round_()
            z = torch.where(largest(order, s.k, k_max), colours, s.x)

            # look at them, keep the best, drop what is done
            with torch.no_grad():
                verdict = objective(z, s.rows)
            done = objective.failed[s.rows] | (verdict.success & self.early_stop)
            [done] = best.take(z, verdict, s.rows, done)
            s.keep(~done)
            if not len(s):
                break
        return best.images
