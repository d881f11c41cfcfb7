"""PGD0 (Croce & Hein, arXiv 1909.05040): PGD projected onto the intersection of the pixel-l0 ball and the image box."""
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_number
from ..objectives.base import Restricted
from ..ops import box_bounds, gradient, largest, pixel_budget
from ..registry import ATTACKS
from .active import Active
from .base import Best, BudgetAttack
from .rng import ImageRNG

__all__ = ['PGD0']


@ATTACKS.register_module()
@dataclass(frozen=True)
class PGD0(BudgetAttack):
    """PGD with an l1-normalised gradient step and the exact projection onto k pixels within the box.

    Args:
        k: pixel budget (count, or share of the region).
        steps: iterations; costs steps + 2 forwards and ``steps`` backwards.
        early_stop: return the first success.
        alpha: mean step of a channel value; 0.153 is the 120000 / 255 that is customary on 3 x 32 x 32 images.

    Reference: arXiv 1909.05040.
    """
    alpha: float = 0.153

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'alpha')

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        x, best = objective.images, Best(objective)
        k = pixel_budget(self.k, objective.region, objective.keys)
        k_max = int(k.max())

        # a random point of the box, projected
        low, high = box_bounds(x, 1.0)
        delta = low + rng.uniform(x.shape[1]) * (high - low)
        delta = _project(delta, low, high, objective.region, k, k_max)
        size = objective.region.flatten(1).sum(1) * x.shape[1]
        s = Active(x=x, delta=delta, low=low, high=high, region=objective.region, k=k, size=size)

        for step in range(self.steps + 1):
            last = step == self.steps

            # look at the candidate, keep the best, drop what is done
            z = (s.x + s.delta).requires_grad_()
            verdict = objective(z, s.rows)
            if not last:
                s.grad = gradient(verdict.loss, z) * s.region
            done = objective.failed[s.rows] | (verdict.success & self.early_stop) | last
            best.settle(s, objective, z, verdict, done, last or (step + 1) % objective.sync_every == 0)
            if not len(s):
                break

            # a step along the gradient, as long as alpha for every channel value
            length = self.alpha * s.size / s.grad.flatten(1).norm(p=1, dim=1).clamp(min=1e-10)
            s.delta = s.delta + s.grad * length[:, None, None, None]

            # back onto k pixels in the box
            s.delta = _project(s.delta, s.low, s.high, s.region, s.k, k_max)
        return best.images


def _project(delta: Tensor, low: Tensor, high: Tensor, region: Tensor, k: Tensor,
             k_max: int) -> Tensor:
    """Nearest perturbation inside the box with at most ``k[b]`` non-zero pixels.

    Keeping a pixel lowers the squared distance by its energy less what clipping it costs; the k largest gains are kept.
    ``delta^2 - (delta - inside)^2`` is factored, because long steps would cancel.
    """
    inside = torch.clamp(delta, low, high)
    gain = (inside * (2 * delta - inside)).sum(1, keepdim=True)
    mask = largest(gain.masked_fill_(~region, -torch.inf), k, k_max)
    return inside.mul_(mask)
