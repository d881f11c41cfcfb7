"""GSE, group-wise sparse and explainable attacks (Sadiku, Wagner & Pokutta, arXiv 2311.17434)."""
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..checks import check_choice, check_int, check_number
from ..ops import changed_pixels
from ..ops.neighbourhood import gaussian_blur, image_extent, reflected_index, windows_changed
from ..ops.prox import critical_lambda, half_quasinorm_prox
from ..registry import ATTACKS
from .base import MinimumAttack

__all__ = ['GSE']

BLUR_RADIUS, BLUR_STD = 2, 1.5
FIRST_LAMBDA = 0.01  # as a share of the critical one
RESCUE = 10  # factor of the step size in the last two search steps of an image that was never broken


@ATTACKS.register_module()
@dataclass(frozen=True)
class GSE(MinimumAttack):
    r"""GSE: few pixels that lie together, by proximal gradient steps whose price falls around pixels already changed.

    One search step starts from the clean image and ends at the first success. Phase 1 takes ``k_hat`` proximal steps on
    ``hinge + mu |w|^2 + sum lambda_ij / 2 |w_cij|^(1/2)``; after each, ``lambda`` falls around changed pixels (by one plus a
    Gaussian blur of their mask) and rises by ``1 / q`` everywhere else. Phase 2 descends on ``hinge + mu |w|^2`` over the pixels
    whose ``lambda`` did not rise. A section search per image looks for the largest start value of ``lambda`` that succeeds; the
    result is the success that touches the fewest 8 x 8 windows, d_{2,0}.

    Args:
        mu: weight of the squared 2-norm.
        sigma: step size.
        k_hat: steps of phase 1.
        q: in (0, 1); ``lambda`` rises by ``1 / q`` away from changed pixels.
        iters: steps of both phases together.
        search_steps: section search on ``lambda``.
        search_factor: ``lambda`` grows by this until the first failure.
        averaging: ``'published'`` averages the last two points with weight ``t / t'``, as the published code does; ``'nesterov'``
            extrapolates by ``(t - 1) / t'``, as Nesterov's method has it.
        steepness: multiply the hinge of every image so that the steepest channel value of the clean image (in [-1, 1]) has this
            slope. None leaves the hinge alone, as published. Margins that are means over thousands of pixels or boxes have
            gradients so small that ``mu`` outweighs them: on segmenters and detectors set 1.
        budget: see :class:`MinimumAttack`; in pixels, looked at after every search step.

    All constants are for images in [-1, 1] and logits of the usual size; the attack converts by itself. The published presets are

    ===========================  ====  =====  =====  ====
    images                       mu    sigma  k_hat  q
    ===========================  ====  =====  =====  ====
    CIFAR-10 untargeted          1     0.005  30     0.25  (default)
    CIFAR-10 targeted            1     0.005  50     0.25
    ImageNet                     0.1   0.05   50     0.9
    ImageNet, adv. trained       5e-4  0.75   150    0.9
    ===========================  ====  =====  =====  ====

    On segmenters and detectors those of ImageNet with ``steepness=1`` are a good start (ours).

    Deterministic. Costs at most ``search_steps * iters + 2`` forwards (the look at the clean image is one) and
    ``search_steps * (iters - 1) + 1`` backwards, far fewer where success comes early. The published code spends two forwards on a
    step; here the one that tells success also gives the gradient of the next step, and the gradient at the clean image is taken
    once, which changes no result. The first ``lambda`` comes from a closed form instead of a bisection. Where d_{2,0} is equal,
    as it often is on small images, the fewest pixels win rather than the first. Changes stay in the region; in images narrower
    than 8 pixels the windows are as narrow as the image.

    Reference: arXiv 2311.17434, Algorithms 1 and 2.
    """
    mu: float = 1.0
    sigma: float = 0.005
    k_hat: int = 30
    q: float = 0.25
    iters: int = 200
    search_steps: int = 10
    search_factor: float = 2.0
    averaging: str = 'published'
    steepness: float | None = None
    unit: ClassVar[str] = 'pixel'

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'mu', low_ok=True)
        check_number(self, 'sigma')
        check_int(self, 'k_hat', 0)
        check_number(self, 'q', 0, 1)
        check_int(self, 'iters')
        check_int(self, 'search_steps')
        check_number(self, 'search_factor', 1)
        check_choice(self, 'averaging', ('published', 'nesterov'))
        if self.steepness is not None:
            check_number(self, 'steepness')

    def run(self, objective, rng) -> Tensor:
        x, region, best, rows = objective.images, objective.region, objective.images.clone(), torch.arange(len(objective.images))
        _, grad = _look(objective, x, region, rows)
        scale = None
        if self.steepness is not None:
            scale = self.steepness / grad.flatten(1).abs().amax(1).clamp(min=1e-30)[:, None, None, None]
            grad = grad * scale
        lam = FIRST_LAMBDA * critical_lambda(grad, self.sigma)
        lower, upper = torch.zeros_like(lam), torch.full_like(lam, torch.inf)
        never = torch.iinfo(torch.int64).max
        best_size = torch.full_like(lam, never, dtype=torch.int64)
        limit, enough = self.limit(objective), objective.failed

        for search_step in range(self.search_steps):
            rescue = (best_size == never) & (search_step >= self.search_steps - 2)
            if not len(rows := (~enough).nonzero()[:, 0].cpu()):
                break
            z, hit = self._descend(objective, grad, lam, torch.where(rescue, RESCUE * self.sigma, self.sigma), rows, scale)
            changed = changed_pixels(z, x)
            pixels = changed.flatten(1).sum(1)
            size = windows_changed(changed, region) * changed[0].numel() + pixels  # ties to the fewest pixels
            within = hit & (pixels <= limit)
            better = within | (hit & (size < best_size))
            best = torch.where(better[:, None, None, None], z, best)
            best_size = torch.where(better, size, best_size)
            enough = objective.failed | enough | within

            lower, upper = torch.where(hit, lam, lower), torch.where(hit, upper, lam)
            higher = torch.where(upper.isinf(), self.search_factor * lam, (upper + lam) / 2)
            lam = torch.where(hit, higher, 0.9 * lower + 0.1 * lam)
        return best

    def _descend(self, objective, grad: Tensor, lam: Tensor, step: Tensor, rows: Tensor,
                 scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One search step. The first success of each image (the clean image where there is none), and (B,) bool, success.

        Args:
            grad: (B, C, H, W), gradient of the (scaled) hinge at the clean images.
            lam, step: (B,), start value of lambda and step size.
            rows: (b,) int64 on the CPU, the images to look at.
            scale: (B, 1, 1, 1), what the hinge is multiplied by.
        """
        x, region = objective.images, objective.region
        found, hit = x.clone(), torch.zeros(len(x), dtype=torch.bool)
        extents = image_extent(region)
        mirror = [reflected_index(e, length, BLUR_RADIUS) for e, length in zip(extents, x.shape[2:], strict=True)]
        x, region, grad, lam, step, *mirror = (t[rows] for t in (x, region, grad, lam, step, *mirror))
        lam, step = lam[:, None, None, None], step[:, None, None, None]
        w, previous, price, subspace, t = torch.zeros_like(x), torch.zeros_like(x), lam * torch.ones_like(region), region, 1.0

        for j in range(self.iters):
            t_next = (1 + (1 + 4 * t * t) ** 0.5) / 2
            a = t / t_next if self.averaging == 'published' else 1 + (t - 1) / t_next
            t = t_next
            slope = grad.add(w, alpha=2 * self.mu)
            if j == self.k_hat:
                subspace = (price <= lam) & region
                previous = w = w * subspace
            point = w.addcmul(step, slope, value=-1)
            point = half_quasinorm_prox(point, price * step) if j < self.k_hat else point.mul_(subspace)
            w = torch.lerp(previous, point, a)
            previous = point
            if j < self.k_hat:
                blur = gaussian_blur((w != 0).any(1).to(w.dtype), *mirror, BLUR_STD)[:, None]
                price = torch.where(blur > 0, price / (1 + blur), price / self.q)
            w.clamp_(-2 * x, 2 - 2 * x)  # 2 x - 1 + w stays in [-1, 1]

            z = torch.add(x, w, alpha=0.5)
            last = j == self.iters - 1
            success_, grad = _look(objective, z, region, rows, backward=not last)
            if scale is not None and not last:
                grad = grad * scale[rows]
            failed = objective.failed[rows]
            success, done = torch.stack([success_, success_ | failed]).cpu()  # the step's only synchronisation
            if success.any():
                found[rows[success]], hit[rows[success]] = z[success], True
            if last or done.all():
                break
            if done.any():
                stay = ~(success_ | failed)
                x, region, grad, lam, step, w, previous, price, subspace, *mirror = (
                    kept[stay] for kept in (x, region, grad, lam, step, w, previous, price, subspace, *mirror))
                rows = rows[~done]
        return found, hit.to(x.device)


def _look(objective, z: Tensor, region: Tensor, rows: Tensor, backward: bool = True) -> tuple[Tensor, Tensor | None]:
    """Success (b,) at the candidates, and the gradient of the hinge in units of [-1, 1], zero outside the region."""
    probe = z.detach().requires_grad_(backward)
    verdict = objective(probe, rows)
    if not backward:
        return verdict.success, None
    hinge = verdict.margin.clamp(min=0) * ~verdict.success
    return verdict.success, torch.autograd.grad(hinge.sum(), probe)[0] * region / 2
