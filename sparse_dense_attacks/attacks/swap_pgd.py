"""Sparse-PGD by exchanging pixels: our white-box attack for very small budgets."""
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_number
from ..errors import InputError
from ..groups import Kernel, Pixel
from ..ops import box_bounds
from ..registry import ATTACKS, KERNELS
from ..types import Verdict
from .base import Best, BudgetAttack
from .sparse_pgd import largest

__all__ = ['SwapPGD']


@ATTACKS.register_module()
@dataclass(frozen=True)
class SwapPGD(BudgetAttack):
    """Sparse-PGD's perturbation, magnitudes under a mask of k pixels, but a search that jumps from corner to corner.

    This attack is **ours**: it keeps what Sparse-PGD (arXiv 2405.05075) perturbs and what it costs, and replaces how it moves.

    1. The first ``start`` iterations are those of Frank-Wolfe on the k-sparse box. A momentum of normalised gradients promises
       every pixel a gain, that of going to its best corner of the colour cube; the k pixels with the largest gains, varied by
       noise, go there.
    2. From then on every iteration returns to the best point so far and exchanges pixels, several at first where k allows it and
       then one: out goes what matters little, in comes what promises much at the gradient of the best point, both varied by
       noise; what was tried in vain becomes less likely. The other magnitudes take a small step along the sign of the gradient.
       What makes the objective worse for the victim is the new best point.
    3. Gradients promise far too much for steps of this size, but what a pixel really brings is much like what its neighbours
       bring. So each try also corrects a smooth map of real gains (normalised least mean squares on Gaussian bumps), which is
       added, in units of the usual change, to the log of what is promised.

    Args:
        k: budget in pixels, or in groups with a ``kernel`` (count, share, or one count per image).
        steps: iterations; costs steps + 2 forwards and ``steps`` backwards, as Sparse-PGD.
        early_stop: return the first success.
        start: share of the iterations that belong to the first phase.
        momentum: of the gradients there.
        alpha: step of the magnitudes in the second phase.
        noise: standard deviation of the log gains in the two phases.
        exchange: share of the k pixels exchanged at once, falling linearly to nothing at the end; rounded, but at least one.
        reach: standard deviation of the bumps, in pixels (in cells of the grid with a ``kernel``).
        kernel: groups instead of pixels, see :class:`StructuredSparsePGD`.

    With ``early_stop`` it ascends the negative margin of the objective, otherwise the loss, because many margins are flat at
    success.
    """
    start: float = 0.15
    momentum: float = 0.8
    alpha: float = 0.2
    noise: tuple[float, float] = (1.0, 0.25)
    exchange: float = 0.35
    reach: float = 2.0
    kernel: Kernel | dict | str = Pixel()

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'start', 0, 1, low_ok=True, high_ok=True)
        check_number(self, 'momentum', 0, 1, low_ok=True)
        check_number(self, 'alpha', 0, 1, low_ok=True, high_ok=True)
        check_number(self, 'exchange', 0, 1, low_ok=True, high_ok=True)
        check_number(self, 'reach', 0)
        numbers = isinstance(self.noise, tuple | list) and all(isinstance(n, int | float) and n >= 0 for n in self.noise)
        if not numbers or len(self.noise) != 2:
            raise InputError(f'SwapPGD: noise = {self.noise!r}, expected two numbers of at least 0, one for each phase')
        object.__setattr__(self, 'noise', tuple(self.noise))
        object.__setattr__(self, 'kernel', KERNELS.build(self.kernel))

    def run(self, objective, rng) -> Tensor:
        x, kernel, best = objective.images, self.kernel, Best(objective)
        best.loss = self._ascended(objective.clean).loss.clone()
        size, (k, room) = x.shape[2:], self.budget(objective)
        groups, mask_rng, k_max = kernel.usable(objective.region), rng.on_grid(kernel.grid), int(k.max())
        low, high = (bound.mul_(objective.region) for bound in box_bounds(x, 1.0))
        rows, spare = torch.arange(len(x)), room - k  # nothing can be exchanged where everything is chosen
        p, v, total = torch.zeros_like(x), torch.zeros_like(groups), torch.zeros_like(x)
        tired, *learned = (torch.zeros_like(groups, dtype=x.dtype) for _ in range(3))
        held, first_swap = (), max(round(self.start * self.steps), 1)

        for step in range(self.steps + 1):
            z = torch.addcmul(x, p, kernel.expand(v, size).to(x.dtype))
            probe = z.requires_grad_(step < self.steps)
            verdict = self._ascended(objective(probe, rows))
            better = best.improved(verdict, rows)
            if step == self.steps:
                best.store(z, verdict, rows, better.cpu())
                break
            grad = torch.autograd.grad(verdict.loss.sum(), probe)[0].contiguous().mul_(high > low)  # no say to pixels that stay
            loss = verdict.loss.detach()[:, None, None, None].expand_as(v)
            if step > 1:
                learned = self._learned(*learned, v.to(x.dtype) - held[1].to(x.dtype), loss - held[3])

            done = objective.failed[rows] | (verdict.success & self.early_stop)
            better_, done_ = torch.stack([better, done]).cpu()  # the iteration's only synchronisation
            best.store(z, verdict, rows, better_)
            if done_.any():
                x, p, v, total, tired, *learned, k, spare, low, high, groups, grad, loss, better = (t[~done] for t in (
                    x, p, v, total, tired, *learned, k, spare, low, high, groups, grad, loss, better))
                held = [t[~done] for t in held]
                rows = rows[~done_]
                if not len(rows):
                    break

            better = better[:, None, None, None] | (step <= 1)  # step 0 looked at the clean image
            now = p, v, grad, loss
            held = [torch.where(better, new, old) for new, old in zip(now, held or now, strict=True)]
            if step < first_swap:
                total = self.momentum * total + grad / grad.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
                p = torch.where(total > 0, high, low)
                v = largest(self._log_gain(total * p, mask_rng, rows, 0).masked_fill_(~groups, -torch.inf), k, k_max)
                continue
            if step > first_swap:
                tired = torch.where(better, 0.3 * tired, tired + 2.0 * (v & ~held[1]))
            p, v, grad, _ = held
            swapped = (self.exchange * (1 - step / self.steps) * k).round().long().clamp(min=1).minimum(spare)
            corner = torch.where(grad > 0, high, low)
            worth = kernel.correlate((grad * p).sum(1, keepdim=True)).masked_fill_(~v, 0)
            worth = worth / worth.abs().amax((2, 3), keepdim=True).clamp(min=1e-30)
            leave = largest((mask_rng.normal(1, rows) - worth).masked_fill_(~v, -torch.inf), swapped, k_max)
            gain = self._log_gain(grad * corner, mask_rng, rows, 1) - tired + learned[0] / learned[1].sqrt().clamp(min=1e-12)
            enter = largest(gain.masked_fill_(v | ~groups, -torch.inf), swapped, k_max)
            p = torch.clamp(p + self.alpha * grad.sign(), low, high)
            p = torch.where(kernel.expand(enter, size) > 0, corner, p)
            v = v & ~leave | enter
        return best.images

    def _log_gain(self, promised: Tensor, mask_rng, rows: Tensor, phase: int) -> Tensor:
        """(b, 1, Gh, Gw), log of what each group promises, with noise; very low where that is nothing."""
        gain = self.kernel.correlate(promised.sum(1, keepdim=True))
        return gain.clamp(min=1e-30).log().add_(mask_rng.normal(1, rows), alpha=self.noise[phase])

    def _learned(self, real: Tensor, usual: Tensor, exchanged: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """The map of real gains and the usual squared change, both (b, 1, Gh, Gw), after a try.

        Args:
            exchanged: 1 where a group came in, -1 where one went out.
            change: what that did to what is ascended, the same number everywhere.
        """
        change = torch.where(change.isfinite(), change, 0)  # a spent budget teaches nothing
        bump = self._spread(exchanged)
        power, expected = ((exchanged * t).sum((2, 3), keepdim=True) for t in (bump, real))
        real = real + 0.7 * (change - expected) / power.clamp(min=1e-6) * bump
        return real, torch.where(usual > 0, 0.9 * usual + 0.1 * change ** 2, change ** 2)

    def _spread(self, a: Tensor) -> Tensor:
        """Gaussian bumps of height one, by shifting and adding: every entry is the same whatever the size of the batch."""
        radius = round(3 * self.reach)
        for axis in (2, 3):
            padded = F.pad(a, (0, 0, radius, radius) if axis == 2 else (radius, radius))
            a = sum(math.exp(-0.5 * ((i - radius) / self.reach) ** 2) * padded.narrow(axis, i, a.shape[axis])
                    for i in range(2 * radius + 1))
        return a

    def _ascended(self, verdict: Verdict) -> Verdict:
        """The verdict with what is ascended as its loss; a spent budget stays at minus infinity."""
        if not self.early_stop:
            return verdict
        return replace(verdict, loss=torch.where(verdict.loss.isfinite(), -verdict.margin, -torch.inf))
