"""ASLO, adaptive sparse l0 regularisation (Liu, Li & Chen, arXiv 2408.15702), as an attack and as an add-on to other attacks."""
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..checks import check_choice, check_config, check_flag, check_number, check_range
from ..errors import InputError
from ..objectives.base import AnyObjective, Restricted
from ..ops.smooth_l0 import smooth_l0
from ..registry import ATTACKS, Config
from ..types import Verdict
from .active import Active
from .base import Attack
from .rng import ImageRNG
from .sigma_zero import SigmaZero

__all__ = ['ASLO', 'ASLOAddOn']


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """How the weight ``lam`` and the sharpness ``sigma`` of the smooth l0 norm follow the victim's answers."""
    lam: float = 1.0
    sigma: float = 1e-3 ** 0.5
    kappa: float = 0.01
    rho: float = 0.995
    lam_range: tuple[float, float] = (1e-3, 1e3)
    sigma_range: tuple[float, float] = (1e-3, 0.1)

    def check_feedback(self) -> None:
        for name, ends in (('lam', 'lam_range'), ('sigma', 'sigma_range')):
            check_range(self, ends)
            low, high = getattr(self, ends)
            check_number(self, name, low, high, low_ok=True, high_ok=True)
        check_number(self, 'kappa', 0, 1, low_ok=True)
        check_number(self, 'rho', 0, 1, high_ok=True)

    def follow(self, success: Tensor, lam: Tensor, sigma_squared: Tensor) -> tuple[Tensor, Tensor]:
        """``lam`` and ``sigma^2`` after a verdict; all of one shape."""
        low, high = self.sigma_range
        lam = lam * torch.where(success, 1 + self.kappa, 1 - self.kappa)
        sigma_squared = sigma_squared * torch.where(success, self.rho ** 2, self.rho ** -2)
        return lam.clamp_(*self.lam_range), sigma_squared.clamp_(low ** 2, high ** 2)


@ATTACKS.register_module()
@dataclass(frozen=True)
class ASLO(Feedback, SigmaZero):
    r"""Adam on ``hinge(x + delta) + lam * l0hat(delta) / d``, ``l0hat = sum delta^2 / (delta^2 + sigma^2)``, with feedback.

    What the paper states: this smooth l0 norm (with sigma squared), that sigma tunes the sparsity, and that parameters adapt in
    real time to the model's answers. It publishes no code, and which parameters adapt, by how much, the optimiser, thresholds and
    step sizes are not known to us. Everything else here is **our design**, modelled on sigma-zero: l_inf-normalised gradients,
    Adam, a hard threshold, the feedback below, and the pruning at the end. No published figure is claimed to be reproduced.

    After every verdict, per image: success raises ``lam`` by the factor ``1 + kappa``, sharpens ``sigma`` by the factor ``rho``
    and shortens the step by 0.5 % (never below ``eta0 / 10``); failure lowers ``lam`` by the factor ``1 - kappa`` and blurs
    ``sigma`` by ``1 / rho``.

    Args:
        steps, eta0, tau0, t, unit, budget: as in :class:`SigmaZero`; ``budget`` is looked at before the pruning.
        lam: first weight of the smooth l0 norm.
        sigma: first sharpness, in units of a channel value; the default squares to sigma-zero's.
        kappa: feedback on ``lam``, 0 to switch it off.
        rho: feedback on ``sigma``, 1 to switch it off.
        lam_range, sigma_range: where the feedback stops.
        threshold: ``'adaptive'`` follows success like sigma-zero's, ``'fixed'`` stays at ``tau0``, ``'none'`` keeps every change
            and leaves sparsity to the pruning.
        step_rule: ``'feedback'`` as above, or ``'cosine'`` like sigma-zero.
        prune: finally keep the fewest largest changes that still succeed, by bisection; at most ``ceil(log2 d)`` more forwards.

    With ``kappa=0, rho=1, step_rule='cosine', prune=False`` it is :class:`SigmaZero` with ``sigma`` squared, bit for bit.
    Deterministic; costs steps + 1 forwards, those of the pruning, and steps - 1 backwards.

    Reference: arXiv 2408.15702 (abstract and introduction).
    """
    sigma: float = 1e-3 ** 0.5
    threshold: str = 'adaptive'
    step_rule: str = 'feedback'
    prune: bool = True

    def __post_init__(self):
        super().__post_init__()
        self.check_feedback()
        check_choice(self, 'threshold', ('adaptive', 'fixed', 'none'))
        check_choice(self, 'step_rule', ('feedback', 'cosine'))
        check_flag(self, 'prune')

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        images = super().run(objective, rng)
        if not self.prune:
            return images
        changed = (images != objective.images).flatten(1).any(1)
        broken = changed & ~objective.failed  # only a success is ever stored
        return prune(objective, images, broken.nonzero()[:, 0].cpu(), self.unit == 'pixel')

    def start(self) -> dict[str, float]:
        tau = 0. if self.threshold == 'none' else self.tau0
        return dict(lam=self.lam, sigma=self.sigma ** 2, eta=self.eta0, tau=tau)

    def adapt(self, s: Active, i: int) -> None:
        s.lam, s.sigma = self.follow(s.success, s.lam, s.sigma)
        if self.step_rule == 'cosine':
            s.eta = torch.full_like(s.eta, self.cosine(i))
        else:
            s.eta = torch.where(s.success, (0.995 * s.eta).clamp_(min=self.eta0 / 10), s.eta)
        if self.threshold == 'adaptive':
            self.move_threshold(s)


