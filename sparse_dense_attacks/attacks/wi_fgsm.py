"""The interpretable sparse attack (WI-FGSM, arXiv 2506.17250): weights on a dense I-FGSM perturbation."""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_choice, check_flag, check_int, check_number
from ..objectives.base import Restricted
from ..ops import gradient
from ..registry import ATTACKS
from .active import Active
from .base import MinimumAttack
from .rng import ImageRNG

__all__ = ['WIFGSM', 'gaussian_delta']


@ATTACKS.register_module()
@dataclass(frozen=True)
class WIFGSM(MinimumAttack):
    r"""Which elements of a dense perturbation are needed: ``x + w * eta`` with weights ``w >= 0``, few of them not zero.

    First I-FGSM ascends the objective's loss within ``eps``; its result less ``x`` is ``eta``. Then ``w`` descends

    .. math:: J(w) = \beta (\lambda\, \mathrm{softplus}(m(x + w\eta)) + \|w\|_0)

    with the objective's margin m, is thresholded, and is bounded to ``omega * tanh(w)``, so that the box holds without clipping.
    The smallest success seen is returned; an image without one comes back clean. Sparsity is counted in channel values.

    The paper takes the cross-entropy toward y', the class the dense attack reaches. A core knows no classes, hence softplus of
    the margin: between two classes this is exactly the cross-entropy toward the other one; between more it is
    that of a softmax over the true class and its strongest rival at the time. A dense attack that fails leaves no wrong direction
    behind, as it would with y' = y.

    Args:
        steps: iterations T of the second stage; costs dense_steps + T + 3 forwards and dense_steps + T backwards at most.
        dense_steps: iterations of I-FGSM.
        eps: its largest change of a channel value.
        accumulate: the published I-FGSM: full steps ``eps`` from the clean image along the sign of the sum of all gradients
            so far. By default steps of ``1.25 eps / dense_steps``, each clipped to ``eps`` and the box.
        lam, beta: weights of the objective, see J(w).
        lr, momentum: of the descent.
        tau: threshold of the weights, in units of ``eps``.
        l0: ``'gaussian'``, the gradient of the l0 norm is a normal density of width ``a`` (as in the paper), or ``'none'``, zero:
            only the threshold makes the weights sparse (as in the published code).
        a, a_final: first and last width; the width changes geometrically from one to the other. Equal by default: no annealing.
        steepness: multiply the margin of every image so that its steepest channel value in the clean image has this slope. None
            leaves it alone, as published. Margins that are means over thousands of pixels or boxes have gradients too small for
            J: no weight passes the threshold ``tau / eps``, which takes ``lr beta lam eps slope / 2``, and the dense perturbation
            stays as it is. On segmenters and detectors try 35 times ``tau / (lr beta lam eps ** 2)``. Costs one backward.
        bound: ``'symmetric'``, ``omega = min(x, 1 - x) / eps`` as published, which never changes a value of exactly 0 or 1, not
            even inwards; or ``'one_sided'``, ``omega`` reaches the end of the box that ``eta`` points to.
        budget: see :class:`MinimumAttack`; in channel values.

    Reference: arXiv 2506.17250, and its published code for the constants. Unlike there, the first weights obey the bound too.
    """
    steps: int = 200
    dense_steps: int = 10
    eps: float = 6 / 255
    accumulate: bool = False
    lam: float = 1e3
    beta: float = 1e2
    lr: float = 1e-2
    momentum: float = 0.0
    tau: float = 0.45
    l0: str = 'gaussian'
    a: float = 0.1
    a_final: float = 0.1
    bound: str = 'symmetric'
    steepness: float | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ('steps', 'dense_steps'):
            check_int(self, name)
        for name in ('eps', 'lam', 'beta', 'lr', 'a', 'a_final'):
            check_number(self, name)
        check_flag(self, 'accumulate')
        check_number(self, 'tau', low_ok=True)
        check_number(self, 'momentum', 0, 1, low_ok=True)
        if self.steepness is not None:
            check_number(self, 'steepness')
        check_choice(self, 'l0', ('gaussian', 'none'))
        check_choice(self, 'bound', ('symmetric', 'one_sided'))

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        x = objective.images
        eta, scale = self._dense(objective)

        # where the dense perturbation succeeds it is the first result
        with torch.no_grad():
            success = objective(x + eta, torch.arange(len(x))).success
        best = torch.where(success[:, None, None, None], x + eta, x)
        count = torch.where(success, (eta != 0).flatten(1).sum(1), x[:1].numel() + 1)

        # random weights, bounded so that the box holds without clipping
        if self.bound == 'symmetric':
            omega = torch.minimum(x, 1 - x)
        else:
            omega = torch.where(eta > 0, 1 - x, x)
        omega = omega.where(eta != 0, 0) / self.eps
        w = omega * rng.normal(x.shape[1]).relu_().tanh_()
        s = Active(x=x, eta=eta, scale=scale, omega=omega, w=w, velocity=torch.zeros_like(w),
                   count=count, limit=self.limit(objective))

        for step in range(self.steps + 1):
            last = step == self.steps

            # look at x + w * eta; the loss is softplus of the margin
            z = torch.addcmul(s.x, s.w, s.eta).requires_grad_(not last)
            verdict = objective(z, s.rows)
            if not last:
                s.grad = self.lam * gradient(F.softplus(s.scale * verdict.margin), z) * s.eta

            # keep the sparsest success, drop what is done
            size = ((s.w > 0) & (s.eta != 0)).flatten(1).sum(1)
            better = verdict.success & (size < s.count)
            s.count = torch.where(better, size, s.count)
            done = objective.failed[s.rows] | (s.count <= s.limit) | last
            s.settle(objective, best, z.detach(), better, done, step, last)
            if not len(s):
                break

            # the weights descend J
            if self.l0 == 'gaussian':
                width = self.a * (self.a_final / self.a) ** (step / max(self.steps - 1, 1))
                s.grad += gaussian_delta(s.w, width)
            s.velocity.mul_(self.momentum).add_(s.grad, alpha=self.beta)
            s.w.sub_(s.velocity, alpha=self.lr)

            # the small ones are set to zero, the others bounded
            s.w.sub_(self.tau / self.eps).relu_().tanh_().mul_(s.omega)
        return best

    def _dense(self, objective: Restricted) -> tuple[Tensor, Tensor]:
        """I-FGSM: a perturbation (B, C, H, W) within eps, the box and the region that ascends the loss.

        And what the margins are multiplied by afterwards, (B,): see ``steepness``.
        """
        x, rows = objective.images, torch.arange(len(objective.images))
        eta, total = torch.zeros_like(x), torch.zeros_like(x)
        scale = x.new_ones(len(x))
        for step in range(self.dense_steps):
            z = (x + eta).requires_grad_()
            verdict = objective(z, rows)
            if step == 0 and self.steepness is not None:
                slope = gradient(verdict.margin, z, again=True) * objective.region
                scale = self.steepness / slope.flatten(1).abs().amax(1).clamp(min=1e-30)
            grad = gradient(verdict.loss, z) * objective.region
            total = total + grad
            if self.accumulate:
                eta = self.eps * total.sign()
            else:
                stride = 1.25 * self.eps / self.dense_steps
                eta = (eta + stride * grad.sign()).clamp(-self.eps, self.eps)
            eta = torch.clamp(eta, -x, 1 - x)
        return eta, scale


def gaussian_delta(w: Tensor, width: float) -> Tensor:
    """Derivative of the smoothed count of non-zero weights, ``sum (1 + erf(w / width)) / 2``: a normal density around zero.

    As ``width`` goes to 0 this becomes the derivative of the step function, and the count exact.
    """
    return torch.exp(-(w / width) ** 2) / (width * torch.pi ** 0.5)
