"""Sparse-AutoAttack (Zhong & Liu, arXiv 2405.05075): a cascade of white-box and black-box attacks at one budget."""
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..checks import check_choice, check_config, check_int
from ..groups import Kernel, Pixel
from ..objectives.base import Restricted
from ..ops import gradient
from ..registry import ATTACKS, KERNELS, Config
from .base import Attack, BudgetAttack, cascade
from .descent import Descent
from .rng import ImageRNG
from .sparse_pgd import GRADIENTS
from .sparse_rs import SparseRS
from .structured_sparse_pgd import StructuredSparsePGD
from .swap_pgd import SwapPGD

__all__ = ['SparseAutoAttack']

UNLIMITED = 10  # forwards with every pixel, on images that survived


@ATTACKS.register_module()
@dataclass(frozen=True)
class SparseAutoAttack(BudgetAttack):
    """Sparse-PGD with the projected, then with the unprojected gradient, then Sparse-RS; each on what the others did not break.

    ``version='plus'`` is **ours**: SwapPGD takes the place of the projected Sparse-PGD, Descent follows the unprojected one, and
    then SwapPGD once more; what these take more is taken from Sparse-RS.

    Args:
        k: budget of all members in pixels, or in groups with a ``kernel`` (count or share).
        steps: iterations of each Sparse-PGD (10000 in the paper's evaluation, 300 in its scripts).
        early_stop: later members get only the images that survived. False runs all members on all images, each to its end, and
            keeps each image's best result.
        queries: queries of Sparse-RS.
        kernel: groups instead of pixels, see :class:`StructuredSparsePGD`.
        version: ``'published'`` or ``'plus'``.

    Costs at most 2 (steps + 2) + queries + 2 forwards and 2 steps backwards; ``'plus'`` as many forwards where queries are at
    least 2 steps + 14, and 4 steps + 9 backwards.

    The result's ``stage`` says which of :attr:`member_names` was the first to break an image. Warnings say when gradients seem to
    mislead: when Sparse-RS broke as many images as all that follow gradients, and, with ``'plus'``, when images that survived do
    so with every pixel free, too, in ten steps along the sign of the gradient.

    Reference: arXiv 2405.05075, Sparse-AutoAttack. Robust accuracy, its figure of merit, is one minus the success rate over all
    images, clean errors included.
    """
    steps: int = 300
    queries: int = 10000
    kernel: Kernel | Config = Pixel()
    version: str = 'published'

    def __post_init__(self):
        super().__post_init__()
        check_int(self, 'queries')
        check_choice(self, 'version', ('published', 'plus'))
        check_config(self, 'kernel')
        object.__setattr__(self, 'kernel', KERNELS.build(self.kernel))

    @property
    def members(self) -> tuple[Attack, ...]:
        """The attacks in order."""
        common: dict[str, Any] = dict(k=self.k, early_stop=self.early_stop, kernel=self.kernel)
        # with single pixels StructuredSparsePGD is plain Sparse-PGD
        projected, unprojected = (
            StructuredSparsePGD(steps=self.steps, gradient=rule, **common) for rule in GRADIENTS[:2])
        search = SparseRS(steps=self.queries, alpha_init=0.8, loss='ce', **common)
        if self.version == 'published':
            return projected, unprojected, search
        swap = SwapPGD(steps=self.steps, **common)
        walk = Descent(steps=self.steps, budget=self.k, unit='pixel', kernel=self.kernel)
        left = max(self.queries - 2 * self.steps - 3 - UNLIMITED, 1)
        return swap, unprojected, walk, swap, replace(search, steps=left)

    @property
    def member_names(self) -> tuple[str, ...]:
        if self.version == 'published':
            return 'SparsePGD projected', 'SparsePGD unprojected', 'SparseRS'
        return 'SwapPGD', 'SparsePGD unprojected', 'Descent', 'SwapPGD again', 'SparseRS'

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        images, stage = self.stages(objective, rng)
        last = len(self.members) - 1
        blind, sighted = int((stage == last).sum()), int(((stage >= 0) & (stage < last)).sum())
        if blind and blind >= sighted:
            warnings.warn(f'Sparse-RS broke {blind} images, the attacks along gradients '
                          f'{sighted} before it: the gradients of this model may mislead',
                          RuntimeWarning, stacklevel=2)
        if self.version == 'plus':
            self._warn_if_unlimited_fails(objective, (stage < 0).nonzero()[:, 0])
        return images

    def stages(self, objective: Restricted, rng: ImageRNG) -> tuple[Tensor, Tensor]:
        """What :meth:`run` returns, and which of :attr:`members` was the first to break each image.

        Args:
            objective: as in :meth:`run`.
            rng: the images' generators.

        Returns:
            Adversarial images (B, C, H, W), and (B,) int64 on the CPU: the position of the member, and -1 for
            survivors.
        """
        return cascade(self.members, objective, rng, survivors_only=self.early_stop)

    def _warn_if_unlimited_fails(self, objective: Restricted, rows: Tensor) -> None:
        """Let every pixel of the images ``rows`` change, along the sign of the margin's gradient, and name it if that fails."""
        if not len(rows):
            return
        part, every = Restricted(objective, rows), torch.arange(len(rows))
        z, broken = part.images, torch.zeros_like(part.defined)
        for step in range(UNLIMITED):
            last = step == UNLIMITED - 1
            z = z.detach().requires_grad_(not last)
            verdict = part(z, every)
            broken = broken | verdict.success
            if not last:
                direction = gradient(verdict.margin, z).sign_().mul_(part.region)
                z = (z - 0.25 * direction).clamp(0, 1)
        # where the budget of forwards was spent nothing is known
        asked = verdict.loss.isfinite() & ~part.failed
        if stand := int((asked & ~broken).sum()):
            warnings.warn(f'{stand} of {int(asked.sum())} images that survived do so with every '
                          'pixel free, too: the gradients of this model mislead, or the goal is '
                          'out of reach', RuntimeWarning, stacklevel=3)