@ATTACKS.register_module()
@dataclass(frozen=True)
class ASLOAddOn(Feedback, Attack):
    """Makes another attack sparser: ASLO's smooth l0 norm is added to what it optimises, and its result is pruned.

    The base attack sees an objective whose loss is ``loss - lam * l0hat(delta) / d``, and whose margin is
    ``margin + lam * l0hat(delta) / d`` until success, with one ``lam`` and ``sigma`` per image that follow its answers as in
    :class:`ASLO`. Afterwards the fewest largest changes that still succeed are kept, by bisection.

    That ASLO serves as an add-on to gradient attacks is stated in the paper; how is **our design**, and no published figure is
    claimed to be reproduced.

    Args:
        base: the attack: an object, its name, or a config dict.
        lam, sigma, kappa, rho, lam_range, sigma_range: as in :class:`ASLO`; ``lam`` starts lower, because the losses of attacks
            that are not told to succeed first have small gradients where the victim is sure.
        unit: ``'element'`` or ``'pixel'``, what the smooth l0 norm and the pruning count.

    Costs the base attack's passes, one forward to judge its result, and at most ``ceil(log2 d)`` for the pruning. Images the
    victim had already got wrong, which some base attacks go on attacking, are not pruned.

    Reference: arXiv 2408.15702 (abstract).
    """
    base: Attack | Config = 'PGD0'
    unit: str = 'element'
    lam: float = field(default=1e-3, kw_only=True)
    lam_range: tuple[float, float] = field(default=(1e-6, 1e3), kw_only=True)

    def __post_init__(self):
        check_config(self, 'base')
        object.__setattr__(self, 'base', ATTACKS.build(self.base))
        if not isinstance(self.base, Attack):
            raise InputError(f'ASLOAddOn: base = {self.base!r}, '
                             'expected an attack, its name or a config dict')
        check_choice(self, 'unit', ('element', 'pixel'))
        self.check_feedback()

    def wanted(self, clean: Verdict) -> Tensor:
        return self.base.wanted(clean)

    def has_room(self, objective: AnyObjective) -> Tensor:
        return self.base.has_room(objective)

    @property
    def structured(self) -> bool:
        return self.base.structured

    def count_groups(self, objective: AnyObjective, adversarial: Tensor) -> Tensor:
        return self.base.count_groups(objective, adversarial)

    def too_small(self, objective: AnyObjective) -> Tensor:
        return self.base.too_small(objective)

    def within(self, objective: AnyObjective, adversarial: Tensor) -> Tensor:
        return self.base.within(objective, adversarial)

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        images = self.base.run(Penalised(self, objective), rng)
        with torch.no_grad():
            success = objective(images, torch.arange(len(images))).success
        broken = success & ~objective.clean.success
        return prune(objective, images, broken.nonzero()[:, 0].cpu(), self.unit == 'pixel')


class Penalised(Restricted):
    """An objective that charges for changes, and adapts the price to its own verdicts."""

    def __init__(self, attack: ASLOAddOn, objective: Restricted):
        self.attack, self.objective = attack, objective
        self.images, self.region = objective.images, objective.region
        self.keys = objective.keys
        self.eligible, self.defined = objective.eligible, objective.defined
        self.surroundings = objective.surroundings
        self.clean = objective.clean  # nothing costs nothing
        self.pixel = attack.unit == 'pixel'
        self.d = self.region.flatten(1).sum(1) * (1 if self.pixel else self.images.shape[1])
        self.lam = self.images.new_full((len(self.d),), attack.lam)
        self.sigma_squared = self.images.new_full((len(self.d),), attack.sigma ** 2)

    @property
    def failed(self) -> Tensor:
        return self.objective.failed

    @property
    def forwards(self) -> Tensor:
        return self.objective.forwards

    @property
    def sync_every(self) -> int:
        return 1  # an answer changes the next one

    def reserved(self):
        return self.objective.reserved()

    def credit(self, rows: Tensor, stage: Tensor) -> None:
        self.objective.credit(rows, stage)

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        verdict = self.objective(x, rows)
        lam, sigma_squared = self.lam[rows], self.sigma_squared[rows]
        count = smooth_l0(x - self.images[rows], sigma_squared[:, None, None, None], self.pixel)
        price = lam / self.d[rows] * count
        lam, sigma_squared = self.attack.follow(verdict.success, lam, sigma_squared)
        self.lam[rows], self.sigma_squared[rows] = lam, sigma_squared
        margin = torch.where(verdict.success, verdict.margin, verdict.margin + price)
        return Verdict(verdict.loss - price, margin, verdict.success)


def prune(objective: Restricted, images: Tensor, rows: Tensor, pixel: bool) -> Tensor:
    """Keep only the fewest largest changes with which an image still succeeds, by bisection on their number.

    Args:
        images: (B, C, H, W) adversarial images.
        rows: (b,) int64 on the CPU, those to be pruned: successful, while the clean image is not.
        pixel: take away whole pixels rather than channel values.

    Returns:
        A new batch. Costs at most ``ceil(log2 n)`` forwards for an image with n changes.
    """
    x, z = objective.images[rows], images[rows]

    # the rank of every change, the largest first
    size = (z - x).abs()
    if pixel:
        size = size.amax(1, keepdim=True)
    order = size.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).view_as(size)

    # bisection: with ``high`` changes an image succeeds, with ``low`` it does not
    high = (size > 0).flatten(1).sum(1)
    low = torch.zeros_like(high)
    while len(part := (high - low > 1).nonzero()[:, 0].cpu()):
        middle = (low[part] + high[part]) // 2
        with torch.no_grad():
            kept = torch.where(rank[part] < middle[:, None, None, None], z[part], x[part])
            success = objective(kept, rows[part]).success
        low[part] = torch.where(success, low[part], middle)
        high[part] = torch.where(success, middle, high[part])

    pruned = images.clone()
    pruned[rows] = torch.where(rank < high[:, None, None, None], z, x)
    return pruned
