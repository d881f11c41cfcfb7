"""How few pixels does a fixed-budget attack need? A search over its budget, per image."""
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..checks import check_config, check_flag, check_int
from ..errors import InputError
from ..objectives.base import AnyObjective, Restricted
from ..ops import changed_pixels
from ..registry import ATTACKS, Config
from .active import Active
from .base import Attack, BudgetAttack
from .descent import Descent
from .rng import ImageRNG

__all__ = ['BudgetSearch']


@ATTACKS.register_module()
@dataclass(frozen=True)
class BudgetSearch(Attack):
    """Smallest budget with which a fixed-budget attack succeeds, searched for every image at once.

    The first search tries the attack's own ``k``. While an image has not been broken its budget grows fourfold, up to all of its
    region; once it has, the budget is the geometric mean of the largest that failed and of what the best result really uses, in
    the unit the attack counts in (pixels, or groups). A result answers every larger budget too, so one run of this attack gives
    the whole curve of success against the budget (:func:`~sparse_dense_attacks.evaluation.success_at`).

    Args:
        base: the fixed-budget attack: an object, its name, or a config dict; its ``k`` is the first guess.
        searches: budgets tried per image at most.
        warm: after its first success an image is not attacked anew with smaller budgets. :class:`Descent` goes on from there, and
            every success on its way answers a budget; it takes what ``searches`` times the base attack's ``steps`` leave.

    Costs at most ``searches`` times the base attack's passes and as many forwards to judge its results. That success grows with
    the budget is an assumption: an attack that fails by bad luck at one budget is not asked about smaller ones.
    """
    base: BudgetAttack | Config = 'SparsePGD'
    searches: int = 8
    warm: bool = False

    def __post_init__(self):
        check_config(self, 'base')
        object.__setattr__(self, 'base', ATTACKS.build(self.base))
        if not isinstance(self.base, BudgetAttack):
            raise InputError(f'BudgetSearch: base = {self.base!r}, '
                             'expected an attack with a budget k')
        check_int(self, 'searches')
        check_flag(self, 'warm')
        if self.warm and not self.base.free:
            raise InputError(f'BudgetSearch: base = {self.base!r} restricts more than how many pixels '
                             'change, which a descent would not: leave warm=True out')
        # an attack that takes no budget per image, such as one with frames, says so
        replace(self.base, k={0: 1})

    def too_small(self, objective: AnyObjective) -> Tensor:
        return self.base.too_small(objective)

    def has_room(self, objective: AnyObjective) -> Tensor:
        return self.base.has_room(objective)

    @property
    def structured(self) -> bool:
        return self.base.structured

    def count_groups(self, objective: AnyObjective, adversarial: Tensor) -> Tensor:
        kernel, changed = self.base.kernel, changed_pixels(adversarial, objective.images)
        return kernel.cover(changed, kernel.usable(objective.region))

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        if len(set(objective.keys)) < len(objective.keys):
            raise InputError('BudgetSearch: two images of a batch have the same key, '
                             'so they cannot have budgets of their own')
        if not self.warm:
            return self._search(objective, rng)
        before = objective.forwards.clone()
        with objective.reserved():  # for the first look of the descent
            found = self._search(objective, rng)
        left = self.searches * self.base.steps - (objective.forwards - before)
        walk = Descent(unit='pixel', kernel=self.base.kernel)
        return walk.walk(objective, found, left.clamp(min=1), rng)

    def _search(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        """The best results (B, C, H, W) of base attacks at one budget after the other, up to the first success if warm."""
        best = objective.images.clone()
        budget, room = self.base.budget(objective)
        s = Active(budget=budget, room=room, failed_at=torch.zeros_like(room),
                   enough=room + 1)  # no result yet needs more than everything

        for _ in range(self.searches):
            # go on with images between whose largest failure and smallest success a budget lies
            between = s.enough - s.failed_at > 1
            if self.warm:
                between = between & (s.enough > s.room)
            s.keep((between & ~objective.failed[s.rows]).cpu())
            if not len(s):
                break

            # attack each with its own budget, and look whether that was enough
            part = Restricted(objective, s.rows)
            attack = replace(self.base, k=dict(zip(part.keys, s.budget.tolist(), strict=True)))
            with objective.reserved():
                z = attack.run(part, rng.restricted(s.rows))
            with torch.no_grad():
                success = part(z, torch.arange(len(s))).success
            used = attack.count_groups(part, z)
            better = success & (used < s.enough)
            best[s.rows] = torch.where(better[:, None, None, None], z, best[s.rows])

            # fourfold while nothing was enough, afterwards the geometric mean
            s.enough = torch.where(better, used, s.enough)
            s.failed_at = torch.where(success, s.failed_at, torch.maximum(s.budget, s.failed_at))
            mean = (s.failed_at.clamp(min=1) * s.enough).double().sqrt().long()
            between = mean.clamp(s.failed_at + 1, s.enough - 1)
            s.budget = torch.where(s.enough > s.room, (4 * s.failed_at).minimum(s.room), between)
        return best
