"""What a core keeps of each image that it still works on."""
from types import SimpleNamespace

import torch
from torch import Tensor

from ..objectives.base import Restricted

__all__ = ['Active', 'store']


def store(best: Tensor, rows: Tensor, x: Tensor, better: Tensor) -> None:
    """Put those of ``x`` (b, ...) that are ``better``, (b,) bool, into ``best`` at ``rows``; nobody waits for the device."""
    wide = better.view(-1, *[1] * (x.ndim - 1))
    best[rows] = torch.where(wide, x, best[rows])


class Active(SimpleNamespace):
    """Tensors under names, with one entry for each image that is still under attack.

    A core holds all it carries from one iteration to the next here, so that an image that is finished leaves all of it at once:

        >>> s = Active(x=torch.rand(3, 1, 2, 2), delta=torch.zeros(3, 1, 2, 2))
        >>> s.keep(torch.tensor([True, False, True]))
        >>> s.rows, s.delta.shape
        (tensor([0, 2]), torch.Size([2, 1, 2, 2]))

    Args:
        kept: tensors (B, ...), all with the same B. More may be set as attributes at any time, (b, ...) for the b images left.

    Attributes:
        rows: (b,) int64 on the CPU, which of the B images are left; what an objective and an ``ImageRNG`` are asked with.
        idle: (b,) bool on the device, those that are done, but nobody has looked yet; see :meth:`leave`.
    """
    rows: Tensor
    idle: Tensor

    def __init__(self, **kept: Tensor):
        first = next(iter(kept.values()))
        idle = torch.zeros(len(first), dtype=torch.bool, device=first.device)
        super().__init__(rows=torch.arange(len(first)), idle=idle, **kept)

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, stay: Tensor) -> None:
        """Drop the images that are not in ``stay``, (b,) bool on the CPU; nothing is copied where all of them stay."""
        if stay.all():
            return
        index = stay.nonzero()[:, 0]
        for name, kept in list(vars(self).items()):
            setattr(self, name, kept.index_select(0, index.to(kept.device)))

    def leave(self, objective: Restricted, done: Tensor, now: bool, *flags: Tensor) -> Tensor | None:
        """Let images go that are done, ``now`` or the next time: until then they are idle, and cost nothing.

        Args:
            objective: what the core was given.
            done: (b,) bool on the device.
            now: wait for the device and look which those are.
            flags: (b,) bool or int each, what else there is to know.

        Returns:
            The flags of the images that stay, (F, b) int64 on the CPU; None where nobody looked.
        """
        self.idle = self.idle | done
        objective.rest(self.rows, self.idle)
        if not now:
            return None
        told = torch.stack([self.idle.long(), *objective.idled(self.rows), *flags]).cpu()
        objective.refund(self.rows, told[1:3])
        stay = told[0] == 0
        self.keep(stay)
        return told[3:, stay]

    def settle(self, objective: Restricted, best: Tensor, x: Tensor, better: Tensor, done: Tensor, step: int, last: bool) -> None:
        """Keep the candidates that are better, and let images go that are done; waits for the device once, or not at all.

        Args:
            objective: what the core was given; its ``sync_every`` says how often to look.
            best: (B, C, H, W), what is kept of all images.
            x: (b, C, H, W) candidates.
            better, done: (b,) bool on the device.
            step: number of the iteration, from 0.
            last: it is the last one, in which all images are done.
        """
        if objective.sync_every == 1:
            better, done = torch.stack([better, done]).cpu()
            best[self.rows[better]] = x[better]
            self.keep(~done)
        else:
            store(best, self.rows, x, better & ~self.idle)
            self.leave(objective, done, last or (step + 1) % objective.sync_every == 0)
