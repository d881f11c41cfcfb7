"""Sparse-PGD by exchanging pixels: our white-box attack for very small budgets."""
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_config, check_flag, check_int, check_number, check_numbers
from ..errors import InputError
from ..groups import Kernel, Pixel
from ..objectives.base import Restricted
from ..ops import box_bounds, gradient, largest
from ..registry import ATTACKS, KERNELS, Config
from ..types import Verdict
from .active import Active
from .base import Best, BudgetAttack
from .rng import ImageRNG

__all__ = ['SwapPGD']

Size = tuple[int, int]
LAST = 1e6  # a gain is lowered by this where it may be taken only if nothing else is left


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
        rest: iterations between two exchanges in which only the magnitudes move. A group of many
            pixels that has just come in needs some before it can be compared with those that have
            long been followed.
        apart: choose groups that share no pixel with each other as long as there are any.
        base: another budget attack to begin with, given the same budget; its result takes the place of the first phase, and its
            passes come on top. None (default) begins with nothing.

    With ``early_stop`` it ascends the negative margin of the objective, otherwise the loss, because many margins are flat at
    success.
    """
    start: float = 0.15
    momentum: float = 0.8
    alpha: float = 0.2
    noise: tuple[float, float] = (1.0, 0.25)
    exchange: float = 0.35
    reach: float = 2.0
    kernel: Kernel | Config = Pixel()
    rest: int = 0
    apart: bool = False
    base: BudgetAttack | Config | None = None

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'start', 0, 1, low_ok=True, high_ok=True)
        check_number(self, 'momentum', 0, 1, low_ok=True)
        check_number(self, 'alpha', 0, 1, low_ok=True, high_ok=True)
        check_numbers(self, 'noise', 2, low_ok=True)
        check_number(self, 'exchange', 0, 1, low_ok=True, high_ok=True)
        check_number(self, 'reach')
        object.__setattr__(self, 'noise', tuple(self.noise))
        check_config(self, 'kernel')
        object.__setattr__(self, 'kernel', KERNELS.build(self.kernel))
        check_int(self, 'rest', low=0)
        check_flag(self, 'apart')
        if self.base is not None:
            check_config(self, 'base')
            base = ATTACKS.build(self.base)
            if not isinstance(base, BudgetAttack):
                raise InputError(f'SwapPGD: base = {base!r}, expected an attack with a budget k')
            object.__setattr__(self, 'base', replace(base, k=self.k, early_stop=self.early_stop))

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        best, kernel = Best(objective), self.kernel
        mask_rng = rng.on_grid(kernel.grid)
        best.loss = self._ascended(objective.clean).loss.clone()
        s = self._start(objective)
        size, k_max = s.x.shape[2:], int(s.k.max())
        first_swap = max(round(self.start * self.steps), 1)
        if self.base is not None:
            with objective.reserved():  # for the first look at what it has found
                found = self.base.run(objective, rng)
            self._begin_with(s, found, mask_rng)
            first_swap = 0

        for step in range(self.steps + 1):
            last = step == self.steps

            # look at x + p * mask, keep the best, drop what is done
            mask = kernel.expand(s.v, size).to(s.x.dtype)
            z = torch.addcmul(s.x, s.p, mask).requires_grad_(not last)
            verdict = self._ascended(objective(z, s.rows))
            s.value = verdict.loss.detach()[:, None, None, None]
            # step 0 looks at the clean image, or at what another attack has found
            better = best.improved(verdict, s.rows) | (step <= min(first_swap, 1))
            s.better = better[:, None, None, None]
            if not last:  # no say to pixels that stay
                s.grad = gradient(verdict.loss, z).mul_(s.high > s.low)
            done = objective.failed[s.rows] | (verdict.success & self.early_stop) | last
            [done] = best.take(z, verdict, s.rows, done)
            s.keep(~done)
            if not len(s):
                break

            # learn what the exchange really brought, then move home to the candidate if it was better
            if step > min(first_swap, 1):
                self._learn(s)
            s.home_p = torch.where(s.better, s.p, s.home_p)
            s.home_v = torch.where(s.better, s.v, s.home_v)
            s.home_grad = torch.where(s.better, s.grad, s.home_grad)
            s.home_value = torch.where(s.better, s.value, s.home_value)

            # phase 1, Frank-Wolfe: the k groups that promise most go to their best corners
            if step < first_swap:
                norm = s.grad.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
                s.total = self.momentum * s.total + s.grad / norm
                s.p = torch.where(s.total > 0, s.high, s.low)
                gain = self._log_gain(s.total * s.p, self.noise[0], mask_rng, s.rows)
                gain = gain.masked_fill_(~s.groups, -torch.inf)
                s.v = self._best(gain, s.k, k_max, torch.zeros_like(s.groups), size)
                continue

            # between two exchanges the candidate's magnitudes go on, whether it is home or not
            if (step - first_swap) % (self.rest + 1):
                s.p = torch.clamp(s.p + self.alpha * s.grad.sign(), s.low, s.high)
                continue

            # phase 2: what was tried in vain becomes less likely
            if step > first_swap:
                s.tired = torch.where(s.better, 0.3 * s.tired, s.tired + 2.0 * (s.v & ~s.home_v))
            share = self.exchange * (1 - step / self.steps)
            count = (share * s.k).round().long().clamp(min=1).minimum(s.spare)

            # out of the chosen groups at home go those that matter little
            worth = kernel.correlate((s.home_grad * s.home_p).sum(1, keepdim=True))
            worth = worth.masked_fill_(~s.home_v, 0)
            worth = worth / worth.abs().amax((2, 3), keepdim=True).clamp(min=1e-30)
            needless = mask_rng.normal(1, s.rows) - worth
            leave = largest(needless.masked_fill_(~s.home_v, -torch.inf), count, k_max)

            # in come, at their best corners, those that promise much
            corner = torch.where(s.home_grad > 0, s.high, s.low)
            gain = self._log_gain(s.home_grad * corner, self.noise[1], mask_rng, s.rows)
            gain = gain - s.tired + s.real / s.usual.sqrt().clamp(min=1e-12)
            gain = gain.masked_fill_(s.home_v | ~s.groups, -torch.inf)
            enter = self._best(gain, count, k_max, s.home_v & ~leave, size)
            s.v = s.home_v & ~leave | enter

            # the other magnitudes take a small step along the sign of the gradient
            p = torch.clamp(s.home_p + self.alpha * s.home_grad.sign(), s.low, s.high)
            s.p = torch.where(kernel.expand(enter, size) > 0, corner, p)
        return best.images

    def _start(self, objective: Restricted) -> Active:
        """Nothing is chosen and nothing known."""
        x, groups = objective.images, self.kernel.usable(objective.region)
        k, room = self.budget(objective)
        low, high = (bound.mul_(objective.region) for bound in box_bounds(x, 1.0))
        nothing, unknown = torch.zeros_like(x), torch.zeros_like(groups, dtype=x.dtype)
        zero = x.new_zeros(len(x), 1, 1, 1)
        return Active(
            # what stays: groups that may be chosen, k and how many are left then, the box
            x=x, groups=groups, k=k, spare=room - k, low=low, high=high,
            # the candidate: magnitudes and chosen groups
            p=nothing, v=torch.zeros_like(groups),
            # the best point so far, its gradient and what it reaches
            home_p=nothing, home_v=torch.zeros_like(groups), home_grad=nothing, home_value=zero,
            # momentum of phase 1; what was tried in vain, the map of real gains and the usual squared change of phase 2
            total=nothing, tired=unknown, real=unknown, usual=zero)

    def _begin_with(self, s: Active, found: Tensor, mask_rng: ImageRNG) -> None:
        """The candidate is what another attack has ``found``, (B, C, H, W): the groups that hold most of its changes."""
        s.p = (found - s.x).clamp(s.low, s.high)
        size = self.kernel.correlate(s.p.abs().sum(1, keepdim=True))
        # where it changed fewer than k, any others
        size = size + 1e-6 * mask_rng.uniform(1)
        s.v = largest(size.masked_fill(~s.groups, -torch.inf), s.k, int(s.k.max()))

    def _best(self, gain: Tensor, k: Tensor, k_max: int, beside: Tensor, size: Size) -> Tensor:
        """(b, 1, Gh, Gw) bool, the k groups of the largest gains, apart from each other and from those ``beside``."""
        if not self.apart:
            return largest(gain, k, k_max)
        found, taken = torch.zeros_like(beside), beside
        for number in range(k_max):
            shares = self.kernel.correlate(self.kernel.expand(taken, size).to(gain.dtype)) > 0
            free = gain.masked_fill(found, -torch.inf) - LAST * shares.to(gain.dtype)
            one = largest(free, (k > number).long(), 1)
            found, taken = found | one, taken | one
        return found

    def _log_gain(self, promised: Tensor, noise: float, mask_rng: ImageRNG, rows: Tensor) -> Tensor:
        """(b, 1, Gh, Gw), log of what each group promises, with noise; very low where that is nothing."""
        gain = self.kernel.correlate(promised.sum(1, keepdim=True))
        return gain.clamp(min=1e-30).log().add_(mask_rng.normal(1, rows), alpha=noise)

    def _learn(self, s: Active) -> None:
        """Correct the map of real gains ``s.real`` (b, 1, Gh, Gw) and the usual squared change ``s.usual`` (b, 1, 1, 1)."""
        # 1 where a group came in, -1 where one went out
        exchanged = s.v.to(s.x.dtype) - s.home_v.to(s.x.dtype)
        change = s.value - s.home_value
        change = torch.where(change.isfinite(), change, 0)  # a spent budget teaches nothing
        bump = self._spread(exchanged)
        power = (exchanged * bump).sum((2, 3), keepdim=True)
        expected = (exchanged * s.real).sum((2, 3), keepdim=True)
        s.real = s.real + 0.7 * (change - expected) / power.clamp(min=1e-6) * bump
        s.usual = torch.where(s.usual > 0, 0.9 * s.usual + 0.1 * change ** 2, change ** 2)

    def _spread(self, a: Tensor) -> Tensor:
        """Gaussian bumps of height one, by shifting and adding: every entry is the same whatever the size of the batch."""
        radius = round(3 * self.reach)
        weights = [math.exp(-0.5 * (i / self.reach) ** 2) for i in range(-radius, radius + 1)]
        for axis, padding in ((2, (0, 0, radius, radius)), (3, (radius, radius))):
            padded, length = F.pad(a, padding), a.shape[axis]
            shifted = [weight * padded.narrow(axis, i, length) for i, weight in enumerate(weights)]
            a = sum(shifted[1:], start=shifted[0])
        return a

    def _ascended(self, verdict: Verdict) -> Verdict:
        """The verdict with what is ascended as its loss; a spent budget stays at minus infinity."""
        if not self.early_stop:
            return verdict
        loss = torch.where(verdict.loss.isfinite(), -verdict.margin, -torch.inf)
        return replace(verdict, loss=loss)
