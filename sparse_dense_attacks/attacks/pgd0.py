"""PGD0 (Croce & Hein, arXiv 1909.05040): PGD projected onto the intersection of the pixel-l0 ball and the image box."""
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops import box_bounds, pixel_budget, top_k
from ..registry import ATTACKS
from .base import Best, BudgetAttack

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

    def run(self, objective, rng) -> Tensor:
        x, region, best = objective.images, objective.region, Best(objective)
        c = x.shape[1]
        k = pixel_budget(self.k, region, objective.keys)
        low, high = box_bounds(x, 1.0)
        size = region.flatten(1).sum(1) * c
        delta = _project(low + rng.uniform(c) * (high - low), low, high, region, k, k_max := int(k.max()))
        rows = torch.arange(len(x))
        for step in range(self.steps + 1):
            probe = (x + delta).requires_grad_()
            verdict = objective(probe, rows)
            better = best.improved(verdict, rows)
            if step == self.steps:
                best.store(probe, verdict, rows, better.cpu())
                break
            grad = torch.autograd.grad(verdict.loss.sum(), probe)[0] * region

            done = objective.failed[rows] | (verdict.success & self.early_stop)
            better_, done_ = torch.stack([better, done]).cpu()
            best.store(probe, verdict, rows, better_)
            if done_.any():
                stay = ~done
                x, delta, low, high, region, k, size, grad = (t[stay] for t in (x, delta, low, high, region, k, size, grad))
                rows = rows[~done_]
                if not len(rows):
                    break

            length = self.alpha * size / grad.flatten(1).norm(p=1, dim=1).clamp(min=1e-10)
            delta.add_(grad.mul_(length[:, None, None, None]))
            delta = _project(delta, low, high, region, k, k_max)
        return best.images


def _project(delta: Tensor, low: Tensor, high: Tensor, region: Tensor, k: Tensor, k_max: int) -> Tensor:
    """Nearest perturbation inside the box with at most ``k[b]`` non-zero pixels.

    Keeping a pixel lowers the squared distance by its energy less what clipping it costs; the k largest gains are kept.
    ``delta^2 - (delta - inside)^2`` is factored, because long steps would cancel.
    """
    inside = torch.clamp(delta, low, high)
    gain = (inside * (2 * delta - inside)).sum(1, keepdim=True).masked_fill(~region, -torch.inf).flatten(1)
    index, keep = top_k(gain, k, k_max)
    mask = torch.zeros_like(gain).scatter_(1, index, keep.to(gain.dtype)).view_as(region)
    return inside.mul_(mask)
