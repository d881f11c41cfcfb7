"""The mean over the draws of a random defence."""
import torch
from torch import Tensor

from ..types import Verdict
from .base import Objective

__all__ = ['Expected', 'expected']


class Expected(Objective):
    """An objective that answers another way each time, as the mean of several answers.

    ``loss`` is the mean. ``success``: more than half say so. ``margin`` is, until success, the mean
    of what the margins are above 0, then the mean of all, at most 0.

    Args:
        objective: whose answers differ.
        draws: how many of them; each costs a pass.
    """

    def __init__(self, objective: Objective, draws: int):
        self.objective, self.draws = objective, draws
        self.passes = objective.passes * draws
        self.images, self.region = objective.images, objective.region
        self.keys, self.parts = objective.keys, objective.parts
        with torch.no_grad():
            self.clean = self(self.images, torch.arange(len(self.images)))
        self.defined = objective.defined
        self.eligible = objective.eligible & ~self.clean.success

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        found = [self.objective(x, rows) for _ in range(self.draws)]
        loss, margin = (torch.stack([getattr(one, name) for one in found])
                        for name in ('loss', 'margin'))
        success = 2 * torch.stack([one.success for one in found]).sum(0) > self.draws
        left = torch.where(success, margin.mean(0).clamp(max=0), margin.clamp(min=0).mean(0))
        logits = [one.logits for one in found if one.logits is not None]
        return Verdict(loss.mean(0), left, success, torch.stack(logits).mean(0) if logits else None)

    def share(self, x: Tensor, rows: Tensor) -> Tensor:
        """Of one more look."""
        return self.objective.share(x, rows)


def expected(objective: Objective, draws: int) -> Objective:
    """The mean over so many answers; the objective itself for one."""
    return objective if draws == 1 else Expected(objective, draws)
