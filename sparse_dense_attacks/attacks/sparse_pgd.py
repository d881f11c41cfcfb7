"""Sparse-PGD (Zhong & Liu, arXiv 2405.05075), unstructured."""
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from ..groups import Pixel
from ..ops import box_bounds, top_k
from ..registry import ATTACKS, nearest
from .base import Best, BudgetAttack, cascade

__all__ = ['SparsePGD', 'largest']

GRADIENTS = ('projected', 'unprojected', 'ensemble')


@ATTACKS.register_module()
@dataclass(frozen=True)
class SparsePGD(BudgetAttack):
    r"""Sparse-PGD: ``delta = p * M(u)``, a magnitude tensor ``p`` and a binary mask of the k largest entries of ``u``.

    The mask logits ``u`` follow the l2-normalised gradient through ``sigmoid(u)``; the magnitudes follow the sign of theirs,
    either only where the mask is set (projected) or everywhere (unprojected). When a mask has not changed for ``patience``
    iterations, ``u`` is drawn anew.

    Args:
        k: pixel budget, epsilon in the paper (count, or share of the region).
        steps: iterations T; costs T + 2 forwards and T backwards (the ensemble at most 2T + 5 and 2T).
        early_stop: return the first success (as published).
        gradient: ``'projected'``, ``'unprojected'``, or ``'ensemble'``: projected for all steps, then unprojected for all steps
            on the images that survived.
        alpha: step of the magnitudes, as a share of ``eps_inf``.
        beta: step of the mask logits, times the square root of the number of pixels.
        eps_inf: largest change of a channel value; rounding to 8 bits may add half a level unless it is a multiple of 1/255.
        patience: iterations without a change of the mask before it is drawn anew.
        gamma: mask gradients with a smaller l2 norm are not followed.

    Differences from the published code (2024-05), none of which costs a pass: the initial point counts if it succeeds,
    stagnation is counted per image, no stale gradient meets a new mask, the mask is chosen on ``u`` rather than on
    ``sigmoid(u)`` (which has ties at 1 in float32), targeted objectives are honoured, and no gradient is taken at the last point.

    Reference: arXiv 2405.05075 and its published code.
    """
    gradient: str = 'projected'
    alpha: float = 0.25
    beta: float = 0.25
    eps_inf: float = 1.0
    patience: int = 3
    gamma: float = 2e-10
    kernel: ClassVar = Pixel()

    def __post_init__(self):
        super().__post_init__()
        if self.gradient not in GRADIENTS:
            raise InputError(f"SparsePGD: unknown gradient '{self.gradient}': {nearest(self.gradient, GRADIENTS)}")
        for name, low, high in (('alpha', 0, 2), ('beta', 0, float('inf')), ('eps_inf', 0, 1)):
            if not low < getattr(self, name) <= high:
                raise InputError(f'SparsePGD: {name} = {getattr(self, name)}, expected more than {low} and at most {high}')
        if not isinstance(self.patience, int) or self.patience < 1:
            raise InputError(f'SparsePGD: patience = {self.patience}, expected an int >= 1')

    def run(self, objective, rng) -> Tensor:
        if self.gradient == 'ensemble':
            members = [replace(self, gradient=gradient) for gradient in GRADIENTS[:2]]
            return cascade(members, objective, rng, survivors_only=self.early_stop)[0]

        x, kernel, best = objective.images, self.kernel, Best(objective)
        b, c, *size = x.shape
        groups, mask_rng, (k, _) = kernel.usable(objective.region), rng.on_grid(kernel.grid), self.budget(objective)
        k_max = int(k.max())
        low, high = (bound.mul_(objective.region) for bound in box_bounds(x, self.eps_inf))
        stride = self.beta * groups.flatten(1).sum(1).sqrt()
        p = ((2 * rng.uniform(c) - 1) * self.eps_inf).clamp_(low, high)
        u = mask_rng.normal(1).masked_fill_(~groups, -torch.inf)  # -inf is never chosen and has zero gradient
        mask, still = kernel.expand(largest(u, k, k_max), size), torch.zeros_like(k)
        z, rows = torch.empty_like(x), torch.arange(b)

        for step in range(self.steps + 1):
            torch.mul(p, mask, out=z).add_(x)
            probe = z.detach().requires_grad_(step < self.steps)
            verdict = objective(probe, rows)
            better = best.improved(verdict, rows)
            if step == self.steps:
                best.store(z, verdict, rows, better.cpu())
                break
            grad = torch.autograd.grad(verdict.loss.sum(), probe)[0].contiguous()  # of a pooled input it is an expanded view

            done = objective.failed[rows] | (verdict.success & self.early_stop)
            stuck = still >= self.patience
            better_, done_, stuck_ = torch.stack([better, done, stuck]).cpu()  # the iteration's only synchronisation
            best.store(z, verdict, rows, better_)
            if done_.any():
                stay = ~done
                x, z, p, u, mask, still, k, low, high, stride, groups, grad, stuck = (
                    t[stay] for t in (x, z, p, u, mask, still, k, low, high, stride, groups, grad, stuck))
                rows, stuck_ = rows[~done_], stuck_[~done_]
                if not len(rows):
                    break

            if stuck_.any():  # a fresh mask, and no gradient that was taken at the old one
                u[stuck] = mask_rng.normal(1, rows[stuck_]).masked_fill_(~groups[stuck], -torch.inf)
                grad[stuck] = 0
            s = u.sigmoid()
            grad_p = torch.mul(grad, p, out=z).sum(1, keepdim=True)  # z is free until the next candidate
            grad_u = kernel.correlate(grad_p).mul_(s * (1 - s))  # straight through top-k, and sigmoid
            norm = grad_u.flatten(1).norm(dim=1)
            length = torch.where(norm < self.gamma, 0, stride / (norm + 1e-10))
            u.addcmul_(grad_u, length[:, None, None, None])
            grad.sign_()  # the factor sigmoid(u) of the unprojected gradient does not change its sign
            if self.gradient == 'projected':
                grad.mul_(mask)
            p.add_(grad, alpha=self.alpha * self.eps_inf)
            torch.clamp(p, low, high, out=p)

            chosen = kernel.expand(largest(u, k, k_max), size)
            unchanged = (chosen == mask).flatten(1).all(1) & ~stuck
            mask, still = chosen, torch.where(unchanged, still + 1, 0)
        return best.images


def largest(u: Tensor, k: Tensor, k_max: int) -> Tensor:
    """(b, 1, Gh, Gw) bool, the ``k[b]`` largest of each image's ``u``, of the same shape."""
    index, keep = top_k(u.flatten(1), k, k_max)
    return torch.zeros_like(u, dtype=torch.bool).flatten(1).scatter_(1, index, keep).view_as(u)
