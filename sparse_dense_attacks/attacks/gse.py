"""GSE, group-wise sparse and explainable attacks (Sadiku, Wagner & Pokutta, arXiv 2311.17434)."""
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_choice, check_int, check_number
from ..objectives.base import Restricted
from ..ops import changed_pixels, gradient
from ..ops.neighbourhood import gaussian_blur, image_extent, reflected_index, windows_changed
from ..ops.prox import critical_lambda, half_quasinorm_prox
from ..registry import ATTACKS
from .active import Active
from .base import MinimumAttack
from .rng import ImageRNG

__all__ = ['GSE']

BLUR_RADIUS, BLUR_STD = 2, 1.5
FIRST_LAMBDA = 0.01  # as a share of the critical one
RESCUE = 10  # factor of the step size in the last two search steps of an image never broken


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

    @property
    def unit(self) -> str:
        return 'pixel'

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        x, region = objective.images, objective.region
        best = x.clone()

        # the gradient at the clean image, where every search step starts
        weight = region / 2  # what its gradients are multiplied by: images lie in [-1, 1]
        _, grad = _look(objective, x, weight, torch.arange(len(x)))
        if self.steepness is not None:
            steepest = grad.flatten(1).abs().amax(1).clamp(min=1e-30)
            scale = (self.steepness / steepest)[:, None, None, None]
            weight, grad = weight * scale, grad * scale

        # lambda starts well below what would stop the first step, and lies between lower and upper from then on
        lam = FIRST_LAMBDA * critical_lambda(grad, self.sigma)
        never = torch.iinfo(torch.int64).max
        s = Active(x=x, region=region, weight=weight, grad=grad, limit=self.limit(objective),
                   lam=lam, lower=torch.zeros_like(lam), upper=torch.full_like(lam, torch.inf),
                   best_size=torch.full_like(lam, never, dtype=torch.int64))
        s.keep(~objective.failed.cpu())

        for search_step in range(self.search_steps):
            if not len(s):
                break

            # one descent, with longer steps where nothing else has helped
            rescue = (s.best_size == never) & (search_step >= self.search_steps - 2)
            sigma = torch.where(rescue, RESCUE * self.sigma, self.sigma)
            z, hit = self._descend(objective, s, sigma)

            # keep the success in the fewest windows, of these that with the fewest pixels, or one within the budget
            changed = changed_pixels(z, s.x)
            pixels = changed.flatten(1).sum(1)
            size = windows_changed(changed, s.region) * changed[0].numel() + pixels
            within = hit & (pixels <= s.limit)
            better = within | (hit & (size < s.best_size))
            s.best_size = torch.where(better, size, s.best_size)

            # section search: up after a success, down after a failure
            s.lower = torch.where(hit, s.lam, s.lower)
            s.upper = torch.where(hit, s.upper, s.lam)
            higher = torch.where(s.upper.isinf(), self.search_factor * s.lam, (s.upper + s.lam) / 2)
            s.lam = torch.where(hit, higher, 0.9 * s.lower + 0.1 * s.lam)

            better, done = torch.stack([better, objective.failed[s.rows] | within]).cpu()
            best[s.rows[better]] = z[better]
            s.keep(~done)
        return best

    def _descend(self, objective: Restricted, start: Active,
                 sigma: Tensor) -> tuple[Tensor, Tensor]:
        """One search step for the images of ``start``, Algorithm 1 with the step sizes ``sigma`` (b,).

        Returns:
            The first success of each (b, C, H, W), the clean image where there is none, and (b,) bool, success.
        """
        part = Restricted(objective, start.rows)
        found, hit = start.x.clone(), torch.zeros_like(start.idle)
        height, width = image_extent(start.region)
        lam = start.lam[:, None, None, None]
        s = Active(
            # what stays; the mirrors say where the blur finds pixels beyond the border
            x=start.x, region=start.region, weight=start.weight, lam=lam,
            sigma=sigma[:, None, None, None],
            mirror_rows=reflected_index(height, start.x.shape[2], BLUR_RADIUS),
            mirror_columns=reflected_index(width, start.x.shape[3], BLUR_RADIUS),
            # the perturbation of images in [-1, 1], the point before it was averaged, the gradient there
            w=torch.zeros_like(start.x), point=torch.zeros_like(start.x), grad=start.grad,
            # lambda of every pixel, and the pixels of phase 2
            price=lam * torch.ones_like(start.region), subspace=start.region)
        t = 1.0

        for j in range(self.iters):
            last = j == self.iters - 1
            t_next = (1 + (1 + 4 * t * t) ** 0.5) / 2
            a = t / t_next if self.averaging == 'published' else 1 + (t - 1) / t_next
            t = t_next

            # phase 2 begins: from now on only pixels whose price did not rise
            slope = s.grad.add(s.w, alpha=2 * self.mu)
            if j == self.k_hat:
                s.subspace = (s.price <= s.lam) & s.region
                s.w = s.w * s.subspace
                s.point = s.w

            # a gradient step on hinge + mu |w|^2; then the prox of the 1/2-quasinorm, or back into the subspace
            point = s.w.addcmul(s.sigma, slope, value=-1)
            if j < self.k_hat:
                point = half_quasinorm_prox(point, s.price * s.sigma)
            else:
                point.mul_(s.subspace)

            # the average with the point before
            s.w = torch.lerp(s.point, point, a)
            s.point = point

            # the price falls around changed pixels and rises everywhere else
            if j < self.k_hat:
                mask = (s.w != 0).any(1).to(s.w.dtype)
                blur = gaussian_blur(mask, s.mirror_rows, s.mirror_columns, BLUR_STD)[:, None]
                s.price = torch.where(blur > 0, s.price / (1 + blur), s.price / self.q)
            s.w.clamp_(-2 * s.x, 2 - 2 * s.x)  # 2 x - 1 + w stays in [-1, 1]

            # look at the candidate, keep the first success, drop what is done
            z = torch.add(s.x, s.w, alpha=0.5)
            success, grad = _look(part, z, s.weight, s.rows, backward=not last)
            if grad is not None:
                s.grad = grad
            done = success | part.failed[s.rows] | last
            hit[s.rows] = hit[s.rows] | (success & ~s.idle)
            s.settle(part, found, z.detach(), success, done, j, last)
            if not len(s):
                break
        return found, hit


def _look(objective: Restricted, z: Tensor, weight: Tensor, rows: Tensor,
          backward: bool = True) -> tuple[Tensor, Tensor]:
    """Success (b,) at the candidates, and the gradient of the hinge times ``weight`` (b, 1, H, W).

    Without ``backward`` the gradient is not asked for, and 0.
    """
    z = z.detach().requires_grad_(backward)
    verdict = objective(z, rows)
    if not backward:
        return verdict.success, torch.zeros_like(z)
    hinge = verdict.margin.clamp(min=0) * ~verdict.success
    return verdict.success, gradient(hinge, z) * weight
