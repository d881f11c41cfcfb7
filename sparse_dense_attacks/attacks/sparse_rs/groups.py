"""What Sparse-RS changes under a budget of pixels, or of other groups."""
import torch
from torch import Tensor

from ...groups import Pixel
from ...objectives.base import Restricted
from ..rng import ImageRNG
from .paint import another, paint_square
from .schedule import L0_STEPS, PATCH_STEPS, rescaled, schedule

__all__ = ['GroupSearch']


class GroupSearch:
    """Pixels or other groups.

    Attributes:
        order: (B, G) int64 lists all groups: the k chosen ones first, then the other usable ones, then the rest.
        paint: (B, C, H, W), the colours that chosen groups show.
    """

    def __init__(self, attack, objective: Restricted, rng: ImageRNG):
        self.attack, self.rng = attack, rng
        self.kernel = attack.kernel
        self.x, self.region = objective.images, objective.region
        usable = self.kernel.usable(objective.region)
        self.grid, self.room = usable.shape[2:], usable.flatten(1).sum(1)
        self.k = attack.budget(objective)[0]
        self.counts = self.k.cpu()
        # the chosen ones are order[:, slot] where slot < k
        self.slot = torch.arange(int(self.k.max()), device=self.x.device)

        random = rng.on_grid(self.kernel.grid).uniform(1).masked_fill_(~usable, -1).flatten(1)
        self.order = random.argsort(dim=1, descending=True, stable=True)
        self.paint = rng.uniform(self.x.shape[1]).round_()

    def propose(self, step: int, rows: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        order, paint = self.order[rows], self.paint[rows]
        if step % 2 == 0 and step and self.kernel != Pixel():
            mask = self._mask(order, rows)
            share = self.attack.alpha / schedule(PATCH_STEPS, rescaled(step, self.attack.steps))
            side = (share * mask.flatten(1).sum(1)).sqrt().long().clamp(min=1)
            paint = paint_square(paint, mask, side, False, self.rng, rows)
        elif step:
            order, paint = self._move(order, paint, step, rows)
        return torch.where(self._mask(order, rows), paint, self.x[rows]), (order, paint)

    def keep(self, rows: Tensor, change: tuple[Tensor, ...]) -> None:
        self.order[rows], self.paint[rows] = change

    def _move(self, order: Tensor, paint: Tensor, step: int,
              rows: Tensor) -> tuple[Tensor, Tensor]:
        """Swap e random chosen groups for e random others and colour those; where too few are left, recolour chosen ones."""
        # e of each image, and one row of draws for each of these groups: where it goes, and its colour
        channels, k = paint.shape[1], self.k[rows]
        chosen = self.counts[rows]  # k on the CPU
        share = self.attack.alpha / schedule(L0_STEPS, rescaled(step, self.attack.steps))
        e = (share * chosen).long().minimum(chosen).clamp(min=1)
        u = self.rng.numbers([1 + n * (1 + channels) for n in e.tolist()], rows)
        turn, draws = u[:, :1], u[:, 1:].unflatten(1, (-1, 1 + channels))
        slot, e = self.slot[:draws.shape[1]], e.to(k.device)[:, None]
        used = slot < e

        # places in the order that are left: e distinct ones of the first k
        scores = self.rng.numbers(chosen.tolist(), rows)
        scores.masked_fill_(self.slot[:scores.shape[1]] >= k[:, None], -1)
        old = scores.topk(len(slot), dim=1).indices

        # places that are taken: sorted draws, each shifted by its rank, are distinct; all are rotated;
        # the others' order is random
        spare = (self.room[rows] - k)[:, None]
        free = (spare - e).clamp(min=0)
        ascending = draws[..., 0].masked_fill(~used, 1).sort(1).values
        rank = ascending.mul_(free + 1).long().minimum(free) + slot
        rotated = (rank + (turn * spare).long()) % spare.clamp(min=1)
        new = torch.where(rank < spare, k[:, None] + rotated, old)

        # beyond e the first one again, so that every image has as many
        old, new = torch.where(used, old, old[:, :1]), torch.where(used, new, new[:, :1])
        shade = torch.where(used[:, None], draws[..., 1:].mT, draws[:, :1, 1:].mT)

        # swap and colour; a single group gets a colour it did not have
        entering, leaving = order.gather(1, new), order.gather(1, old)
        seen = torch.where(self._mask(order, rows), paint, self.x[rows])
        single = another(self._mean(seen, entering, rows), shade)
        colour = torch.where(e[..., None] == 1, single, shade.round())
        order = order.scatter(1, new, leaving).scatter(1, old, entering)
        return order, self._coloured(paint, entering, colour)

    def _mean(self, seen: Tensor, groups: Tensor, rows: Tensor) -> Tensor:
        """(b, C, n), mean colour of ``groups`` (b, n) in ``seen`` (b, C, H, W); of a row the region may hold a part."""
        region = self.region[rows].to(seen.dtype)
        mean = self.kernel.correlate(seen * region) / self.kernel.correlate(region).clamp(min=1e-12)
        return mean.flatten(2).gather(2, groups[:, None].expand(-1, seen.shape[1], -1))

    def _coloured(self, paint: Tensor, groups: Tensor, colour: Tensor) -> Tensor:
        """``paint`` with ``colour`` (b, C, n) at ``groups`` (b, n)."""
        channels = paint.shape[1]
        there = torch.cat([colour, torch.ones_like(colour[:, :1])], 1)  # and where there is one
        grid = paint.new_zeros(len(paint), channels + 1, self.order.shape[1])
        grid.scatter_(2, groups[:, None].expand(-1, channels + 1, -1), there)
        full = self.kernel.expand(grid.unflatten(2, self.grid), self.x.shape[2:])
        return torch.where(full[:, channels:] > 0, full[:, :channels], paint)

    def _mask(self, order: Tensor, rows: Tensor) -> Tensor:
        """(b, 1, H, W) bool, pixels of the chosen groups."""
        first, chosen = order[:, :len(self.slot)], self.slot < self.k[rows][:, None]
        v = torch.zeros_like(order, dtype=torch.bool).scatter_(1, first, chosen)
        pixels = self.kernel.expand(v.view(-1, 1, *self.grid), self.x.shape[2:]) > 0
        return pixels & self.region[rows]
