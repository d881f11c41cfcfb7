"""Sparse-PGD (Zhong & Liu, arXiv 2405.05075), unstructured."""
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..checks import check_choice, check_choices, check_int, check_number
from ..objectives.base import Restricted
from ..ops import box_bounds, gradient, largest
from ..registry import ATTACKS
from .active import Active
from .base import Best, BudgetAttack, cascade
from .rng import ImageRNG

__all__ = ['SparsePGD']

GRADIENTS = ('projected', 'unprojected', 'ensemble')
STAGNATION = ('total', 'row', 'batch')
PUBLISHED = ('stale gradient', 'sigmoid', 'last gradient')


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
        stagnation: which these are. ``'total'``: all since the mask was drawn, as the published code counts in a large batch.
            ``'row'``: those in a row, as it was meant. ``'batch'``: as the published code counts in any batch, back to 0 only
            in iterations in which every image has changed its mask, so that results depend on the batch.
        gamma: mask gradients with a smaller l2 norm are not followed.
        published: what is done as in the published code, to measure what a difference is worth; nothing by default.
            ``'stale gradient'``: a mask that was drawn anew still follows the gradient at the old one. ``'sigmoid'``: the mask
            is the largest of ``sigmoid(u)``, which has ties at 1 in float32. ``'last gradient'``: a backward at the last point,
            which nobody follows.

    Differences from the published code (2024-05), none of which costs a pass: the initial point counts if it succeeds,
    stagnation does not depend on the batch, no stale gradient meets a new mask, the mask is chosen on ``u`` rather than on
    ``sigmoid(u)``, targeted objectives are honoured, and no gradient is taken at the last point.

    Reference: arXiv 2405.05075 and its published code.
    """
    gradient: str = 'projected'
    alpha: float = 0.25
    beta: float = 0.25
    eps_inf: float = 1.0
    patience: int = 3
    gamma: float = 2e-10
    stagnation: str = 'total'
    published: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, 'gradient', GRADIENTS)
        check_number(self, 'alpha', 0, 2, high_ok=True)
        check_number(self, 'beta')
        check_number(self, 'eps_inf', 0, 1, high_ok=True)
        check_int(self, 'patience')
        check_number(self, 'gamma', low_ok=True)
        check_choice(self, 'stagnation', STAGNATION)
        check_choices(self, 'published', PUBLISHED)
        object.__setattr__(self, 'published', tuple(self.published))

    @property
    def free(self) -> bool:
        return self.eps_inf == 1

    @property
    def member_names(self) -> tuple[str, ...]:
        return GRADIENTS[:2] if self.gradient == 'ensemble' else ()

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        if self.gradient == 'ensemble':
            members = [replace(self, gradient=rule) for rule in GRADIENTS[:2]]
            return cascade(members, objective, rng, survivors_only=self.early_stop)[0]

        best, kernel = Best(objective), self.kernel
        mask_rng = rng.on_grid(kernel.grid)
        s = self._start(objective, rng, mask_rng)
        size, k_max = s.x.shape[2:], int(s.k.max())
        due = 0  # when to look next which images are done, and whose masks are stuck

        for step in range(self.steps + 1):
            last = step == self.steps

            # look at x + p * mask, keep the best, drop what is done
            follows = not last or 'last gradient' in self.published
            z = torch.mul(s.p, s.mask).add_(s.x).requires_grad_(follows)
            verdict = objective(z, s.rows)
            if follows:
                s.grad = gradient(verdict.loss, z)
            done = objective.failed[s.rows] | (verdict.success & self.early_stop) | last
            known = best.settle(s, objective, z, verdict, done, last or step >= due, s.still)
            if not len(s):
                break
            s.stuck = torch.zeros(len(s), dtype=torch.bool) if known is None else known[0] >= self.patience
            if known is not None:  # no mask can be stuck before it has stayed for long enough
                longest = int(known[0].where(~s.stuck, 0).amax())
                due = step + min(objective.sync_every, self.patience - longest)

            # where the mask has not changed for long, a fresh one, and no gradient that was taken at the old one
            share = s.u.sigmoid()
            if s.stuck.any():
                fresh = mask_rng.normal(1, s.rows[s.stuck])
                s.u[s.stuck] = fresh.masked_fill_(~s.groups[s.stuck], -torch.inf)
                if 'stale gradient' not in self.published:
                    s.grad[s.stuck] = 0
                s.still[s.stuck] = -1  # counted from this mask on, another one or not

            # the mask logits follow their l2-normalised gradient, straight through top-k and through the sigmoid
            grad_mask = kernel.correlate((s.grad * s.p).sum(1, keepdim=True))
            grad_u = grad_mask.mul_(share * (1 - share))
            norm = grad_u.flatten(1).norm(dim=1)
            length = torch.where(norm < self.gamma, 0, s.stride / (norm + 1e-10))
            s.u.addcmul_(grad_u, length[:, None, None, None])

            # the magnitudes follow the sign of theirs; the factor sigmoid(u) of the unprojected one does not change it
            direction = s.grad.sign_()
            if self.gradient == 'projected':
                direction.mul_(s.mask)
            s.p.add_(direction, alpha=self.alpha * self.eps_inf)
            torch.clamp(s.p, s.low, s.high, out=s.p)

            # the mask of the k largest logits
            mask = kernel.expand(largest(self._ranked(s.u), s.k, k_max), size)
            unchanged = (mask == s.mask).flatten(1).all(1)
            s.still = torch.where(unchanged, s.still + 1, self._kept(s.still, unchanged & ~s.idle))
            s.mask = mask
        return best.images

    def _start(self, objective: Restricted, rng: ImageRNG, mask_rng: ImageRNG) -> Active:
        """Random magnitudes and mask logits, the mask of the k largest of them, and what stays as it is."""
        x, kernel = objective.images, self.kernel
        k = self.budget(objective)[0]
        groups = kernel.usable(objective.region)
        low, high = (bound.mul_(objective.region) for bound in box_bounds(x, self.eps_inf))
        p = ((2 * rng.uniform(x.shape[1]) - 1) * self.eps_inf).clamp_(low, high)
        # logits of -inf are never chosen and have zero gradient
        u = mask_rng.normal(1).masked_fill_(~groups, -torch.inf)
        mask = kernel.expand(largest(self._ranked(u), k, int(k.max())), x.shape[2:])
        return Active(x=x, p=p, u=u, mask=mask, still=torch.zeros_like(k),
                      k=k, groups=groups, low=low, high=high,
                      stride=self.beta * groups.flatten(1).sum(1).sqrt())

    def _kept(self, still: Tensor, unchanged: Tensor) -> Tensor:
        """The counts (b,) of images whose mask has changed."""
        if self.stagnation == 'row':
            return torch.zeros_like(still)
        counts = still.clamp(min=0)
        return counts if self.stagnation == 'total' else counts * unchanged.any()

    def _ranked(self, u: Tensor) -> Tensor:
        """What the mask is the largest of."""
        if 'sigmoid' not in self.published:
            return u
        return u.sigmoid().masked_fill_(u == -torch.inf, -torch.inf)
