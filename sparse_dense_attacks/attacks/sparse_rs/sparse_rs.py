"""The search of Sparse-RS (arXiv 2006.12834)."""
from dataclasses import dataclass
from math import isqrt
from typing import Any, Protocol

import torch
from torch import Tensor

from ...checks import check_choice, check_config, check_number
from ...errors import InputError
from ...groups import Kernel, Pixel
from ...objectives.base import AnyObjective, Restricted
from ...ops.neighbourhood import image_extent
from ...registry import ATTACKS, KERNELS, Config
from ...types import Verdict
from ..base import BudgetAttack
from ..rng import ImageRNG
from .frame import FrameSearch
from .groups import GroupSearch
from .patch import PatchSearch

__all__ = ['SparseRS']


class Search(Protocol):
    """What a variant searches through; it holds the best candidate of each of the B images."""

    def propose(self, step: int, rows: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Candidates (b, C, H, W) for ``rows``, a part of the best ones changed, and the parameters that describe them.

        At step 0 these are the best ones as they are: the random start.
        """

    def keep(self, rows: Tensor, change: tuple[Tensor, ...]) -> None:
        """Take parameters, as :meth:`propose` gave them, for the best of ``rows``."""


SEARCHES: dict[str, type[Any]] = dict(l0=GroupSearch, patches=PatchSearch, frames=FrameSearch)
ALPHA = dict(l0=0.3, patches=0.4, frames=0.5)


@ATTACKS.register_module()
@dataclass(frozen=True)
class SparseRS(BudgetAttack):
    """Random search over sparse perturbations whose colours are corners of the colour cube; needs losses only.

    Every query changes a part of the best candidate so far and is kept if it breaks the image or makes the objective worse for
    the victim. The part shrinks as queries go by; schedules are those of 10000 queries, rescaled to ``steps``.

    Args:
        k: for ``'l0'`` pixels that may change, or groups with a ``kernel``; for ``'patches'`` pixels of one square, whose side is
            the whole part of its root (and, of a share, at most the image's shorter side); for ``'frames'`` the width of the
            border in pixels (int).
        steps: queries; costs steps + 1 forwards and no backward.
        early_stop: stop at an image's first success (as published).
        variant: ``'l0'``, ``'patches'`` (one square, its place is searched too) or ``'frames'`` (a border).
        alpha_init: how much the first queries change; 0.3 for ``'l0'``, 0.4 for ``'patches'``, 0.5 for ``'frames'`` unless given.
        loss: what is searched with, ``'margin'``, or ``'ce'``: the objective's own loss.
        kernel: what ``'l0'`` moves: single pixels by default, or rows, patches and so on, each of one colour when it is placed
            (where groups overlap, channels are joined). With such groups every other query paints a random square across the
            chosen groups instead.

    Differences from the published code: every image has its own draws; a failed image comes back with its best candidate (clean
    only if none was worse for the victim) rather than clean; images need not be square; a patch can reach the last row and
    column; its side is rounded down, so that its pixels stay within k; what falls outside the region stays as it was; where the
    published code redraws a colour until it differs, one channel is flipped.

    Reference: arXiv 2006.12834; the partner for groups follows the idea in arXiv 2405.05075.
    """
    k: int | float = 150
    steps: int = 10000
    variant: str = 'l0'
    alpha_init: float | None = None
    loss: str = 'margin'
    kernel: Kernel | Config = Pixel()

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, 'variant', tuple(SEARCHES))
        check_choice(self, 'loss', ('margin', 'ce'))
        if self.alpha_init is not None:
            check_number(self, 'alpha_init')
        check_config(self, 'kernel')
        object.__setattr__(self, 'kernel', KERNELS.build(self.kernel))
        if self.variant != 'l0' and self.kernel != Pixel():
            raise InputError(f"SparseRS: variant '{self.variant}' takes no kernel; "
                             "use variant='l0'")
        if self.variant == 'frames' and not isinstance(self.k, int):
            raise InputError(f'SparseRS: k = {self.k}, '
                             'expected the width of the frame in pixels (int)')

    def too_small(self, objective: AnyObjective) -> Tensor:
        short = super().too_small(objective)
        if self.variant == 'l0' or not isinstance(self.k, int):
            return short
        # the side of the square, or what the frame takes of the shorter side
        needed = isqrt(self.k) if self.variant == 'patches' else 2 * self.k - 1
        side = torch.minimum(*image_extent(objective.region))
        return (side < needed) & (side > 0)

    @property
    def free(self) -> bool:
        return self.variant == 'l0'

    @property
    def alpha(self) -> float:
        return ALPHA[self.variant] if self.alpha_init is None else self.alpha_init

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        x, rows = objective.images, torch.arange(len(objective.images))
        search: Search = SEARCHES[self.variant](self, objective, rng)
        best, value = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
        success = torch.zeros_like(value, dtype=torch.bool)

        for step in range(self.steps):
            # change a part of the best candidates and look
            z, change = search.propose(step, rows)
            with torch.no_grad():
                verdict = objective(z, rows)

            # a success beats a failure, then the lower value wins; a spent budget or a failure is no improvement
            new = torch.where(verdict.loss.isfinite(), self._value(verdict), torch.inf)
            lower = (verdict.success == success[rows]) & (new < value[rows])
            better = (verdict.success & ~success[rows]) | lower
            done = objective.failed[rows] | (verdict.success & self.early_stop)
            better, done = torch.stack([better, done]).cpu()  # the iteration's only synchronisation

            # keep it, drop what is done
            kept = rows[better]
            best[kept], value[kept] = z[better], new[better]
            success[kept] = verdict.success[better]
            search.keep(kept, tuple(part[better] for part in change))
            rows = rows[~done]
            if not len(rows):
                break

        # a best candidate that is no worse for the victim than the clean image is none
        useless = (success == objective.clean.success) & ~(value <= self._value(objective.clean))
        return torch.where(useless[:, None, None, None], x, best)

    def _value(self, verdict: Verdict) -> Tensor:
        """What is made small, compared between candidates that both succeed or both fail: margins may be flat at success."""
        if self.loss == 'ce':
            return -verdict.loss
        return torch.where(verdict.success, -verdict.loss, verdict.margin)
