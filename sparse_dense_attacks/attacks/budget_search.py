"""How few pixels does a fixed-budget attack need? A search over its budget, per image."""
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..checks import check_int
from ..errors import InputError
from ..objectives.base import Objective, Restricted
from ..ops import changed_pixels
from ..registry import ATTACKS
from .base import Attack, BudgetAttack

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

    Costs at most ``searches`` times the base attack's passes and as many forwards to judge its results. That success grows with
    the budget is an assumption: an attack that fails by bad luck at one budget is not asked about smaller ones.
    """
    base: BudgetAttack | dict | str = 'SparsePGD'
    searches: int = 8

    def __post_init__(self):
        object.__setattr__(self, 'base', ATTACKS.build(self.base))
        if not isinstance(self.base, BudgetAttack):
            raise InputError(f'BudgetSearch: base = {self.base!r}, expected an attack with a budget k')
        check_int(self, 'searches')
        replace(self.base, k={0: 1})  # an attack that takes no budget per image, such as one with frames, says so

    def has_room(self, objective: Objective) -> Tensor:
        return self.base.has_room(objective)

    def count_groups(self, objective: Objective, adversarial: Tensor) -> Tensor:
        kernel = self.base.kernel
        return kernel.cover(changed_pixels(adversarial, objective.images), kernel.usable(objective.region))

    def run(self, objective, rng) -> Tensor:
        if len(set(objective.keys)) < len(objective.keys):
            raise InputError('BudgetSearch: two images of a batch have the same key, so they cannot have budgets of their own')
        best = objective.images.clone()
        budget, room = self.base.budget(objective)
        failed_at, enough = torch.zeros_like(room), room + 1  # no result yet needs more than everything
        for _ in range(self.searches):
            rows = ((enough - failed_at > 1) & ~objective.failed).nonzero()[:, 0].cpu()
            if not len(rows):
                break
            k = budget[rows]
            attack = replace(self.base, k={objective.keys[r]: n for r, n in zip(rows.tolist(), k.tolist(), strict=True)})
            part = Restricted(objective, rows)
            with objective.reserved():
                z = attack.run(part, rng.restricted(rows))
            with torch.no_grad():
                success = objective(z, rows).success
            used = attack.count_groups(part, z)
            better = success & (used < enough[rows])
            best[rows] = torch.where(better[:, None, None, None], z, best[rows])
            enough[rows] = torch.where(better, used, enough[rows])
            failed_at[rows] = torch.where(success, failed_at[rows], torch.maximum(k, failed_at[rows]))
            between = (failed_at.clamp(min=1) * enough).double().sqrt().long()
            budget = torch.where(enough > room, (4 * failed_at).minimum(room), between.clamp(failed_at + 1, enough - 1))
        return best
