"""sigma-zero (Cina et al., arXiv 2402.01879): the fewest changed channel values, found by gradients."""
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_choice, check_int, check_number
from ..ops.smooth_l0 import smooth_l0_grad
from ..registry import ATTACKS
from .base import MinimumAttack

__all__ = ['SigmaZero']


@ATTACKS.register_module()
@dataclass(frozen=True)
class SigmaZero(MinimumAttack):
    r"""sigma-zero: Adam on ``hinge(x + delta) + l0hat(delta) / d`` with a threshold below which changes are set to zero.

    The threshold rises while the image is adversarial and falls while it is not. At success the hinge is exactly 0, so only the
    smooth l0 term ``l0hat = sum delta^2 / (delta^2 + sigma)`` is left, and normalising the gradient turns it into full strength.

    Args:
        steps: iterations N; costs N + 1 forwards (the wrapper's look at the clean image is one) and N - 1 backwards: the clean
            point and N - 1 updates are tried, as published, and no gradient is taken at the last.
        eta0: first step size of Adam; decays to ``eta0 / 10`` along a cosine. Channel values lie in [0, 1].
        sigma: sharpness of the smooth l0 norm, in squared units of a channel value.
        tau0: first threshold.
        t: the threshold moves by ``t`` times the step size.
        unit: ``'element'`` counts and thresholds channel values (as published); ``'pixel'`` counts pixels, thresholds a pixel by
            its largest change and lets all its channels share one term of the smooth l0 norm.
        budget: see :class:`MinimumAttack`.

    Deterministic. Differences from the published code (sigma0-advx, 2025-07): targeted objectives are honoured, frozen images
    leave the batch, a success that changes everything counts (it was never stored), and elements outside the region count
    neither in ``d`` nor in the result.

    Reference: arXiv 2402.01879 and its published code.
    """
    steps: int = 1000
    eta0: float = 1.0
    sigma: float = 1e-3
    tau0: float = 0.3
    t: float = 0.01
    unit: str = 'element'

    def __post_init__(self):
        super().__post_init__()
        check_int(self, 'steps')
        check_number(self, 'eta0')
        check_number(self, 'sigma')
        check_number(self, 'tau0', 0, 1, low_ok=True, high_ok=True)
        check_number(self, 't', low_ok=True)
        check_choice(self, 'unit', ('element', 'pixel'))

    def run(self, objective, rng) -> Tensor:
        x, region = objective.images, objective.region
        b, c, pixel = *x.shape[:2], self.unit == 'pixel'
        d = region.flatten(1).sum(1) * (1 if pixel else c)
        limit = self.limit(objective)
        best, best_l0, rows = x.clone(), d + 1, torch.arange(b)
        delta, m, v, z = (torch.zeros_like(x) for _ in range(4))
        lam, sigma, eta, tau = (x.new_full((b, 1, 1, 1), value) for value in self.start())

        for i in range(self.steps):
            last = i == self.steps - 1
            torch.add(x, delta, out=z)
            probe = z.detach().requires_grad_(not last)
            verdict = objective(probe, rows)
            changed = delta != 0
            l0 = (changed.any(1) if pixel else changed).flatten(1).sum(1)
            better = verdict.success & (l0 < best_l0)
            best_l0 = torch.where(better, l0, best_l0)
            if not last:
                hinge = verdict.margin.clamp(min=0) * ~verdict.success
                grad = torch.autograd.grad(hinge.sum(), probe)[0].contiguous()  # of a pooled input it is an expanded view

            done = objective.failed[rows] | (best_l0 <= limit)
            better_, done_ = torch.stack([better, done]).cpu()  # the iteration's only synchronisation
            if better_.any():
                best[rows[better_]] = z[better_]
            if last or done_.all():
                break
            success = verdict.success[:, None, None, None]
            if done_.any():
                x, region, d, limit, best_l0, delta, m, v, z, lam, sigma, eta, tau, grad, success = (
                    t[~done] for t in (x, region, d, limit, best_l0, delta, m, v, z, lam, sigma, eta, tau, grad, success))
                rows = rows[~done_]

            grad.addcmul_(smooth_l0_grad(delta, sigma, pixel), lam / d[:, None, None, None]).mul_(region)  # hinge + smooth l0
            largest = torch.maximum(grad.flatten(1).amax(1), -grad.flatten(1).amin(1))  # norm(p=inf) takes 50 times as long
            grad.div_(largest.clamp(min=1e-12)[:, None, None, None])
            m.lerp_(grad, 1 - 0.9)
            v.mul_(0.999).addcmul_(grad, grad, value=1 - 0.999)
            torch.sqrt(v, out=z).div_((1 - 0.999 ** (i + 1)) ** 0.5).add_(1e-8)
            delta.addcmul_(torch.div(m, z, out=z), eta / (0.9 ** (i + 1) - 1))
            torch.sub(torch.add(x, delta, out=z).clamp_(0, 1), x, out=delta)  # into the box

            lam, sigma, eta, tau = self.feedback(success, i + 1, lam, sigma, eta, tau)
            size = torch.abs(delta, out=z)
            delta.mul_((size.amax(1, keepdim=True) if pixel else size) >= tau)
        return best

    def start(self) -> tuple[float, float, float, float]:
        """Weight and sharpness of the smooth l0 norm, step size and threshold of the first iteration."""
        return 1.0, self.sigma, self.eta0, self.tau0

    def feedback(self, success: Tensor, i: int, lam: Tensor, sigma: Tensor, eta: Tensor, tau: Tensor) -> tuple[Tensor, ...]:
        """Their values after ``i`` iterations, all (b, 1, 1, 1), given the last verdict."""
        eta = torch.full_like(eta, self.eta0 * (0.1 + 0.9 * (1 + math.cos(math.pi * i / self.steps)) / 2))
        return lam, sigma, eta, self._move_threshold(success, eta, tau)

    def _move_threshold(self, success, eta, tau):
        return torch.where(success, tau + self.t * eta, tau - self.t * eta).clamp_(0, 1)
