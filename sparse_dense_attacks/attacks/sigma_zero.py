"""sigma-zero (Cina et al., arXiv 2402.01879): the fewest changed channel values, found by gradients."""
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_choice, check_int, check_number
from ..objectives.base import Restricted
from ..ops import gradient
from ..ops.smooth_l0 import smooth_l0_grad
from ..registry import ATTACKS
from .active import Active
from .base import MinimumAttack
from .rng import ImageRNG

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

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        x, pixel = objective.images, self.unit == 'pixel'
        best = x.clone()
        d = objective.region.flatten(1).sum(1) * (1 if pixel else x.shape[1])  # what may change
        s = Active(x=x, region=objective.region, d=d, limit=self.limit(objective), best_l0=d + 1,
                   delta=torch.zeros_like(x), m=torch.zeros_like(x), v=torch.zeros_like(x))
        for name, value in self.start().items():
            setattr(s, name, x.new_full((len(x), 1, 1, 1), value))

        for i in range(1, self.steps + 1):
            last = i == self.steps

            # look at the candidate; the hinge is exactly 0 at success
            z = torch.add(s.x, s.delta).requires_grad_(not last)
            verdict = objective(z, s.rows)
            if not last:
                s.grad = gradient(verdict.margin.clamp(min=0) * ~verdict.success, z)
            s.success = verdict.success[:, None, None, None]

            # keep the sparsest success, drop what is done
            changed = s.delta != 0
            l0 = (changed.any(1) if pixel else changed).flatten(1).sum(1)
            better = verdict.success & (l0 < s.best_l0)
            s.best_l0 = torch.where(better, l0, s.best_l0)
            done = objective.failed[s.rows] | (s.best_l0 <= s.limit) | last
            s.settle(objective, best, z.detach(), better, done, i - 1, last)
            if not len(s):
                break

            # add the gradient of lam * l0hat / d, none outside the region; normalise by the largest entry
            price = s.lam / s.d[:, None, None, None]
            s.grad.addcmul_(smooth_l0_grad(s.delta, s.sigma, pixel), price).mul_(s.region)
            flat = s.grad.flatten(1)
            norm = torch.maximum(flat.amax(1), -flat.amin(1))  # norm(p=inf) takes 50 times as long
            s.grad.div_(norm.clamp(min=1e-12)[:, None, None, None])

            # a step of Adam
            s.m.lerp_(s.grad, 1 - 0.9)
            s.v.mul_(0.999).addcmul_(s.grad, s.grad, value=1 - 0.999)
            scale = s.v.sqrt().div_((1 - 0.999 ** i) ** 0.5).add_(1e-8)
            s.delta.addcmul_(s.m / scale, s.eta / (0.9 ** i - 1))

            # into the box
            s.delta = torch.add(s.x, s.delta).clamp_(0, 1).sub_(s.x)

            # the parameters follow the verdict; changes below the threshold are set to zero
            self.adapt(s, i)
            size = s.delta.abs()
            s.delta.mul_((size.amax(1, keepdim=True) if pixel else size) >= s.tau)
        return best

    def start(self) -> dict[str, float]:
        """Weight and sharpness of the smooth l0 norm, step size and threshold of the first iteration."""
        return dict(lam=1.0, sigma=self.sigma, eta=self.eta0, tau=self.tau0)

    def adapt(self, s: Active, i: int) -> None:
        """Set these four, all (b, 1, 1, 1), after ``i`` iterations; ``s.success`` is the last verdict."""
        s.eta = torch.full_like(s.eta, self.cosine(i))
        self.move_threshold(s)

    def cosine(self, i: int) -> float:
        """The step size after ``i`` iterations."""
        return self.eta0 * (0.1 + 0.9 * (1 + math.cos(math.pi * i / self.steps)) / 2)

    def move_threshold(self, s: Active) -> None:
        """Up at success, down otherwise."""
        s.tau = torch.where(s.success, s.tau + self.t * s.eta, s.tau - self.t * s.eta).clamp_(0, 1)
