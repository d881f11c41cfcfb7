"""Sparse-PGD by exchanging pixels: our white-box attack for very small budgets."""
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InputError
from ..ops import box_bounds
from ..ops.kernels import Kernel, Pixel
from ..registry import ATTACKS, KERNELS
from ..types import Verdict
from .base import Best, BudgetAttack
from .checks import check_number
from .spgd import largest

__all__ = ['SwapPGD']


@ATTACKS.register_module()
@dataclass(frozen=True)
class SwapPGD(BudgetAttack):
    """Sparse-PGD's perturbation, magnitudes under a mask of k pixels, but a search that jumps from corner to corner.

    This attack is **ours**: it keeps what Sparse-PGD (arXiv 2405.05075) perturbs and what it costs, and replaces how it moves.

    1. The first ``start`` iterations are those of Frank-Wolfe on the k-sparse box. A momentum of normalised gradients promises
       every pixel a gain, that of going to its best corner of the colour cube; the k pixels with the largest gains, varied by
       noise, go there.
    2. From then on every iteration returns to the best point so far and exchanges one pixel: out goes one that matters little, in
       comes one that promises much at the gradient of the best point, both varied by noise; pixels that were tried in vain become
       less likely. The magnitudes of the others take a small step along the sign of the gradient. What makes the objective worse
       for the victim is the new best point.

    Args:
        k: budget in pixels, or in groups with a ``kernel`` (count, share, or one count per image).
        steps: iterations; costs steps + 2 forwards and ``steps`` backwards, as Sparse-PGD.
        early_stop: return the first success.
        start: share of the iterations that belong to the first phase.
        momentum: of the gradients there.
        alpha: step of the magnitudes in the second phase.
        noise: standard deviation of the log gains in the two phases.
        kernel: groups instead of pixels, see :class:`StructuredSparsePGD`.

    With ``early_stop`` it ascends the negative margin of the objective, otherwise the loss, because many margins are flat at
    success.
    """
    start: float = 0.15
    momentum: float = 0.8
    alpha: float = 0.2
    noise: tuple[float, float] = (1.0, 0.25)
    kernel: Kernel | dict | str = Pixel()

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'start', 0, 1, low_ok=True, high_ok=True)
        check_number(self, 'momentum', 0, 1, low_ok=True)
        check_number(self, 'alpha', 0, 1, low_ok=True, high_ok=True)
        numbers = isinstance(self.noise, tuple | list) and all(isinstance(n, int | float) and n >= 0 for n in self.noise)
        if not numbers or len(self.noise) != 2:
            raise InputError(f'SwapPGD: noise = {self.noise!r}, expected two numbers of at least 0, one for each phase')
        object.__setattr__(self, 'noise', tuple(self.noise))
        object.__setattr__(self, 'kernel', KERNELS.build(self.kernel))

    def count_groups(self, changed: Tensor) -> Tensor:
        return self.kernel.cover(changed)

    def run(self, objective, rng) -> Tensor:
        x, kernel, best = objective.images, self.kernel, Best(objective)
        best.loss = self._ascended(objective.clean).loss.clone()
        size, (k, room) = x.shape[2:], self.budget(objective)
        groups, mask_rng, k_max = kernel.usable(objective.region), rng.on_grid(kernel.grid), int(k.max())
        low, high = (bound.mul_(objective.region) for bound in box_bounds(x, 1.0))
        rows, swapped = torch.arange(len(x)), (room - k).clamp(max=1)  # nothing can be exchanged where everything is chosen
        p, v, total = torch.zeros_like(x), torch.zeros_like(groups), torch.zeros_like(x)
        tired, held, first_swap = torch.zeros_like(groups, dtype=x.dtype), (), max(round(self.start * self.steps), 1)

        for step in range(self.steps + 1):
            z = torch.addcmul(x, p, kernel.expand(v, size).to(x.dtype))
            probe = z.requires_grad_(step < self.steps)
            verdict = self._ascended(objective(probe, rows))
            better = best.improved(verdict, rows)
            if step == self.steps:
                best.store(z, verdict, rows, better.cpu())
                break
            grad = torch.autograd.grad(verdict.loss.sum(), probe)[0].contiguous()

            done = objective.failed[rows] | (verdict.success & self.early_stop)
            better_, done_ = torch.stack([better, done]).cpu()  # the iteration's only synchronisation
            best.store(z, verdict, rows, better_)
            if done_.any():
                x, p, v, total, tired, k, swapped, low, high, groups, grad, better, *held = (
                    t[~done] for t in (x, p, v, total, tired, k, swapped, low, high, groups, grad, better, *held))
                rows = rows[~done_]
                if not len(rows):
                    break

            better = better[:, None, None, None] | (step <= 1)  # step 0 looked at the clean image
            held = [torch.where(better, new, old) for new, old in zip((p, v, grad), held or (p, v, grad), strict=True)]
            if step < first_swap:
                total = self.momentum * total + grad / grad.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
                p = torch.where(total > 0, high, low)
                v = largest(self._log_gain(total * p, mask_rng, rows, 0).masked_fill_(~groups, -torch.inf), k, k_max)
                continue
            if step > first_swap:
                tired = torch.where(better, 0.3 * tired, tired + 2.0 * (v & ~held[1]))
            p, v, grad = held
            corner = torch.where(grad > 0, high, low)
            worth = kernel.correlate((grad * p).sum(1, keepdim=True)).masked_fill_(~v, 0)
            worth = worth / worth.abs().amax((2, 3), keepdim=True).clamp(min=1e-30)
            leave = largest((mask_rng.normal(1, rows) - worth).masked_fill_(~v, -torch.inf), swapped, 1)
            gain = self._log_gain(grad * corner, mask_rng, rows, 1) - tired
            enter = largest(gain.masked_fill_(v | ~groups, -torch.inf), swapped, 1)
            p = torch.clamp(p + self.alpha * grad.sign(), low, high)
            p = torch.where(kernel.expand(enter, size) > 0, corner, p)
            v = v & ~leave | enter
        return best.images

    def _log_gain(self, promised: Tensor, mask_rng, rows: Tensor, phase: int) -> Tensor:
        """(b, 1, Gh, Gw), log of what each group promises, with noise; very low where that is nothing."""
        gain = self.kernel.correlate(promised.sum(1, keepdim=True))
        return gain.clamp(min=1e-30).log().add_(mask_rng.normal(1, rows), alpha=self.noise[phase])

    def _ascended(self, verdict: Verdict) -> Verdict:
        """The verdict with what is ascended as its loss; a spent budget stays at minus infinity."""
        if not self.early_stop:
            return verdict
        return replace(verdict, loss=torch.where(verdict.loss.isfinite(), -verdict.margin, -torch.inf))
