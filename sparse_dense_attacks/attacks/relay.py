"""Sparse-PGD, then a minimum attack where it fails: our attack for detectors, where a few images resist."""
from dataclasses import dataclass

from torch import Tensor

from ..checks import check_number
from ..objectives.base import Restricted
from ..registry import ATTACKS
from .base import Attack, BudgetAttack, cascade
from .rng import ImageRNG
from .sigma_zero import SigmaZero
from .sparse_pgd import SparsePGD

__all__ = ['Relay']


@ATTACKS.register_module()
@dataclass(frozen=True)
class Relay(BudgetAttack):
    """Sparse-PGD first, then sigma-zero in pixels on the images that survived, until k pixels are enough.

    This attack is **ours**. Where an image is broken only when all its parts are, as the objects that a detector finds,
    Sparse-PGD breaks most images within a few iterations and some never: its k pixels are chosen early and leave too seldom.
    Sigma-zero begins with all pixels, needs fewer and fewer, and stops at k. Each image keeps its best result.

    Args:
        k: budget of both in pixels (count, share, or one count per image).
        steps: iterations of both together.
        early_stop: sigma-zero gets only the images that survived Sparse-PGD, which stops at the first success. False runs both on
            all images; sigma-zero stops at k pixels all the same.
        share: of the steps that Sparse-PGD gets; the rest is sigma-zero's. Each gets at least one.

    Costs at most steps + 4 forwards and steps - 1 backwards.
    """
    share: float = 0.4

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'share', 0, 1)

    @property
    def members(self) -> tuple[Attack, ...]:
        """The attacks in order."""
        first = max(round(self.share * self.steps), 1)
        return (SparsePGD(k=self.k, steps=first, early_stop=self.early_stop),
                SigmaZero(budget=self.k, steps=max(self.steps - first, 1), unit='pixel'))

    @property
    def member_names(self) -> tuple[str, ...]:
        return 'SparsePGD', 'SigmaZero'

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        return cascade(self.members, objective, rng, survivors_only=self.early_stop)[0]
