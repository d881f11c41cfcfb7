"""What Sparse-RS changes when all that may change is one square."""
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from ...objectives.base import Restricted
from ..rng import ImageRNG
from .paint import another, flipped, square
from .schedule import first_single, patch_side, rescaled

__all__ = ['PatchSearch']

LOCATION_PERIOD = 4  # every so many queries the patch moves instead of changing its colours


class PatchSearch:
    """One square per image.

    Attributes:
        patch: (B, C, S, S) its colours, of which ``size`` (B,) rows and columns count.
        place: (B, 2) int64, its top left corner.
    """

    def __init__(self, attack, objective: Restricted, rng: ImageRNG):
        self.attack, self.rng = attack, rng
        self.x, self.region = objective.images, objective.region
        self.sizes = self._sizes(objective)
        to: dict[str, Any] = dict(device=self.x.device, dtype=torch.int64)
        self.size = torch.tensor(self.sizes, **to)
        self.extent = torch.tensor(rng.sizes, **to).view(-1, 2)

        # the step from which single pixels change in one channel only
        refine = {size: self._refine(size) for size in set(self.sizes)}
        self.refine = torch.tensor([refine[size] for size in self.sizes], **to)

        everyone = torch.arange(len(self.x))
        room = self.extent - self.size[:, None] + 1
        self.place = (rng.numbers([2] * len(self.x), everyone) * room).long()
        self.patch = self._first_patch(everyone)

    def _refine(self, size: int) -> int:
        attack = self.attack
        first = first_single(lambda it: patch_side(it, attack.alpha, size), attack.steps)
        return (first + attack.steps) // 2

    def _sizes(self, objective: Restricted) -> list[int]:
        """The side of each image's square: the whole part of the root of k, at most what fits."""
        sizes = [isqrt(k) for k in self.attack.budget(objective)[0].tolist()]
        return [min(size, *extent) for size, extent in zip(sizes, self.rng.sizes, strict=True)]

    def _first_patch(self, everyone: Tensor) -> Tensor:
        """(B, C, S, S): 1000 squares of one colour each, on black."""
        b, channels = self.x.shape[:2]
        longest = max(self.sizes, default=0)
        draws = self.rng.numbers([1000 * (3 + channels)] * b, everyone).view(b, -1, 3 + channels)
        patch = self.x.new_zeros(b, channels, longest, longest)
        largest = self.size.sqrt().ceil().sub(1).clamp(min=1)
        for u in draws.unbind(1):
            side = 1 + (u[:, 0] * largest).long()
            corner = (u[:, 1:3] * (self.size - side + 1)[:, None]).long()
            patch = torch.where(square(corner, side, patch), u[:, 3:, None, None].round(), patch)
        return patch

    def propose(self, step: int, rows: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        patch, place = self.patch[rows], self.place[rows]
        if step:
            u = self.rng.numbers([4 + patch.shape[1]] * len(rows), rows)
            moved, moves = self._moved(place, u, step, rows)
            patch = self._repainted(patch, u, step, rows, stay=moves)
            place = torch.where(moves, moved, place)
        return self._shown(patch, place, rows), (patch, place)

    def keep(self, rows: Tensor, change: tuple[Tensor, ...]) -> None:
        self.patch[rows], self.place[rows] = change

    def _moved(self, place: Tensor, u: Tensor, step: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 2) int64, a place nearby, less far as queries go by; and (b, 1) bool, whether the patch moves at all."""
        extent = self.extent[rows]
        reach = (0.75 * (1 - step / self.attack.steps) * extent).long()
        moved = place - reach + (u[:, :2] * (2 * reach + 1)).long()
        moved = moved.clamp(min=0).minimum(extent - self.size[rows][:, None])
        return moved, ((reach.amax(1) > 0) & (step % LOCATION_PERIOD == 0))[:, None]

    def _repainted(self, patch: Tensor, u: Tensor, step: int, rows: Tensor, stay: Tensor) -> Tensor:
        """A square within the patch is brightened or darkened, or a single pixel gets another colour.

        Args:
            stay: (b, 1) bool, patches to leave alone.
        """
        it, alpha = rescaled(step, self.attack.steps), self.attack.alpha
        sides = [patch_side(it, alpha, self.sizes[r]) for r in rows]
        side = torch.tensor(sides, device=patch.device)
        corner = (u[:, 2:4] * (self.size[rows] - side + 1)[:, None]).long()
        shade = u[:, 4:, None]

        index = corner[:, :1] * patch.shape[3] + corner[:, 1:]
        old = patch.flatten(2).gather(2, index[:, None].expand(-1, patch.shape[1], 1))
        late = (step > self.refine[rows])[:, None, None]
        single = torch.where(late, flipped(old, shade), another(old, shade))

        shifted = (patch + 2 * shade.round()[..., None] - 1).clamp_(0, 1)
        painted = torch.where((side > 1)[:, None, None, None], shifted, single[..., None])
        return torch.where(square(corner, side, patch) & ~stay[..., None, None], painted, patch)

    def _shown(self, patch: Tensor, place: Tensor, rows: Tensor) -> Tensor:
        """(b, C, H, W), the images with their patches on them, within the region."""
        x, end = self.x[rows], max(patch.shape[3] - 1, 0)
        # for every pixel of the image, the pixel of the patch that lies there, or the nearest one
        i = torch.arange(x.shape[2], device=x.device) - place[:, :1]
        j = torch.arange(x.shape[3], device=x.device) - place[:, 1:]
        b = torch.arange(len(rows), device=x.device)[:, None, None]
        pixels = patch[b, :, i.clamp(0, end)[:, :, None], j.clamp(0, end)[:, None]]  # (b, H, W, C)
        there = square(place, self.size[rows], x) & self.region[rows]
        return torch.where(there, pixels.movedim(3, 1), x)
