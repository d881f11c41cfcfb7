"""Sparse-AutoAttack (Zhong & Liu, arXiv 2405.05075): a cascade of white-box and black-box attacks at one budget."""
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..checks import check_config, check_int
from ..groups import Kernel, Pixel
from ..objectives.base import Restricted
from ..registry import ATTACKS, KERNELS, Config
from .base import Attack, BudgetAttack, cascade
from .rng import ImageRNG
from .sparse_rs import SparseRS
from .structured_sparse_pgd import StructuredSparsePGD

__all__ = ['SparseAutoAttack']


@ATTACKS.register_module()
@dataclass(frozen=True)
class SparseAutoAttack(BudgetAttack):
    """Sparse-PGD with the projected, then with the unprojected gradient, then Sparse-RS; each on what the others did not break.

    Args:
        k: budget of all members in pixels, or in groups with a ``kernel`` (count or share).
        steps: iterations of each Sparse-PGD (10000 in the paper's evaluation, 300 in its scripts).
        early_stop: later members get only the images that survived. False runs all members on all images, each to its end, and
            keeps each image's best result.
        queries: queries of Sparse-RS.
        kernel: groups instead of pixels, see :class:`StructuredSparsePGD`.

    Costs at most 2 (steps + 2) + queries + 2 forwards and 2 steps backwards.

    Reference: arXiv 2405.05075, Sparse-AutoAttack. Robust accuracy, its figure of merit, is one minus the success rate over all
    images, clean errors included.
    """
    steps: int = 300
    queries: int = 10000
    kernel: Kernel | Config = Pixel()

    def __post_init__(self):
        super().__post_init__()
        check_int(self, 'queries')
        check_config(self, 'kernel')
        object.__setattr__(self, 'kernel', KERNELS.build(self.kernel))

    @property
    def members(self) -> tuple[Attack, ...]:
        """The attacks in order."""
        common: dict[str, Any] = dict(k=self.k, early_stop=self.early_stop, kernel=self.kernel)
        # with single pixels StructuredSparsePGD is plain Sparse-PGD
        return (StructuredSparsePGD(steps=self.steps, gradient='projected', **common),
                StructuredSparsePGD(steps=self.steps, gradient='unprojected', **common),
                SparseRS(steps=self.queries, alpha_init=0.8, loss='ce', **common))

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        return self.stages(objective, rng)[0]

    def stages(self, objective: Restricted, rng: ImageRNG) -> tuple[Tensor, Tensor]:
        """What :meth:`run` returns, and which of :attr:`members` was the first to break each image.

        Args:
            objective: as in :meth:`run`.
            rng: the images' generators.

        Returns:
            Adversarial images (B, C, H, W), and (B,) int64 on the CPU: 0, 1 or 2, and -1 for survivors.
        """
        return cascade(self.members, objective, rng, survivors_only=self.early_stop)
